//! Tests of the device selection: models run on the requested device, or the error names what is
//! missing.
//!
//! The default library of the tests supports the CPU only. With another library (`ORT_DYLIB_PATH`),
//! and `OOBLEX_TEST_DEVICE` for the tests of effects, the same tests use a real device.

use std::collections::BTreeSet;

use crate::common::*;
use ooblex_effects::{Backend, Device, ModelStore, Runtime, RuntimeError, effects, load_models};

fn on(device: Device) -> Result<Runtime, RuntimeError> {
    Runtime::load(None, Some(Backend::Ort)).unwrap().with_device(device)
}

#[test]
fn the_processor_is_the_device_unless_another_one_is_asked_for() {
    for backend in BACKENDS {
        let plain = Runtime::load(None, Some(backend)).unwrap();
        assert_eq!(plain.device(), Device::Cpu);
        let described = plain.describe();
        let chosen = plain.with_device(Device::Cpu).unwrap();
        assert_eq!(chosen.describe(), described);
        assert!(!described.contains(" on "), "{described}");
    }
}

#[test]
fn rten_with_another_device_is_an_error_that_says_what_to_take() {
    let refused = Runtime::load(None, Some(Backend::Rten)).unwrap().with_device(Device::Cuda { index: 1 }).unwrap_err().to_string();
    assert!(refused.starts_with("the device cuda:1 needs ONNX Runtime, but the backend is rten; take libonnxruntime.so"), "{refused}");
    assert!(refused.contains("onnxruntime-gpu") && refused.ends_with("or choose the device cpu"), "{refused}");
}

#[test]
fn a_device_runs_the_models_or_is_refused_with_what_is_missing() {
    let wanted: BTreeSet<_> = effects().iter().flat_map(|effect| effect.models()).map(|model| model.name.to_string()).collect();
    for device in Device::ALL {
        let refused = match on(device) {
            Ok(runtime) => {
                assert_eq!(runtime.device(), device);
                assert_eq!(runtime.describe().ends_with(&format!(" on {device}")), device != Device::Cpu, "{}", runtime.describe());
                match load_models(&runtime, &ModelStore::embedded(), &effects()) {
                    Ok(models) => assert_eq!(models.names().count(), wanted.len()),
                    Err(refused) => assert!(refused.to_string().contains(&format!(" on {device} cannot load model ")), "{refused}"),
                }
                continue;
            }
            Err(refused) => refused,
        };
        println!("{device}: {refused}");
        assert!(refused.to_string().ends_with("or choose the device cpu"), "{refused}");
        match refused {
            RuntimeError::DeviceNotBuiltIn { built_for, .. } => assert!(built_for.starts_with("cpu"), "{built_for}"),
            RuntimeError::DeviceUnusable { reason, .. } => assert!(!reason.is_empty()),
            other => panic!("{other}"),
        }
    }
}

/// No build of ONNX Runtime supports all devices, so with each one some device is refused.
#[test]
fn a_library_built_without_a_device_is_distinguished_from_one_that_can_not_use_it() {
    let library = Runtime::load(None, Some(Backend::Ort)).unwrap().origin().unwrap().display().to_string();
    let unknown: Vec<_> =
        Device::ALL.into_iter().filter(|device| matches!(on(*device), Err(RuntimeError::DeviceNotBuiltIn { .. }))).collect();
    assert!(!unknown.is_empty(), "{library} knows every device");
    for device in unknown {
        let refused = on(device).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("the library {library} was built for cpu")), "{refused}");
        assert!(
            refused.contains(&format!(", not for {device}; take libonnxruntime.so and what lies beside it from the PyPI wheel")),
            "{refused}"
        );
        assert!(refused.contains("inference.library or ORT_DYLIB_PATH"), "{refused}");
    }
}

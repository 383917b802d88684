//! ONNX Runtime's execution providers for each [`Device`]: which ones the library was built with,
//! how each is configured, and the proof that a model runs on the requested device.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider, ExecutionProviderDispatch, MIGraphX, OpenVINO, TensorRT};
use serde_json::Value;

use crate::Device;

/// Returns the devices that the loaded library has a provider for. They need not exist on this
/// machine.
pub(super) fn built_in() -> Vec<Device> {
    Device::ALL.into_iter().filter(|device| is_built_in(*device)).collect()
}

pub(super) fn is_built_in(device: Device) -> bool {
    let found = match device {
        Device::Cpu => return true,
        Device::Cuda { .. } => CUDA::is_available(),
        Device::TensorRt { .. } => TensorRT::is_available(),
        Device::MiGraphX { .. } => MIGraphX::is_available(),
        Device::OpenVino | Device::OpenVinoGpu { .. } => OpenVINO::is_available(),
    };
    found.unwrap_or(false)
}

/// Returns the name of the device's provider in the profiles of ONNX Runtime; `None` for the CPU,
/// which needs none.
fn provider(device: Device) -> Option<&'static str> {
    match device {
        Device::Cpu => None,
        Device::Cuda { .. } => Some(CUDA::NAME),
        Device::TensorRt { .. } => Some(TensorRT::NAME),
        Device::MiGraphX { .. } => Some(MIGraphX::NAME),
        Device::OpenVino | Device::OpenVinoGpu { .. } => Some(OpenVINO::NAME),
    }
}

/// Returns the providers that a session registers for a device, the preferred one first. A provider
/// that cannot be registered is an error. On OpenVINO's CPU device up to `threads` threads compute
/// a frame.
pub(super) fn dispatch(device: Device, threads: usize) -> Vec<ExecutionProviderDispatch> {
    let providers = match device {
        Device::Cpu => vec![],
        Device::Cuda { index } => vec![cuda(index)],
        Device::TensorRt { index } => vec![TensorRT::default().with_device_id(index.into()).build(), cuda(index)],
        Device::MiGraphX { index } => vec![MIGraphX::default().with_device_id(index.into()).build()],
        Device::OpenVino => vec![open_vino("CPU".into()).with_num_threads(threads).build()],
        Device::OpenVinoGpu { index } => vec![open_vino(format!("GPU.{index}")).build()],
    };
    providers.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect()
}

/// Configures CUDA for frame sizes that change during a session: no exhaustive search for the
/// fastest convolution, which would stop the video at each new size, and no more device memory than
/// needed.
fn cuda(index: u16) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(index.into())
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .build()
}

/// Configures OpenVINO with the precision of the other devices; by default it chooses half
/// precision where that is faster.
fn open_vino(device_type: String) -> OpenVINO {
    OpenVINO::default().with_device_type(device_type).with_precision("FP32").with_num_streams(1)
}

/// Maximum number of existing folders that are skipped before giving up.
const MOST_ATTEMPTS: u32 = 1000;

/// Temporary folder for ONNX Runtime's profile, which names the provider that ran each node while
/// the model was being loaded. It is deleted on drop.
pub(super) struct Profile(PathBuf);

impl Profile {
    /// Creates a private folder. Folders left by a process that was killed are skipped.
    pub(super) fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut attempts = 0;
        loop {
            let name = format!("ooblex-profile-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let folder = std::env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < MOST_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the path prefix of the profile files.
    pub(super) fn prefix(&self) -> PathBuf {
        self.0.join("run")
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A leftover folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Checks in the profile of a run that the device ran at least one node.
///
/// # Errors
/// When the device ran none, or the profile cannot be read.
pub(super) fn prove(device: Device, report: &Path) -> Result<(), String> {
    let Some(provider) = provider(device) else { return Ok(()) };
    let unreadable =
        |reason: String| format!("which device runs it cannot be seen, since the report {} has no nodes ({reason})", report.display());
    let events: Value = fs::read(report)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .map_err(unreadable)?;
    let mut providers: Vec<&str> = nodes(&events).collect();
    if providers.contains(&provider) {
        return Ok(());
    }
    providers.sort_unstable();
    providers.dedup();
    match providers[..] {
        [] => Err(unreadable("it names none".into())),
        _ => Err(format!("{device} runs none of its nodes; all of them are run by {}", providers.join(", "))),
    }
}

/// Returns the provider of each node that was run.
fn nodes(events: &Value) -> impl Iterator<Item = &str> {
    let of_nodes = events.as_array().into_iter().flatten().filter(|event| event["cat"] == "Node");
    of_nodes.filter_map(|event| event["args"]["provider"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CUDA_0: Device = Device::Cuda { index: 0 };

    fn proof(device: Device, report: &str) -> Result<(), String> {
        let profile = Profile::new().unwrap();
        let file = profile.prefix();
        fs::write(&file, report).unwrap();
        prove(device, &file)
    }

    /// A profile as ONNX Runtime writes it, of nodes that ran on these providers.
    fn report(providers: &[&str]) -> String {
        let session = json!({"cat": "Session", "name": "model_run", "args": {}});
        let fence = json!({"cat": "Node", "name": "Conv_fence_before", "args": {"op_name": "Conv"}});
        let node = |provider: &&str| json!({"cat": "Node", "name": "Conv_kernel_time", "args": {"op_name": "Conv", "provider": provider}});
        [session, fence].into_iter().chain(providers.iter().map(node)).collect::<Value>().to_string()
    }

    #[test]
    fn one_node_on_the_device_is_proof() {
        proof(CUDA_0, &report(&["CPUExecutionProvider", "CUDAExecutionProvider"])).unwrap();
        proof(Device::OpenVino, &report(&["OpenVINOExecutionProvider"])).unwrap();
        proof(Device::TensorRt { index: 1 }, &report(&["CUDAExecutionProvider", "TensorrtExecutionProvider"])).unwrap();
    }

    #[test]
    fn no_node_on_the_device_is_refused_and_what_ran_them_named() {
        let refused = proof(CUDA_0, &report(&["CPUExecutionProvider", "CPUExecutionProvider"])).unwrap_err();
        assert_eq!(refused, "cuda runs none of its nodes; all of them are run by CPUExecutionProvider");
        let refused = proof(Device::TensorRt { index: 1 }, &report(&["CUDAExecutionProvider", "CPUExecutionProvider"])).unwrap_err();
        assert_eq!(refused, "tensorrt:1 runs none of its nodes; all of them are run by CPUExecutionProvider, CUDAExecutionProvider");
    }

    #[test]
    fn what_can_not_be_shown_is_not_claimed() {
        for broken in ["", "{", "[]", "{}", "[1, null]", &report(&[])] {
            let refused = proof(CUDA_0, broken).unwrap_err();
            assert!(refused.starts_with("which device runs it cannot be seen"), "{refused}");
        }
        assert!(prove(CUDA_0, Path::new("no/such/report")).unwrap_err().contains("no/such/report"));
    }

    #[test]
    fn a_profile_leaves_nothing_behind() {
        let (one, other) = (Profile::new().unwrap(), Profile::new().unwrap());
        assert_ne!(one.prefix(), other.prefix());
        let folder = one.0.clone();
        assert!(folder.exists());
        fs::write(one.prefix(), "[]").unwrap();
        drop(one);
        assert!(!folder.exists() && other.0.exists());
    }

    #[test]
    fn every_device_but_the_processor_has_a_provider_that_must_not_fail() {
        for device in Device::ALL {
            assert_eq!(provider(device).is_none(), device == Device::Cpu);
            assert_eq!(dispatch(device, 1).is_empty(), device == Device::Cpu);
            assert_eq!(dispatch(device, 1).first().map(|first| first.name()), provider(device));
        }
    }
}

//! Devices that can run models: the CPU, or an accelerator that ONNX Runtime has an execution
//! provider for.
//!
//! This module knows their names and what must be installed for each; it does not use a device or
//! test for its presence. The configuration parses devices, the runtime uses them.

use std::fmt;
use std::str::FromStr;

/// Device that runs the models. In configuration and logs its name is [`Device::label`], followed
/// for GPUs other than the first by `:` and an index: `cuda:1`.
///
/// All except [`Device::Cpu`] need ONNX Runtime built for the device; see
/// [`Runtime::with_device`](crate::Runtime::with_device) for what is guaranteed then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The CPU: works with every backend and needs nothing else installed.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by CUDA and cuDNN.
    Cuda {
        /// Index of the GPU from 0, in CUDA's order.
        index: u16,
    },
    /// An NVIDIA GPU, by TensorRT. Layers that TensorRT lacks run on CUDA. An engine is built when
    /// a model is loaded, and again when a frame's size is outside the range seen so far: that
    /// takes seconds to minutes.
    TensorRt {
        /// Index of the GPU from 0, in CUDA's order.
        index: u16,
    },
    /// An AMD GPU, by MIGraphX. A program is compiled when a model is loaded, and again for each
    /// new frame size: that takes seconds to minutes.
    MiGraphX {
        /// Index of the GPU from 0, in HIP's order.
        index: u16,
    },
    /// The CPU, by OpenVINO.
    OpenVino,
    /// An Intel GPU, by OpenVINO.
    OpenVinoGpu {
        /// Index of the GPU from 0, in OpenVINO's order.
        index: u16,
    },
}

/// Error for a name that is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is no device; known: {known}, where those that are graphics processors take a number, such as cuda:1", known = known())]
pub struct DeviceError {
    given: String,
}

impl Device {
    /// One device of each kind, with index 0 where there can be several.
    pub const ALL: [Device; 6] = [
        Device::Cpu,
        Device::Cuda { index: 0 },
        Device::TensorRt { index: 0 },
        Device::MiGraphX { index: 0 },
        Device::OpenVino,
        Device::OpenVinoGpu { index: 0 },
    ];

    /// Returns the name of the device's kind in configuration, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda { .. } => "cuda",
            Device::TensorRt { .. } => "tensorrt",
            Device::MiGraphX { .. } => "migraphx",
            Device::OpenVino => "openvino",
            Device::OpenVinoGpu { .. } => "openvino-gpu",
        }
    }

    /// Returns the index of the device, for kinds of which a machine can have several.
    pub fn index(self) -> Option<u16> {
        match self {
            Device::Cpu | Device::OpenVino => None,
            Device::Cuda { index } | Device::TensorRt { index } | Device::MiGraphX { index } | Device::OpenVinoGpu { index } => Some(index),
        }
    }

    /// Returns a device of the same kind with another index; `None` for kinds without an index.
    fn with_index(self, index: u16) -> Option<Self> {
        match self {
            Device::Cpu | Device::OpenVino => None,
            Device::Cuda { .. } => Some(Device::Cuda { index }),
            Device::TensorRt { .. } => Some(Device::TensorRt { index }),
            Device::MiGraphX { .. } => Some(Device::MiGraphX { index }),
            Device::OpenVinoGpu { .. } => Some(Device::OpenVinoGpu { index }),
        }
    }

    /// Returns the package that contains a build of ONNX Runtime for the device.
    pub(super) fn library_source(self) -> &'static str {
        match self {
            Device::Cpu => "the PyPI wheel onnxruntime",
            Device::Cuda { .. } | Device::TensorRt { .. } => "the PyPI wheel onnxruntime-gpu",
            Device::MiGraphX { .. } => "the PyPI wheel onnxruntime-migraphx",
            Device::OpenVino | Device::OpenVinoGpu { .. } => "the PyPI wheel onnxruntime-openvino",
        }
    }

    /// Returns what the device needs on the machine, besides the library of ONNX Runtime and the
    /// files next to it.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Device::Cpu => "nothing else is needed",
            Device::Cuda { .. } => {
                "it needs NVIDIA's driver, and the libraries of CUDA and cuDNN where the system's loader finds them (ldconfig, LD_LIBRARY_PATH)"
            }
            Device::TensorRt { .. } => {
                "it needs NVIDIA's driver, and the libraries of CUDA, cuDNN and TensorRT where the system's loader finds them \
                 (ldconfig, LD_LIBRARY_PATH)"
            }
            Device::MiGraphX { .. } => {
                "it needs AMD's driver, and the libraries of ROCm and MIGraphX where the system's loader finds them (ldconfig, LD_LIBRARY_PATH)"
            }
            Device::OpenVino => "it needs the libraries of OpenVINO, which are in the same wheel, beside that of ONNX Runtime",
            Device::OpenVinoGpu { .. } => {
                "it needs Intel's driver for OpenCL, and the libraries of OpenVINO, which are in the same wheel, beside that of ONNX Runtime"
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self.index() {
            None | Some(0) => Ok(()),
            Some(index) => write!(f, ":{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        let (label, index) = given.split_once(':').map_or((given, None), |(label, index)| (label, Some(index)));
        let device = Device::ALL.into_iter().find(|device| device.label() == label);
        let numbered = match index {
            None => device,
            Some(index) => device.zip(index.parse().ok()).and_then(|(device, index)| device.with_index(index)),
        };
        numbered.ok_or_else(|| DeviceError { given: given.chars().take(60).collect() })
    }
}

fn known() -> String {
    Device::ALL.map(Device::label).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_read_from_its_own_word() {
        for device in Device::ALL {
            assert_eq!(device.label().parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!(Device::default(), Device::Cpu);
    }

    #[test]
    fn graphics_processors_have_numbers() {
        for (word, device) in [("cuda:1", Device::Cuda { index: 1 }), ("openvino-gpu:12", Device::OpenVinoGpu { index: 12 })] {
            assert_eq!(word.parse(), Ok(device));
            assert_eq!(device.to_string(), word);
        }
        assert_eq!("tensorrt:0".parse(), Ok(Device::TensorRt { index: 0 }));
        assert_eq!(Device::MiGraphX { index: 0 }.to_string(), "migraphx");
    }

    #[test]
    fn a_word_that_is_no_device_is_refused_with_the_words_that_are() {
        for word in ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:70000", "cuda:1:2", "cpu:0", "openvino:1", " cuda"] {
            let refused = word.parse::<Device>().unwrap_err().to_string();
            let expected = format!("'{word}' is no device; known: cpu, cuda, tensorrt, migraphx, openvino, openvino-gpu, ");
            assert!(refused.starts_with(&expected), "{refused}");
        }
        assert!("é".repeat(500).parse::<Device>().unwrap_err().to_string().len() < 300);
    }
}

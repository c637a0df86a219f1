//! What a result of the driver means for whoever asked for a proof.

use cudarc::driver::sys::CUresult;

use crate::prove::{Stop, refused};

/// A call of the driver's that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CudaError {
    /// The function.
    pub(super) call: &'static str,
    /// What it gave.
    pub(super) result: CUresult,
}

impl CudaError {
    /// The refusal, `during` a piece of work.
    pub(super) fn refusal(self, during: &str) -> Stop {
        refused(code(self.result), self.message(during))
    }

    /// The same before there is a context: what has no code of its own is a driver that does not work.
    pub(super) fn starting(self) -> Stop {
        let during = "starting the driver";
        match (code(self.result), self.result) {
            ("cuda" | "no_kernels", _) | (_, CUresult::CUDA_ERROR_UNKNOWN) => {
                refused("no_driver", format!("the NVIDIA driver failed: {}", self.message(during)))
            }
            (code, _) => refused(code, self.message(during)),
        }
    }

    fn message(self, during: &str) -> String {
        let Self { call, result } = self;
        format!("{during}: {call} gave {result:?}{}", hint(result))
    }
}

/// The stable word for a result.
fn code(result: CUresult) -> &'static str {
    use CUresult as R;
    match result {
        R::CUDA_ERROR_STUB_LIBRARY => "no_driver",
        R::CUDA_ERROR_NO_DEVICE | R::CUDA_ERROR_INVALID_DEVICE => "gpu_not_found",
        // The compute mode lets in one process, and it is another.
        R::CUDA_ERROR_DEVICE_UNAVAILABLE => "gpu_busy",
        R::CUDA_ERROR_OUT_OF_MEMORY => "out_of_memory",
        R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_INVALID_PTX
        | R::CUDA_ERROR_INVALID_SOURCE
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | R::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        | R::CUDA_ERROR_JIT_COMPILATION_DISABLED
        | R::CUDA_ERROR_NOT_FOUND => "no_kernels",
        R::CUDA_ERROR_ECC_UNCORRECTABLE => "ecc_error",
        R::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_LAUNCH_TIMEOUT
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | R::CUDA_ERROR_MISALIGNED_ADDRESS
        | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | R::CUDA_ERROR_INVALID_PC
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_EXTERNAL_DEVICE
        | R::CUDA_ERROR_UNKNOWN => "gpu_lost",
        _ => "cuda",
    }
}

/// What an operator can do.
fn hint(result: CUresult) -> &'static str {
    use CUresult as R;
    match result {
        R::CUDA_ERROR_STUB_LIBRARY => ": libcuda is the toolkit's stub and not the driver's",
        R::CUDA_ERROR_SYSTEM_NOT_READY => ": is the fabric manager running?",
        R::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            ": the library and the kernel module are of different versions"
        }
        R::CUDA_ERROR_DEVICE_UNAVAILABLE => ": another process has the device to itself",
        R::CUDA_ERROR_ECC_UNCORRECTABLE => ": the GPU must be reset, and looked at",
        R::CUDA_ERROR_NO_BINARY_FOR_GPU
        | R::CUDA_ERROR_INVALID_IMAGE
        | R::CUDA_ERROR_INVALID_PTX
        | R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | R::CUDA_ERROR_NOT_FOUND => ": the image does not fit this device",
        R::CUDA_ERROR_ILLEGAL_ADDRESS
        | R::CUDA_ERROR_HARDWARE_STACK_ERROR
        | R::CUDA_ERROR_LAUNCH_FAILED
        | R::CUDA_ERROR_UNKNOWN => ": the kernel log (Xid) says more",
        _ => "",
    }
}

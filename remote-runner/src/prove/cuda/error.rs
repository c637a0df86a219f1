//! What a result of the driver means for whoever asked for a proof.

use std::ffi::c_int;

use cudarc::driver::sys::CUresult;

use super::driver;
use crate::prove::{Stop, refused};

/// The library has no such function. No result of the driver's is negative.
pub(super) const MISSING: c_int = -1;

/// A call of the driver's that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CudaError {
    /// The function.
    pub(super) call: &'static str,
    /// What it gave: a [`CUresult`], or one of a later driver.
    pub(super) result: c_int,
}

impl CudaError {
    /// The refusal, `during` a piece of work.
    pub(super) fn refusal(self, during: &str) -> Stop {
        refused(meaning(self.result).0, self.message(during))
    }

    /// The same before there is a context: what has no code of its own is a driver that does not work.
    pub(super) fn starting(self) -> Stop {
        let during = "starting the driver";
        match meaning(self.result).0 {
            "cuda" | "no_kernels" | "gpu_lost" => {
                refused("no_driver", format!("the NVIDIA driver failed: {}", self.message(during)))
            }
            code => refused(code, self.message(during)),
        }
    }

    fn message(self, during: &str) -> String {
        let Self { call, result } = self;
        let hint = meaning(result).1;
        let separator = if hint.is_empty() { "" } else { ": " };
        if result == MISSING {
            return format!("{during}: {call}{separator}{hint}");
        }
        format!("{during}: {call} gave {}{separator}{hint}", driver::name_of(result))
    }
}

/// The stable word for a result, and what an operator can do.
fn meaning(result: c_int) -> (&'static str, &'static str) {
    if result == MISSING {
        return ("driver_too_old", "the driver has no such function");
    }
    let found = MEANINGS.iter().find(|(known, _, _)| *known as c_int == result);
    found.map_or(("cuda", ""), |(_, code, hint)| (code, hint))
}

const MISFIT: &str = "the image does not fit this device";
const KERNEL_LOG: &str = "the kernel log (Xid) says more";

/// What is not here is `cuda`.
const MEANINGS: [(CUresult, &str, &str); 28] = [
    (
        CUresult::CUDA_ERROR_STUB_LIBRARY,
        "no_driver",
        "libcuda is the toolkit's stub and not the driver's",
    ),
    (CUresult::CUDA_ERROR_NO_DEVICE, "gpu_not_found", ""),
    (CUresult::CUDA_ERROR_INVALID_DEVICE, "gpu_not_found", ""),
    // The compute mode lets in one process, or none.
    (
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
        "gpu_busy",
        "another process has the device to itself, or its compute mode lets nobody in",
    ),
    (CUresult::CUDA_ERROR_OUT_OF_MEMORY, "out_of_memory", ""),
    (CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_INVALID_IMAGE, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_INVALID_PTX, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_INVALID_SOURCE, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "no_kernels", "the driver cannot compile PTX"),
    (CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED, "no_kernels", "the driver may not compile PTX"),
    (CUresult::CUDA_ERROR_NOT_FOUND, "no_kernels", MISFIT),
    (CUresult::CUDA_ERROR_ECC_UNCORRECTABLE, "ecc_error", "the GPU must be reset, and looked at"),
    (CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_LAUNCH_TIMEOUT, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_MISALIGNED_ADDRESS, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_INVALID_PC, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_LAUNCH_FAILED, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_CONTAINED, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_EXTERNAL_DEVICE, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_UNKNOWN, "gpu_lost", KERNEL_LOG),
    (CUresult::CUDA_ERROR_SYSTEM_NOT_READY, "cuda", "is the fabric manager running?"),
    (
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
        "cuda",
        "the library and the kernel module are of different versions",
    ),
];

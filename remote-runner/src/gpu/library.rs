//! The part of NVML that the runner asks, bound by hand.
//!
//! A generated binding of the whole library looks up some 450 functions, which is an eighth of the
//! binary that every host receives; this looks up the 35 that are called, when they are called. The
//! signatures are those of NVIDIA's `nvml.h`, whose ABI is stable: a changed function gets a new
//! name (`_v2`). A function that an old driver lacks is [`NvmlError::Missing`], like any error.

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;

use libloading::Library;

/// The longest text that NVML gives, in bytes: its own largest buffer is 96, and process names are
/// paths.
const TEXT_BYTES: usize = 512;

/// `nvmlTemperatureSensors_t`: the die.
const TEMPERATURE_GPU: c_int = 0;

/// Why NVML gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NvmlError {
    /// The library has no such function.
    Missing,
    /// `nvmlReturn_t`.
    Code(c_int),
}

impl NvmlError {
    pub(super) const NO_PERMISSION: Self = Self::Code(4);
    pub(super) const INSUFFICIENT_SIZE: Self = Self::Code(7);
    pub(super) const DRIVER_NOT_LOADED: Self = Self::Code(9);
    pub(super) const GPU_IS_LOST: Self = Self::Code(15);
    pub(super) const RESET_REQUIRED: Self = Self::Code(16);
    pub(super) const OPERATING_SYSTEM: Self = Self::Code(17);
    pub(super) const LIBRARY_MISMATCH: Self = Self::Code(18);
    pub(super) const UNKNOWN: Self = Self::Code(999);
}

impl fmt::Display for NvmlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match *self {
            Self::Missing => "the NVML library is too old for this question",
            Self::NO_PERMISSION => "this user may not ask the driver",
            Self::DRIVER_NOT_LOADED => "the kernel module is not loaded",
            Self::GPU_IS_LOST => "GPU is lost: it has fallen off the bus",
            Self::RESET_REQUIRED => "GPU requires a reset",
            Self::OPERATING_SYSTEM => {
                "the system or a control group keeps the driver's devices away"
            }
            Self::LIBRARY_MISMATCH => {
                "driver/library version mismatch: restart, or reload the module"
            }
            Self::UNKNOWN => "unknown NVML error",
            Self::Code(code) => return write!(formatter, "NVML error {code}"),
        })
    }
}

/// Memory of a device, in bytes (`nvmlMemory_t`).
#[repr(C)]
#[derive(Default)]
pub(super) struct Memory {
    pub(super) total: c_ulonglong,
    pub(super) free: c_ulonglong,
    pub(super) used: c_ulonglong,
}

/// The same with what is reserved (`nvmlMemory_v2_t`).
#[repr(C)]
#[derive(Default)]
pub(super) struct MemoryV2 {
    version: c_uint,
    pub(super) total: c_ulonglong,
    pub(super) reserved: c_ulonglong,
    pub(super) free: c_ulonglong,
    pub(super) used: c_ulonglong,
}

/// Shares of the last sample period, in percent (`nvmlUtilization_t`).
#[repr(C)]
#[derive(Default)]
pub(super) struct Utilization {
    pub(super) gpu: c_uint,
    pub(super) memory: c_uint,
}

/// A process on a device (`nvmlProcessInfo_t` since `_v3`). Memory of all ones is not available.
#[repr(C)]
#[derive(Default, Clone)]
pub(super) struct Process {
    pub(super) pid: c_uint,
    pub(super) used_memory: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// Where a device is (`nvmlPciInfo_t`).
#[repr(C)]
struct Pci {
    bus_id_legacy: [c_char; 16],
    numbers: [c_uint; 5],
    bus_id: [c_char; 32],
}

/// `nvmlDevice_t`.
type Handle = *mut c_void;

/// Looks a function up and calls it; anything but success is an error. The first argument is the
/// library, then the name, then the types and values of the arguments.
macro_rules! call {
    ($nvml:expr, $name:literal, $($value:expr => $type:ty),*) => {{
        // SAFETY: `nvml.h` declares the function of this name with these argument types.
        let function = unsafe {
            $nvml.0.get::<unsafe extern "C" fn($($type),*) -> c_int>($name.to_bytes_with_nul())
        };
        let function = function.map_err(|_| NvmlError::Missing)?;
        // SAFETY: pointers are to live places of the declared type, lengths are theirs, and a
        // handle is one that this library gave.
        match unsafe { function($($value),*) } {
            0 => Ok(()),
            code => Err(NvmlError::Code(code)),
        }
    }};
}

/// Defines methods that ask a device for one number.
macro_rules! numbers {
    ($($method:ident $name:literal)*) => {
        $(
            pub(super) fn $method(&self) -> Result<c_uint, NvmlError> {
                let mut value = 0;
                call!(self.nvml, $name, self.handle => Handle, &raw mut value => *mut c_uint)?;
                Ok(value)
            }
        )*
    };
}

/// Defines methods that ask for a text.
macro_rules! texts {
    ($($method:ident $name:literal)*) => {
        $(
            pub(super) fn $method(&self) -> Result<String, NvmlError> {
                text(|buffer, length| {
                    call!(self.nvml, $name, self.handle => Handle, buffer => *mut c_char, length => c_uint)
                })
            }
        )*
    };
}

/// A buffer's text after `fill` wrote to it.
fn text(
    fill: impl FnOnce(*mut c_char, c_uint) -> Result<(), NvmlError>,
) -> Result<String, NvmlError> {
    let mut buffer = [0_u8; TEXT_BYTES];
    // One byte is kept back, so that the text ends inside the buffer whatever was written.
    let length = c_uint::try_from(TEXT_BYTES.saturating_sub(1)).unwrap_or(0);
    fill(buffer.as_mut_ptr().cast(), length)?;
    Ok(until_nul(&buffer))
}

fn until_nul(buffer: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(buffer).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

/// The loaded and initialised library. It is never shut down: the process ends with its use.
pub(crate) struct Nvml(Library);

/// Why the library is not there.
pub(super) enum LoadError {
    /// It cannot be loaded; the loader's words.
    Load(String),
    /// It was loaded, and does not start.
    Init(NvmlError),
}

impl Nvml {
    /// Loads the library from a path, or by the loader's search, and initialises it.
    pub(super) fn load(place: &str) -> Result<Self, LoadError> {
        // SAFETY: loading runs the library's constructors. That is foreign code, which is why this
        // process is a child with nothing to lose.
        let library = unsafe { Library::new(place) }.map_err(|error| {
            // The loader's words are the source; the error itself says no more than "dlopen failed".
            let loader = error.source().map(ToString::to_string);
            LoadError::Load(loader.unwrap_or_else(|| error.to_string()))
        })?;
        let nvml = Self(library);
        nvml.init().map_err(LoadError::Init)?;
        Ok(nvml)
    }

    fn init(&self) -> Result<(), NvmlError> {
        call!(self, c"nvmlInit_v2",)
    }

    pub(super) fn driver_version(&self) -> Result<String, NvmlError> {
        text(
            |buffer, length| call!(self, c"nvmlSystemGetDriverVersion", buffer => *mut c_char, length => c_uint),
        )
    }

    pub(super) fn nvml_version(&self) -> Result<String, NvmlError> {
        text(
            |buffer, length| call!(self, c"nvmlSystemGetNVMLVersion", buffer => *mut c_char, length => c_uint),
        )
    }

    /// The newest CUDA version of the driver, as 1000 times the major and 10 times the minor one.
    pub(super) fn cuda_version(&self) -> Result<c_int, NvmlError> {
        let mut version = 0;
        call!(self, c"nvmlSystemGetCudaDriverVersion_v2", &raw mut version => *mut c_int)?;
        Ok(version)
    }

    pub(super) fn process_name(&self, pid: c_uint) -> Result<String, NvmlError> {
        text(|buffer, length| {
            call!(self, c"nvmlSystemGetProcessName",
                pid => c_uint, buffer => *mut c_char, length => c_uint)
        })
    }

    pub(super) fn device_count(&self) -> Result<c_uint, NvmlError> {
        let mut count = 0;
        call!(self, c"nvmlDeviceGetCount_v2", &raw mut count => *mut c_uint)?;
        Ok(count)
    }

    pub(super) fn device(&self, index: c_uint) -> Result<Device<'_>, NvmlError> {
        let mut handle = std::ptr::null_mut();
        call!(self, c"nvmlDeviceGetHandleByIndex_v2",
            index => c_uint, &raw mut handle => *mut Handle)?;
        Ok(Device { nvml: self, handle })
    }
}

/// One device of a library.
pub(super) struct Device<'nvml> {
    nvml: &'nvml Nvml,
    handle: Handle,
}

/// `nvmlClockType_t`.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    Sm = 1,
    Memory = 2,
}

impl Device<'_> {
    texts! {
        uuid c"nvmlDeviceGetUUID"
        name c"nvmlDeviceGetName"
        vbios_version c"nvmlDeviceGetVbiosVersion"
    }

    numbers! {
        link_width c"nvmlDeviceGetCurrPcieLinkWidth"
        link_width_max c"nvmlDeviceGetMaxPcieLinkWidth"
        link_generation c"nvmlDeviceGetCurrPcieLinkGeneration"
        link_generation_max c"nvmlDeviceGetMaxPcieLinkGeneration"
        power_limit c"nvmlDeviceGetEnforcedPowerLimit"
        power_limit_default c"nvmlDeviceGetPowerManagementDefaultLimit"
        power_draw c"nvmlDeviceGetPowerUsage"
        persistence_mode c"nvmlDeviceGetPersistenceMode"
    }

    /// Domain, bus, device and function, such as `00000000:3B:00.0`.
    pub(super) fn bus_id(&self) -> Result<String, NvmlError> {
        let mut pci = Pci { bus_id_legacy: [0; 16], numbers: [0; 5], bus_id: [0; 32] };
        call!(self.nvml, c"nvmlDeviceGetPciInfo_v3",
            self.handle => Handle, &raw mut pci => *mut Pci)?;
        Ok(until_nul(&pci.bus_id.map(c_char::cast_unsigned)))
    }

    /// The die's temperature in degrees Celsius.
    pub(super) fn temperature(&self) -> Result<c_uint, NvmlError> {
        let mut degrees = 0;
        call!(self.nvml, c"nvmlDeviceGetTemperature",
            self.handle => Handle, TEMPERATURE_GPU => c_int, &raw mut degrees => *mut c_uint)?;
        Ok(degrees)
    }

    pub(super) fn memory(&self) -> Result<Memory, NvmlError> {
        let mut memory = Memory::default();
        call!(self.nvml, c"nvmlDeviceGetMemoryInfo",
            self.handle => Handle, &raw mut memory => *mut Memory)?;
        Ok(memory)
    }

    /// Since driver R510.
    pub(super) fn memory_v2(&self) -> Result<MemoryV2, NvmlError> {
        // NVML_STRUCT_VERSION: the structure's size, and its version in the highest byte.
        let size = c_uint::try_from(size_of::<MemoryV2>()).unwrap_or(0);
        let mut memory = MemoryV2 { version: size | 2 << 24, ..MemoryV2::default() };
        call!(self.nvml, c"nvmlDeviceGetMemoryInfo_v2",
            self.handle => Handle, &raw mut memory => *mut MemoryV2)?;
        Ok(memory)
    }

    /// Major and minor.
    pub(super) fn compute_capability(&self) -> Result<(c_int, c_int), NvmlError> {
        let (mut major, mut minor) = (0, 0);
        call!(self.nvml, c"nvmlDeviceGetCudaComputeCapability",
            self.handle => Handle, &raw mut major => *mut c_int, &raw mut minor => *mut c_int)?;
        Ok((major, minor))
    }

    /// Whether error correction is on, and will be after a restart.
    pub(super) fn ecc_mode(&self) -> Result<(bool, bool), NvmlError> {
        let (mut current, mut pending) = (0, 0);
        call!(self.nvml, c"nvmlDeviceGetEccMode",
            self.handle => Handle, &raw mut current => *mut c_uint, &raw mut pending => *mut c_uint)?;
        Ok((current != 0, pending != 0))
    }

    /// A count of memory errors: corrected or not, of the device's life or since the driver was
    /// loaded.
    pub(super) fn ecc_errors(&self, uncorrected: bool, lifetime: bool) -> Result<u64, NvmlError> {
        let mut count = 0;
        call!(self.nvml, c"nvmlDeviceGetTotalEccErrors",
            self.handle => Handle, c_int::from(uncorrected) => c_int,
            c_int::from(lifetime) => c_int, &raw mut count => *mut c_ulonglong)?;
        Ok(count)
    }

    /// Rows remapped after corrected and uncorrected errors, pending, failed.
    pub(super) fn remapped_rows(&self) -> Result<[c_uint; 4], NvmlError> {
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        call!(self.nvml, c"nvmlDeviceGetRemappedRows",
            self.handle => Handle,
            &raw mut corrected => *mut c_uint, &raw mut uncorrected => *mut c_uint,
            &raw mut pending => *mut c_uint, &raw mut failed => *mut c_uint)?;
        Ok([corrected, uncorrected, pending, failed])
    }

    /// The bits of why the clocks are low.
    pub(super) fn throttle_reasons(&self) -> Result<u64, NvmlError> {
        let mut bits = 0;
        call!(self.nvml, c"nvmlDeviceGetCurrentClocksThrottleReasons",
            self.handle => Handle, &raw mut bits => *mut c_ulonglong)?;
        Ok(bits)
    }

    /// Whether MIG is on.
    pub(super) fn mig_mode(&self) -> Result<bool, NvmlError> {
        let (mut current, mut pending) = (0, 0);
        call!(self.nvml, c"nvmlDeviceGetMigMode",
            self.handle => Handle, &raw mut current => *mut c_uint, &raw mut pending => *mut c_uint)?;
        Ok(current == 1)
    }

    pub(super) fn utilization(&self) -> Result<Utilization, NvmlError> {
        let mut utilization = Utilization::default();
        call!(self.nvml, c"nvmlDeviceGetUtilizationRates",
            self.handle => Handle, &raw mut utilization => *mut Utilization)?;
        Ok(utilization)
    }

    /// A clock now, in MHz.
    pub(super) fn clock(&self, clock: Clock) -> Result<c_uint, NvmlError> {
        let mut mhz = 0;
        call!(self.nvml, c"nvmlDeviceGetClockInfo",
            self.handle => Handle, clock as c_int => c_int, &raw mut mhz => *mut c_uint)?;
        Ok(mhz)
    }

    /// A clock at most, in MHz.
    pub(super) fn clock_max(&self, clock: Clock) -> Result<c_uint, NvmlError> {
        let mut mhz = 0;
        call!(self.nvml, c"nvmlDeviceGetMaxClockInfo",
            self.handle => Handle, clock as c_int => c_int, &raw mut mhz => *mut c_uint)?;
        Ok(mhz)
    }

    /// Processes with a compute context, at most `limit`.
    pub(super) fn compute_processes(&self, limit: usize) -> Result<Vec<Process>, NvmlError> {
        processes(limit, |count, list| {
            call!(self.nvml, c"nvmlDeviceGetComputeRunningProcesses_v3",
                self.handle => Handle, count => *mut c_uint, list => *mut Process)
        })
    }

    /// Processes with a graphics context, at most `limit`.
    pub(super) fn graphics_processes(&self, limit: usize) -> Result<Vec<Process>, NvmlError> {
        processes(limit, |count, list| {
            call!(self.nvml, c"nvmlDeviceGetGraphicsRunningProcesses_v3",
                self.handle => Handle, count => *mut c_uint, list => *mut Process)
        })
    }
}

/// A list of processes. More of them than `limit` are an error of NVML's, not a shortened list.
fn processes(
    limit: usize,
    ask: impl FnOnce(*mut c_uint, *mut Process) -> Result<(), NvmlError>,
) -> Result<Vec<Process>, NvmlError> {
    let mut list = vec![Process::default(); limit];
    let mut count = c_uint::try_from(limit).map_err(|_| NvmlError::INSUFFICIENT_SIZE)?;
    ask(&raw mut count, list.as_mut_ptr())?;
    list.truncate(usize::try_from(count).unwrap_or(limit));
    Ok(list)
}

//! What NVML says. This runs in the probe's child only.
//!
//! A device that does not report a value answers `NotSupported`, which reads as `None`; a device
//! that is gone is reported as one, with what is still known of it.

use runner_protocol::facts::{DriverState, GpuFacts, MAX_GPUS};
use runner_protocol::telemetry::GpuTelemetry;

use crate::probe;

mod device;
mod library;
mod throttle;

use library::{LoadError, Nvml, NvmlError};

/// Where the library is: by the loader's own search, then where WSL and NixOS keep it, which the
/// loader of a foreign program does not search.
const PLACES: [&str; 3] = [
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
];

/// The library, or the fact that there is none.
pub(crate) enum Library {
    Loaded(Nvml),
    Absent(DriverState),
}

impl Library {
    /// Loads and initialises NVML.
    pub(crate) fn load() -> Self {
        let mut absent = no_driver("");
        for place in PLACES {
            match Nvml::load(place) {
                Ok(nvml) => return Self::Loaded(nvml),
                // Not there: look at the next place.
                Err(LoadError::Load(error)) if is_missing(place, &error) => {}
                Err(LoadError::Load(message)) => {
                    absent = DriverState::Failed { code: "nvml".to_owned(), message };
                    break;
                }
                Err(LoadError::Init(error)) => {
                    absent = state_of(error);
                    break;
                }
            }
        }
        Self::Absent(absent)
    }
}

/// Whether the loader's error says that there is no such file, and not that it is damaged or that
/// a library it needs is missing: those errors start with another name.
fn is_missing(place: &str, error: &str) -> bool {
    error.strip_prefix(place).is_some_and(|rest| rest.contains("No such file or directory"))
}

fn no_driver(detail: &str) -> DriverState {
    let message = DriverState::NO_DRIVER_MESSAGE;
    DriverState::NoDriver {
        message: match detail {
            "" => message.to_owned(),
            detail => format!("{message}: {detail}"),
        },
    }
}

/// What a failed initialisation says about the driver.
fn state_of(error: NvmlError) -> DriverState {
    let code = match error {
        NvmlError::DRIVER_NOT_LOADED => {
            return no_driver("the NVML library is installed, the kernel module is not loaded");
        }
        NvmlError::LIBRARY_MISMATCH => "library_mismatch",
        NvmlError::NO_PERMISSION | NvmlError::OPERATING_SYSTEM => "no_permission",
        _ => "nvml",
    };
    DriverState::Failed { code: code.to_owned(), message: error.to_string() }
}

/// Everything about the driver and its devices.
pub(crate) fn facts(library: &Library) -> GpuFacts {
    let nvml = match library {
        Library::Loaded(nvml) => nvml,
        Library::Absent(driver) => {
            return GpuFacts { driver: driver.clone(), devices: Vec::new() };
        }
    };
    let driver_version = match nvml.driver_version() {
        Ok(version) => version,
        Err(error) => return probe::broken("nvml", &format!("no driver version: {error}")),
    };
    let cuda = nvml.cuda_version().ok();
    let cuda = cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10));
    let driver = DriverState::Present {
        driver_version,
        cuda_version: cuda,
        nvml_version: nvml.nvml_version().ok(),
    };
    let devices = match indices(nvml) {
        Ok(indices) => indices.map(|index| device::facts(nvml, index)).collect(),
        Err(error) => return probe::broken("nvml", &format!("cannot count the devices: {error}")),
    };
    GpuFacts { driver, devices }
}

/// What changes from second to second; nothing without a driver.
pub(crate) fn telemetry(library: &Library) -> Vec<GpuTelemetry> {
    let Library::Loaded(nvml) = library else { return Vec::new() };
    let Ok(indices) = indices(nvml) else { return Vec::new() };
    indices.map(|index| device::sample(nvml, index)).collect()
}

/// The devices' places, as many as facts may carry.
fn indices(nvml: &Nvml) -> Result<std::ops::Range<u32>, NvmlError> {
    let limit = u32::try_from(MAX_GPUS).unwrap_or(u32::MAX);
    nvml.device_count().map(|count| 0..count.min(limit))
}

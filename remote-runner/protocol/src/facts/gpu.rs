//! What the NVIDIA driver says about its devices, through NVML.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded;

/// The most GPUs that facts carry: no host has more than 16, and a rack-scale system shows 72.
pub const MAX_GPUS: usize = 128;

/// The most processes listed for one GPU.
const MAX_PROCESSES: usize = 512;

/// The driver and its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuFacts {
    /// Whether there is a driver, and which.
    pub driver: DriverState,
    /// The devices, in NVML's order. A device is named by its UUID, never by its place here.
    #[serde(deserialize_with = "bounded::list::<MAX_GPUS, _, _>")]
    pub devices: Vec<Gpu>,
}

/// Whether there is an NVIDIA driver. Having none is a fact, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverState {
    /// There is no `libnvidia-ml.so.1`, or there is one and no kernel module.
    NoDriver {
        /// Starts with [`NO_DRIVER_MESSAGE`](DriverState::NO_DRIVER_MESSAGE).
        #[serde(default)]
        message: String,
    },
    /// There is a driver, and it does not work.
    Failed {
        /// A stable word: `library_mismatch`, `stalled`, `crashed`, `no_permission`, `nvml`.
        #[serde(default)]
        code: String,
        /// What happened.
        #[serde(default)]
        message: String,
    },
    /// The driver answers.
    Present {
        /// The driver's version, such as `550.54.15`.
        #[serde(default)]
        driver_version: String,
        /// The newest CUDA version it runs, such as `12.4`.
        #[serde(default)]
        cuda_version: Option<String>,
        /// The version of the NVML library, such as `12.550.54.15`.
        #[serde(default)]
        nvml_version: Option<String>,
    },
}

impl DriverState {
    /// How every message about a missing driver starts.
    pub const NO_DRIVER_MESSAGE: &str = "No NVIDIA driver found";
}

impl Default for DriverState {
    fn default() -> Self {
        Self::NoDriver { message: Self::NO_DRIVER_MESSAGE.to_owned() }
    }
}

/// A CUDA compute capability, such as 9.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComputeCapability {
    /// The part before the dot.
    pub major: u32,
    /// The part after the dot.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// One GPU. `None` where the device does not report a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// The device's UUID, such as `GPU-6a1f...`; empty if even that could not be read.
    pub uuid: String,
    /// Its place in NVML's order, for a person to compare with `nvidia-smi`.
    pub index: u32,
    /// The product's name, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// The version of the video BIOS.
    pub vbios: Option<String>,
    /// Domain, bus, device and function as in sysfs, such as `0000:3b:00.0`, in lower case.
    pub pci_address: Option<String>,
    /// The PCI Express link.
    pub pcie: PcieFacts,
    /// All of its memory.
    pub memory_total_bytes: Option<u64>,
    /// Memory in use, without what is reserved.
    pub memory_used_bytes: Option<u64>,
    /// Memory the driver and the firmware keep for themselves; needs driver R510 or later.
    pub memory_reserved_bytes: Option<u64>,
    /// The CUDA compute capability.
    pub compute_capability: Option<ComputeCapability>,
    /// Error correction.
    pub ecc: EccFacts,
    /// Row remapping; `None` before Ampere.
    pub row_remap: Option<RowRemapFacts>,
    /// Why the clocks are lower than they could be, in NVML's words: `gpu_idle`,
    /// `applications_clocks_setting`, `sw_power_cap`, `hw_slowdown`, `sync_boost`,
    /// `sw_thermal_slowdown`, `hw_thermal_slowdown`, `hw_power_brake_slowdown`,
    /// `display_clock_setting`, or `unknown_` and the bits in hexadecimal.
    #[serde(deserialize_with = "bounded::list::<64, _, _>")]
    pub throttle_reasons: Vec<String>,
    /// Power.
    pub power: PowerFacts,
    /// Whether the device is split by MIG; `None` if it cannot be.
    pub mig_enabled: Option<bool>,
    /// Whether the driver keeps the device initialised with no client.
    pub persistence_mode: Option<bool>,
    /// Core temperature in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Share of the last sample period in which a kernel ran, in percent.
    pub utilization_percent: Option<u32>,
    /// Clocks.
    pub clocks: ClockFacts,
    /// Processes that hold a context on it; `None` if the driver did not say.
    #[serde(deserialize_with = "processes")]
    pub processes: Option<Vec<GpuProcess>>,
    /// Why the device does not answer, such as `GPU is lost`. The other values are then unknown.
    pub problem: Option<String>,
}

/// The PCI Express link of a GPU. An idle device may lower its generation, never its width.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PcieFacts {
    /// Lanes in use.
    pub width: Option<u32>,
    /// Lanes that device and slot allow.
    pub width_max: Option<u32>,
    /// Generation in use.
    pub generation: Option<u32>,
    /// Generation that device and slot allow.
    pub generation_max: Option<u32>,
}

/// Error correction of a GPU's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EccFacts {
    /// Whether it is on.
    pub enabled: Option<bool>,
    /// Whether it will be on after the next restart.
    pub enabled_pending: Option<bool>,
    /// Corrected errors since the driver was loaded.
    pub corrected: Option<u64>,
    /// Uncorrected errors since the driver was loaded.
    pub uncorrected: Option<u64>,
    /// Corrected errors in the device's life.
    pub corrected_lifetime: Option<u64>,
    /// Uncorrected errors in the device's life.
    pub uncorrected_lifetime: Option<u64>,
}

/// Rows of memory that the device has replaced by spare ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowRemapFacts {
    /// Rows replaced after corrected errors.
    pub correctable: u32,
    /// Rows replaced after uncorrected errors.
    pub uncorrectable: u32,
    /// A row waits for a reset of the device to be replaced.
    pub pending: bool,
    /// A row could not be replaced.
    pub failure: bool,
}

/// Power of a GPU, in milliwatts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PowerFacts {
    /// The limit that holds now.
    pub limit_mw: Option<u64>,
    /// The limit the device has from the factory.
    pub limit_default_mw: Option<u64>,
    /// What it draws now.
    pub draw_mw: Option<u64>,
}

/// Clocks of a GPU, in MHz.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockFacts {
    /// Streaming multiprocessors, now.
    pub sm_mhz: Option<u32>,
    /// Streaming multiprocessors, at most.
    pub sm_max_mhz: Option<u32>,
    /// Memory, now.
    pub memory_mhz: Option<u32>,
    /// Memory, at most.
    pub memory_max_mhz: Option<u32>,
}

/// A process that holds a context on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuProcess {
    /// Its process id, as NVML numbers it.
    pub pid: u32,
    /// The name of its executable; `None` if it is not visible from here.
    pub name: Option<String>,
    /// GPU memory it holds.
    pub used_memory_bytes: Option<u64>,
    /// Whether it has a graphics context and no compute context: it draws, and computes nothing.
    pub graphics: bool,
}

/// A list that may be missing, with a largest length.
fn processes<'de, D>(deserializer: D) -> Result<Option<Vec<GpuProcess>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct List(
        #[serde(deserialize_with = "bounded::list::<MAX_PROCESSES, _, _>")] Vec<GpuProcess>,
    );
    Ok(Option::<List>::deserialize(deserializer)?.map(|list| list.0))
}

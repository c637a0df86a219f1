//! What changes from second to second.

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::facts::{LoadFacts, MAX_GPUS};

/// One sample of a watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// When it was taken: the host's clock, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The load averages.
    pub load: LoadFacts,
    /// Memory that a new program could use, in bytes.
    pub memory_available_bytes: u64,
    /// One entry for each GPU that NVML answers for; none without a driver.
    #[serde(deserialize_with = "bounded::list::<MAX_GPUS, _, _>")]
    pub gpus: Vec<GpuTelemetry>,
}

/// One GPU in a sample. `None` where the device does not report a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuTelemetry {
    /// The device's UUID.
    pub uuid: String,
    /// Share of the last sample period in which a kernel ran, in percent.
    pub utilization_percent: Option<u32>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Core temperature in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power draw in milliwatts.
    pub power_draw_mw: Option<u64>,
    /// SM clock in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// Memory clock in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Why the clocks are lower than they could be; see
    /// [`Gpu::throttle_reasons`](crate::facts::Gpu::throttle_reasons).
    #[serde(deserialize_with = "bounded::list::<64, _, _>")]
    pub throttle_reasons: Vec<String>,
    /// Why the device did not answer, such as `GPU is lost`.
    pub problem: Option<String>,
}

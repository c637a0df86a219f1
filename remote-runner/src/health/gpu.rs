//! One GPU.

use runner_protocol::facts::Gpu;
use runner_protocol::{Finding, Severity};

use super::finding;

/// Data-centre devices start to slow down at 85 to 92 degrees Celsius.
const HOT_CELSIUS: u32 = 88;

/// Throttling that work does not cause by itself. A device at its own power limit (`sw_power_cap`)
/// works as it should.
const BAD_THROTTLE: [&str; 4] =
    ["hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"];

pub(super) fn findings(gpu: &Gpu) -> Vec<Finding> {
    let subject = match (&gpu.uuid, &gpu.pci_address) {
        (uuid, Some(address)) if uuid.is_empty() => address.clone(),
        (uuid, None) if uuid.is_empty() => format!("GPU {}", gpu.index),
        (uuid, _) => uuid.clone(),
    };
    if let Some(problem) = &gpu.problem {
        let message = "the GPU does not answer";
        return vec![finding(
            Severity::Critical,
            "gpu_silent",
            &subject,
            message,
            problem,
            "an answer",
        )];
    }
    let found = memory(gpu, &subject).into_iter().chain(work(gpu, &subject));
    found.chain(setting(gpu, &subject)).collect()
}

/// Errors of the device's memory.
fn memory(gpu: &Gpu, subject: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let volatile = gpu.ecc.uncorrected.filter(|count| *count > 0);
    let lifetime = gpu.ecc.uncorrected_lifetime.filter(|count| *count > 0);
    match (volatile, lifetime) {
        (Some(count), _) => {
            let message = "uncorrected memory errors since the driver was loaded";
            let code = "gpu_ecc_uncorrected";
            found.push(finding(Severity::Critical, code, subject, message, count, 0));
        }
        (None, Some(count)) => {
            let message = "uncorrected memory errors in the GPU's life";
            let code = "gpu_ecc_uncorrected_before";
            found.push(finding(Severity::Info, code, subject, message, count, 0));
        }
        (None, None) => {}
    }
    if gpu.ecc.enabled == Some(false) {
        let message = "error correction is switched off";
        found.push(finding(Severity::Warning, "gpu_ecc_off", subject, message, "off", "on"));
    }
    let Some(rows) = gpu.row_remap else { return found };
    if rows.failure {
        let message = "a row of memory could not be replaced: the GPU wants an RMA";
        let code = "gpu_row_remap_failed";
        found.push(finding(Severity::Critical, code, subject, message, "failed", "none"));
    }
    if rows.pending {
        let message = "a row of memory waits to be replaced: the GPU wants a reset";
        let code = "gpu_row_remap_pending";
        found.push(finding(Severity::Warning, code, subject, message, "pending", "none"));
    }
    found
}

/// What makes work slower than it could be.
fn work(gpu: &Gpu, subject: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if let (Some(width), Some(max)) = (gpu.pcie.width, gpu.pcie.width_max)
        && width < max
    {
        let message = "the PCI Express link has fewer lanes than it could have";
        let (code, seen) = ("gpu_pcie_width_low", format!("x{width}"));
        found.push(finding(Severity::Warning, code, subject, message, seen, format!("x{max}")));
    }
    // An idle device lowers its link's generation to save power; only a busy one tells.
    let busy = gpu.utilization_percent.is_some_and(|percent| percent > 0);
    if let (Some(generation), Some(max)) = (gpu.pcie.generation, gpu.pcie.generation_max)
        && busy
        && generation < max
    {
        let message = "the PCI Express link of a busy GPU is slower than it could be";
        let code = "gpu_pcie_generation_low";
        let (seen, expected) = (format!("generation {generation}"), format!("generation {max}"));
        found.push(finding(Severity::Warning, code, subject, message, seen, expected));
    }
    let bad: Vec<&str> = gpu
        .throttle_reasons
        .iter()
        .map(String::as_str)
        .filter(|reason| BAD_THROTTLE.contains(reason))
        .collect();
    if !bad.is_empty() {
        let message = "heat or power supply slows the GPU down";
        let seen = bad.join(", ");
        found.push(finding(Severity::Warning, "gpu_throttled", subject, message, seen, "none"));
    }
    if let Some(degrees) = gpu.temperature_celsius.filter(|degrees| *degrees >= HOT_CELSIUS) {
        let message = "the GPU is nearly too hot to work";
        let (seen, expected) = (format!("{degrees} C"), format!("below {HOT_CELSIUS} C"));
        found.push(finding(Severity::Warning, "gpu_hot", subject, message, seen, expected));
    }
    found
}

/// How the device is set up.
fn setting(gpu: &Gpu, subject: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if let (Some(limit), Some(default)) = (gpu.power.limit_mw, gpu.power.limit_default_mw)
        && limit < default
    {
        let message = "the power limit is below the GPU's own";
        let code = "gpu_power_limit_low";
        let [seen, expected] = [limit, default].map(|mw| format!("{} W", mw / 1000));
        found.push(finding(Severity::Warning, code, subject, message, seen, expected));
    }
    if gpu.persistence_mode == Some(false) {
        let message = "the driver lets the GPU go when idle, so each start takes seconds";
        let code = "gpu_persistence_off";
        found.push(finding(Severity::Info, code, subject, message, "off", "on"));
    }
    if gpu.mig_enabled == Some(true) {
        let message = "the GPU is split into instances";
        found.push(finding(Severity::Info, "gpu_mig_on", subject, message, "on", "off"));
    }
    found
}

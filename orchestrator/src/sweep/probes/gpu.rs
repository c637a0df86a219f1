//! One GPU.

use std::time::Duration;

use runner_protocol::HostFacts;
use runner_protocol::facts::{Gpu, XidError};

use super::words;
use crate::config::SweepConfig;
use crate::sweep::{Code, Finding, HostMemory, Severity};

/// Throttling that work does not cause by itself. A device at its own power limit (`sw_power_cap`)
/// works as it should.
const BAD_THROTTLE: [&str; 4] =
    ["hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"];

/// Xids after which a device should get no work (NVIDIA, "XID Errors"): an uncorrectable ECC error
/// (48), a failed or stopped row remap or page retirement (62, 64), NVLink (74), off the bus (79),
/// an uncontained ECC error (95), the GSP or its RPC gone (119, 120), an unrecovered ECC error (140).
const FATAL_XIDS: [u32; 9] = [48, 62, 64, 74, 79, 95, 119, 120, 140];

/// Xids that a faulty program causes on a sound device: 13 and 31 (its own accesses), 8 and 43 (its
/// channel), 45 (its end), 32, 68 and 69 (its commands).
const PROGRAM_XIDS: [u32; 8] = [8, 13, 31, 32, 43, 45, 68, 69];

pub(super) fn findings(
    facts: &HostFacts,
    memory: &HostMemory,
    now_ms: i64,
    config: &SweepConfig,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for gpu in &facts.gpus.devices {
        let subject = subject(gpu);
        if let Some(problem) = &gpu.problem {
            found.push(Finding::new(Code::GpuSilent, &subject, problem, "an answer"));
            continue;
        }
        found.extend(errors(gpu, &subject));
        found.extend(slope(gpu, &subject, memory, now_ms, config));
        found.extend(work(gpu, &subject, config));
        found.extend(setting(gpu, &subject));
    }
    let errors = facts.xid_errors.iter().flatten();
    found.extend(errors.filter_map(|error| xid(error, &facts.gpus.devices, config)));
    found
}

fn subject(gpu: &Gpu) -> String {
    match (&gpu.uuid, &gpu.pci_address) {
        (uuid, Some(address)) if uuid.is_empty() => address.clone(),
        (uuid, None) if uuid.is_empty() => format!("GPU-{}", gpu.index),
        (uuid, _) => uuid.clone(),
    }
}

/// Errors of the device's memory.
fn errors(gpu: &Gpu, subject: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(count) = gpu.ecc.uncorrected.filter(|count| *count > 0) {
        found.push(Finding::new(Code::GpuEccUncorrected, subject, count, 0));
    }
    if gpu.ecc.enabled == Some(false) {
        found.push(Finding::new(Code::GpuEccOff, subject, "off", "on"));
    }
    let Some(rows) = gpu.row_remap else { return found };
    if rows.failure {
        found.push(Finding::new(Code::GpuRowRemapFailed, subject, "failed", "none"));
    }
    if rows.pending {
        found.push(Finding::new(Code::GpuRowRemapPending, subject, "pending", "none"));
    }
    found
}

/// Corrected errors since the mark of the sweeps before, which is at most a day old.
fn slope(
    gpu: &Gpu,
    subject: &str,
    memory: &HostMemory,
    now_ms: i64,
    config: &SweepConfig,
) -> Option<Finding> {
    let now = gpu.ecc.corrected_lifetime?;
    let uuid = crate::printable::printable(&gpu.uuid);
    let mark = memory.ecc.iter().find(|mark| mark.uuid == uuid)?;
    let more = now.checked_sub(mark.corrected)?;
    if more <= u64::from(config.ecc_corrected_per_day) {
        return None;
    }
    let passed = u64::try_from(now_ms.saturating_sub(mark.at_ms)).unwrap_or_default();
    let seen = format!("{more} in {}", words(Duration::from_millis(passed)));
    let expected = format!("at most {} a day", config.ecc_corrected_per_day);
    Some(Finding::new(Code::GpuEccSlope, subject, seen, expected))
}

/// What makes work slower than it could be.
fn work(gpu: &Gpu, subject: &str, config: &SweepConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    if let (Some(width), Some(max)) = (gpu.pcie.width, gpu.pcie.width_max)
        && width < max
    {
        let (seen, expected) = (format!("x{width}"), format!("x{max}"));
        found.push(Finding::new(Code::GpuPcieWidthLow, subject, seen, expected));
    }
    // An idle device lowers its link's generation to save power; only a busy one tells.
    let busy = gpu.utilization_percent.is_some_and(|percent| percent > 0);
    if let (Some(generation), Some(max)) = (gpu.pcie.generation, gpu.pcie.generation_max)
        && busy
        && generation < max
    {
        let [seen, expected] = [generation, max].map(|it| format!("generation {it}"));
        found.push(Finding::new(Code::GpuPcieGenerationLow, subject, seen, expected));
    }
    let reasons = gpu.throttle_reasons.iter().map(String::as_str);
    let bad: Vec<&str> = reasons.filter(|reason| BAD_THROTTLE.contains(reason)).collect();
    if !bad.is_empty() {
        found.push(Finding::new(Code::GpuThrottled, subject, bad.join(", "), "none"));
    }
    let limit = config.gpu_hot_celsius;
    if let Some(degrees) = gpu.temperature_celsius.filter(|degrees| *degrees >= limit) {
        let (seen, expected) = (format!("{degrees} C"), format!("below {limit} C"));
        found.push(Finding::new(Code::GpuHot, subject, seen, expected));
    }
    found
}

/// How the device is set up.
fn setting(gpu: &Gpu, subject: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if let (Some(limit), Some(default)) = (gpu.power.limit_mw, gpu.power.limit_default_mw)
        && limit < default
    {
        let [seen, expected] = [limit, default].map(|mw| format!("{} W", mw / 1000));
        found.push(Finding::new(Code::GpuPowerLimitLow, subject, seen, expected));
    }
    if gpu.persistence_mode == Some(false) {
        found.push(Finding::new(Code::GpuPersistenceOff, subject, "off", "on"));
    }
    if gpu.mig_enabled == Some(true) {
        found.push(Finding::new(Code::GpuMigOn, subject, "on", "off"));
    }
    found
}

/// An error that the kernel module logged not too long ago.
fn xid(error: &XidError, devices: &[Gpu], config: &SweepConfig) -> Option<Finding> {
    if Duration::from_secs(error.last_secs_ago) > config.xid_window {
        return None;
    }
    let device = devices.iter().find(|gpu| gpu.pci_address.as_ref() == Some(&error.pci_address));
    let name = device.map_or_else(|| error.pci_address.clone(), subject);
    let severity = match error.xid {
        xid if FATAL_XIDS.contains(&xid) => Severity::Critical,
        xid if PROGRAM_XIDS.contains(&xid) => Severity::Info,
        _ => Severity::Warning,
    };
    let ago = words(Duration::from_secs(error.last_secs_ago));
    let seen = format!("Xid {} x {}, last {ago} ago: {}", error.xid, error.count, error.message);
    // One finding for each kind: its number belongs to what it is about.
    let subject = format!("{name}/xid-{}", error.xid);
    Some(Finding::new(Code::GpuXid, subject, seen, "none").severe(severity))
}

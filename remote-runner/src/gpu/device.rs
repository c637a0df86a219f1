//! One device.

use runner_protocol::facts::{
    ClockFacts, ComputeCapability, EccFacts, Gpu, GpuProcess, PcieFacts, PowerFacts, RowRemapFacts,
};
use runner_protocol::telemetry::GpuTelemetry;

use super::library::{Clock, Device, Nvml, NvmlError};
use super::throttle;

/// The most processes listed for one device: the protocol carries no more.
const MAX_PROCESSES: usize = 512;

/// Everything about the device at a place in NVML's order.
pub(super) fn facts(nvml: &Nvml, index: u32) -> Gpu {
    let device = match nvml.device(index) {
        Ok(device) => device,
        Err(error) => {
            return Gpu { index, problem: Some(error.to_string()), ..Gpu::default() };
        }
    };
    let mut gpu = Gpu {
        uuid: device.uuid().unwrap_or_default(),
        index,
        model: device.name().unwrap_or_default(),
        vbios: device.vbios_version().ok(),
        pci_address: device.bus_id().ok().map(|bus_id| pci_address(&bus_id)),
        ..Gpu::default()
    };
    // A lost device may still answer from what the library remembers; the temperature is always
    // asked of the device itself.
    match device.temperature() {
        Ok(degrees) => gpu.temperature_celsius = Some(degrees),
        Err(error) => {
            if let Err(error) = unless_lost(error) {
                gpu.problem = Some(error.to_string());
                return gpu;
            }
        }
    }
    let memory = memory(&device);
    gpu.memory_total_bytes = memory.total;
    gpu.memory_used_bytes = memory.used;
    gpu.memory_reserved_bytes = memory.reserved;
    gpu.pcie = pcie(&device);
    gpu.compute_capability = device.compute_capability().ok().and_then(|(major, minor)| {
        Some(ComputeCapability { major: major.try_into().ok()?, minor: minor.try_into().ok()? })
    });
    gpu.ecc = ecc(&device);
    gpu.row_remap = device.remapped_rows().ok().map(row_remap);
    gpu.throttle_reasons = device.throttle_reasons().map(throttle::words).unwrap_or_default();
    gpu.power = power(&device);
    gpu.mig_enabled = device.mig_mode().ok();
    gpu.persistence_mode = device.persistence_mode().ok().map(|mode| mode == 1);
    gpu.utilization_percent = device.utilization().ok().map(|rates| rates.gpu);
    gpu.clocks = clocks(&device);
    gpu.processes = processes(nvml, &device).ok();
    gpu
}

/// What changes from second to second: a few calls, so that a short interval costs the device
/// little.
pub(super) fn sample(nvml: &Nvml, index: u32) -> GpuTelemetry {
    let device = match nvml.device(index) {
        Ok(device) => device,
        Err(error) => {
            return GpuTelemetry { problem: Some(error.to_string()), ..Default::default() };
        }
    };
    let mut sample = GpuTelemetry { uuid: device.uuid().unwrap_or_default(), ..Default::default() };
    match device.temperature() {
        Ok(degrees) => sample.temperature_celsius = Some(degrees),
        Err(error) => {
            if let Err(error) = unless_lost(error) {
                sample.problem = Some(error.to_string());
                return sample;
            }
        }
    }
    sample.utilization_percent = device.utilization().ok().map(|rates| rates.gpu);
    sample.memory_used_bytes = memory(&device).used;
    sample.power_draw_mw = device.power_draw().ok().map(u64::from);
    sample.sm_clock_mhz = device.clock(Clock::Sm).ok();
    sample.memory_clock_mhz = device.clock(Clock::Memory).ok();
    sample.throttle_reasons = device.throttle_reasons().map(throttle::words).unwrap_or_default();
    sample
}

/// Passes over errors that say nothing about the whole device.
fn unless_lost(error: NvmlError) -> Result<(), NvmlError> {
    match error {
        NvmlError::GPU_IS_LOST | NvmlError::RESET_REQUIRED | NvmlError::UNKNOWN => Err(error),
        _ => Ok(()),
    }
}

/// NVML's `00000000:3B:00.0` as sysfs writes it: `0000:3b:00.0`.
fn pci_address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.strip_prefix("0000") {
        Some(short) if short.find(':') == Some(4) => short.to_owned(),
        _ => lower,
    }
}

/// A device's memory, in bytes.
#[derive(Default)]
struct Memory {
    total: Option<u64>,
    used: Option<u64>,
    reserved: Option<u64>,
}

fn memory(device: &Device<'_>) -> Memory {
    if let Ok(memory) = device.memory_v2() {
        return Memory {
            total: Some(memory.total),
            used: Some(memory.used),
            reserved: Some(memory.reserved),
        };
    }
    // Before R510: what is used includes what is reserved.
    match device.memory() {
        Ok(memory) => Memory { total: Some(memory.total), used: Some(memory.used), reserved: None },
        Err(_) => Memory::default(),
    }
}

fn pcie(device: &Device<'_>) -> PcieFacts {
    PcieFacts {
        width: device.link_width().ok(),
        width_max: device.link_width_max().ok(),
        generation: device.link_generation().ok(),
        generation_max: device.link_generation_max().ok(),
    }
}

fn ecc(device: &Device<'_>) -> EccFacts {
    let mode = device.ecc_mode().ok();
    EccFacts {
        enabled: mode.map(|(now, _)| now),
        enabled_pending: mode.map(|(_, pending)| pending),
        corrected: device.ecc_errors(false, false).ok(),
        uncorrected: device.ecc_errors(true, false).ok(),
        corrected_lifetime: device.ecc_errors(false, true).ok(),
        uncorrected_lifetime: device.ecc_errors(true, true).ok(),
    }
}

fn row_remap([correctable, uncorrectable, pending, failure]: [u32; 4]) -> RowRemapFacts {
    RowRemapFacts { correctable, uncorrectable, pending: pending != 0, failure: failure != 0 }
}

fn power(device: &Device<'_>) -> PowerFacts {
    PowerFacts {
        limit_mw: device.power_limit().ok().map(u64::from),
        limit_default_mw: device.power_limit_default().ok().map(u64::from),
        draw_mw: device.power_draw().ok().map(u64::from),
    }
}

fn clocks(device: &Device<'_>) -> ClockFacts {
    ClockFacts {
        sm_mhz: device.clock(Clock::Sm).ok(),
        sm_max_mhz: device.clock_max(Clock::Sm).ok(),
        memory_mhz: device.clock(Clock::Memory).ok(),
        memory_max_mhz: device.clock_max(Clock::Memory).ok(),
    }
}

/// Compute and graphics processes, each once. Drivers before R510 do not know this form of the
/// question, and say nothing.
fn processes(nvml: &Nvml, device: &Device<'_>) -> Result<Vec<GpuProcess>, NvmlError> {
    let compute = device.compute_processes(MAX_PROCESSES)?;
    let graphics = device.graphics_processes(MAX_PROCESSES).unwrap_or_default();
    let mut found: Vec<GpuProcess> = Vec::new();
    let compute = compute.into_iter().map(|process| (process, false));
    let graphics = graphics.into_iter().map(|process| (process, true));
    for (process, graphics) in compute.chain(graphics) {
        let pid = process.pid;
        if found.len() < MAX_PROCESSES && !found.iter().any(|known| known.pid == pid) {
            // All ones: not available.
            let used_memory_bytes = Some(process.used_memory).filter(|bytes| *bytes != u64::MAX);
            let name = nvml.process_name(pid).ok();
            found.push(GpuProcess { pid, name, used_memory_bytes, graphics });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::pci_address;

    #[test]
    fn addresses_read_as_in_sysfs() {
        assert_eq!(pci_address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(pci_address("0000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(pci_address("00010000:01:00.0"), "00010000:01:00.0");
        assert_eq!(pci_address("0000ABCD:01:00.0"), "abcd:01:00.0");
    }
}

//! One device.

use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use runner_protocol::facts::{
    ClockFacts, ComputeCapability, EccFacts, Gpu, GpuProcess, PcieFacts, PowerFacts, RowRemapFacts,
};
use runner_protocol::telemetry::GpuTelemetry;

use super::throttle;

/// The most processes listed for one device: the protocol carries no more.
const MAX_PROCESSES: usize = 512;

/// The longest name of a process asked for, in bytes.
const NAME_LENGTH: usize = 512;

/// Everything about the device at a place in NVML's order.
pub(super) fn facts(nvml: &Nvml, index: u32) -> Gpu {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => {
            return Gpu { index, problem: Some(problem(&error)), ..Gpu::default() };
        }
    };
    let mut gpu = Gpu {
        uuid: device.uuid().unwrap_or_default(),
        index,
        model: device.name().unwrap_or_default(),
        vbios: device.vbios_version().ok(),
        pci_address: device.pci_info().ok().map(|pci| pci_address(&pci.bus_id)),
        ..Gpu::default()
    };
    // A lost device may still answer from what the library remembers; the temperature is always
    // asked of the device itself.
    match device.temperature(TemperatureSensor::Gpu) {
        Ok(degrees) => gpu.temperature_celsius = Some(degrees),
        Err(error) => {
            if let Err(error) = unless_lost(error) {
                gpu.problem = Some(problem(&error));
                return gpu;
            }
        }
    }
    let memory = memory(nvml, &device);
    gpu.memory_total_bytes = memory.total;
    gpu.memory_used_bytes = memory.used;
    gpu.memory_reserved_bytes = memory.reserved;
    gpu.pcie = pcie(&device);
    gpu.compute_capability = device.cuda_compute_capability().ok().and_then(|capability| {
        Some(ComputeCapability {
            major: u32::try_from(capability.major).ok()?,
            minor: u32::try_from(capability.minor).ok()?,
        })
    });
    gpu.ecc = ecc(&device);
    gpu.row_remap = row_remap(nvml, &device).ok();
    gpu.throttle_reasons = throttle_bits(nvml, &device).map(throttle::words).unwrap_or_default();
    gpu.power = power(&device);
    gpu.mig_enabled = device.mig_mode().ok().map(|mode| mode.current == 1);
    gpu.persistence_mode = device.is_in_persistent_mode().ok();
    gpu.utilization_percent = device.utilization_rates().ok().map(|rates| rates.gpu);
    gpu.clocks = clocks(&device);
    gpu.processes = processes(nvml, &device).ok();
    gpu
}

/// What changes from second to second: a few calls, so that a short interval costs the device
/// little.
pub(super) fn sample(nvml: &Nvml, index: u32) -> GpuTelemetry {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => return GpuTelemetry { problem: Some(problem(&error)), ..Default::default() },
    };
    let mut sample = GpuTelemetry { uuid: device.uuid().unwrap_or_default(), ..Default::default() };
    match device.temperature(TemperatureSensor::Gpu) {
        Ok(degrees) => sample.temperature_celsius = Some(degrees),
        Err(error) => {
            if let Err(error) = unless_lost(error) {
                sample.problem = Some(problem(&error));
                return sample;
            }
        }
    }
    sample.utilization_percent = device.utilization_rates().ok().map(|rates| rates.gpu);
    sample.memory_used_bytes = memory(nvml, &device).used;
    sample.power_draw_mw = device.power_usage().ok().map(u64::from);
    sample.sm_clock_mhz = device.clock_info(Clock::SM).ok();
    sample.memory_clock_mhz = device.clock_info(Clock::Memory).ok();
    sample.throttle_reasons = throttle_bits(nvml, &device).map(throttle::words).unwrap_or_default();
    sample
}

/// Passes over errors that say nothing about the whole device.
fn unless_lost(error: NvmlError) -> Result<(), NvmlError> {
    match error {
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::Unknown => Err(error),
        _ => Ok(()),
    }
}

fn problem(error: &NvmlError) -> String {
    match error {
        NvmlError::GpuLost => "GPU is lost: it has fallen off the bus".to_owned(),
        NvmlError::ResetRequired => "GPU requires a reset".to_owned(),
        error => error.to_string(),
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

fn memory(nvml: &Nvml, device: &Device<'_>) -> Memory {
    if let Ok(memory) = device.memory_info() {
        return Memory {
            total: Some(memory.total),
            used: Some(memory.used),
            reserved: Some(memory.reserved),
        };
    }
    match memory_before_r510(nvml, device) {
        Ok((total, used)) => Memory { total: Some(total), used: Some(used), reserved: None },
        Err(_) => Memory::default(),
    }
}

/// Total and used memory from drivers that know only the first form of the question. Their `used`
/// includes what is reserved.
fn memory_before_r510(nvml: &Nvml, device: &Device<'_>) -> Result<(u64, u64), NvmlError> {
    let ask = nvml_sym(nvml.lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    // SAFETY: the structure holds plain numbers, so zeros are a valid value of it; the handle is of
    // a live library; the call fills the structure.
    unsafe {
        let mut info = std::mem::zeroed();
        nvml_try(ask(device.handle(), &raw mut info))?;
        Ok((info.total, info.used))
    }
}

fn pcie(device: &Device<'_>) -> PcieFacts {
    PcieFacts {
        width: device.current_pcie_link_width().ok(),
        width_max: device.max_pcie_link_width().ok(),
        generation: device.current_pcie_link_gen().ok(),
        generation_max: device.max_pcie_link_gen().ok(),
    }
}

fn ecc(device: &Device<'_>) -> EccFacts {
    let state = device.is_ecc_enabled().ok();
    let errors = |error, counter| device.total_ecc_errors(error, counter).ok();
    EccFacts {
        enabled: state.as_ref().map(|state| state.currently_enabled),
        enabled_pending: state.as_ref().map(|state| state.pending_enabled),
        corrected: errors(MemoryError::Corrected, EccCounter::Volatile),
        uncorrected: errors(MemoryError::Uncorrected, EccCounter::Volatile),
        corrected_lifetime: errors(MemoryError::Corrected, EccCounter::Aggregate),
        uncorrected_lifetime: errors(MemoryError::Uncorrected, EccCounter::Aggregate),
    }
}

/// Row remapping, which the wrapper does not wrap.
fn row_remap(nvml: &Nvml, device: &Device<'_>) -> Result<RowRemapFacts, NvmlError> {
    let ask = nvml_sym(nvml.lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut correctable, mut uncorrectable, mut pending, mut failure) = (0, 0, 0, 0);
    // SAFETY: the handle is of a live library, and the four numbers outlive the call.
    unsafe {
        nvml_try(ask(
            device.handle(),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failure,
        ))?;
    }
    Ok(RowRemapFacts { correctable, uncorrectable, pending: pending != 0, failure: failure != 0 })
}

/// The bits of the throttle reasons, of which the wrapper drops some.
fn throttle_bits(nvml: &Nvml, device: &Device<'_>) -> Result<u64, NvmlError> {
    let ask = nvml_sym(nvml.lib().nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())?;
    let mut bits = 0;
    // SAFETY: the handle is of a live library, and the number outlives the call.
    unsafe { nvml_try(ask(device.handle(), &raw mut bits))? };
    Ok(bits)
}

fn power(device: &Device<'_>) -> PowerFacts {
    PowerFacts {
        limit_mw: device.enforced_power_limit().ok().map(u64::from),
        limit_default_mw: device.power_management_limit_default().ok().map(u64::from),
        draw_mw: device.power_usage().ok().map(u64::from),
    }
}

fn clocks(device: &Device<'_>) -> ClockFacts {
    ClockFacts {
        sm_mhz: device.clock_info(Clock::SM).ok(),
        sm_max_mhz: device.max_clock_info(Clock::SM).ok(),
        memory_mhz: device.clock_info(Clock::Memory).ok(),
        memory_max_mhz: device.max_clock_info(Clock::Memory).ok(),
    }
}

/// Compute and graphics processes, each once. Drivers before R510 do not know this form of the
/// question, and say nothing.
fn processes(nvml: &Nvml, device: &Device<'_>) -> Result<Vec<GpuProcess>, NvmlError> {
    let compute = device.running_compute_processes()?;
    let graphics = device.running_graphics_processes().unwrap_or_default();
    let mut found: Vec<GpuProcess> = Vec::new();
    for ProcessInfo { pid, used_gpu_memory, .. } in compute.into_iter().chain(graphics) {
        if found.len() < MAX_PROCESSES && !found.iter().any(|known| known.pid == pid) {
            let used_memory_bytes = match used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let name = nvml.sys_process_name(pid, NAME_LENGTH).ok();
            found.push(GpuProcess { pid, name, used_memory_bytes });
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

//! What is wrong with a host, by its facts. Pure: the same facts give the same findings.

use std::cmp::Reverse;

use runner_protocol::{Finding, HealthReport, HostFacts, Severity};

mod driver;
mod gpu;
mod host;

/// The most findings of a report; the protocol carries 2048.
const MAX_FINDINGS: usize = 1024;

/// Judges facts; the most severe findings come first.
pub(crate) fn report(facts: &HostFacts) -> HealthReport {
    let mut findings = host::findings(facts);
    findings.extend(driver::findings(facts));
    findings.extend(facts.gpus.devices.iter().flat_map(gpu::findings));
    findings.sort_by_key(|finding| Reverse(finding.severity));
    findings.truncate(MAX_FINDINGS);
    HealthReport { at_unix_ms: facts.clock_unix_ms, findings }
}

/// A finding about `subject`.
fn finding(
    severity: Severity,
    code: &str,
    subject: &str,
    message: &str,
    seen: impl ToString,
    expected: impl ToString,
) -> Finding {
    Finding {
        code: code.to_owned(),
        severity,
        subject: subject.to_owned(),
        message: message.to_owned(),
        seen: seen.to_string(),
        expected: expected.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use runner_protocol::facts::{
        ClockFacts, ContainerRuntime, CpuFacts, DiskFacts, DriverState, EccFacts, Gpu, GpuFacts,
        LoadFacts, MemoryFacts, PciGpu, PcieFacts, PowerFacts, RowRemapFacts,
    };

    use super::*;

    /// A host with nothing wrong.
    fn healthy() -> HostFacts {
        HostFacts {
            clock_unix_ms: 1_760_000_000_000,
            clock_synchronized: Some(true),
            cpu: CpuFacts { threads: 8, usable_threads: 8, ..CpuFacts::default() },
            load: LoadFacts { one_milli: 8_000, five_milli: 8_000, fifteen_milli: 8_000 },
            memory: MemoryFacts {
                total_bytes: 64 << 30,
                available_bytes: 32 << 30,
                ..MemoryFacts::default()
            },
            disks: vec![DiskFacts {
                mount: "/".into(),
                device: "/dev/sda1".into(),
                fs: "ext4".into(),
                total_bytes: 100 << 30,
                free_bytes: 50 << 30,
                inodes_total: Some(1000),
                inodes_free: Some(900),
                read_only: false,
            }],
            container_runtimes: vec![ContainerRuntime {
                name: "docker".into(),
                answers: true,
                nvidia_runtime: Some(true),
                ..ContainerRuntime::default()
            }],
            pci_gpus: vec![PciGpu { address: "0000:3b:00.0".into(), ..PciGpu::default() }],
            gpus: GpuFacts {
                driver: DriverState::Present {
                    driver_version: "550.54.15".into(),
                    cuda_version: Some("12.4".into()),
                    nvml_version: None,
                },
                devices: vec![gpu()],
            },
            ..HostFacts::default()
        }
    }

    fn gpu() -> Gpu {
        Gpu {
            uuid: "GPU-1".into(),
            model: "NVIDIA H100 80GB HBM3".into(),
            pcie: PcieFacts {
                width: Some(16),
                width_max: Some(16),
                generation: Some(5),
                generation_max: Some(5),
            },
            ecc: EccFacts {
                enabled: Some(true),
                enabled_pending: Some(true),
                corrected: Some(3),
                uncorrected: Some(0),
                corrected_lifetime: Some(3),
                uncorrected_lifetime: Some(0),
            },
            row_remap: Some(RowRemapFacts::default()),
            power: PowerFacts {
                limit_mw: Some(700_000),
                limit_default_mw: Some(700_000),
                draw_mw: Some(100_000),
            },
            mig_enabled: Some(false),
            persistence_mode: Some(true),
            temperature_celsius: Some(40),
            clocks: ClockFacts::default(),
            ..Gpu::default()
        }
    }

    fn codes(facts: &HostFacts) -> Vec<(String, Severity)> {
        report(facts).findings.into_iter().map(|found| (found.code, found.severity)).collect()
    }

    #[test]
    fn a_healthy_host_has_no_findings() {
        assert_eq!(
            report(&healthy()),
            HealthReport { at_unix_ms: 1_760_000_000_000, findings: vec![] }
        );
    }

    /// Each way to be ill has one finding, by code and severity.
    #[test]
    fn each_fault_is_found_once() {
        use Severity::{Critical, Info, Warning};
        type Fault = (&'static str, Severity, fn(&mut HostFacts));
        let faults: &[Fault] = &[
            ("disk_space_low", Warning, |it| it.disks[0].free_bytes = 5 << 30),
            ("disk_space_low", Critical, |it| it.disks[0].free_bytes = 1 << 30),
            ("disk_inodes_low", Warning, |it| it.disks[0].inodes_free = Some(40)),
            ("disk_inodes_low", Critical, |it| it.disks[0].inodes_free = Some(4)),
            ("disk_read_only", Critical, |it| it.disks[0].read_only = true),
            ("memory_low", Warning, |it| it.memory.available_bytes = 2 << 30),
            ("load_high", Warning, |it| it.load.five_milli = 16_001),
            ("clock_unsynchronized", Warning, |it| it.clock_synchronized = Some(false)),
            ("clock_implausible", Critical, |it| it.clock_unix_ms = 86_400_000),
            ("container_runtime_silent", Warning, |it| it.container_runtimes[0].answers = false),
            ("container_runtime_missing", Warning, |it| it.container_runtimes.clear()),
            ("container_runtime_without_nvidia", Warning, |it| {
                it.container_runtimes[0].nvidia_runtime = Some(false);
            }),
            ("fact_unreadable", Info, |it| it.problems.push(Default::default())),
            ("driver_missing", Critical, |it| it.gpus = GpuFacts::default()),
            ("driver_library_mismatch", Critical, |it| {
                it.gpus = crate::probe::broken("library_mismatch", "x");
            }),
            ("driver_stalled", Critical, |it| it.gpus = crate::probe::broken("stalled", "x")),
            ("driver_crashed", Critical, |it| it.gpus = crate::probe::broken("crashed", "x")),
            ("driver_failed", Critical, |it| it.gpus = crate::probe::broken("nvml", "x")),
            ("sources_disagree", Warning, |it| it.disagreements.push(Default::default())),
            ("gpu_silent", Critical, |it| it.gpus.devices[0].problem = Some("GPU is lost".into())),
            ("gpu_ecc_uncorrected", Critical, |it| it.gpus.devices[0].ecc.uncorrected = Some(1)),
            ("gpu_ecc_uncorrected_before", Info, |it| {
                it.gpus.devices[0].ecc.uncorrected_lifetime = Some(1);
            }),
            ("gpu_ecc_off", Warning, |it| it.gpus.devices[0].ecc.enabled = Some(false)),
            ("gpu_row_remap_pending", Warning, |it| {
                it.gpus.devices[0].row_remap =
                    Some(RowRemapFacts { pending: true, ..Default::default() });
            }),
            ("gpu_row_remap_failed", Critical, |it| {
                it.gpus.devices[0].row_remap =
                    Some(RowRemapFacts { failure: true, ..Default::default() });
            }),
            ("gpu_pcie_width_low", Warning, |it| it.gpus.devices[0].pcie.width = Some(8)),
            ("gpu_pcie_generation_low", Warning, |it| {
                it.gpus.devices[0].pcie.generation = Some(3);
                it.gpus.devices[0].utilization_percent = Some(95);
            }),
            ("gpu_throttled", Warning, |it| {
                it.gpus.devices[0].throttle_reasons = vec!["hw_thermal_slowdown".into()];
            }),
            ("gpu_power_limit_low", Warning, |it| {
                it.gpus.devices[0].power.limit_mw = Some(500_000);
            }),
            ("gpu_persistence_off", Info, |it| it.gpus.devices[0].persistence_mode = Some(false)),
            ("gpu_hot", Warning, |it| it.gpus.devices[0].temperature_celsius = Some(90)),
            ("gpu_mig_on", Info, |it| it.gpus.devices[0].mig_enabled = Some(true)),
        ];
        for (code, severity, break_it) in faults {
            let mut facts = healthy();
            break_it(&mut facts);
            assert_eq!(codes(&facts), [((*code).to_owned(), *severity)], "{code}");
        }
    }

    #[test]
    fn what_is_normal_is_no_finding() {
        let normal: &[fn(&mut HostFacts)] = &[
            // A host without GPUs, its driver and the runtime for them.
            |it| {
                it.gpus = GpuFacts::default();
                it.pci_gpus.clear();
                it.container_runtimes[0].nvidia_runtime = Some(false);
            },
            // An idle device saves power.
            |it| {
                it.gpus.devices[0].pcie.generation = Some(1);
                it.gpus.devices[0].utilization_percent = Some(0);
                it.gpus.devices[0].throttle_reasons = vec!["gpu_idle".into()];
            },
            // A device at its own power limit works as it should.
            |it| it.gpus.devices[0].throttle_reasons = vec!["sw_power_cap".into()],
            // A full boot partition of a few hundred megabytes is still writable as far as needed.
            |it| {
                it.disks[0].mount = "/boot/efi".into();
                it.disks[0].fs = "vfat".into();
                it.disks[0].read_only = true;
            },
            // A consumer's device reports little.
            |it| {
                it.gpus.devices[0] = Gpu { uuid: "GPU-1".into(), ..Gpu::default() };
            },
        ];
        for (index, change) in normal.iter().enumerate() {
            let mut facts = healthy();
            change(&mut facts);
            assert_eq!(codes(&facts), [], "case {index}");
        }
    }

    #[test]
    fn the_most_severe_finding_comes_first() {
        let mut facts = healthy();
        facts.gpus.devices[0].persistence_mode = Some(false);
        facts.load.five_milli = 100_000;
        facts.gpus.devices[0].ecc.uncorrected = Some(2);
        let report = report(&facts);
        assert_eq!(report.worst(), Some(Severity::Critical));
        let severities: Vec<_> = report.findings.iter().map(|found| found.severity).collect();
        assert_eq!(severities, [Severity::Critical, Severity::Warning, Severity::Info]);
        assert_eq!(report.findings[0].subject, "GPU-1");
        assert_eq!(
            (report.findings[0].seen.as_str(), report.findings[0].expected.as_str()),
            ("2", "0")
        );
    }
}

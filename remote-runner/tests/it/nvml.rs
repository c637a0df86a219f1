//! The NVML path, with the real binary and a fake library.

use std::fs;

use runner_protocol::facts::{
    ComputeCapability, DriverState, Gpu, GpuProcess, HostFacts, PowerFacts, RowRemapFacts,
};
use runner_protocol::{FactsQuery, FromRunner, HealthReport, Outcome, Reply, Severity, Unit};

use crate::harness::{Fifo, Runner, all_gone, with_nvml};

fn facts(mode: &str, arguments: &[&str]) -> HostFacts {
    let mut runner = Runner::start(&mut with_nvml(mode, arguments));
    let facts = runner.facts();
    runner.end();
    facts
}

fn health(mode: &str, arguments: &[&str]) -> HealthReport {
    let mut runner = Runner::start(&mut with_nvml(mode, arguments));
    runner.request(1, Unit::Health {});
    let (replies, outcome) = runner.answer(1);
    assert_eq!(outcome, Outcome::Ok {});
    runner.end();
    match replies.as_slice() {
        [Reply::Health(report)] => report.clone(),
        other => panic!("{other:?}"),
    }
}

/// What the kernel shows of the fake library's two devices.
fn kernel_tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n";
    write("proc/driver/nvidia/version", version);
    for (address, model, uuid) in [
        ("0000:3b:00.0", "NVIDIA H100 80GB HBM3", "GPU-11111111-0000-0000-0000-000000000001"),
        ("0000:5e:00.0", "NVIDIA GeForce GT 1030", "GPU-22222222-0000-0000-0000-000000000002"),
    ] {
        let text =
            format!("Model: \t\t {model}\nGPU UUID: \t {uuid}\nBus Location: \t {address}\n");
        write(&format!("proc/driver/nvidia/gpus/{address}/information"), &text);
        write(&format!("sys/bus/pci/devices/{address}/vendor"), "0x10de\n");
        write(&format!("sys/bus/pci/devices/{address}/class"), "0x030200\n");
    }
    folder
}

#[test]
fn a_device_that_reports_everything() {
    let root = kernel_tree();
    let facts = facts("honest", &["--root", root.path().to_str().unwrap()]);
    assert_eq!(
        facts.gpus.driver,
        DriverState::Present {
            driver_version: "550.54.15".into(),
            cuda_version: Some("12.4".into()),
            nvml_version: Some("12.550.54.15".into()),
        }
    );
    let gpu = &facts.gpus.devices[0];
    assert_eq!(gpu.uuid, "GPU-11111111-0000-0000-0000-000000000001");
    assert_eq!(gpu.model, "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.vbios.as_deref(), Some("96.00.74.00.01"));
    assert_eq!(gpu.pci_address.as_deref(), Some("0000:3b:00.0"));
    assert_eq!((gpu.pcie.width, gpu.pcie.width_max), (Some(8), Some(16)));
    assert_eq!((gpu.pcie.generation, gpu.pcie.generation_max), (Some(1), Some(5)));
    assert_eq!(gpu.memory_total_bytes, Some(85_520_809_984));
    assert_eq!(gpu.memory_used_bytes, Some(1_048_576));
    assert_eq!(gpu.memory_reserved_bytes, Some(551_550_976));
    assert_eq!(gpu.compute_capability, Some(ComputeCapability { major: 9, minor: 0 }));
    assert_eq!((gpu.ecc.enabled, gpu.ecc.enabled_pending), (Some(true), Some(true)));
    assert_eq!((gpu.ecc.corrected, gpu.ecc.corrected_lifetime), (Some(2), Some(9)));
    assert_eq!((gpu.ecc.uncorrected, gpu.ecc.uncorrected_lifetime), (Some(0), Some(1)));
    let rows = RowRemapFacts { correctable: 0, uncorrectable: 1, pending: true, failure: false };
    assert_eq!(gpu.row_remap, Some(rows));
    assert_eq!(gpu.throttle_reasons, ["sw_power_cap", "hw_power_brake_slowdown"]);
    let power = PowerFacts {
        limit_mw: Some(500_000),
        limit_default_mw: Some(700_000),
        draw_mw: Some(70_123),
    };
    assert_eq!(gpu.power, power);
    assert_eq!((gpu.mig_enabled, gpu.persistence_mode), (Some(false), Some(true)));
    assert_eq!((gpu.temperature_celsius, gpu.utilization_percent), (Some(34), Some(0)));
    assert_eq!((gpu.clocks.sm_mhz, gpu.clocks.sm_max_mhz), (Some(345), Some(1980)));
    assert_eq!((gpu.clocks.memory_mhz, gpu.clocks.memory_max_mhz), (Some(2619), Some(2619)));
    let python = GpuProcess {
        pid: 4321,
        name: Some("/usr/bin/python3".into()),
        used_memory_bytes: Some(1_048_576),
        graphics: false,
    };
    let hidden = GpuProcess { pid: 4322, name: None, used_memory_bytes: None, graphics: false };
    assert_eq!(gpu.processes, Some(vec![python, hidden]));
    assert_eq!(facts.disagreements, []);
}

#[test]
fn what_a_device_does_not_report_is_none_and_not_zero() {
    let facts = facts("honest", &[]);
    let gpu = &facts.gpus.devices[1];
    let expected = Gpu {
        uuid: "GPU-22222222-0000-0000-0000-000000000002".into(),
        index: 1,
        model: "NVIDIA GeForce GT 1030".into(),
        pci_address: Some("0000:5e:00.0".into()),
        pcie: gpu.pcie,
        memory_total_bytes: Some(2_147_483_648),
        memory_used_bytes: Some(1_048_576),
        memory_reserved_bytes: Some(551_550_976),
        compute_capability: Some(ComputeCapability { major: 6, minor: 1 }),
        throttle_reasons: vec!["gpu_idle".into()],
        persistence_mode: Some(false),
        temperature_celsius: Some(51),
        ..Gpu::default()
    };
    assert_eq!(*gpu, expected);
}

#[test]
fn a_driver_before_r510_has_no_reserved_memory() {
    let facts = facts("old", &[]);
    assert_eq!(facts.gpus.devices[0].memory_total_bytes, Some(85_520_809_984));
    assert_eq!(facts.gpus.devices[0].memory_reserved_bytes, None);
}

#[test]
fn a_library_without_anything_behind_it_is_contradicted() {
    let empty = tempfile::tempdir().unwrap();
    let facts = facts("honest", &["--root", empty.path().to_str().unwrap()]);
    let codes: Vec<_> = facts.disagreements.iter().map(|found| found.code.as_str()).collect();
    assert!(codes.contains(&"driver_version"), "{codes:?}");
    assert!(codes.contains(&"gpu_only_in_nvml"), "{codes:?}");
}

#[test]
fn the_findings_of_the_fake_devices() {
    let root = kernel_tree();
    let report = health("honest", &["--root", root.path().to_str().unwrap()]);
    let of_gpus = report.findings.iter().filter(|found| found.code.starts_with("gpu_"));
    let mut seen: Vec<_> = of_gpus
        .map(|found| (found.code.as_str(), found.subject.split('-').nth(1).unwrap()))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("gpu_ecc_uncorrected_before", "11111111"),
            ("gpu_pcie_width_low", "11111111"),
            ("gpu_persistence_off", "22222222"),
            ("gpu_power_limit_low", "11111111"),
            ("gpu_row_remap_pending", "11111111"),
            ("gpu_throttled", "11111111"),
        ]
    );
}

#[test]
fn a_library_of_another_version_than_the_kernel_module() {
    let facts = facts("mismatch", &[]);
    let DriverState::Failed { code, message } = &facts.gpus.driver else {
        panic!("{:?}", facts.gpus.driver);
    };
    assert_eq!(code, "library_mismatch");
    assert!(message.contains("version mismatch"), "{message}");
    let report = health("mismatch", &[]);
    let found = report.findings.iter().find(|found| found.code == "driver_library_mismatch");
    assert_eq!(found.unwrap().severity, Severity::Critical);
}

#[test]
fn an_unloaded_kernel_module_is_no_driver() {
    let DriverState::NoDriver { message } = facts("no_module", &[]).gpus.driver else {
        panic!("a driver");
    };
    assert!(message.starts_with("No NVIDIA driver found: "), "{message}");
}

#[test]
fn a_lost_device_does_not_hide_the_others() {
    let facts = facts("lost", &[]);
    assert_eq!(facts.gpus.devices[0].problem, None);
    let lost = &facts.gpus.devices[1];
    assert_eq!(lost.problem.as_deref(), Some("GPU is lost: it has fallen off the bus"));
    assert_eq!(lost.uuid, "GPU-22222222-0000-0000-0000-000000000002");
    assert_eq!(lost.memory_total_bytes, None);
    let report = health("lost", &[]);
    let found = report.findings.iter().find(|found| found.code == "gpu_silent").unwrap();
    assert_eq!((found.severity, found.subject.as_str()), (Severity::Critical, lost.uuid.as_str()));
}

#[test]
fn a_crash_in_the_library_is_a_fact_and_not_the_end() {
    let mut runner = Runner::start(&mut with_nvml("crash", &[]));
    let DriverState::Failed { code, message } = runner.facts().gpus.driver else {
        panic!("a driver");
    };
    assert_eq!(code, "crashed");
    assert!(message.contains("signal: 6"), "{message}");
    // The session lives, and the host's other facts are there.
    assert!(!runner.facts().hostname.is_empty());
    runner.end();
}

#[test]
fn a_call_that_hangs_is_a_fact_and_its_process_is_ended() {
    let fifo = Fifo::new();
    let mut command = with_nvml("hang", &["--probe-deadline-ms", "300"]);
    let mut runner = Runner::start(command.env("FAKE_NVML_FIFO", &fifo.path));
    runner.request(1, Unit::Facts(FactsQuery::default()));
    let held = fifo.hanging();
    let (replies, outcome) = runner.answer(1);
    assert_eq!(outcome, Outcome::Ok {});
    let [Reply::Facts(facts)] = replies.as_slice() else { panic!("{replies:?}") };
    assert!(
        matches!(&facts.gpus.driver, DriverState::Failed { code, message }
            if code == "stalled" && message == "NVML did not answer within 300 ms"),
        "{:?}",
        facts.gpus.driver
    );
    assert!(!facts.hostname.is_empty());
    runner.end();
    all_gone(held);
}

#[test]
fn a_watch_whose_library_starts_to_hang_fails() {
    let fifo = Fifo::new();
    let mut command = with_nvml("hang_late", &["--probe-deadline-ms", "300"]);
    let mut runner = Runner::start(command.env("FAKE_NVML_FIFO", &fifo.path));
    runner.request(1, Unit::Watch { interval_ms: 10 });
    assert!(matches!(runner.next(), Some(FromRunner::Reply { reply: Reply::Telemetry(_), .. })));
    let held = fifo.hanging();
    let (replies, outcome) = runner.answer(1);
    assert_eq!(replies, []);
    assert!(
        matches!(&outcome, Outcome::Failed { code, .. } if code == "probe_stalled"),
        "{outcome:?}"
    );
    runner.end();
    all_gone(held);
}

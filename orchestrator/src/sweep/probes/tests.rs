//! Each probe with a fact that is bad, and what is normal with none.

use runner_protocol::facts::{
    ContainerRuntime, CpuFacts, DiskFacts, DriverState, EccFacts, Gpu, GpuFacts, GrantLine,
    LoadFacts, MemoryFacts, OwnContainer, PciGpu, PcieFacts, PowerFacts, RowRemapFacts, XidError,
};
use runner_protocol::{FrameDecoder, FromRunner, HostFacts, Reply, decode};

use super::super::memory::EccMark;
use super::containers::{HeldLease, Leases};
use super::grants::{Grants, KnownGrant};
use super::*;
use crate::sweep::{Code, Severity};

const NOW: i64 = 1_760_000_000_000;

/// A host with nothing wrong.
pub(in crate::sweep) fn healthy() -> HostFacts {
    HostFacts {
        boot_id: Some("boot-1".into()),
        clock_unix_ms: NOW as u64,
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
            devices: vec![gpu("GPU-1", "0000:3b:00.0"), gpu("GPU-2", "0000:5e:00.0")],
        },
        xid_errors: Some(Vec::new()),
        ..HostFacts::default()
    }
}

fn gpu(uuid: &str, address: &str) -> Gpu {
    Gpu {
        uuid: uuid.into(),
        model: "NVIDIA H100 80GB HBM3".into(),
        pci_address: Some(address.into()),
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
            corrected_lifetime: Some(30),
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
        ..Gpu::default()
    }
}

fn observe(facts: HostFacts) -> Observation {
    Observation::Probed(Box::new(Probed { facts, asked_ms: NOW, answered_ms: NOW }))
}

/// The memory after sweeps that found the host well.
fn memory() -> HostMemory {
    let mark = |uuid: &str| EccMark { uuid: uuid.into(), at_ms: NOW - 43_200_000, corrected: 30 };
    HostMemory {
        boot_id: Some("boot-1".into()),
        ecc: vec![mark("GPU-1"), mark("GPU-2")],
        ..HostMemory::default()
    }
}

fn proof(nanos: u64) -> ProofTime {
    ProofTime { at_ms: NOW, gpu: "GPU-1".into(), kind: 1, nanos }
}

fn findings(facts: HostFacts, config: &SweepConfig) -> Vec<Finding> {
    let passport = Passport::of(&healthy());
    let memory = memory();
    let history = History {
        passport: passport.as_ref(),
        memory: &memory,
        proofs: &[],
        last_proof_ms: Some(NOW - 3_600_000),
    };
    judge(&observe(facts), &history, NOW, config)
}

fn codes(found: &[Finding]) -> Vec<(Code, Severity)> {
    found.iter().map(|finding| (finding.code, finding.severity)).collect()
}

fn broken(code: &str) -> GpuFacts {
    let driver = DriverState::Failed { code: code.into(), message: "why".into() };
    GpuFacts { driver, devices: Vec::new() }
}

fn xid(number: u32) -> Option<Vec<XidError>> {
    Some(vec![XidError {
        pci_address: "0000:3b:00.0".into(),
        xid: number,
        count: 2,
        last_secs_ago: 7200,
        message: "GPU has fallen off the bus.".into(),
    }])
}

#[test]
fn a_healthy_host_has_no_findings() {
    assert_eq!(findings(healthy(), &SweepConfig::default()), []);
}

/// Each way to be ill has one finding, by code and severity.
#[test]
fn each_fault_is_found_once() {
    use Severity::{Critical, Info, Warning};
    type Fault = (Code, Severity, fn(&mut HostFacts));
    let faults: &[Fault] = &[
        (Code::Rebooted, Info, |it| it.boot_id = Some("boot-2".into())),
        (Code::ClockSkew, Warning, |it| it.clock_unix_ms += 5_001),
        (Code::ClockSkew, Warning, |it| it.clock_unix_ms -= 5_001),
        (Code::ClockSkew, Warning, |it| it.clock_unix_ms = 0),
        (Code::ClockUnsynchronized, Warning, |it| it.clock_synchronized = Some(false)),
        (Code::DiskSpaceLow, Warning, |it| it.disks[0].free_bytes = 5 << 30),
        (Code::DiskSpaceLow, Critical, |it| it.disks[0].free_bytes = 1 << 30),
        (Code::DiskInodesLow, Warning, |it| it.disks[0].inodes_free = Some(40)),
        (Code::DiskInodesLow, Critical, |it| it.disks[0].inodes_free = Some(4)),
        (Code::DiskReadOnly, Critical, |it| it.disks[0].read_only = true),
        (Code::MemoryLow, Warning, |it| it.memory.available_bytes = 2 << 30),
        (Code::LoadHigh, Warning, |it| it.load.five_milli = 16_001),
        (Code::FactUnreadable, Info, |it| it.problems.push(Default::default())),
        (Code::ContainerRuntimeMissing, Warning, |it| it.container_runtimes.clear()),
        (Code::ContainerRuntimeSilent, Warning, |it| it.container_runtimes[0].answers = false),
        (Code::ContainerRuntimeWithoutNvidia, Warning, |it| {
            it.container_runtimes[0].nvidia_runtime = Some(false);
        }),
        (Code::DriverMissing, Critical, |it| it.gpus = GpuFacts::default()),
        (Code::DriverLibraryMismatch, Critical, |it| it.gpus = broken("library_mismatch")),
        (Code::DriverStalled, Critical, |it| it.gpus = broken("stalled")),
        (Code::DriverCrashed, Critical, |it| it.gpus = broken("crashed")),
        (Code::DriverFailed, Critical, |it| it.gpus = broken("nvml")),
        (Code::SourcesDisagree, Warning, |it| it.disagreements.push(Default::default())),
        (Code::GpuMissing, Critical, |it| drop(it.gpus.devices.pop())),
        (Code::GpuNew, Warning, |it| it.gpus.devices.push(gpu("GPU-3", "0000:af:00.0"))),
        (Code::GpuSwapped, Critical, |it| it.gpus.devices[1].uuid = "GPU-9".into()),
        (Code::GpuSilent, Critical, |it| it.gpus.devices[0].problem = Some("lost".into())),
        // A device that is gone as far as its name is one finding, not two.
        (Code::GpuSilent, Critical, |it| {
            it.gpus.devices[1] = Gpu { problem: Some("lost".into()), ..Gpu::default() };
        }),
        (Code::GpuXid, Critical, |it| it.xid_errors = xid(79)),
        (Code::GpuXid, Warning, |it| it.xid_errors = xid(63)),
        (Code::GpuXid, Info, |it| it.xid_errors = xid(31)),
        (Code::GpuEccUncorrected, Critical, |it| it.gpus.devices[0].ecc.uncorrected = Some(1)),
        (Code::GpuEccSlope, Warning, |it| {
            it.gpus.devices[0].ecc.corrected_lifetime = Some(1_031);
        }),
        (Code::GpuEccOff, Warning, |it| it.gpus.devices[0].ecc.enabled = Some(false)),
        (Code::GpuRowRemapPending, Warning, |it| {
            it.gpus.devices[0].row_remap =
                Some(RowRemapFacts { pending: true, ..Default::default() });
        }),
        (Code::GpuRowRemapFailed, Critical, |it| {
            it.gpus.devices[0].row_remap =
                Some(RowRemapFacts { failure: true, ..Default::default() });
        }),
        (Code::GpuPcieWidthLow, Warning, |it| it.gpus.devices[0].pcie.width = Some(8)),
        (Code::GpuPcieGenerationLow, Warning, |it| {
            it.gpus.devices[0].pcie.generation = Some(3);
            it.gpus.devices[0].utilization_percent = Some(95);
        }),
        (Code::GpuThrottled, Warning, |it| {
            it.gpus.devices[0].throttle_reasons = vec!["hw_thermal_slowdown".into()];
        }),
        (Code::GpuPowerLimitLow, Warning, |it| {
            it.gpus.devices[0].power.limit_mw = Some(500_000);
        }),
        (Code::GpuHot, Warning, |it| it.gpus.devices[0].temperature_celsius = Some(88)),
        (Code::GpuPersistenceOff, Info, |it| it.gpus.devices[0].persistence_mode = Some(false)),
        (Code::GpuMigOn, Info, |it| it.gpus.devices[0].mig_enabled = Some(true)),
    ];
    for (code, severity, break_it) in faults {
        let mut facts = healthy();
        break_it(&mut facts);
        let found = findings(facts.clone(), &SweepConfig::default());
        assert_eq!(codes(&found), [(*code, *severity)], "{code}");
        let ignore = vec![code.name().to_owned()];
        assert_eq!(findings(facts, &SweepConfig { ignore, ..Default::default() }), []);
    }
}

#[test]
fn what_is_normal_is_no_finding() {
    let normal: &[fn(&mut HostFacts)] = &[
        // An idle device saves power.
        |it| {
            it.gpus.devices[0].pcie.generation = Some(1);
            it.gpus.devices[0].utilization_percent = Some(0);
            it.gpus.devices[0].throttle_reasons = vec!["gpu_idle".into()];
        },
        // A device at its own power limit works as it should.
        |it| it.gpus.devices[0].throttle_reasons = vec!["sw_power_cap".into()],
        // An image that is mounted read-only on purpose.
        |it| {
            it.disks[0].mount = "/boot/efi".into();
            it.disks[0].read_only = true;
        },
        // A tenth of a large array is no shortage.
        |it| {
            it.disks[0].total_bytes = 10_000 << 30;
            it.disks[0].free_bytes = 101 << 30;
        },
        // NVML numbers devices anew at each start.
        |it| it.gpus.devices.reverse(),
        // Errors of last week, and a kernel log that may not be read.
        |it| {
            it.xid_errors = xid(79);
            it.xid_errors.as_mut().unwrap()[0].last_secs_ago = 700_000;
        },
        |it| it.xid_errors = None,
        // A clock that is a little off, and a device that reports little.
        |it| it.clock_unix_ms += 4_999,
        |it| it.gpus.devices[0].ecc = EccFacts::default(),
    ];
    for (index, change) in normal.iter().enumerate() {
        let mut facts = healthy();
        change(&mut facts);
        assert_eq!(findings(facts, &SweepConfig::default()), [], "case {index}");
    }
}

/// Every threshold of the configuration moves its finding.
#[test]
fn thresholds_are_those_of_the_configuration() {
    type Case = (fn(&mut SweepConfig), Code);
    let cases: &[Case] = &[
        (|it| it.clock_skew = Duration::from_millis(100), Code::ClockSkew),
        (|it| (it.disk_free_percent, it.disk_enough_gib) = (80, 60), Code::DiskSpaceLow),
        (|it| (it.disk_free_percent, it.disk_enough_gib) = (95, 0), Code::DiskInodesLow),
        (|it| it.memory_available_percent = 60, Code::MemoryLow),
        (|it| it.gpu_hot_celsius = 50, Code::GpuHot),
        (|it| it.ecc_corrected_per_day = 10, Code::GpuEccSlope),
        (|it| it.xid_window = Duration::from_hours(240), Code::GpuXid),
        (|it| it.proof_max_age = Duration::from_secs(1), Code::ProofStale),
        (|it| it.load_per_thread = 1, Code::LoadHigh),
    ];
    let mut facts = healthy();
    facts.clock_unix_ms += 1_000;
    facts.load.five_milli = 12_000;
    facts.gpus.devices[0].temperature_celsius = Some(60);
    facts.gpus.devices[0].ecc.corrected_lifetime = Some(60);
    facts.xid_errors = xid(63);
    facts.xid_errors.as_mut().unwrap()[0].last_secs_ago = 200_000;
    assert_eq!(findings(facts.clone(), &SweepConfig::default()), []);
    for (change, code) in cases {
        let mut config = SweepConfig::default();
        change(&mut config);
        assert_eq!(codes(&findings(facts.clone(), &config)), [(*code, code.severity())]);
    }
}

/// A container of ours with a lease, as a host's facts have it.
fn own(state: &str, mode: &str) -> OwnContainer {
    OwnContainer {
        id: "c0ffee00c0ffee00".into(),
        state: state.into(),
        owner: "us".into(),
        lease: "1ea5e0001ea5e000".into(),
        mode: mode.into(),
        deadline_unix_ms: Some(NOW as u64 + 1),
        remove: false,
        keep_until_unix_ms: None,
    }
}

fn lease(container: Option<&str>, expires_ms: i64) -> HeldLease {
    HeldLease {
        id: "1ea5e0001ea5e000".into(),
        container: container.map(str::to_owned),
        expires_ms: Some(expires_ms),
        released: false,
    }
}

/// What is found of a host with these containers; the leases are the same before and after.
fn of_containers(containers: Vec<OwnContainer>, leases: &[HeldLease]) -> Vec<Finding> {
    let mut facts = healthy();
    facts.container_runtimes[0].containers = Some(containers);
    let leases = Leases { owner: "us", before: leases, after: leases };
    containers::findings(&facts.container_runtimes, &leases, NOW)
}

#[test]
fn each_container_that_should_not_run_and_each_empty_lease_is_found_once() {
    use Severity::{Info, Warning};
    let live = lease(Some("c0ffee00c0ffee00"), NOW + 1);
    let overdue = lease(Some("c0ffee00c0ffee00"), NOW);
    let over = |mode| OwnContainer { deadline_unix_ms: Some(NOW as u64), ..own("running", mode) };
    let removed = OwnContainer { remove: true, ..own("exited", "foreground") };
    let kept = OwnContainer { keep_until_unix_ms: Some(NOW as u64), ..own("exited", "detached") };
    type Case<'a> = (Code, Severity, Vec<OwnContainer>, &'a [HeldLease]);
    let cases: [Case<'_>; 12] = [
        (Code::ContainerOverdue, Warning, vec![over("detached")], std::slice::from_ref(&live)),
        (Code::ContainerOverdue, Warning, vec![over("foreground")], &[]),
        (Code::ContainerAbandoned, Warning, vec![own("running", "foreground")], &[]),
        (
            Code::ContainerAbandoned,
            Warning,
            vec![own("paused", "foreground")],
            std::slice::from_ref(&overdue),
        ),
        (Code::ContainerUnleased, Warning, vec![own("running", "detached")], &[]),
        (Code::ContainerLeftBehind, Info, vec![own("created", "detached")], &[]),
        (Code::ContainerLeftBehind, Info, vec![removed], &[]),
        (Code::ContainerLeftBehind, Info, vec![kept], &[]),
        (
            Code::LeaseOutlived,
            Warning,
            vec![own("exited", "detached")],
            std::slice::from_ref(&live),
        ),
        (Code::LeaseOutlived, Warning, vec![], std::slice::from_ref(&live)),
        (Code::LeaseOutlived, Warning, vec![], &[lease(None, NOW)]),
        // An engine with two sockets lists a container twice.
        (
            Code::ContainerUnleased,
            Warning,
            vec![own("running", "detached"), own("running", "detached")],
            &[],
        ),
    ];
    for (code, severity, containers, leases) in cases {
        let found = of_containers(containers.clone(), leases);
        assert_eq!(codes(&found), [(code, severity)], "{containers:?} {leases:?}");
        let of_lease = code == Code::LeaseOutlived;
        assert_eq!(found[0].subject, if of_lease { "1ea5e0001ea5" } else { "c0ffee00c0ff" });
    }
}

#[test]
fn containers_and_leases_that_are_as_they_should_be_are_no_finding() {
    let live = lease(Some("c0ffee00c0ffee00"), NOW + 1);
    let normal: [(Vec<OwnContainer>, &[HeldLease]); 7] = [
        (vec![own("running", "detached")], std::slice::from_ref(&live)),
        (vec![own("running", "foreground")], std::slice::from_ref(&live)),
        (vec![own("created", "foreground")], std::slice::from_ref(&live)),
        (vec![own("exited", "foreground")], std::slice::from_ref(&live)),
        (vec![own("exited", "detached")], &[]),
        // One that is about to be made.
        (vec![], &[lease(None, NOW + 1)]),
        // Another database's.
        (vec![OwnContainer { owner: "them".into(), ..own("running", "foreground") }], &[]),
    ];
    for (containers, leases) in normal {
        assert_eq!(of_containers(containers.clone(), leases), [], "{containers:?} {leases:?}");
    }
}

#[test]
fn what_others_did_while_the_host_was_looked_at_is_no_finding() {
    let live = lease(Some("c0ffee00c0ffee00"), NOW + 1);
    let released = HeldLease { released: true, ..live.clone() };
    let mut facts = healthy();
    let mut found = |containers, before: &[HeldLease], after: &[HeldLease]| {
        facts.container_runtimes[0].containers = containers;
        let leases = Leases { owner: "us", before, after };
        codes(&containers::findings(&facts.container_runtimes, &leases, NOW))
    };
    // It ended, with its lease, after the facts were read; or both began after the leases were.
    let one = std::slice::from_ref(&live);
    let running = || Some(vec![own("running", "foreground")]);
    assert_eq!(found(running(), one, std::slice::from_ref(&released)), []);
    assert_eq!(found(running(), &[], one), []);
    assert_eq!(found(Some(vec![]), one, std::slice::from_ref(&released)), []);
    assert_eq!(found(Some(vec![own("exited", "detached")]), one, &[released]), []);
    // It was made after the facts were read.
    assert_eq!(found(Some(vec![]), &[], one), []);
    assert_eq!(found(Some(vec![]), &[lease(None, NOW + 1)], one), []);
    // An engine that does not say what it has may have it.
    assert_eq!(found(None, one, one), []);
    assert_eq!(found(Some(vec![]), one, one), [(Code::LeaseOutlived, Severity::Warning)]);
}

#[test]
fn each_line_of_a_grant_that_is_over_is_found_and_no_other() {
    let lines = |ids: &[&str]| -> Vec<GrantLine> {
        let line = |id: &&str| GrantLine { file: "~/.ssh/keys".into(), grant: (*id).to_owned() };
        ids.iter().map(line).collect()
    };
    let grant =
        |id: &str, over_ms, by_time, gone| KnownGrant { id: id.into(), over_ms, by_time, gone };
    let long_ago = NOW - grants::SETTLED_MS;
    let known = [
        grant("live", NOW + 1, true, false),
        grant("just over", long_ago + 1, true, false),
        grant("expired", long_ago, true, false),
        grant("revoked", long_ago, false, false),
        grant("back", long_ago, false, true),
        grant("out meanwhile", long_ago, false, true),
    ];
    let before = [grant("out meanwhile", long_ago, false, false)];
    let all: Vec<&str> = known.iter().map(|grant| grant.id.as_str()).chain(["foreign"]).collect();
    let marks = Grants { before: &before, after: &known, looked_ms: NOW };
    let found = grants::findings(&lines(&all), &marks);
    let told: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.code, it.severity)).collect();
    assert_eq!(
        told,
        [
            ("back", Code::GrantRevoked, Severity::Critical),
            ("expired", Code::GrantExpired, Severity::Warning),
            ("foreign", Code::GrantUnknown, Severity::Warning),
            ("revoked", Code::GrantRevoked, Severity::Critical),
        ]
    );
    assert_eq!(found[1].seen, "in ~/.ssh/keys, over 60 s ago");
    // A line that is there twice is one finding, and a grant without a line none.
    assert_eq!(grants::findings(&lines(&["expired", "expired"]), &marks).len(), 1);
    assert_eq!(grants::findings(&lines(&["live"]), &marks), []);
    assert_eq!(grants::findings(&[], &marks), []);
}

#[test]
fn the_way_to_the_host_and_its_work_are_no_skew() {
    let probed = Probed { facts: healthy(), asked_ms: NOW - 9_000, answered_ms: NOW + 9_000 };
    let memory = memory();
    assert_eq!(host::findings(&probed, &memory, &SweepConfig::default()), []);
}

#[test]
fn a_proof_is_compared_with_the_median_of_its_own_kind() {
    let config = SweepConfig::default();
    let memory = memory();
    let drift = |proofs: &[ProofTime]| {
        let history = History { passport: None, memory: &memory, proofs, last_proof_ms: Some(NOW) };
        codes(&judge(&observe(healthy()), &history, NOW, &config))
    };
    let slower = [(Code::PowDrift, Severity::Warning)];
    let times = |newest: u64, rest: &[u64]| -> Vec<ProofTime> {
        std::iter::once(newest).chain(rest.iter().copied()).map(proof).collect()
    };
    assert_eq!(drift(&times(111, &[100, 100, 100, 900, 90])), slower);
    assert_eq!(drift(&times(110, &[100, 100, 100, 900, 90])), []);
    assert_eq!(drift(&times(900, &[100, 100, 100, 100])), [], "too few to tell");
    let mut other_size = times(900, &[100, 100, 100, 100, 100]);
    other_size[0].kind = 2;
    assert_eq!(drift(&other_size), []);
    // Each GPU has a history of its own.
    let mut other_gpu = times(50, &[111, 100, 100, 100, 100, 100]);
    other_gpu[0].gpu = "GPU-2".into();
    assert_eq!(drift(&other_gpu), slower);
}

#[test]
fn a_host_with_gpus_proves_them_and_one_without_does_not() {
    let memory = memory();
    let history = History { passport: None, memory: &memory, proofs: &[], last_proof_ms: None };
    let judged = |facts| codes(&judge(&observe(facts), &history, NOW, &SweepConfig::default()));
    assert_eq!(judged(healthy()), [(Code::ProofNever, Severity::Info)]);
    let mut none = healthy();
    none.gpus = GpuFacts::default();
    none.pci_gpus.clear();
    assert_eq!(judged(none), []);
}

#[test]
fn a_failed_look_is_told_by_its_stage() {
    let cases = [
        (Reason::Tcp, false, Code::Unreachable),
        (Reason::Deadline, false, Code::Unreachable),
        (Reason::CircuitOpen, false, Code::Unreachable),
        (Reason::HostKey, false, Code::HostKey),
        (Reason::Auth, false, Code::LoginRefused),
        (Reason::Deadline, true, Code::RunnerSilent),
        (Reason::RunnerMissing, true, Code::RunnerMissing),
        (Reason::NoSpace, true, Code::RunnerMissing),
        (Reason::Verify, true, Code::RunnerDamaged),
        (Reason::Runner, true, Code::RunnerFailed),
        (Reason::Channel, true, Code::RunnerFailed),
    ];
    let memory = HostMemory::default();
    let history = History { passport: None, memory: &memory, proofs: &[], last_proof_ms: None };
    for (reason, connected, code) in cases {
        let failed = Observation::Failed { reason, connected, message: "\x1b[31mwhy".into() };
        let found = judge(&failed, &history, NOW, &SweepConfig::default());
        assert_eq!(codes(&found), [(code, code.severity())], "{reason}");
        assert_eq!(found[0].seen, format!("{reason}:  [31mwhy"));
    }
}

#[test]
fn a_host_that_makes_things_up_is_told_in_bounds_and_the_worst_first() {
    let mut facts = healthy();
    let problem = |index: usize| runner_protocol::facts::Problem {
        source: format!("/made/up/{index}"),
        message: "x".repeat(100_000),
    };
    facts.problems = (0..1000).map(problem).collect();
    facts.gpus.devices[0].ecc.uncorrected = Some(1);
    let found = findings(facts, &SweepConfig::default());
    assert_eq!((found.len(), found[0].code), (MOST_FINDINGS, Code::GpuEccUncorrected));
    assert!(found.iter().all(|finding| finding.seen.len() <= 4_000));
}

/// What the runner itself sends: the recorded frames of the protocol.
#[test]
fn recorded_frames_of_the_runner_are_judged() {
    let recorded = |name: &str| {
        let path = format!(
            "{}/../remote-runner/protocol/fixtures/1/from_runner_reply_{name}.frame",
            env!("CARGO_MANIFEST_DIR")
        );
        let frame = std::fs::read(path).unwrap();
        let body = FrameDecoder::new().push(&mut frame.as_slice()).unwrap().unwrap();
        match decode::<FromRunner>(&body).unwrap() {
            FromRunner::Reply { reply: Reply::Facts(facts), .. } => *facts,
            other => panic!("{other:?}"),
        }
    };
    let memory = HostMemory::default();
    let judged = |facts: HostFacts| {
        let at = i64::try_from(facts.clock_unix_ms).unwrap();
        let passport = Passport::of(&recorded("facts"));
        let history = History {
            passport: passport.as_ref(),
            memory: &memory,
            proofs: &[],
            last_proof_ms: Some(at),
        };
        let probed = Probed { facts, asked_ms: at, answered_ms: at };
        let found =
            judge(&Observation::Probed(Box::new(probed)), &history, at, &SweepConfig::default());
        found.into_iter().map(|finding| finding.code.name()).collect::<Vec<_>>()
    };
    let good = judged(recorded("facts"));
    assert!(good.contains(&"sources_disagree") && good.contains(&"fact_unreadable"), "{good:?}");
    assert!(judged(recorded("facts_no_driver")).contains(&"driver_missing"));
    assert!(judged(recorded("facts_driver_failed")).contains(&"driver_library_mismatch"));
    assert!(judged(recorded("facts_xid_errors")).contains(&"gpu_xid"));
}

proptest::proptest! {
    /// No facts, however odd, make the judgement panic, and none of their text gets through raw.
    #[test]
    fn any_words_of_a_host_are_judged(text in "\\PC{0,20}|\x1b\\[31m.*", number: u64) {
        let mut facts = healthy();
        facts.clock_unix_ms = number;
        facts.uptime_secs = number;
        facts.boot_id = Some(text.clone());
        facts.memory.total_bytes = number;
        facts.disks[0].mount = text.clone();
        facts.disks[0].free_bytes = 0;
        facts.disks[0].total_bytes = number;
        facts.gpus.devices[0].uuid = text.clone();
        facts.gpus.devices[0].ecc.corrected_lifetime = Some(number);
        facts.load.five_milli = number;
        for finding in findings(facts, &SweepConfig::default()) {
            proptest::prop_assert!(!finding.subject.contains('\x1b'));
            proptest::prop_assert!(!finding.seen.contains('\x1b'));
        }
    }
}

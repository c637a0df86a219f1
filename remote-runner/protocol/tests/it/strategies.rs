//! Arbitrary messages.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use runner_protocol::facts::*;
use runner_protocol::message::Progress;
use runner_protocol::prove::{Device, Digest, Image, Opened, Opening, QueryCounts};
use runner_protocol::telemetry::GpuTelemetry;
use runner_protocol::*;

pub fn to_runner() -> impl Strategy<Value = ToRunner> {
    let unit = prop_oneof![
        (option::of(word()), vec(word(), 0..3))
            .prop_map(|(socket, key_files)| Unit::Facts(FactsQuery { socket, key_files })),
        Just(Unit::Health {}),
        any::<u64>().prop_map(|interval_ms| Unit::Watch { interval_ms }),
        word().prop_map(|socket| Unit::Dial { socket }),
        (word(), word(), any::<bool>(), any::<u32>(), any::<Option<u64>>()).prop_map(
            |(socket, container, remove, grace_secs, timeout_secs)| {
                Unit::Hold(Held { socket, container, remove, grace_secs, timeout_secs })
            }
        ),
        (backend(), option::of(word())).prop_map(|(backend, gpu)| Unit::Prove { backend, gpu }),
    ];
    let round = prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(|image| Round::Load { image: Image(image) }),
        any::<[u8; 32]>().prop_map(|seed| {
            let mut context = [0; 256];
            context.iter_mut().zip(seed.iter().cycle()).for_each(|(byte, seed)| *byte = *seed);
            Round::Fill { context: Box::new(ByteArray(context)) }
        }),
        any::<[u8; 32]>().prop_map(|nonce| Round::Probe { nonce: ByteArray(nonce) }),
        (any::<[u8; 32]>(), any::<u16>(), any::<u16>()).prop_map(|(nonce, probe, gemm)| {
            Round::Open { nonce: ByteArray(nonce), counts: QueryCounts { probe, gemm } }
        }),
        Just(Round::Release {}),
        vec(any::<u8>(), 0..99).prop_map(|bytes| Round::Send { bytes: StreamBytes(bytes) }),
        any::<u32>().prop_map(|bytes| Round::Grant { bytes }),
        Just(Round::End {}),
    ];
    prop_oneof![
        (id(), unit).prop_map(|(id, unit)| ToRunner::Request { id, unit }),
        (id(), round).prop_map(|(id, round)| ToRunner::Continue { id, round }),
        Just(ToRunner::Renew {}),
        id().prop_map(|id| ToRunner::Cancel { id }),
        Just(ToRunner::Shutdown {}),
    ]
}

pub fn from_runner() -> impl Strategy<Value = FromRunner> {
    let reply = prop_oneof![
        host_facts().prop_map(|facts| Reply::Facts(Box::new(facts))),
        health().prop_map(Reply::Health),
        telemetry().prop_map(Reply::Telemetry),
        (backend(), prove_event())
            .prop_map(|(backend, event)| Reply::Prove(ProveReply { backend, event })),
        vec(any::<u8>(), 0..99)
            .prop_map(|bytes| Reply::Relay(RelayEvent::Data { bytes: StreamBytes(bytes) })),
        any::<u32>().prop_map(|bytes| Reply::Relay(RelayEvent::Grant { bytes })),
        Just(Reply::Relay(RelayEvent::Connected {})),
        Just(Reply::Relay(RelayEvent::End {})),
        Just(Reply::Hold(HoldEvent::Holding {})),
        Just(Reply::Hold(HoldEvent::Expired {})),
    ];
    let outcome = prop_oneof![
        Just(Outcome::Ok {}),
        Just(Outcome::Cancelled {}),
        (word(), word()).prop_map(|(code, message)| Outcome::Failed { code, message }),
        word().prop_map(|unit| Outcome::Unsupported { unit }),
    ];
    prop_oneof![
        hello().prop_map(FromRunner::Hello),
        (id(), word(), any::<u64>(), any::<u64>())
            .prop_map(|(id, stage, done, total)| Progress { id, stage, done, total })
            .prop_map(FromRunner::Progress),
        (id(), reply).prop_map(|(id, reply)| FromRunner::Reply { id, reply }),
        (id(), outcome).prop_map(|(id, outcome)| FromRunner::Finished { id, outcome }),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    prop_oneof![Just(Backend::Cuda), Just(Backend::Reference)]
}

fn prove_event() -> impl Strategy<Value = ProveEvent> {
    let opening = (any::<u8>(), vec(any::<[u8; 32]>(), 0..20)).prop_map(|(byte, path)| Opening {
        chunk: pow_kernels::Chunk(Box::new([byte; 1024])),
        path: path.into_iter().map(Digest).collect::<Vec<_>>().into(),
    });
    prop_oneof![
        option::of(device()).prop_map(|device| ProveEvent::Prepared { device }),
        Just(ProveEvent::Loaded {}),
        Just(ProveEvent::Filled {}),
        (any::<Option<u8>>(), any::<[u8; 32]>())
            .prop_map(|(product, root)| ProveEvent::Root { product, root: Digest(root) }),
        (any::<bool>(), vec(opening, 0..3)).prop_map(|(records, openings)| ProveEvent::Openings {
            of: if records { Opened::Records } else { Opened::Products },
            openings,
        }),
    ]
}

prop_compose! {
    fn device()(
        uuid in word(), name in word(), compute_capability: [u8; 2], memory_bytes: u64,
        free_bytes: u64, multiprocessors: u32, driver_cuda_version: u32,
    ) -> Device {
        Device {
            uuid, name, compute_capability, memory_bytes, free_bytes, multiprocessors,
            driver_cuda_version,
        }
    }
}

fn id() -> impl Strategy<Value = RequestId> {
    any::<u64>().prop_map(RequestId)
}

fn word() -> impl Strategy<Value = String> {
    any::<String>()
}

prop_compose! {
    fn hello()(
        protocol_version: u32, build in word(), runner_version in word(),
        capabilities in vec(word(), 0..4), pid: u32, boot_id in word(),
    ) -> Hello {
        Hello { protocol_version, build, runner_version, capabilities, pid, boot_id }
    }
}

prop_compose! {
    fn health()(
        at_unix_ms: u64,
        findings in vec(
            (word(), 0..3_u8, word(), word(), word(), word()).prop_map(
                |(code, severity, subject, message, seen, expected)| Finding {
                    code,
                    severity: match severity {
                        0 => Severity::Info,
                        1 => Severity::Warning,
                        _ => Severity::Critical,
                    },
                    subject, message, seen, expected,
                }
            ),
            0..4,
        ),
    ) -> HealthReport {
        HealthReport { at_unix_ms, findings }
    }
}

prop_compose! {
    fn telemetry()(
        at_unix_ms: u64, load in load(), memory_available_bytes: u64,
        gpus in vec(gpu_telemetry(), 0..3),
    ) -> Telemetry {
        Telemetry { at_unix_ms, load, memory_available_bytes, gpus }
    }
}

prop_compose! {
    fn gpu_telemetry()(
        uuid in word(), utilization_percent: Option<u32>, memory_used_bytes: Option<u64>,
        temperature_celsius: Option<u32>, power_draw_mw: Option<u64>, sm_clock_mhz: Option<u32>,
        memory_clock_mhz: Option<u32>, throttle_reasons in vec(word(), 0..3),
        problem in option::of(word()),
    ) -> GpuTelemetry {
        GpuTelemetry {
            uuid, utilization_percent, memory_used_bytes, temperature_celsius, power_draw_mw,
            sm_clock_mhz, memory_clock_mhz, throttle_reasons, problem,
        }
    }
}

prop_compose! {
    fn load()(one_milli: u64, five_milli: u64, fifteen_milli: u64) -> LoadFacts {
        LoadFacts { one_milli, five_milli, fifteen_milli }
    }
}

prop_compose! {
    fn disk()(
        mount in word(), device in word(), fs in word(), total_bytes: u64, free_bytes: u64,
        inodes_total: Option<u64>, inodes_free: Option<u64>, read_only: bool,
    ) -> DiskFacts {
        DiskFacts { mount, device, fs, total_bytes, free_bytes, inodes_total, inodes_free, read_only }
    }
}

prop_compose! {
    fn container_runtime()(
        name in word(), socket in word(), answers: bool, problem in option::of(word()),
        version in option::of(word()), api_version in option::of(word()),
        nvidia_runtime: Option<bool>, containers in option::of(vec(own_container(), 0..3)),
    ) -> ContainerRuntime {
        ContainerRuntime {
            name, socket, answers, problem, version, api_version, nvidia_runtime, containers,
        }
    }
}

prop_compose! {
    fn own_container()(
        id in word(), state in word(), owner in word(), lease in word(), mode in word(),
        deadline_unix_ms: Option<u64>, remove: bool, keep_until_unix_ms: Option<u64>,
    ) -> OwnContainer {
        OwnContainer {
            id, state, owner, lease, mode, deadline_unix_ms, remove, keep_until_unix_ms,
        }
    }
}

prop_compose! {
    fn grant_line()(file in word(), grant in word()) -> GrantLine {
        GrantLine { file, grant }
    }
}

prop_compose! {
    fn pci_gpu()(
        address in word(), device_id in word(), kernel_driver in option::of(word()),
        link_width: Option<u32>, link_width_max: Option<u32>,
    ) -> PciGpu {
        PciGpu { address, device_id, kernel_driver, link_width, link_width_max }
    }
}

fn driver() -> impl Strategy<Value = DriverState> {
    prop_oneof![
        word().prop_map(|message| DriverState::NoDriver { message }),
        (word(), word()).prop_map(|(code, message)| DriverState::Failed { code, message }),
        (word(), option::of(word()), option::of(word())).prop_map(
            |(driver_version, cuda_version, nvml_version)| DriverState::Present {
                driver_version,
                cuda_version,
                nvml_version
            }
        ),
    ]
}

prop_compose! {
    fn gpu_state()(
        pcie in (any::<Option<u32>>(), any::<Option<u32>>()),
        ecc in (any::<Option<bool>>(), any::<Option<u64>>()),
        rows: Option<(u32, u32, bool, bool)>,
        power: Option<u64>,
        clock: Option<u32>,
        processes in option::of(vec(
            (any::<u32>(), option::of(word()), any::<Option<u64>>(), any::<bool>()).prop_map(
                |(pid, name, used_memory_bytes, graphics)| GpuProcess {
                    pid, name, used_memory_bytes, graphics,
                }
            ),
            0..3,
        )),
        throttle_reasons in vec(word(), 0..3),
    ) -> Gpu {
        Gpu {
            pcie: PcieFacts { width: pcie.0, generation_max: pcie.1, ..PcieFacts::default() },
            ecc: EccFacts { enabled: ecc.0, uncorrected: ecc.1, ..EccFacts::default() },
            row_remap: rows.map(|(correctable, uncorrectable, pending, failure)| RowRemapFacts {
                correctable, uncorrectable, pending, failure,
            }),
            power: PowerFacts { draw_mw: power, ..PowerFacts::default() },
            clocks: ClockFacts { sm_mhz: clock, ..ClockFacts::default() },
            processes,
            throttle_reasons,
            ..Gpu::default()
        }
    }
}

prop_compose! {
    fn gpu()(
        state in gpu_state(), uuid in word(), index: u32, model in word(),
        vbios in option::of(word()), pci_address in option::of(word()),
        memory_total_bytes: Option<u64>, memory_reserved_bytes: Option<u64>,
        capability: Option<(u32, u32)>, mig_enabled: Option<bool>,
        persistence_mode: Option<bool>, problem in option::of(word()),
    ) -> Gpu {
        Gpu {
            uuid, index, model, vbios, pci_address, memory_total_bytes, memory_reserved_bytes,
            compute_capability: capability.map(|(major, minor)| ComputeCapability { major, minor }),
            mig_enabled, persistence_mode, problem,
            ..state
        }
    }
}

prop_compose! {
    fn host_facts()(
        names in (word(), word(), word(), word(), word()),
        optional in (option::of(word()), option::of(word()), option::of(word()), option::of(word())),
        numbers in (any::<u64>(), any::<u64>(), any::<Option<bool>>(), any::<u32>()),
        load in load(),
        memory: (u64, u64, u64, u64),
        disks in vec(disk(), 0..3),
        container_runtimes in vec(container_runtime(), 0..3),
        (pci_gpus, grants) in (vec(pci_gpu(), 0..3), vec(grant_line(), 0..3)),
        driver in driver(),
        devices in vec(gpu(), 0..3),
        disagreement in (word(), word(), word(), word(), word()),
        problems in vec((word(), word()), 0..2),
        xid_errors in option::of(vec((word(), any::<u32>(), any::<u64>(), word()), 0..2)),
    ) -> HostFacts {
        let (id, name, kernel, arch, hostname) = names;
        let (version, glibc, machine_id, boot_id) = optional;
        let (code, subject, nvml, other_source, other) = disagreement;
        HostFacts {
            os: OsFacts { id, version, name },
            kernel, arch, glibc, hostname, machine_id, boot_id,
            uptime_secs: numbers.0,
            clock_unix_ms: numbers.1,
            clock_synchronized: numbers.2,
            cpu: CpuFacts { threads: numbers.3, ..CpuFacts::default() },
            load,
            memory: MemoryFacts {
                total_bytes: memory.0, available_bytes: memory.1,
                swap_total_bytes: memory.2, swap_free_bytes: memory.3,
            },
            disks, container_runtimes, pci_gpus, grants,
            gpus: GpuFacts { driver, devices },
            disagreements: vec![Disagreement { code, subject, nvml, other_source, other }],
            problems: problems
                .into_iter()
                .map(|(source, message)| Problem { source, message })
                .collect(),
            xid_errors: xid_errors.map(|errors| {
                errors
                    .into_iter()
                    .map(|(pci_address, xid, last_secs_ago, message)| XidError {
                        pci_address, xid, count: xid, last_secs_ago, message,
                    })
                    .collect()
            }),
        }
    }
}

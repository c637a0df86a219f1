//! One message of each kind, with every field set: the fixtures are made of them.

use runner_protocol::facts::*;
use runner_protocol::message::Progress;
use runner_protocol::prove::{Device, Digest, Image, Opened, Opening, QueryCounts};
use runner_protocol::telemetry::GpuTelemetry;
use runner_protocol::*;

pub fn to_runner() -> Vec<(&'static str, ToRunner)> {
    let id = RequestId(7);
    let round = |round| ToRunner::Continue { id, round };
    vec![
        ("request_facts", ToRunner::Request { id, unit: Unit::Facts(FactsQuery::default()) }),
        (
            "request_facts_query",
            ToRunner::Request {
                id,
                unit: Unit::Facts(FactsQuery {
                    socket: Some("/srv/docker.sock".into()),
                    key_files: vec!["~/.ssh/authorized_keys".into()],
                }),
            },
        ),
        ("request_health", ToRunner::Request { id, unit: Unit::Health {} }),
        ("request_watch", ToRunner::Request { id, unit: Unit::Watch { interval_ms: 1000 } }),
        (
            "request_prove",
            ToRunner::Request { id, unit: Unit::Prove { backend: Backend::Reference, gpu: None } },
        ),
        (
            "request_prove_cuda",
            ToRunner::Request { id, unit: Unit::Prove { backend: Backend::Cuda, gpu: None } },
        ),
        (
            "request_prove_gpu",
            ToRunner::Request {
                id,
                unit: Unit::Prove { backend: Backend::Cuda, gpu: Some(gpu().uuid) },
            },
        ),
        ("continue_load", round(Round::Load { image: Image(b"\x7fELF, and the rest".to_vec()) })),
        ("continue_fill", round(Round::Fill { context: Box::new(ByteArray([3; 256])) })),
        ("continue_probe", round(Round::Probe { nonce: ByteArray([4; 32]) })),
        (
            "continue_open",
            round(Round::Open {
                nonce: ByteArray([5; 32]),
                counts: QueryCounts { probe: 32, gemm: 128 },
            }),
        ),
        ("continue_release", round(Round::Release {})),
        (
            "request_dial",
            ToRunner::Request { id, unit: Unit::Dial { socket: "/run/x.sock".into() } },
        ),
        (
            "request_hold",
            ToRunner::Request {
                id,
                unit: Unit::Hold(Held {
                    socket: "/run/x.sock".into(),
                    container: "c0ffee".into(),
                    remove: true,
                    grace_secs: 10,
                    timeout_secs: Some(3600),
                }),
            },
        ),
        ("continue_send", round(Round::Send { bytes: StreamBytes(vec![1, 2, 3]) })),
        ("continue_grant", round(Round::Grant { bytes: 65_536 })),
        ("continue_end", round(Round::End {})),
        ("renew", ToRunner::Renew {}),
        ("cancel", ToRunner::Cancel { id }),
        ("shutdown", ToRunner::Shutdown {}),
    ]
}

pub fn from_runner() -> Vec<(&'static str, FromRunner)> {
    let id = RequestId(7);
    let finished = |outcome| FromRunner::Finished { id, outcome };
    let reply = |reply| FromRunner::Reply { id, reply };
    let prove = |event| reply(Reply::Prove(ProveReply { backend: Backend::Reference, event }));
    let prove_cuda = |event| reply(Reply::Prove(ProveReply { backend: Backend::Cuda, event }));
    vec![
        ("hello", FromRunner::Hello(hello())),
        (
            "progress",
            FromRunner::Progress(Progress { id, stage: "nvml".into(), done: 1, total: 3 }),
        ),
        ("reply_facts", reply(Reply::Facts(Box::new(host_facts())))),
        ("reply_facts_no_driver", reply(Reply::Facts(Box::new(no_driver())))),
        ("reply_facts_driver_failed", reply(Reply::Facts(Box::new(driver_failed())))),
        ("reply_facts_xid_errors", reply(Reply::Facts(Box::new(xid_errors())))),
        ("reply_facts_own", reply(Reply::Facts(Box::new(own())))),
        ("reply_health", reply(Reply::Health(health()))),
        ("reply_telemetry", reply(Reply::Telemetry(telemetry()))),
        ("reply_prove_prepared", prove(ProveEvent::Prepared { device: None })),
        ("reply_prove_prepared_cuda", prove_cuda(ProveEvent::Prepared { device: Some(device()) })),
        ("reply_prove_loaded", prove_cuda(ProveEvent::Loaded {})),
        ("reply_prove_filled", prove(ProveEvent::Filled {})),
        (
            "reply_prove_root_records",
            prove(ProveEvent::Root { product: None, root: Digest([1; 32]) }),
        ),
        (
            "reply_prove_root_product",
            prove(ProveEvent::Root { product: Some(3), root: Digest([2; 32]) }),
        ),
        (
            "reply_prove_openings",
            prove(ProveEvent::Openings { of: Opened::Products, openings: vec![opening()] }),
        ),
        ("reply_relay_connected", reply(Reply::Relay(RelayEvent::Connected {}))),
        (
            "reply_relay_data",
            reply(Reply::Relay(RelayEvent::Data { bytes: StreamBytes(vec![4, 5]) })),
        ),
        ("reply_relay_grant", reply(Reply::Relay(RelayEvent::Grant { bytes: 3 }))),
        ("reply_relay_end", reply(Reply::Relay(RelayEvent::End {}))),
        ("reply_hold_holding", reply(Reply::Hold(HoldEvent::Holding {}))),
        ("reply_hold_expired", reply(Reply::Hold(HoldEvent::Expired {}))),
        ("finished_ok", finished(Outcome::Ok {})),
        ("finished_cancelled", finished(Outcome::Cancelled {})),
        (
            "finished_failed",
            finished(Outcome::Failed { code: "busy".into(), message: "8 requests run".into() }),
        ),
        ("finished_unsupported", finished(Outcome::Unsupported { unit: "prove".into() })),
    ]
}

fn device() -> Device {
    Device {
        uuid: gpu().uuid,
        name: gpu().model,
        compute_capability: [9, 0],
        memory_bytes: 84_969_258_752,
        free_bytes: 84_400_000_000,
        multiprocessors: 132,
        driver_cuda_version: 12_040,
    }
}

fn opening() -> Opening {
    Opening {
        chunk: pow_kernels::Chunk(Box::new([6; 1024])),
        path: vec![Digest([7; 32]), Digest([8; 32])].into(),
    }
}

fn hello() -> Hello {
    Hello {
        protocol_version: 1,
        build: "0123456789abcdef".repeat(4),
        runner_version: "0.1.0".into(),
        capabilities: vec!["facts".into(), "health".into(), "watch".into()],
        pid: 4242,
        boot_id: "b7f2a6de-9d0b-4f0e-8d7a-3f6f8f2a9c11".into(),
    }
}

fn no_driver() -> HostFacts {
    HostFacts {
        gpus: GpuFacts {
            driver: DriverState::NoDriver { message: DriverState::NO_DRIVER_MESSAGE.into() },
            devices: Vec::new(),
        },
        ..host_facts()
    }
}

fn driver_failed() -> HostFacts {
    HostFacts {
        gpus: GpuFacts {
            driver: DriverState::Failed {
                code: "library_mismatch".into(),
                message: "RM detects a driver/library version mismatch".into(),
            },
            devices: Vec::new(),
        },
        ..host_facts()
    }
}

pub fn host_facts() -> HostFacts {
    HostFacts {
        os: OsFacts {
            id: "ubuntu".into(),
            version: Some("24.04".into()),
            name: "Ubuntu 24.04.1 LTS".into(),
        },
        kernel: "6.8.0-45-generic".into(),
        arch: "x86_64".into(),
        glibc: Some("2.39".into()),
        hostname: "gpu-07".into(),
        machine_id: Some("3f1c9a52d8e04b6f9d0a7c2b1e5f8a64".into()),
        boot_id: Some("b7f2a6de-9d0b-4f0e-8d7a-3f6f8f2a9c11".into()),
        uptime_secs: 86_400,
        clock_unix_ms: 1_700_000_000_000,
        clock_synchronized: Some(true),
        cpu: CpuFacts {
            model: "Intel(R) Xeon(R) Platinum 8480+".into(),
            sockets: 2,
            cores: 112,
            threads: 224,
            usable_threads: 224,
        },
        load: LoadFacts { one_milli: 1_250, five_milli: 900, fifteen_milli: 40 },
        memory: MemoryFacts {
            total_bytes: 2_164_000_000_000,
            available_bytes: 2_000_000_000_000,
            swap_total_bytes: 8_589_934_592,
            swap_free_bytes: 8_589_934_592,
        },
        disks: vec![DiskFacts {
            mount: "/".into(),
            device: "/dev/nvme0n1p2".into(),
            fs: "ext4".into(),
            total_bytes: 1_900_000_000_000,
            free_bytes: 1_500_000_000_000,
            inodes_total: Some(120_000_000),
            inodes_free: Some(119_000_000),
            read_only: false,
        }],
        container_runtimes: vec![ContainerRuntime {
            name: "docker".into(),
            socket: "/var/run/docker.sock".into(),
            answers: true,
            problem: None,
            version: Some("27.3.1".into()),
            api_version: Some("1.47".into()),
            nvidia_runtime: Some(true),
            containers: None,
        }],
        pci_gpus: vec![PciGpu {
            address: "0000:3b:00.0".into(),
            device_id: "0x2330".into(),
            kernel_driver: Some("nvidia".into()),
            link_width: Some(16),
            link_width_max: Some(16),
        }],
        gpus: GpuFacts {
            driver: DriverState::Present {
                driver_version: "550.54.15".into(),
                cuda_version: Some("12.4".into()),
                nvml_version: Some("12.550.54.15".into()),
            },
            devices: vec![gpu()],
        },
        disagreements: vec![Disagreement {
            code: "driver_version".into(),
            subject: "driver".into(),
            nvml: "550.54.15".into(),
            other_source: "/proc/driver/nvidia/version".into(),
            other: "550.54.14".into(),
        }],
        problems: vec![Problem {
            source: "/etc/machine-id".into(),
            message: "permission denied".into(),
        }],
        xid_errors: None,
        grants: Vec::new(),
    }
}

/// Facts of a host with a container and a grant of an orchestrator.
fn own() -> HostFacts {
    let mut facts = host_facts();
    facts.container_runtimes[0].containers = Some(vec![OwnContainer {
        id: "c0ffee".into(),
        state: "running".into(),
        owner: "0a".repeat(16),
        lease: "1b".repeat(16),
        mode: "detached".into(),
        deadline_unix_ms: Some(1_700_000_600_000),
        remove: true,
        keep_until_unix_ms: Some(1_700_000_900_000),
    }]);
    let file = "~/.ssh/authorized_keys".into();
    facts.grants = vec![GrantLine { file, grant: "2c".repeat(16) }];
    facts
}

/// Facts of a host whose kernel module complained.
fn xid_errors() -> HostFacts {
    HostFacts {
        xid_errors: Some(vec![XidError {
            pci_address: "0000:3b:00.0".into(),
            xid: 79,
            count: 2,
            last_secs_ago: 3600,
            message: "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.".into(),
        }]),
        ..host_facts()
    }
}

fn gpu() -> Gpu {
    Gpu {
        uuid: "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10".into(),
        index: 0,
        model: "NVIDIA H100 80GB HBM3".into(),
        vbios: Some("96.00.74.00.01".into()),
        pci_address: Some("0000:3b:00.0".into()),
        pcie: PcieFacts {
            width: Some(16),
            width_max: Some(16),
            generation: Some(5),
            generation_max: Some(5),
        },
        memory_total_bytes: Some(85_520_809_984),
        memory_used_bytes: Some(1_048_576),
        memory_reserved_bytes: Some(551_550_976),
        compute_capability: Some(ComputeCapability { major: 9, minor: 0 }),
        ecc: EccFacts {
            enabled: Some(true),
            enabled_pending: Some(true),
            corrected: Some(2),
            uncorrected: Some(0),
            corrected_lifetime: Some(9),
            uncorrected_lifetime: Some(1),
        },
        row_remap: Some(RowRemapFacts {
            correctable: 0,
            uncorrectable: 1,
            pending: false,
            failure: false,
        }),
        throttle_reasons: vec!["gpu_idle".into()],
        power: PowerFacts {
            limit_mw: Some(700_000),
            limit_default_mw: Some(700_000),
            draw_mw: Some(70_123),
        },
        mig_enabled: Some(false),
        persistence_mode: Some(true),
        temperature_celsius: Some(34),
        utilization_percent: Some(0),
        clocks: ClockFacts {
            sm_mhz: Some(345),
            sm_max_mhz: Some(1980),
            memory_mhz: Some(2619),
            memory_max_mhz: Some(2619),
        },
        processes: Some(vec![GpuProcess {
            pid: 1234,
            name: Some("/usr/bin/python3".into()),
            used_memory_bytes: Some(1_048_576),
            graphics: false,
        }]),
        problem: None,
    }
}

fn health() -> HealthReport {
    HealthReport {
        at_unix_ms: 1_700_000_000_000,
        findings: vec![Finding {
            code: "disk_space_low".into(),
            severity: Severity::Warning,
            subject: "/".into(),
            message: "less than a tenth of the file system is free".into(),
            seen: "9 GiB of 100 GiB free".into(),
            expected: "at least 10 GiB free".into(),
        }],
    }
}

fn telemetry() -> Telemetry {
    Telemetry {
        at_unix_ms: 1_700_000_000_000,
        load: LoadFacts { one_milli: 1_250, five_milli: 900, fifteen_milli: 40 },
        memory_available_bytes: 2_000_000_000_000,
        gpus: vec![GpuTelemetry {
            uuid: "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10".into(),
            utilization_percent: Some(97),
            memory_used_bytes: Some(70_000_000_000),
            temperature_celsius: Some(61),
            power_draw_mw: Some(655_000),
            sm_clock_mhz: Some(1755),
            memory_clock_mhz: Some(2619),
            throttle_reasons: vec!["sw_power_cap".into()],
            problem: None,
        }],
    }
}

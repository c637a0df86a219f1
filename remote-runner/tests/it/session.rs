//! Requests and their answers.

use std::collections::BTreeMap;

use runner_protocol::facts::DriverState;
use runner_protocol::{
    ExitCode, FactsQuery, FromRunner, Outcome, PROTOCOL_VERSION, Reply, RequestId, ToRunner, Unit,
    encode_frame,
};
use serde::Serialize;

use crate::harness::{self, Runner, command};

#[test]
fn hello_says_who_speaks() {
    let runner = Runner::start(&mut command(&[]));
    let hello = &runner.hello;
    assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
    assert_eq!(hello.runner_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        hello.capabilities,
        ["facts", "health", "watch", "prove", "prove.cuda", "prove.reference", "dial", "hold"]
    );
    assert_eq!(hello.pid, runner.child.id());
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(hello.boot_id, boot_id.trim());
    runner.end();
}

#[test]
fn facts_are_of_this_machine() {
    let mut runner = Runner::start(&mut command(&[]));
    let facts = runner.facts();
    let file = |path| std::fs::read_to_string(path).unwrap().trim().to_owned();
    assert_eq!(facts.kernel, file("/proc/sys/kernel/osrelease"));
    assert_eq!(facts.hostname, file("/proc/sys/kernel/hostname"));
    assert_eq!(facts.arch, std::env::consts::ARCH);
    assert!(facts.glibc.unwrap().starts_with("2."));
    assert!(facts.cpu.threads >= facts.cpu.cores && facts.cpu.cores >= facts.cpu.sockets);
    assert!(facts.cpu.sockets >= 1 && facts.cpu.usable_threads >= 1);
    assert!(facts.memory.total_bytes >= facts.memory.available_bytes);
    assert!(facts.memory.available_bytes > 0);
    assert!(facts.disks.iter().any(|disk| disk.mount == "/" && disk.total_bytes > 0));
    let uptime: f64 = file("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "an uptime of 2^52 seconds")]
    let (least, most) = (uptime - 60.0, facts.uptime_secs as f64);
    assert!(least <= most && most <= uptime + 1.0);
    assert_eq!(runner.end().0, ExitCode::StdinClosed);
}

#[test]
fn a_machine_without_the_library_has_no_driver() {
    let places =
        ["/usr/lib/wsl/lib", "/run/opengl-driver/lib", "/usr/lib/x86_64-linux-gnu", "/lib64"];
    let name = "libnvidia-ml.so.1";
    let cache = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
    let installed = places.iter().any(|place| std::path::Path::new(place).join(name).exists())
        || cache.windows(name.len()).any(|window| window == name.as_bytes());
    let mut runner = Runner::start(&mut command(&[]));
    let facts = runner.facts();
    let missing = matches!(&facts.gpus.driver, DriverState::NoDriver { message }
        if message.starts_with("No NVIDIA driver found"));
    // Where a driver is installed, it must not be called missing.
    assert_eq!(missing, !installed, "{:?}", facts.gpus.driver);
    runner.end();
}

#[test]
fn health_is_judged_by_facts() {
    let folder = tempfile::tempdir().unwrap();
    let gpu = folder.path().join("sys/bus/pci/devices/0000:3b:00.0");
    std::fs::create_dir_all(&gpu).unwrap();
    std::fs::write(gpu.join("vendor"), "0x10de\n").unwrap();
    std::fs::write(gpu.join("class"), "0x030200\n").unwrap();
    let root = folder.path().to_str().unwrap();
    let mut runner = Runner::start(&mut harness::with_nvml("no_module", &["--root", root]));
    runner.request(5, Unit::Health {});
    let (replies, outcome) = runner.answer(5);
    assert_eq!(outcome, Outcome::Ok {});
    let [Reply::Health(report)] = replies.as_slice() else { panic!("{replies:?}") };
    let missing = report.findings.iter().find(|found| found.code == "driver_missing").unwrap();
    assert!(missing.message.starts_with("No NVIDIA driver found"), "{}", missing.message);
    assert!(report.findings.iter().any(|found| found.code == "container_runtime_missing"));
    runner.end();
}

#[test]
fn an_unknown_unit_is_unsupported_and_the_session_goes_on() {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Later {
        Request { id: u64, unit: BTreeMap<&'static str, Vec<u64>> },
    }
    let mut runner = Runner::start(&mut command(&[]));
    let unit = BTreeMap::from([("fly", vec![1, 2, 3])]);
    runner.write(&encode_frame(&Later::Request { id: 3, unit }).unwrap());
    let expected = (Vec::new(), Outcome::Unsupported { unit: "fly".into() });
    assert_eq!(runner.answer(3), expected);
    runner.facts();
    runner.end();
}

#[test]
fn a_watch_samples_until_cancelled() {
    let mut runner = Runner::start(&mut harness::with_nvml("honest", &[]));
    runner.request(9, Unit::Watch { interval_ms: 10 });
    let mut samples = 0;
    let mut last_at = 0;
    let outcome = loop {
        match runner.next().unwrap() {
            FromRunner::Reply { reply: Reply::Telemetry(sample), .. } => {
                assert_eq!(sample.gpus.len(), 2);
                assert_eq!(sample.gpus[0].power_draw_mw, Some(70_123));
                assert_eq!(sample.gpus[1].power_draw_mw, None);
                assert_eq!(sample.gpus[1].temperature_celsius, Some(51));
                assert!(sample.at_unix_ms >= last_at && sample.memory_available_bytes > 0);
                last_at = sample.at_unix_ms;
                samples += 1;
                if samples == 3 {
                    runner.send(&ToRunner::Cancel { id: RequestId(9) });
                }
            }
            FromRunner::Finished { id: RequestId(9), outcome } => break outcome,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome, Outcome::Cancelled {});
    assert!(samples >= 3);
    // Cancelling what has ended, or never was, does nothing; the id is free again.
    runner.send(&ToRunner::Cancel { id: RequestId(9) });
    runner.send(&ToRunner::Cancel { id: RequestId(77) });
    runner.request(9, Unit::Facts(FactsQuery::default()));
    assert_eq!(runner.answer(9).1, Outcome::Ok {});
    runner.end();
}

#[test]
fn requests_at_once_have_exactly_one_finished_each() {
    let mut runner = Runner::start(&mut harness::with_nvml("honest", &[]));
    for id in 0..8 {
        runner.request(
            id,
            if id % 2 == 0 { Unit::Facts(FactsQuery::default()) } else { Unit::Health {} },
        );
    }
    let mut replies: BTreeMap<u64, u32> = BTreeMap::new();
    let mut finished: BTreeMap<u64, u32> = BTreeMap::new();
    while finished.len() < 8 {
        match runner.next().unwrap() {
            FromRunner::Reply { id, .. } => {
                assert!(!finished.contains_key(&id.0), "a reply after Finished");
                *replies.entry(id.0).or_default() += 1;
            }
            FromRunner::Finished { id, outcome } => {
                assert_eq!(outcome, Outcome::Ok {});
                *finished.entry(id.0).or_default() += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // Everything that is said until the end counts.
    runner.send(&ToRunner::Shutdown {});
    assert_eq!(runner.next(), None, "a message after the last Finished");
    assert!((0..8).all(|id| replies.get(&id) == Some(&1) && finished.get(&id) == Some(&1)));
    assert_eq!(runner.exit().0, ExitCode::Ok);
}

#[test]
fn more_requests_than_it_takes_are_told_busy() {
    let mut runner = Runner::start(&mut harness::with_nvml("honest", &[]));
    for id in 0..40 {
        runner.request(id, Unit::Watch { interval_ms: 60_000 });
    }
    runner.request(40, Unit::Facts(FactsQuery::default()));
    let busy = loop {
        match runner.next().unwrap() {
            FromRunner::Finished { id, outcome } => break (id.0, outcome),
            FromRunner::Reply { reply: Reply::Telemetry(_), .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(&busy, (40, Outcome::Failed { code, .. }) if code == "busy"), "{busy:?}");
    runner.end();
}

#[test]
fn shutdown_finishes_what_runs_and_ends_well() {
    let mut runner = Runner::start(&mut harness::with_nvml("honest", &[]));
    runner.request(1, Unit::Watch { interval_ms: 10 });
    runner.request(2, Unit::Watch { interval_ms: 10 });
    runner.send(&ToRunner::Shutdown {});
    let mut finished = Vec::new();
    while let Some(message) = runner.next() {
        if let FromRunner::Finished { id, outcome } = message {
            assert_eq!(outcome, Outcome::Cancelled {});
            finished.push(id.0);
        }
    }
    finished.sort_unstable();
    assert_eq!(finished, [1, 2]);
    assert_eq!(runner.exit().0, ExitCode::Ok);
}

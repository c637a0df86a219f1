//! `sweep` by the built binary, on real SSH servers.

pub mod alerts;
mod lock;
mod ours;
mod schedule;
mod service;

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::cli::operator::{Finished, Operator};
use crate::containers::engine::{Engine, GpuHook};
use crate::deploy::host::{Host, fake_nvml};
use crate::deploy::places::Mount;
use crate::sshd::need;

/// What depends on the machine that runs the tests: how full and busy it is, and what it has.
const IGNORED: &str = "ignore = [\"disk_space_low\", \"disk_inodes_low\", \"disk_read_only\", \
    \"memory_low\", \"load_high\", \"clock_unsynchronized\", \"container_runtime_missing\", \
    \"container_runtime_silent\", \"container_runtime_without_nvidia\", \"driver_missing\", \
    \"gpu_xid\", \"sources_disagree\"]\n";

/// An operator with this configuration and what depends on the machine left out.
pub fn operator(sweep: &str, rest: &str) -> Operator {
    let operator = Operator::new();
    operator.write("orchestrator.toml", &format!("[sweep]\n{IGNORED}{sweep}\n{rest}\n"));
    operator
}

/// A host that was deployed to, and its operator.
pub async fn deployed(sweep: &str, rest: &str) -> (Host, Operator) {
    let (host, operator) = (Host::start(), operator(sweep, rest));
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    (host, operator)
}

/// The row of a host of `sweep --json`.
#[track_caller]
pub fn row(finished: &Finished, host: &str) -> Value {
    let rows = finished.json_lines();
    rows.into_iter().find(|row| row["host"] == host).unwrap_or_else(|| panic!("{finished:?}"))
}

fn codes(row: &Value) -> Vec<String> {
    let findings = row["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_well_host_is_silent_and_recorded_over_one_connection_and_one_command() {
    let (host, operator) = deployed("", "").await;
    let count = |what: &str| host.sshd.log().matches(what).count();
    let before = (count("Accepted publickey"), count("Starting session: command"));
    let quiet = operator.run(["sweep", "--quiet"]).await.expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let after = (count("Accepted publickey"), count("Starting session: command"));
    assert_eq!(after, (before.0 + 1, before.1 + 1));

    let sweep = operator.run(["sweep", "--json"]).await.expect(0);
    let well = row(&sweep, "gpu-01");
    assert_eq!((&well["ok"], &well["state"]), (&Value::Bool(true), &Value::from("ready")));
    assert_eq!(well["findings"], Value::Array(Vec::new()));
    let summary = sweep.json_lines().pop().unwrap();
    assert_eq!((&summary["event"], &summary["well"]), (&"summary".into(), &1.into()));
    let words = operator.run(["sweep"]).await.expect(0);
    assert!(words.stdout.contains("1 hosts: 1 well"), "{words:?}");

    let history = operator.run(["sweep", "history", "--json"]).await.expect(0);
    assert_eq!(history.json_lines()[0]["sweeps"].as_array().unwrap().len(), 3);
    let of_host = operator.run(["sweep", "history", "gpu-01", "--json"]).await.expect(0);
    let probes = of_host.json_lines()[0]["probes"].as_array().unwrap().clone();
    assert_eq!((probes.len(), &probes[0]["reached"]), (3, &Value::Bool(true)));
    // Nothing is left running on the host.
    assert_eq!(host.left_running(), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_runner_is_put_back_as_often_as_allowed() {
    let (host, operator) = deployed("recovery_attempts = 2", "").await;
    let lose = || fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    for _ in 0..2 {
        lose();
        let sweep = operator.run(["sweep", "--json"]).await.expect(0);
        let mended = row(&sweep, "gpu-01");
        assert_eq!(
            (&mended["repairs"][0]["ok"], &mended["state"]),
            (&true.into(), &"ready".into())
        );
        host.assert_installed();
    }
    lose();
    let sweep = operator.run(["sweep", "--json"]).await.expect(3);
    let left = row(&sweep, "gpu-01");
    assert_eq!((&left["state"], &left["reason"]), (&"degraded".into(), &"runner_missing".into()));
    assert_eq!(left["findings"][0]["fix"], "orchestrator deploy --limit gpu-01");
    assert_eq!(host.left_running(), Vec::<String>::new());
    // With --quiet, trouble is what is printed.
    let quiet = operator.run(["sweep", "--quiet"]).await.expect(3);
    assert!(quiet.stdout.contains("runner_missing"), "{quiet:?}");
    operator.run(["sweep", "--fail-on", "unreachable"]).await.expect(0);
    operator.deploy([]).await.expect(0);
    operator.run(["sweep", "--quiet"]).await.expect(0);
    let audit = operator.audit().await;
    assert_eq!(audit.iter().filter(|kind| *kind == "recovery.succeeded").count(), 2, "{audit:?}");
    for kind in ["finding.opened", "host.state_changed", "finding.resolved"] {
        assert!(audit.iter().any(|it| it == kind), "{kind}: {audit:?}");
    }
}

#[tokio::test]
async fn a_runner_is_not_put_back_where_recovery_is_off_or_the_runner_is_placed_by_hand() {
    let (host, operator) = deployed("", "[executor_management]\nauto_recovery = false\n").await;
    fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    let sweep = operator.run(["sweep", "--json"]).await.expect(3);
    assert_eq!(row(&sweep, "gpu-01")["reason"], "runner_missing");
    assert!(!host.home.join(".cache/orchestrator").exists());

    let (host, operator) = deployed("", "").await;
    fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    let by_hand = host.entry(
        "gpu-01",
        host.sshd.port,
        &format!("host_key = \"{}\"\nmode = \"manual\"", host.fingerprint()),
    );
    operator.fleet(&[by_hand]);
    let sweep = operator.run(["sweep", "--hosts", "fleet.toml", "--json"]).await.expect(3);
    assert_eq!(row(&sweep, "gpu-01")["reason"], "runner_missing");
    assert!(!host.home.join(".cache/orchestrator").exists());
}

/// Four ways to be dead, and a living host that none of them holds up.
#[tokio::test]
async fn dead_hosts_end_with_the_deadline_and_count_at_the_third_time() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    // A full backlog takes no connection, and a silent server says nothing after taking it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let greets = TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent_port, greets_port) =
        (silent.local_addr().unwrap().port(), greets.local_addr().unwrap().port());
    let greeter = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut kept = Vec::new();
        // Ends with the listener's last client: the word `bye` of this test.
        while let Ok((mut stream, _)) = greets.accept() {
            let mut word = [0; 3];
            stream.write_all(b"SSH-2.0-frozen\r\n").unwrap();
            if stream.peek(&mut word).is_ok() && &word == b"bye" {
                return kept.len();
            }
            kept.push(stream);
        }
        kept.len()
    });
    let operator = operator(
        "timeout = \"20s\"",
        "[ssh]\nconnect_attempts = 1\n\
        handshake_timeout = \"2s\"\n[executor_management]\nhealth_check_timeout = \"10s\"\n",
    );
    let (alive, locked) = (Host::start(), Host::start());
    operator.fleet(&[alive.pinned("alive"), locked.pinned("locked-out")]);
    operator.deploy([]).await.expect(0);
    fs::write(locked.sshd.dir.path().join("authorized_keys"), "").unwrap();
    operator.fleet(&[
        alive.pinned("alive"),
        locked.pinned("locked-out"),
        alive.pinned_through("refused", refused),
        alive.pinned_through("silent", silent_port),
        alive.pinned_through("frozen", greets_port),
    ]);
    let sweep = ["sweep", "--hosts", "fleet.toml", "--json"];
    let first = operator.run(sweep).await.expect(3);
    assert_eq!(row(&first, "alive")["state"], "ready");
    assert!(first.json_lines().pop().unwrap()["elapsed_ms"].as_u64().unwrap() < 30_000);
    // A host that was never well is unreachable at once; one that was gets patience.
    for host in ["refused", "silent", "frozen"] {
        let row = row(&first, host);
        assert_eq!((&row["state"], &row["reason"]), (&"unreachable".into(), &"unreachable".into()));
    }
    let patient = row(&first, "locked-out");
    assert_eq!(
        (&patient["state"], codes(&patient)),
        (&"ready".into(), vec!["login_refused".into()])
    );
    assert_eq!(patient["findings"][0]["confirmed"], false);
    let second = operator.run(["sweep", "--hosts", "fleet.toml"]).await.expect(3);
    assert!(second.stdout.contains("ready (seen 2 times)"), "{second:?}");
    let third = operator.run(sweep).await.expect(3);
    assert_eq!(row(&third, "locked-out")["state"], "unreachable");
    // A person's word stands against every sweep.
    operator.run(["hosts", "drain", "locked-out"]).await.expect(0);
    let drained = operator.run(sweep).await.expect(3);
    assert_eq!(row(&drained, "locked-out")["state"], "draining");

    let mut bye = std::net::TcpStream::connect(("127.0.0.1", greets_port)).unwrap();
    std::io::Write::write_all(&mut bye, b"bye").unwrap();
    assert!(greeter.join().unwrap() > 0);
}

/// The passport of the first good facts, against another set of the fake driver's GPUs.
#[tokio::test]
async fn gpus_that_are_not_those_of_the_passport_are_told() {
    let with = |mode: &str| {
        let folder = fake_nvml().display();
        Host::with(&[], &format!("LD_LIBRARY_PATH={folder} FAKE_NVML={mode}"))
    };
    // Each of these hosts wants the runner anew.
    let (honest, operator) = (with("honest"), operator("recovery_attempts = 100", ""));
    operator.fleet(&[honest.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let sweep = ["sweep", "--hosts", "fleet.toml", "--json"];
    let good = operator.run(sweep).await.expect(3);
    let found = codes(&row(&good, "gpu-01"));
    // What is wrong with the fake's first device; nothing is wrong with the set.
    assert_eq!(
        found,
        [
            "gpu_row_remap_pending",
            "gpu_pcie_width_low",
            "gpu_throttled",
            "gpu_power_limit_low",
            "gpu_persistence_off",
            "proof_never",
        ]
    );
    for (mode, code, about) in [
        ("one", "gpu_missing", "GPU-22222222-0000-0000-0000-000000000002"),
        ("swapped", "gpu_swapped", "GPU-22222222-0000-0000-0000-000000000002"),
        ("lost", "gpu_silent", "GPU-22222222-0000-0000-0000-000000000002"),
        ("mismatch", "driver_library_mismatch", "driver"),
    ] {
        let host = with(mode);
        operator.fleet(&[host.pinned("gpu-01")]);
        // The runner of this host's home is another one's.
        let swept = operator.run(sweep).await.expect(3);
        let row = row(&swept, "gpu-01");
        assert_eq!((&row["reason"], &row["findings"][0]["subject"]), (&code.into(), &about.into()));
        assert_eq!(row["findings"][0]["severity"], "critical", "{mode}");
    }
    // Back to the first: what was found is over, and the passport was never another one.
    operator.fleet(&[honest.pinned("gpu-01")]);
    assert_eq!(codes(&row(&operator.run(sweep).await.expect(3), "gpu-01")), found);
    // A deploy is how a person says that the GPUs are as they should be.
    let swapped = with("swapped");
    operator.fleet(&[swapped.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    assert_eq!(codes(&row(&operator.run(sweep).await.expect(3), "gpu-01")), found);
    let show = operator.run(["hosts", "show", "gpu-01"]).await.expect(0);
    assert!(show.stdout.contains("hottest GPU"), "{show:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_when_it_stays_wrong() {
    need("/usr/bin/faketime", "faketime");
    let library = ["x86_64", "aarch64"]
        .map(|arch| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| fs::exists(path).unwrap())
        .unwrap();
    let environment =
        format!("LD_PRELOAD={library} \"FAKETIME=+1h\" FAKETIME_DONT_FAKE_MONOTONIC=1");
    let (host, operator) = (Host::with(&[], &environment), operator("", ""));
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    for state in ["ready", "ready", "degraded"] {
        let sweep = operator.run(["sweep", "--json", "--fail-on", "never"]).await.expect(0);
        let row = row(&sweep, "gpu-01");
        assert_eq!((codes(&row), &row["state"]), (vec!["clock_skew".to_owned()], &state.into()));
        let seen = row["findings"][0]["seen"].as_str().unwrap();
        assert!(seen.ends_with(" min ahead ours"), "{seen}");
    }
}

/// Proofs of the reference: recorded, compared, and shown.
#[tokio::test]
async fn a_sweep_asks_for_proofs_when_told_to() {
    let (_host, operator) = deployed("", "").await;
    let sweep = ["sweep", "--pow", "--allow-reference", "--json"];
    let proven = operator.run(sweep).await.expect(0);
    assert_eq!(codes(&row(&proven, "gpu-01")), Vec::<String>::new());
    let show = operator.run(["hosts", "show", "gpu-01"]).await.expect(0);
    assert!(show.stdout.contains("proofs of host"), "{show:?}");
    operator.run(["sweep", "--allow-reference"]).await.expect(2);
}

#[tokio::test]
async fn wrong_input_is_said_before_any_host_is_reached() {
    let (host, operator) = deployed("", "").await;
    let before = host.sshd.log().matches("Connection from").count();
    operator.write("wrong.toml", "[sweep]\nignore = [\"gpu_on_fire\"]\n");
    let refused = operator.run(["--config", "wrong.toml", "sweep"]).await.expect(1);
    assert!(refused.stderr.contains("\"gpu_on_fire\" is no code of a finding"), "{refused:?}");
    for arguments in [
        &["sweep", "--timeout", "5"][..],
        &["sweep", "--parallel", "0"],
        &["sweep", "--fail-on", "sometimes"],
        &["sweep", "history", "--since", "long"],
    ] {
        operator.run(arguments.iter().copied()).await.expect(2);
    }
    let nobody = Operator::new();
    let none = nobody.run(["sweep"]).await.expect(1);
    assert!(none.stderr.contains("there are no hosts to sweep"), "{none:?}");
    assert_eq!(host.sshd.log().matches("Connection from").count(), before);
}

/// A Docker whose daemon was killed, with its socket left behind.
#[tokio::test]
async fn a_docker_that_was_stopped_is_told_when_it_stays_so() {
    let engine = Engine::start(GpuHook::None);
    let (host, operator) = (Host::with_docker(engine.socket(), &[], ""), Operator::new());
    let ignored = IGNORED.replace("\"container_runtime_silent\", ", "");
    operator.write("orchestrator.toml", &format!("[sweep]\n{ignored}"));
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    operator.run(["sweep", "--quiet"]).await.expect(0);
    engine.kill().await;
    for state in ["ready", "ready", "degraded"] {
        let sweep = operator.run(["sweep", "--json", "--fail-on", "never"]).await.expect(0);
        let row = row(&sweep, "gpu-01");
        assert_eq!(
            (codes(&row), &row["state"]),
            (vec!["container_runtime_silent".to_owned()], &state.into())
        );
        let finding = &row["findings"][0];
        assert_eq!(finding["subject"], "/var/run/docker.sock");
        assert!(finding["seen"].as_str().unwrap().contains("refused"), "{finding}");
        assert!(finding["fix"].as_str().unwrap().ends_with("sudo systemctl restart docker"));
    }
}

/// A file system in memory without room for the runner.
#[tokio::test]
async fn a_runner_that_a_full_disk_keeps_away_is_told_with_the_reason() {
    let mount = Mount::new("size=64m");
    let (host, operator) = (mount.host(""), operator("", ""));
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    let full = fs::write(host.home.join("full"), vec![0; 65 << 20]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let sweep = operator.run(["sweep", "--json"]).await.expect(3);
    let row = row(&sweep, "gpu-01");
    assert_eq!((&row["state"], &row["reason"]), (&"degraded".into(), &"runner_missing".into()));
    assert!(row["findings"][0]["seen"].as_str().unwrap().starts_with("no_space: "), "{row}");
    fs::remove_file(host.home.join("full")).unwrap();
    let mended = operator.run(["sweep", "--json"]).await.expect(0);
    assert_eq!(self::row(&mended, "gpu-01")["state"], "ready");
    host.assert_installed();
}

/// A repair needs leave, a host that nobody holds, and an attempt that is left.
#[tokio::test]
async fn services_are_restarted_only_where_that_is_allowed_and_nobody_is_hurt() {
    let tools = tempfile::tempdir().unwrap();
    let smi = tools.path().join("nvidia-smi");
    fs::write(&smi, "#!/bin/sh\necho \"$@\" >>\"$HOME/smi.log\"\n").unwrap();
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&smi, runs).unwrap();
    let environment = format!(
        "LD_LIBRARY_PATH={} FAKE_NVML=honest PATH={}:/usr/bin:/bin",
        fake_nvml().display(),
        tools.path().display()
    );
    let host = Host::with(&[], &environment);
    let operator = operator("restart_services = true\nrecovery_attempts = 2", "");
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let said = || fs::read_to_string(host.home.join("smi.log")).unwrap_or_default();
    let sweep = ["sweep", "--json", "--fail-on", "never"];
    for state in ["leased", "draining", "quarantined"] {
        let held = match state {
            "leased" => "UPDATE hosts SET state = 'leased'",
            "draining" => "UPDATE hosts SET state = 'draining'",
            _ => "UPDATE hosts SET state = 'quarantined'",
        };
        lock::change_database(&operator, held).await;
        let left = row(&operator.run(sweep).await.expect(0), "gpu-01");
        assert_eq!((&left["state"], said().as_str()), (&state.into(), ""), "{left}");
    }
    lock::change_database(&operator, "UPDATE hosts SET state = 'ready'").await;
    let off = operator.write("off.toml", &format!("[sweep]\n{IGNORED}"));
    operator.run(["--config", off.to_str().unwrap(), "sweep", "--fail-on", "never"]).await;
    assert_eq!(said(), "");
    for count in [1, 2, 2] {
        operator.run(sweep).await.expect(0);
        assert_eq!(said(), "-pm 1\n".repeat(count));
    }
    let audit = operator.audit().await;
    assert_eq!(audit.iter().filter(|kind| *kind == "recovery.succeeded").count(), 2, "{audit:?}");
}

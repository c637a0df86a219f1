//! Several GPUs of a host at once, by the built program over SSH. The host is one that proves with the
//! CPU in the place of GPUs, so that it can lie in any round; the table says that times are no matter.

use std::sync::Arc;

use orchestrator::fleet::{Fleet, GpuStep, VerifyError, VerifyEvent, VerifyOptions, verify};
use orchestrator::fleet_file::{Environment, FleetFile, SshConfig, resolve};
use orchestrator::ids::HostName;
use orchestrator::pow::SignedProof;
use orchestrator::runner::Artifact;
use orchestrator::signing_key::SigningKey;
use orchestrator::ssh::{Limits, SshContext, TrustPolicy};
use orchestrator::store::{GpuRequest, LeaseKind, NewLease, Store};
use pow_kernels::ModelTable;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::table::{self, ANY, Times};
use crate::cli::operator::{Finished, Operator, runner};
use crate::deploy::lies::{honest_build, with_runner};
use crate::hostile::prover::{Lie, Provers};
use crate::hostile::{Act, HostileHost, Hostility, Stream, frames};
use crate::sshd::generate_key;

const ONE: &str = "GPU-11111111-0000-0000-0000-000000000001";
const TWO: &str = "GPU-22222222-0000-0000-0000-000000000002";

/// A host whose runner shows these GPUs.
fn proving(gpus: &'static [(&'static str, Option<Lie>)]) -> Hostility {
    with_runner(move || {
        let talk = move || -> Box<dyn FnMut(_) -> _ + Send> {
            let mut provers = Provers::new(gpus);
            Box::new(move |message| provers.hear(message))
        };
        vec![
            Act::Write(Stream::Out, honest_build(frames::opening())),
            Act::Talk(Arc::new(talk)),
            Act::Exit(0),
            Act::Eof,
            Act::Close,
        ]
    })
}

/// Hosts and their operator.
struct Site {
    operator: Operator,
    hosts: Vec<HostileHost>,
}

impl Site {
    async fn start(hosts: impl IntoIterator<Item = Hostility>) -> Self {
        let operator = Operator::new();
        generate_key(&operator.file("key"), "ed25519", "");
        operator.write("models.toml", &table::with(ANY));
        let mut started = Vec::new();
        for hostility in hosts {
            started.push(HostileHost::start(hostility).await);
        }
        let site = Self { operator, hosts: started };
        site.claim("");
        site
    }

    /// Writes the fleet file with these further lines for each host.
    fn claim(&self, more: &str) {
        let entry = |(number, host): (usize, &HostileHost)| {
            format!(
                "[[hosts]]\nname = \"gpu-0{}\"\naddress = \"127.0.0.1\"\nport = {}\nuser = \"user\"\n\
                 identity_file = \"{}\"\nhost_key = \"{}\"\n{more}\n",
                number + 1,
                host.address().port(),
                self.operator.file("key").display(),
                host.fingerprint(),
            )
        };
        let entries: Vec<String> = self.hosts.iter().enumerate().map(entry).collect();
        self.operator.fleet(&entries);
    }

    async fn verify(&self, host: &str, more: &[&str]) -> (Finished, Value) {
        let usual = ["verify", host, "--json", "--hosts", "fleet.toml", "--models", "models.toml"];
        let finished = self.operator.run(usual.into_iter().chain(more.iter().copied())).await;
        let json = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|_| panic!("no document: {finished:?}"));
        (finished, json)
    }

    async fn store(&self) -> Store {
        Store::open(&self.operator.database()).await.unwrap()
    }

    async fn kinds(&self) -> Vec<String> {
        self.operator.audit().await
    }
}

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

#[tokio::test]
async fn two_gpus_are_proven_at_once_stored_exported_and_checked_again() {
    let site = Site::start([proving(&[(ONE, None), (TWO, None)])]).await;
    let (finished, json) = site.verify("gpu-01", &["--proof-out", "proofs"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(
        (&json["ok"], &json["reason"], &json["tries"]),
        (&true.into(), &Value::Null, &1.into())
    );
    for (gpu, uuid) in json["gpus"].as_array().unwrap().iter().zip([ONE, TWO]) {
        assert_eq!((&gpu["uuid"], &gpu["outcome"]), (&uuid.into(), &"accepted".into()));
        assert_eq!((&gpu["model"], &gpu["model_from"]), (&"fake".into(), &"driver".into()));
        assert_eq!(gpu["telemetry"]["sm_clock_mhz"]["max"], 1980);
        assert_eq!(gpu["telemetry"]["throttle_reasons"][0], "sw_power_cap");
        let checks: Vec<_> = gpu["checks"].as_array().unwrap().iter().collect();
        assert!(checks.iter().all(|row| row["status"] == "passed"), "{checks:?}");
        assert_eq!(checks.last().unwrap()["check"], "identity");
    }

    // Each GPU's challenge is its own: another memory, under its own UUID, one of two.
    let file = std::fs::read_to_string(site.operator.file("proofs")).unwrap();
    let documents: Vec<_> = file
        .split_inclusive('\n')
        .map(|line| SignedProof::from_json(line.as_bytes()).unwrap().record)
        .collect();
    assert_eq!(documents.len(), 2);
    let contexts: Vec<_> = documents
        .iter()
        .map(|record| pow_kernels::Challenge::try_from(&record.challenge).unwrap().context)
        .collect();
    assert_ne!(contexts[0].nonce_fill, contexts[1].nonce_fill);
    assert_ne!(documents[0].challenge.nonce_probe, documents[1].challenge.nonce_probe);
    let places: Vec<_> = contexts.iter().map(|c| (c.gpu_index, c.gpu_count)).collect();
    assert_eq!(places, [(0, 2), (1, 2)]);

    // Again without the host, and what is changed is named with its line.
    let check = ["verify-proof", "--json", "proofs"];
    let with_table = [&check[..], &["--models", "models.toml"]].concat();
    let again = site.operator.run(with_table.clone()).await.expect(0).json_lines().remove(0);
    assert_eq!(again["proofs"].as_array().unwrap().len(), 2);
    assert_eq!(again["proofs"][1]["gpu"]["uuid"], TWO);
    let unjudged = site.operator.run(check).await.expect(4).json_lines().remove(0);
    assert_eq!(unjudged["outcome"], "unproven", "the built-in table has no such model");
    let other = file.replacen(&format!("\"uuid\":\"{TWO}\""), &format!("\"uuid\":\"{ONE}\""), 1);
    assert_ne!(other, file);
    site.operator.write("changed", &other);
    let mut changed = with_table;
    changed[2] = "changed";
    let changed = site.operator.run(changed).await.expect(4).json_lines().remove(0);
    assert_eq!(changed["proofs"][0]["ok"], true);
    assert_eq!(changed["proofs"][1]["failed_check"], "signature");
    assert!(changed["message"].as_str().unwrap().contains("changed, line 2: signature"));

    // The history has each GPU's numbers.
    let store = site.store().await;
    let rows = store.last_challenges(&host("gpu-01")).await.unwrap();
    let uuids: Vec<_> = rows.iter().map(|row| row.gpu_uuid.as_deref().unwrap()).collect();
    assert_eq!(uuids, [ONE, TWO]);
    assert!(rows.iter().all(|row| row.outcome.as_deref() == Some("accepted")));
    assert!(rows.iter().all(|row| row.chain_ns > Some(0) && row.fill_ns > Some(0)));
    assert!(rows.iter().all(|row| row.telemetry_json.as_ref().unwrap().contains("1980")));
    assert!(store.least_rtt_ns(&host("gpu-01")).await.unwrap().unwrap() > 0);
    let seen = store.sightings(&host("gpu-01")).await.unwrap();
    assert!(seen.len() == 2 && seen.iter().all(|gpu| gpu.proven_ms.is_some()));
    assert_eq!(site.kinds().await, ["verify.passed"]);
}

#[tokio::test]
async fn people_see_a_row_for_each_gpu() {
    let site = Site::start([proving(&[(ONE, None), (TWO, Some(Lie::Hollow))])]).await;
    let arguments = [
        "verify",
        "gpu-01",
        "--hosts",
        "fleet.toml",
        "--models",
        "models.toml",
        "--color",
        "never",
    ];
    let shown = site.operator.run(arguments).await.expect(4);
    let line = |start: &str| {
        let found = shown.stdout.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{shown:?}")).to_owned()
    };
    assert!(line("0 ").contains("11111111") && line("0 ").contains("accepted"));
    assert!(line("1 ").contains("rejected") && line("1 ").ends_with("openings"));
    assert!(line("GPU 0 (11111111): its clocks").contains("sw_power_cap"));
    assert!(line("gpu-01: ").contains("GPU 1 (22222222): openings"), "{shown:?}");
    assert!(shown.stderr.contains("gpu-01: filling the memory"), "{shown:?}");
    assert!(shown.stderr.contains("challenged as fake, as its driver says"), "{shown:?}");
}

/// Every lie and every failure at once, each of another GPU, and one honest GPU beside them all.
#[tokio::test]
async fn whatever_the_others_say_the_honest_gpu_is_judged() {
    macro_rules! lies {
        ($($name:ident: $($digit:literal $lie:expr => $reason:literal $check:expr,)+)+) => {
            $(const $name: &[(&str, Option<Lie>)] = &[
                $((concat!("GPU-", $digit, "0000000-0000-0000-0000-000000000000"), Some($lie)),)+
                (ONE, None),
            ];)+
            fn expected() -> Vec<(Lie, &'static str, Option<&'static str>)> {
                vec![$($(($lie, $reason, $check),)+)+]
            }
        };
    }
    lies! {
        LIES:
        "0" Lie::AnotherGpu => "runner" None,
        "1" Lie::AnotherCapability => "claim_mismatch" Some("claim"),
        "2" Lie::FilledEarly => "runner" None,
        "3" Lie::AnotherReply => "runner" None,
        "4" Lie::AnotherBackend => "runner" None,
        "5" Lie::RootsEarly => "runner" None,
        "6" Lie::EndsEarly => "runner" None,
        "7" Lie::RootTooMany => "runner" None,
        "8" Lie::RootLeftOut => "runner" None,
        "9" Lie::RootTwice => "runner" None,
        "a" Lie::OpeningTooMany => "runner" None,
        "b" Lie::NoOpenings => "runner" None,
        "c" Lie::GoesOn => "runner" None,
        "d" Lie::Hollow => "rejected" Some("openings"),
        "e" Lie::WrongRecord => "rejected" Some("probe_replay"),
        FAILURES:
        "0" Lie::Fails("no_driver") => "no_driver" None,
        "1" Lie::Fails("driver_too_old") => "driver_too_old" None,
        "2" Lie::Fails("no_kernels") => "no_kernels" None,
        "3" Lie::Fails("gpu_not_found") => "gpu_not_found" None,
        "4" Lie::Fails("out_of_memory") => "out_of_memory" None,
        "5" Lie::Fails("gpu_busy") => "gpu_busy" None,
        "6" Lie::Fails("mig_enabled") => "mig_enabled" None,
        "7" Lie::Fails("ecc_error") => "ecc_error" None,
        "8" Lie::Fails("gpu_lost") => "gpu_lost" None,
        "9" Lie::Fails("selftest_failed") => "selftest_failed" None,
        "a" Lie::Fails("deadline") => "deadline" None,
        "b" Lie::Fails("crashed") => "runner" None,
        "c" Lie::Fails("\u{1b}[2J") => "runner" None,
    }
    for (gpus, code, reason) in [(LIES, 4, "claim_mismatch"), (FAILURES, 5, "no_driver")] {
        let site = Site::start([proving(gpus)]).await;
        let (finished, json) = site.verify("gpu-01", &[]).await;
        assert_eq!(finished.code, Some(code), "{json}");
        assert_eq!((&json["ok"], &json["reason"]), (&false.into(), &reason.into()), "{json}");
        assert_eq!(json["tries"], 1, "a lie is not tried again");
        let all = json["gpus"].as_array().unwrap();
        assert_eq!(all.len(), gpus.len());
        for (gpu, (uuid, lie)) in all.iter().zip(gpus) {
            assert_eq!(gpu["uuid"], *uuid);
            let Some(lie) = lie else {
                assert_eq!(gpu["outcome"], "accepted", "{gpu}");
                continue;
            };
            let (_, reason, check) = expected().into_iter().find(|(of, ..)| of == lie).unwrap();
            assert_eq!(
                (&gpu["ok"], &gpu["reason"]),
                (&false.into(), &reason.into()),
                "{lie:?}: {gpu}"
            );
            assert_eq!(gpu["failed_check"].as_str(), check, "{lie:?}: {gpu}");
            let message = gpu["message"].as_str().unwrap();
            assert!(!message.is_empty() && !message.contains('\u{1b}'), "{lie:?}: {message:?}");
        }
        let rows = site.store().await.challenges(&host("gpu-01"), 99).await.unwrap();
        assert_eq!(rows.len(), gpus.len());
        assert!(rows.iter().all(|row| row.ended_ms.is_some()), "{rows:?}");
        assert_eq!(site.kinds().await, ["verify.failed"]);
    }
}

#[tokio::test]
async fn progress_without_end_ends_the_session_and_not_us() {
    let site = Site::start([proving(&[(ONE, Some(Lie::EndlessProgress))])]).await;
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!(finished.code, Some(5), "{json}");
    assert_eq!(json["reason"], "runner");
    let rows = site.store().await.challenges(&host("gpu-01"), 9).await.unwrap();
    assert_eq!(rows[0].reason.as_deref(), Some("runner"));
}

/// No CPU multiplies in the time of this table, so every try is too slow.
#[tokio::test]
async fn slow_gpus_are_challenged_again_all_together_and_then_rejected() {
    let site = Site::start([proving(&[(ONE, None), (TWO, None)])]).await;
    let slow = Times { expected_us: 1, floor_us: 1 };
    site.operator.write("models.toml", &table::with(slow));
    let (finished, json) = site.verify("gpu-01", &["--tries", "2"]).await;
    assert_eq!(finished.code, Some(4), "{json}");
    assert_eq!((&json["tries"], &json["reason"]), (&2.into(), &"rejected".into()));
    for gpu in json["gpus"].as_array().unwrap() {
        let failed = gpu["failed_check"].as_str().unwrap();
        assert!(["residency_timing", "gemm_timing"].contains(&failed), "{gpu}");
    }
    let rows = site.store().await.challenges(&host("gpu-01"), 9).await.unwrap();
    assert_eq!(rows.len(), 4, "each try has fresh challenges, and each of them its end");
    assert!(rows.iter().all(|row| row.outcome.as_deref() == Some("rejected")));
    assert_eq!(site.kinds().await, ["verify.failed"]);
}

#[tokio::test]
async fn a_gpu_that_is_too_fast_for_its_model_is_not_tried_again() {
    let site = Site::start([proving(&[(ONE, None)])]).await;
    let fast = Times { expected_us: 600_000_000, floor_us: 600_000_000 };
    site.operator.write("models.toml", &table::with(fast));
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!((finished.code, &json["tries"]), (Some(4), &1.into()), "{json}");
    assert_eq!(json["gpus"][0]["failed_check"], "too_fast");
}

/// The table's floors leave no time at all for a later probe, so that the first one passes and the
/// hold does not: nobody can tell that the memory was not filled again.
#[tokio::test]
async fn a_held_memory_is_probed_again_and_each_probe_is_judged() {
    let site = Site::start([proving(&[(ONE, None), (TWO, None)])]).await;
    let hold = ["--mode", "hold", "--hold-for", "50ms", "--tries", "1", "--proof-out", "proofs"];
    let (finished, json) = site.verify("gpu-01", &hold).await;
    assert_eq!(finished.code, Some(4), "{json}");
    for gpu in json["gpus"].as_array().unwrap() {
        assert_eq!(gpu["failed_check"], "residency_timing");
        assert!(gpu["message"].as_str().unwrap().contains("later probe 1 of the hold"), "{gpu}");
        assert_eq!(gpu["held_timings"].as_array().unwrap().len(), 1);
        assert!(gpu["held_timings"][0]["fill_ns"].is_null());
    }
    let file = std::fs::read_to_string(site.operator.file("proofs")).unwrap();
    let held: Vec<_> = file
        .split_inclusive('\n')
        .map(|line| SignedProof::from_json(line.as_bytes()).unwrap().record.held)
        .collect();
    assert_eq!(held, [None, Some(1), None, Some(1)]);
    let check = ["verify-proof", "--json", "proofs", "--models", "models.toml"];
    let again = site.operator.run(check).await.expect(4).json_lines().remove(0);
    let failed: Vec<_> =
        again["proofs"].as_array().unwrap().iter().map(|one| &one["failed_check"]).collect();
    let late = &Value::from("residency_timing");
    assert_eq!(failed, [&Value::Null, late, &Value::Null, late]);
}

#[tokio::test]
async fn the_claim_chooses_the_model_and_counts() {
    let site = Site::start([proving(&[(ONE, None), (TWO, None)])]).await;
    site.claim("gpus = { model = \"FAKE GPU (SIMT shim)\", count = 2 }");
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!(finished.code, Some(0), "{json}");
    assert_eq!(json["gpus"][0]["model_from"], "fleet_file");
    assert_eq!(json["checks"][0]["status"], "passed");
    site.claim("gpus = { model = \"FAKE GPU (SIMT shim)\", count = 8 }");
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!((finished.code, &json["reason"]), (Some(4), &"claim_mismatch".into()), "{json}");
    assert!(json["message"].as_str().unwrap().contains("claims 8 x"), "{json}");
    assert_eq!(json["gpus"][1]["outcome"], "accepted", "those that are there are proven");
    let (finished, json) = site.verify("gpu-01", &["--gpu", TWO]).await;
    assert_eq!((finished.code, json["gpus"].as_array().unwrap().len()), (Some(0), 1), "{json}");
    assert_eq!(json["gpus"][0]["uuid"], TWO);
    let missing = "GPU-33333333-0000-0000-0000-000000000003";
    let (finished, json) = site.verify("gpu-01", &["--gpu", missing]).await;
    assert_eq!((finished.code, &json["reason"]), (Some(5), &"gpu_not_found".into()), "{json}");
    assert!(json["hint"].as_str().unwrap().contains(ONE), "{json}");
}

#[tokio::test]
async fn a_model_that_no_table_has_is_named_with_the_way_on() {
    let site = Site::start([proving(&[(ONE, None)])]).await;
    let plain = ["verify", "gpu-01", "--json", "--hosts", "fleet.toml"];
    let finished = site.operator.run(plain).await.expect(5);
    let json = finished.json_lines().remove(0);
    assert_eq!(json["reason"], "unknown_model");
    let gpu = &json["gpus"][0];
    assert!(gpu["message"].as_str().unwrap().contains("FAKE GPU (SIMT shim)"), "{gpu}");
    assert!(gpu["hint"].as_str().unwrap().contains("calibrate"), "{gpu}");
    assert_eq!(site.store().await.challenges(&host("gpu-01"), 9).await.unwrap(), []);
}

#[tokio::test]
async fn one_gpu_on_two_hosts_is_an_alarm_until_one_of_them_is_without_it() {
    let both = || [proving(&[(ONE, None)]), proving(&[(ONE, None), (TWO, None)])];
    let site = Site::start(both()).await;
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!(finished.code, Some(0), "{json}");
    let (finished, json) = site.verify("gpu-02", &[]).await;
    assert_eq!((finished.code, &json["reason"]), (Some(4), &"duplicate_gpu".into()), "{json}");
    let shared = &json["gpus"][0];
    assert_eq!(shared["failed_check"], "identity");
    let words = shared["message"].as_str().unwrap();
    assert!(words.contains("gpu-01") && words.contains("proven there"), "{words}");
    assert_eq!(json["gpus"][1]["outcome"], "accepted");
    // The first host is accused as well: which of the two lies is not known.
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!(finished.code, Some(4), "{json}");
    assert!(json["message"].as_str().unwrap().contains("gpu-02"), "{json}");
    // A deploy tells it too, and does its work.
    let deployed = site.operator.deploy([]).await.expect(0);
    assert!(deployed.row("gpu-01")["message"].as_str().unwrap().contains("is shown by gpu-02 too"));
    let shown = site.operator.run(["hosts", "show", "gpu-02", "--json"]).await.expect(0);
    let shown = shown.json_lines().remove(0);
    let verdicts = shown["verdicts"].as_array().unwrap();
    let outcomes: Vec<_> = verdicts.iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["rejected", "accepted"], "{shown}");
    assert_eq!(verdicts[0]["failed_check"], "identity");
    let words = site.operator.run(["hosts", "show", "gpu-02", "--color", "never"]).await.expect(0);
    let line = words.stdout.lines().find(|line| line.starts_with("22222222")).unwrap();
    assert!(line.contains("fake") && line.contains("accepted"), "{line}");
    let kinds = site.kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "gpu.duplicate").count(), 4, "{kinds:?}");
    // The other host is given back; from then on nobody else shows it.
    site.operator.run(["hosts", "purge", "gpu-02", "--forget", "--yes"]).await;
    let purged = site.kinds().await.contains(&"host.purged".to_owned());
    assert!(purged, "the purge is the premise of what follows");
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!(finished.code, Some(0), "{json}");
}

/// Stopped at every step of a GPU: the store has an end for each challenge, and the host's channel is
/// closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_at_any_step_nothing_is_left_open() {
    let steps = [
        GpuStep::Preparing,
        GpuStep::Loading,
        GpuStep::Filling,
        GpuStep::Filled,
        GpuStep::Probing,
        GpuStep::Opening,
        GpuStep::Holding,
        GpuStep::Releasing,
    ];
    for stop_at in steps {
        let site =
            Site::start([proving(&[(ONE, Some(Lie::Hollow)), (TWO, Some(Lie::Hollow))])]).await;
        let file = FleetFile::load(&site.operator.file("fleet.toml")).unwrap();
        let environment = Environment {
            home: site.operator.home(),
            local_user: None,
            ssh_config: SshConfig::Usual,
            ssh_program: "ssh".into(),
        };
        let spec = resolve(&file, &environment).await.unwrap().hosts.remove(0);
        let ssh = SshContext::new(Limits::default(), TrustPolicy::default());
        let fleet =
            Fleet { store: site.store().await, ssh: ssh.into(), actor: "ops@desk".to_owned() };
        let key = Arc::new(SigningKey::load_or_create(&site.operator.home()).unwrap());
        let artifact = Arc::new(Artifact::read(&runner()).unwrap());
        let options = VerifyOptions {
            models: Arc::new(ModelTable::parse(&table::with(ANY)).unwrap()),
            mode: pow_kernels::Mode::Hold,
            hold_for: std::time::Duration::from_millis(1),
            ..VerifyOptions::new(artifact, key)
        };
        let cancel = CancellationToken::new();
        let on_event = |event| {
            if event == (VerifyEvent::Gpu { gpu: 1, step: stop_at }) {
                cancel.cancel();
            }
        };
        let stopped = verify(&fleet, &spec, &options, &on_event, &cancel).await;
        assert!(matches!(stopped, Err(VerifyError::Cancelled)), "{stop_at:?}: {stopped:?}");
        let rows = fleet.store.challenges(&host("gpu-01"), 9).await.unwrap();
        assert_eq!(rows.len(), 2, "{stop_at:?}");
        for row in &rows {
            let end = (row.outcome.as_deref(), row.reason.as_deref());
            assert_eq!(end, (Some("failed"), Some("cancelled")), "{stop_at:?}");
        }
        assert_eq!(fleet.store.audit_verify(None).await.unwrap().fault, None);
        let closed = site.hosts[0].wait_for(|seen| seen.ended == 1);
        tokio::time::timeout(crate::cli::operator::STUCK, closed).await.expect("still connected");
    }
}

#[tokio::test]
async fn a_trusted_card_is_measured_and_its_table_is_used() {
    let site = Site::start([proving(&[(ONE, None)])]).await;
    site.operator.write("models.toml", &table::with_products(ANY, 1));
    let usual = ["calibrate", "gpu-01", "--json", "--hosts", "fleet.toml"];
    let arguments = ["--models", "models.toml", "--runs", "2", "--out", "own.toml"];
    let arguments = usual.into_iter().chain(arguments);
    let json = site.operator.run(arguments.clone()).await.expect(0).json_lines().remove(0);
    assert_eq!((&json["was_known"], &json["model"]["name"]), (&true.into(), &"fake".into()));
    let counts: Vec<_> = json["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| {
            (
                phase["mode"].as_str().unwrap(),
                phase["phase"].as_str().unwrap(),
                phase["count"].as_u64().unwrap(),
            )
        })
        .collect();
    let mode = |mode| [(mode, "fill", 2), (mode, "chain", 2), (mode, "gemm", 2)];
    assert_eq!(counts, [mode("quick"), mode("deep")].concat());
    let text = std::fs::read_to_string(site.operator.file("own.toml")).unwrap();
    assert!(text.starts_with("# Measured with"), "{text}");
    let measured = ModelTable::parse(&text).unwrap().by_id(4001).unwrap().clone();
    for phase in [measured.quick.fill, measured.quick.chain, measured.deep.gemm] {
        assert_eq!(phase.evidence, pow_kernels::Evidence::Measured);
        assert!(phase.expected_us < ANY.expected_us);
    }
    // It is not written over, and it judges: how, depends on what this machine does besides.
    site.operator.run(arguments).await.expect(1);
    std::fs::copy(site.operator.file("own.toml"), site.operator.file("models.toml")).unwrap();
    let (_, json) = site.verify("gpu-01", &["--tries", "1"]).await;
    assert_eq!(json["gpus"][0]["evidence"], "measured", "{json}");
    assert_eq!(&site.kinds().await[..1], ["calibrate.measured"]);
}

#[tokio::test]
async fn a_card_that_computes_wrongly_or_has_no_sizes_calibrates_nothing() {
    let site = Site::start([proving(&[(ONE, Some(Lie::WrongRecord))])]).await;
    let usual = ["calibrate", "gpu-01", "--json", "--hosts", "fleet.toml", "--runs", "2"];
    let with_table = usual.into_iter().chain(["--models", "models.toml", "--out", "own.toml"]);
    let json = site.operator.run(with_table).await.expect(5).json_lines().remove(0);
    assert_eq!(json["reason"], "rejected");
    assert!(json["causes"].to_string().contains("probe_replay"), "{json}");
    assert!(!site.operator.file("own.toml").exists());
    let json = site.operator.run(usual).await.expect(5).json_lines().remove(0);
    assert_eq!(json["reason"], "input");
    assert!(json["causes"].to_string().contains("4000000000"), "{json}");
}

#[tokio::test]
async fn a_gpu_that_somebody_holds_is_left_alone_and_the_others_are_held_meanwhile() {
    let site = Site::start([proving(&[(ONE, None), (TWO, None)])]).await;
    site.operator.deploy([]).await.expect(0);
    let store = site.store().await;
    let wanted = NewLease {
        host: host("gpu-01"),
        kind: LeaseKind::Container,
        gpus: GpuRequest::These(vec![ONE.to_owned()]),
        expires_ms: None,
    };
    let lease = store.acquire_lease("tenant@desk", &wanted).await.unwrap();
    let (finished, json) = site.verify("gpu-01", &[]).await;
    assert_eq!((finished.code, &json["reason"]), (Some(5), &"lease".into()), "{json}");
    let (held, free) = (&json["gpus"][0], &json["gpus"][1]);
    assert_eq!((&held["uuid"], &held["reason"]), (&ONE.into(), &"lease".into()));
    assert!(held["message"].as_str().unwrap().contains("tenant@desk"), "{held}");
    assert_eq!(free["outcome"], "accepted");
    let rows = store.challenges(&host("gpu-01"), 9).await.unwrap();
    assert_eq!(rows.len(), 1, "what is held is not asked");
    // The verification's own lease was taken and has ended; the tenant's stands.
    let live = store.live_leases(Some(&host("gpu-01"))).await.unwrap();
    let live: Vec<_> = live.iter().map(|lease| lease.id.as_str()).collect();
    assert_eq!(live, [lease.id.as_str()]);
    let kinds = site.kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "lease.taken").count(), 2, "{kinds:?}");
}

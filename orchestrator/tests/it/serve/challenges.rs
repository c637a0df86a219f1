//! Challenges with a validator's own nonces, through `serve`: a real sshd, the real runner, a stand-in
//! for the GPUs' driver, and a validator that believes nothing and checks the proofs itself.

use std::time::Instant;

use orchestrator::ids::HostName;
use orchestrator::pow::{ChallengeRecord, Judgement, SignedProof, judge};
use orchestrator::store::{GpuRequest, LeaseKind, NewLease, Store};
use orchestrator::wallet::HotkeyPair;
use pow_kernels::{Challenge, Context, Mode, ModelTable, Outcome, QueryCounts, Timings};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::validators::{axon, call, miner, pair, signature};
use super::{Answer, Service, head, until};
use crate::cli::operator::{Operator, STUCK, eventually};
use crate::deploy::host::Host;
use crate::python;
use crate::verify::fake_gpus::{self, ONE, TWO};
use crate::verify::table::{self, ANY};

const OPEN: &str = "/v1/challenges";
const PROBE: &str = "/v1/challenges/probe";
const COMMITMENTS: &str = "/v1/challenges/open";
const CANCEL: &str = "/v1/challenges/cancel";

struct Site {
    operator: Operator,
    host: Host,
    service: Service,
}

impl Site {
    /// A host with two stand-ins for GPUs, and a service that lets these in.
    async fn start(validators: &[&HotkeyPair], more: &str) -> Self {
        Self::with(&[ONE, TWO], "", validators, more).await
    }

    async fn with(gpus: &[&str], faults: &str, validators: &[&HotkeyPair], more: &str) -> Self {
        let gpus: Vec<String> = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        let host = fake_gpus::host(&gpus, faults);
        let more = format!(
            "[validator_comms.rate_limit]\nenabled = false\n\
             [validator_challenges]\nmodels = \"models.toml\"\n{more}"
        );
        // Every validator may ask for every host.
        let operator = miner(validators, &format!("enabled = false\n{more}"));
        operator.write("models.toml", &models());
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        let service = Service::start(&operator).await;
        let site = Self { operator, host, service };
        // The axon accepts nothing that was signed before it began, and the fleet is read meanwhile.
        until("it serves challenges", async || {
            let answer = site.open(validators[0], json!({ "gpus": [NOBODY] })).await;
            (answer.status == 404).then(|| assert_eq!(answer.json()["code"], "no_gpu"))
        })
        .await;
        site
    }

    /// Opens a challenge, answered at once.
    async fn open(&self, who: &HotkeyPair, more: Value) -> Answer {
        call(&self.service, who, OPEN, opening(more)).await
    }

    /// The same, where it must be opened: its id.
    async fn opened(&self, who: &HotkeyPair, more: Value) -> String {
        let answer = self.open(who, more).await.expect(200).json();
        answer["challenge"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, who: &HotkeyPair, path: &str, body: Value) -> (u16, String) {
        let answer = call(&self.service, who, path, body).await;
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn stream(&self, who: &HotkeyPair, path: &str, body: Value) -> Stream {
        stream(&self.service, who, path, body).await
    }

    async fn store(&self) -> Store {
        store(&self.operator).await
    }

    async fn is_free(&self) {
        let store = self.store().await;
        until("the GPUs are free", async || {
            store.live_leases(None).await.unwrap().is_empty().then_some(())
        })
        .await;
        // What the service holds is a connection for its sweeps, without a runner in between.
        eventually("no prover is left", || {
            !self.host.left_running().iter().any(|line| line.contains("prove"))
        })
        .await;
    }
}

async fn store(operator: &Operator) -> Store {
    Store::open(&operator.database()).await.unwrap()
}

/// A UUID that no device has.
const NOBODY: &str = "GPU-99999999-0000-0000-0000-000000000009";

fn models() -> String {
    table::with_products(ANY, 1)
}

fn opening(more: Value) -> Value {
    let mut body = json!({ "host": "gpu-01", "nonce_fill": "11".repeat(32) });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// One request as SDK 11 signs it, whose answer comes in lines.
pub async fn stream(service: &Service, who: &HotkeyPair, path: &str, body: Value) -> Stream {
    let body = body.to_string();
    let mut headers = signature(who, path, &body).to_vec();
    headers.push(("Accept", "application/x-ndjson".to_owned()));
    headers.push(("Content-Length", body.len().to_string()));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let address = axon(service);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = head(address, "POST", path, &headers) + &body;
    stream.write_all(request.as_bytes()).await.unwrap();
    Stream(BufReader::new(stream))
}

/// An answer in lines.
pub struct Stream(BufReader<TcpStream>);

impl Stream {
    /// The next line and when it came; `None` at the end.
    pub async fn next(&mut self) -> Option<(Value, Instant)> {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(STUCK, self.0.read_line(&mut line)).await;
            match read.expect("no line comes") {
                Ok(0) | Err(_) => return None,
                Ok(_) if line.starts_with('{') => {
                    return Some((serde_json::from_str(&line).unwrap(), Instant::now()));
                }
                Ok(_) => {}
            }
        }
    }

    /// All lines up to the last, which must be a result.
    async fn all(mut self) -> Vec<(Value, Instant)> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        assert_eq!(lines.last().unwrap().0["event"], "result", "{lines:?}");
        lines
    }
}

/// What a validator finds out of the proof of one GPU by itself: nothing but the signed document's
/// openings and roots comes from the miner, and the document is not believed.
fn check(
    document: &str,
    context: &Context,
    nonces: &[[u8; 32]; 3],
    roots: &[String],
    timings: &Timings,
) -> Outcome {
    let record = SignedProof::from_json(document.as_bytes()).unwrap().record;
    let challenge = Challenge {
        context: context.clone(),
        nonce_probe: nonces[1],
        nonce_open: nonces[2],
        counts: QueryCounts::for_mode(Mode::Quick),
    };
    let commitments = &record.proof.commitments;
    let committed: Vec<String> = std::iter::once(&commitments.probe_root)
        .chain(&commitments.gemm_roots)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        committed, roots,
        "the roots are those that were told before the openings were asked"
    );
    assert_eq!(record.challenge, ChallengeRecord::from(&challenge));
    let table = ModelTable::parse(&models()).unwrap();
    let by = Judgement { table: &table, allow_reference: false, least_rtt_ns: None, held: false };
    let verdict = judge(&challenge, &record.proof, timings, &by);
    // The same proof is worth nothing under another nonce.
    for other in [
        Challenge { nonce_probe: [9; 32], ..challenge.clone() },
        Challenge { nonce_open: [9; 32], ..challenge.clone() },
        Challenge { context: Context { nonce_fill: [9; 32], ..context.clone() }, ..challenge },
    ] {
        assert_eq!(judge(&other, &record.proof, timings, &by).outcome(), Outcome::Rejected);
    }
    verdict.outcome()
}

fn context(hexadecimal: &Value) -> Context {
    let bytes = orchestrator::hex::decode(hexadecimal.as_str().unwrap()).unwrap();
    Context::decode(&bytes).unwrap()
}

fn hexadecimal(nonce: &[u8; 32]) -> String {
    orchestrator::hex::encode(nonce)
}

#[tokio::test]
async fn a_validator_challenges_with_its_own_nonces_and_checks_the_proofs_itself() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "").await;
    let nonces = [[0x11; 32], [0x22; 32], [0x33; 32]];

    // Each phase as it comes, up to the filled memories.
    let opened = site.stream(&validator, OPEN, opening(json!({}))).await.all().await;
    let phases: Vec<&str> = opened.iter().filter_map(|(line, _)| line["phase"].as_str()).collect();
    for phase in ["connecting", "looking", "challenging", "loading", "filling", "filled"] {
        assert!(phases.contains(&phase), "{phase} of {phases:?}");
    }
    assert!(!phases.contains(&"probing"), "nothing is walked before its nonce: {phases:?}");
    let result = &opened.last().unwrap().0;
    assert_eq!(opened[0].0["challenge"], result["challenge"]);
    let gpus = result["issued"].as_array().unwrap();
    let contexts: Vec<Context> = gpus.iter().map(|gpu| context(&gpu["context"])).collect();
    let fingerprint = crate::deploy::host::sha256(&ssh_key_blob(
        &site.host.sshd.dir.path().join("host_ed25519.pub"),
    ));
    for (context, (index, uuid)) in contexts.iter().zip([(0, ONE), (1, TWO)]) {
        assert_eq!(context.nonce_fill, nonces[0]);
        assert_eq!(context.validator_hotkey, *validator.hotkey().public_key());
        assert_eq!(context.orchestrator_hotkey, *pair(1).hotkey().public_key());
        assert_eq!(orchestrator::hex::encode(&context.host_id), fingerprint);
        assert_eq!(Some(context.gpu_uuid), orchestrator::pow::raw_uuid(uuid));
        assert_eq!((context.gpu_index, context.gpu_count, context.mode), (index, 2, Mode::Quick));
    }
    let id = &result["challenge"];

    // The GPUs are held meanwhile, by the validator.
    let leases = site.store().await.live_leases(None).await.unwrap();
    assert_eq!(leases.len(), 1);
    assert_eq!((leases[0].kind, leases[0].gpus.len()), (LeaseKind::Verify, 2));
    assert_eq!(leases[0].actor, format!("validator:{}", validator.hotkey()));
    // What is stored of it has no nonce yet that nobody but the validator knows.
    let rows = site.store().await.challenges(&host_name(), 9).await.unwrap();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.ended_ms.is_none()), "{rows:?}");

    // Each root when it comes, on the validator's own clock.
    let began = Instant::now();
    let body = json!({ "challenge": id, "nonce_probe": hexadecimal(&nonces[1]) });
    let probed = site.stream(&validator, PROBE, body).await.all().await;
    let mut clocks = Vec::new();
    for uuid in [ONE, TWO] {
        let of = |line: &Value| line["event"] == "root" && line["gpu"] == uuid;
        let roots: Vec<_> = probed.iter().filter(|(line, _)| of(line)).collect();
        assert_eq!(roots.len(), 2, "{probed:?}");
        assert_eq!((&roots[0].0["product"], &roots[1].0["product"]), (&Value::Null, &json!(0)));
        let told: Vec<String> =
            roots.iter().map(|(line, _)| line["root"].as_str().unwrap().to_owned()).collect();
        let chain_ns = u64::try_from((roots[0].1 - began).as_nanos()).unwrap();
        let gemm_ns = u64::try_from((roots[1].1 - roots[0].1).as_nanos()).unwrap();
        // Faster than the table's floor of a microsecond is no time.
        clocks.push((told, Timings { fill_ns: None, chain_ns, gemm_ns: vec![gemm_ns.max(1_000)] }));
    }
    assert_eq!(probed.last().unwrap().0["roots"][1]["probe_root"], clocks[1].0[0]);

    let body = json!({ "challenge": id, "nonce_open": hexadecimal(&nonces[2]) });
    let judged = site.stream(&validator, COMMITMENTS, body.clone()).await.all().await;
    let documents: Vec<&Value> =
        judged.iter().map(|(line, _)| line).filter(|line| line["event"] == "proof").collect();
    assert_eq!(documents.len(), 2, "{judged:?}");
    for ((document, context), (roots, timings)) in documents.iter().zip(&contexts).zip(&clocks) {
        let document = document["document"].as_str().unwrap();
        assert_eq!(check(document, context, &nonces, roots, timings), Outcome::Accepted);
    }
    let result = &judged.last().unwrap().0;
    assert_eq!(
        (&result["passed"], &result["gpus"][1]["outcome"]),
        (&json!(true), &json!("accepted"))
    );
    // It is over.
    let over = site.refused(&validator, COMMITMENTS, body).await;
    assert_eq!(over, (404, "no_challenge".to_owned()));
    site.is_free().await;
    let rows = site.store().await.challenges(&host_name(), 9).await.unwrap();
    for row in rows {
        assert_eq!(row.outcome.as_deref(), Some("accepted"));
        assert_eq!(row.issued_by, format!("validator:{}", validator.hotkey()));
    }
    site.service.stop().await;
    assert!(site.operator.audit().await.contains(&"verify.passed".to_owned()));
    let events = store(&site.operator).await.events_after(0, None, 999).await.unwrap();
    let passed = events.iter().find(|event| event.kind == "verify.passed").unwrap();
    assert_eq!(passed.actor, format!("validator:{}", validator.hotkey()));
    eventually("nothing is left running", || site.host.left_running().is_empty()).await;
}

fn host_name() -> HostName {
    HostName::new("gpu-01").unwrap()
}

fn ssh_key_blob(public: &std::path::Path) -> Vec<u8> {
    use base64::Engine as _;
    let text = std::fs::read_to_string(public).unwrap();
    let blob = text.split(' ').nth(1).unwrap();
    base64::engine::general_purpose::STANDARD.decode(blob).unwrap()
}

#[tokio::test]
async fn dendrite_of_sdk_10_makes_a_whole_challenge() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "").await;
    let (port, hotkey) = (axon(&site.service).port().to_string(), pair(1).hotkey().to_string());
    let seed = format!("0x{}", "07".repeat(32));
    let arguments = [port.as_str(), &hotkey, &seed, "gpu-01", TWO];
    let results = python::run("sdk10", "challenge_calls.py", &arguments).await;
    let status = |name: &str| results[name]["status"].as_u64();
    assert_eq!(
        ["opened", "early", "probed", "judged", "over"].map(status),
        [Some(200), Some(409), Some(200), Some(200), Some(404)],
        "{results}"
    );
    assert_eq!((&results["passed"], &results["gpus"][0]["gpu"]), (&json!(true), &json!(TWO)));
    let nonce = |place: usize| -> [u8; 32] {
        let text = results["nonces"][place].as_str().unwrap();
        orchestrator::hex::decode(text).unwrap().try_into().unwrap()
    };
    let nonces = [nonce(0), nonce(1), nonce(2)];
    let find = |events: &str, kind: &str| {
        let events = results[events].as_array().unwrap();
        events.iter().find(|event| event["event"] == kind).unwrap().clone()
    };
    let context = context(&find("opened_events", "issued")["context"]);
    assert_eq!((context.nonce_fill, context.gpu_count), (nonces[0], 1));
    let told = &results["roots"][0];
    let roots = [&told["probe_root"], &told["gemm_roots"][0]];
    let roots: Vec<String> = roots.iter().map(|root| root.as_str().unwrap().to_owned()).collect();
    assert_eq!(find("probed_events", "root")["root"], roots[0]);
    let document = find("judged_events", "proof")["document"].as_str().unwrap().to_owned();
    // It takes no times: it has one answer for all roots.
    let timings = Timings { fill_ns: None, chain_ns: 1_000_000, gemm_ns: vec![1_000_000] };
    assert_eq!(check(&document, &context, &nonces, &roots, &timings), Outcome::Accepted);
    site.service.stop().await;
}

#[tokio::test]
async fn nonces_come_in_their_turn_from_their_owner_alone() {
    let (validator, other) = (pair(7), pair(8));
    let site = Site::start(&[&validator, &other], "rate_limit = 1\n").await;
    let nonce = "22".repeat(32);
    for (body, expected) in [
        (json!({ "nonce_fill": "22" }), (400, "bad_request")),
        (json!({ "nonce_fill": null }), (400, "bad_request")),
        (json!({ "mode": "hold" }), (400, "bad_request")),
        (json!({ "gpus": "all" }), (400, "bad_request")),
        (json!({ "gpus": [ONE, ONE] }), (400, "bad_request")),
        (json!({ "gpus": ["GPU-1; id"] }), (400, "bad_request")),
        (json!({ "host": "gpu-02" }), (404, "no_host")),
        (json!({ "gpus": [NOBODY] }), (404, "no_gpu")),
    ] {
        let refused = site.refused(&validator, OPEN, opening(body.clone())).await;
        assert_eq!((refused.0, refused.1.as_str()), expected, "{body}");
    }
    let id = site.opened(&validator, json!({ "gpus": [ONE] })).await;
    let probe = json!({ "challenge": id, "nonce_probe": nonce });
    let commitments = json!({ "challenge": id, "nonce_open": nonce });
    let unknown = json!({ "challenge": "00".repeat(16), "nonce_probe": nonce });
    for (who, path, body, expected) in [
        // Out of turn, of no such challenge, of another's, without a nonce.
        (&validator, COMMITMENTS, commitments.clone(), (409, "wrong_round")),
        (&validator, PROBE, unknown.clone(), (404, "no_challenge")),
        (&other, PROBE, probe.clone(), (404, "no_challenge")),
        (&other, CANCEL, json!({ "challenge": id }), (404, "no_challenge")),
        (&validator, PROBE, json!({ "challenge": id }), (400, "bad_request")),
        // One at a time on a host.
        (&other, OPEN, opening(json!({ "gpus": [TWO] })), (409, "host_busy")),
    ] {
        let refused = site.refused(who, path, body.clone()).await;
        assert_eq!((refused.0, refused.1.as_str()), expected, "{path} {body}");
    }
    // None of this has disturbed it.
    call(&site.service, &validator, PROBE, probe.clone()).await.expect(200);
    let again = site.refused(&validator, PROBE, probe).await;
    assert_eq!(again, (409, "wrong_round".to_owned()));
    let judged = call(&site.service, &validator, COMMITMENTS, commitments).await.expect(200);
    assert_eq!(judged.json()["passed"], true);
    // That was as many as it may begin for now.
    let again = site.refused(&validator, OPEN, opening(json!({ "gpus": [ONE] }))).await;
    assert_eq!(again, (429, "limit".to_owned()));
    // Another begins at once, and is cancelled.
    let id = site.opened(&other, json!({ "gpus": [ONE] })).await;
    let cancelled = call(&site.service, &other, CANCEL, json!({ "challenge": id })).await;
    assert_eq!(cancelled.expect(200).json()["cancelled"], true);
    assert!(site.store().await.live_leases(None).await.unwrap().is_empty(), "it is over by then");
    site.is_free().await;
    site.service.stop().await;
}

#[tokio::test]
async fn a_validator_has_so_many_under_way_on_all_hosts_together() {
    let (validator, second) = (pair(7), fake_gpus::host(&[TWO.to_owned()], ""));
    let site = Site::with(&[ONE], "", &[&validator], "max_per_validator = 1\n").await;
    site.operator.fleet(&[site.host.pinned("gpu-01"), second.pinned("gpu-02")]);
    site.operator.deploy([]).await.expect(0);
    site.opened(&validator, json!({})).await;
    // The fleet is read anew when a host comes, so that the second one is known by then or then.
    let refused = site.refused(&validator, OPEN, opening(json!({ "host": "gpu-02" }))).await;
    assert_eq!(refused, (429, "limit".to_owned()));
    let refused = site.refused(&validator, OPEN, opening(json!({}))).await;
    assert_eq!(refused, (409, "host_busy".to_owned()));
    site.service.stop().await;
}

#[tokio::test]
async fn a_late_nonce_ends_the_challenge_and_frees_the_gpus() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "round_timeout = \"300ms\"\n").await;
    let id = site.opened(&validator, json!({})).await;
    site.is_free().await;
    let late = json!({ "challenge": id, "nonce_probe": "22".repeat(32) });
    let late = site.refused(&validator, PROBE, late).await;
    assert_eq!(late, (404, "no_challenge".to_owned()));
    site.service.stop().await;
    let events = store(&site.operator).await.events_after(0, None, 999).await.unwrap();
    let failed = events.iter().rfind(|event| event.kind == "verify.failed").unwrap();
    assert!(failed.detail.contains("\"reason\":\"deadline\""), "{failed:?}");
}

#[tokio::test]
async fn who_hangs_up_ends_the_challenge_and_so_does_a_stop() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "").await;
    let mut stream = site.stream(&validator, OPEN, opening(json!({}))).await;
    loop {
        let (line, _) = stream.next().await.expect("it goes on");
        if line["phase"] == "filling" {
            break;
        }
    }
    drop(stream);
    site.is_free().await;
    // Nothing of it is in the way of the next one, which waits for its nonce when the service stops.
    until("another is opened", async || {
        let answer = site.open(&validator, json!({})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(site.store().await.live_leases(None).await.unwrap().len(), 1);
    site.service.stop().await;
    let store = store(&site.operator).await;
    assert!(store.live_leases(None).await.unwrap().is_empty());
    eventually("nothing is left running", || site.host.left_running().is_empty()).await;
    let rows = store.challenges(&host_name(), 9).await.unwrap();
    assert!(rows.len() >= 4 && rows.iter().all(|row| row.ended_ms.is_some()), "{rows:?}");
}

#[tokio::test]
async fn gpus_that_are_held_or_broken_are_left_alone() {
    let validator = pair(7);
    let site = Site::with(&[ONE, TWO], &format!("{ONE}/alloc=2"), &[&validator], "").await;
    let store = site.store().await;
    let gpus = GpuRequest::These(vec![TWO.to_owned()]);
    // A sweep may find the host faulty meanwhile, which nothing but a verification may hold then.
    let wanted = NewLease { host: host_name(), kind: LeaseKind::Verify, gpus, expires_ms: None };
    let lease = store.acquire_lease("tenant", &wanted).await.unwrap();
    let held = site.refused(&validator, OPEN, opening(json!({ "gpus": [TWO] }))).await;
    assert_eq!(held, (409, "gpus_leased".to_owned()));
    // The other one has no memory to give.
    let mut stream = site.stream(&validator, OPEN, opening(json!({}))).await;
    let mut lines = Vec::new();
    while let Some((line, _)) = stream.next().await {
        lines.push(line);
    }
    let left_out = lines.iter().find(|line| line["event"] == "left_out");
    let left_out = left_out.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!((&left_out["gpu"], &left_out["reason"]), (&json!(TWO), &json!("leased")));
    let last = lines.last().unwrap();
    assert_eq!((&last["code"], &last["status"]), (&json!("gpus_failed"), &json!(409)), "{lines:?}");
    assert!(last["detail"].as_str().unwrap().contains("out_of_memory"), "{last}");
    assert!(!last.to_string().contains("tenant"), "{last}");
    store.release_lease("tenant", &lease.id, "done").await.unwrap();
    // A host that was set aside is challenged by its operator alone.
    site.operator.run(["hosts", "drain", "gpu-01"]).await.expect(0);
    let drained = site.refused(&validator, OPEN, opening(json!({}))).await;
    assert_eq!(drained, (409, "host_unavailable".to_owned()));
    site.service.stop().await;
}

#[tokio::test]
async fn where_challenges_are_off_there_is_no_such_route() {
    let validator = pair(7);
    let operator = miner(&[&validator], "[validator_challenges]\nenabled = false\n");
    let service = Service::start(&operator).await;
    let refused = until("it answers", async || {
        let refused = call(&service, &validator, OPEN, json!({})).await;
        (refused.status == 404).then_some(refused)
    })
    .await;
    assert_eq!(refused.json()["code"], "unknown_route");
    service.running.signal(Signal::TERM);
    service.running.end().await.expect(0);
}

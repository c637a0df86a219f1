//! What a validator may read of its hosts: their GPUs and proofs, its own grants; and the document
//! of what there is to ask.

use std::collections::BTreeSet;

use orchestrator::axon;
use orchestrator::ids::HostName;
use orchestrator::store::{
    ChallengeEnd, GrantLimits, JudgedProof, NewChallenge, NewGrant, SeenBy, Store,
};
use serde_json::{Value, json};

use super::validators::{axon, call, miner, pair};
use super::{Service, ask, conforms, until};
use crate::cli::operator::Operator;
use crate::deploy::host::{Host, fake_nvml};

/// A GPU of the fake NVML library.
const H100: &str = "GPU-6f1a3c52-1111-4222-8333-944455566677";

/// Rates are the business of other tests.
const UNHURRIED: &str = "[validator_comms.rate_limit]\nenabled = false\n";

/// Records a challenge to a GPU and how it ended, a millisecond apart from the one before.
async fn prove(store: &Store, id: &str, mode: &'static str, outcome: &'static str, bytes: usize) {
    let challenge = NewChallenge {
        id: id.to_owned(),
        host: HostName::new("gpu-01").unwrap(),
        backend: "cuda",
        gpu_uuid: Some(H100.to_owned()),
        mode,
        model: Some("H100".to_owned()),
        challenge_json: "{}".to_owned(),
    };
    store.record_challenges("test", &[challenge]).await.unwrap();
    let judged = JudgedProof {
        outcome,
        verdict_json: "{}".to_owned(),
        proof_json: "x".repeat(bytes),
        ..JudgedProof::default()
    };
    let end = (id.to_owned(), ChallengeEnd::Judged(Box::new(judged)));
    store.record_challenge_ends("test", &[end], &[]).await.unwrap();
}

async fn deployed(host: &Host, operator: &Operator) {
    let claim = "gpus = { model = \"NVIDIA H100 80GB HBM3\", count = 8 }";
    let more = format!("host_key = \"{}\"\n{claim}", host.fingerprint());
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &more)]);
    // Not what is claimed.
    operator.deploy([]).await.expect(3);
}

/// The document, and an answer held against what it says of a path.
async fn document(service: &Service) -> Value {
    ask(axon(service), "GET", axon::OPENAPI_PATH, &[]).await.expect(200).json()
}

fn answers(document: &Value, path: &str, answer: &Value) {
    let schema = &document["paths"][path]["post"]["responses"]["200"]["content"];
    let schema = &schema["application/json"]["schema"];
    assert!(schema.is_object(), "{path} is not described");
    conforms(document, schema, answer, path);
}

#[tokio::test]
async fn hosts_show_claim_facts_and_proofs_and_the_proofs_can_be_fetched() {
    let environment = format!("LD_LIBRARY_PATH={} FAKE_NVML=honest", fake_nvml().display());
    let (host, validator) = (Host::with(&[], &environment), pair(7));
    let operator = miner(&[&validator], UNHURRIED);
    deployed(&host, &operator).await;
    let store = Store::open(&operator.database()).await.unwrap();
    let name = HostName::new("gpu-01").unwrap();
    let seen = [H100.to_owned(), "GPU-2".to_owned()];
    store.record_sightings("test", &name, SeenBy::Verify, &seen).await.unwrap();
    prove(&store, "aa", "deep", "accepted", 10).await;
    prove(&store, "bb", "quick", "rejected", 3 << 20).await;
    let service = Service::start(&operator).await;
    let ready = async || {
        let hosts = call(&service, &validator, "/v1/hosts", json!({})).await;
        (hosts.status == 200).then(|| hosts.json())
    };
    let hosts = until("it answers", ready).await;
    let document = document(&service).await;
    answers(&document, "/v1/hosts", &hosts);
    let shown = &hosts["hosts"][0];
    assert_eq!(shown["claimed"], json!([{ "model": "NVIDIA H100 80GB HBM3", "count": 8 }]));
    assert_eq!(shown["found"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(shown["found"][0], json!({ "model": "NVIDIA H100 80GB HBM3", "count": 1 }));
    let proofs = shown["proofs"].as_array().unwrap();
    let of = |gpu: &str| proofs.iter().find(|proof| proof["gpu"] == gpu).unwrap();
    let proven = of(H100);
    assert!(proven["accepted_ms"].as_i64() <= proven["tried_ms"].as_i64(), "{proven}");
    assert_eq!(
        (&proven["accepted_mode"], &proven["tried_mode"], &proven["outcome"]),
        (&json!("deep"), &json!("quick"), &json!("rejected"))
    );
    assert_eq!(of("GPU-2")["tried_ms"], Value::Null);

    // The newest alone fits with nothing else on a page; and a page is as long as it may be.
    let fetch = async |body: Value| {
        let answer = call(&service, &validator, "/v1/proofs", body).await.expect(200).json();
        answers(&document, "/v1/proofs", &answer);
        answer
    };
    prove(&store, "cc", "quick", "accepted", 2 << 20).await;
    prove(&store, "dd", "quick", "accepted", (16 << 20) + 1).await;
    let mut pages: Vec<Vec<String>> = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let page = fetch(json!({ "host": "gpu-01", "cursor": cursor })).await;
        let ids = page["proofs"].as_array().unwrap().iter();
        pages.push(ids.map(|proof| proof["challenge"].as_str().unwrap().to_owned()).collect());
        cursor = page["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let expected: Vec<Vec<String>> = [&["dd", "cc"][..], &["bb", "aa"]]
        .map(|ids| ids.iter().map(|id| (*id).into()).collect())
        .into();
    assert_eq!(pages, expected);
    let one = fetch(json!({ "host": "gpu-01", "gpu": H100, "limit": 1 })).await;
    let first = &one["proofs"][0];
    assert_eq!((&first["documents"], &first["bytes"]), (&Value::Null, &json!((16 << 20) + 1)));
    assert_eq!(fetch(json!({ "host": "gpu-01", "gpu": "GPU-2" })).await["proofs"], json!([]));
    for (body, status) in [
        (json!({}), 400),
        (json!({ "host": 1 }), 400),
        (json!({ "host": "gpu-01", "limit": 0 }), 400),
        (json!({ "host": "gpu-01", "limit": 101 }), 400),
        (json!({ "host": "gpu-01", "limit": 1.5 }), 400),
        (json!({ "host": "gpu-01", "cursor": "1" }), 400),
        (json!({ "host": "gpu-01", "cursor": "1.x" }), 400),
        (json!({ "host": "gpu-02" }), 404),
    ] {
        call(&service, &validator, "/v1/proofs", body).await.expect(status);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_real_proof_is_fetched_and_checked_by_whoever_fetched_it() {
    let (host, validator) = (Host::start(), pair(7));
    let operator = miner(&[&validator], UNHURRIED);
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    operator.run(["verify", "gpu-01", "--allow-reference", "--proof-out", "p"]).await.expect(0);
    let service = Service::start(&operator).await;
    let fetched = until("it answers", async || {
        let body = json!({ "host": "gpu-01" });
        let answer = call(&service, &validator, "/v1/proofs", body).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let documents = fetched["proofs"][0]["documents"].as_str().unwrap();
    assert_eq!(documents, std::fs::read_to_string(operator.file("p")).unwrap());
    operator.write("fetched", documents);
    operator.run(["verify-proof", "fetched", "--allow-reference"]).await.expect(0);
    service.stop().await;
}

#[tokio::test]
async fn a_validator_sees_its_own_grants_page_by_page() {
    let (validator, other) = (pair(7), pair(8));
    let operator = miner(&[&validator, &other], UNHURRIED);
    let store = Store::open(&operator.database()).await.unwrap();
    let limits = GrantLimits { per_validator: 9, per_host: 9, rate: 9, window_ms: 1000 };
    let mut ids = Vec::new();
    for (whose, host) in [(&validator, "gpu-01"), (&other, "gpu-01"), (&validator, "gpu-02")] {
        let grant = NewGrant {
            host: HostName::new(host).unwrap(),
            validator: whose.hotkey().to_string(),
            public_key: "ssh-ed25519 AAAA".to_owned(),
            fingerprint: "SHA256:x".to_owned(),
            from_address: "127.0.0.1".to_owned(),
            keys_file: "/etc/secret/place".to_owned(),
            expires_ms: i64::MAX,
        };
        ids.push(store.begin_grant("test", &grant, &limits).await.unwrap().unwrap());
    }
    let service = Service::start(&operator).await;
    let list = async |body: Value| {
        until("it answers", async || {
            let answer = call(&service, &validator, "/v1/ssh-grants/list", body.clone()).await;
            assert!(matches!(answer.status, 200 | 401 | 429), "{answer:?}");
            (answer.status == 200).then(|| answer.json())
        })
        .await
    };
    let all = list(json!({})).await;
    answers(&document(&service).await, "/v1/ssh-grants/list", &all);
    let hosts: BTreeSet<&str> =
        all["grants"].as_array().unwrap().iter().map(|g| g["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, BTreeSet::from(["gpu-01", "gpu-02"]));
    assert!(!all.to_string().contains(&ids[1]), "another's is shown: {all}");
    assert!(!all.to_string().contains("secret"), "{all}");
    let first = list(json!({ "limit": 1 })).await;
    let second = list(json!({ "limit": 1, "cursor": first["next"] })).await;
    assert_eq!(second["next"], Value::Null);
    assert_ne!(first["grants"][0]["grant"], second["grants"][0]["grant"]);
    for body in [json!({ "all": 1 }), json!({ "limit": 1001 }), json!({ "cursor": "x" })] {
        call(&service, &validator, "/v1/ssh-grants/list", body).await.expect(400);
    }
    service.stop().await;
}

#[tokio::test]
async fn the_document_of_the_axon_is_that_of_its_routes() {
    let validator = pair(7);
    let operator = miner(&[&validator], UNHURRIED);
    let service = Service::start(&operator).await;
    until("it answers", async || {
        let hosts = call(&service, &validator, "/v1/hosts", json!({})).await;
        (hosts.status == 200).then_some(())
    })
    .await;
    let document = document(&service).await;
    let mut seen = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            seen.push(operation["operationId"].as_str().unwrap().to_owned());
            let method = method.to_uppercase();
            let answer = ask(axon(&service), &method, path, &[]).await;
            if path == axon::OPENAPI_PATH {
                answer.expect(200);
                let refused = ask(axon(&service), "DELETE", path, &[]).await.expect(405).json();
                conforms(
                    &document,
                    &json!({ "$ref": "#/components/schemas/Problem" }),
                    &refused,
                    path,
                );
                continue;
            }
            // Who signs nothing gets a problem, and is told how.
            let refused = answer.expect(401);
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
            assert_eq!(refused.header("www-authenticate"), Some("btauth"));
            let problem = json!({ "$ref": "#/components/schemas/Problem" });
            conforms(&document, &problem, &refused.json(), path);
            assert_eq!(refused.json()["code"], "MalformedAuth");
            // Who signs is answered; whether it can be done is the handler's business.
            let answered = call(&service, &validator, path, json!({ "padding": 1 })).await;
            assert!(matches!(answered.status, 200 | 400 | 404 | 503), "{path}: {answered:?}");
            if answered.status == 200 {
                answers(&document, path, &answered.json());
            }
            let hashed = operation["x-required-hash-fields"].as_array().unwrap();
            assert_eq!(hashed[0], "name", "{path}");
            // What the legacy scheme signs is what the body is said to have.
            for field in &hashed[1..] {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let field = field.as_str().unwrap();
                assert!(schema["properties"][field].is_object(), "{path}: {field}");
            }
        }
    }
    let known = [
        "OpenApi",
        "Ping",
        "ListHosts",
        "FetchProofs",
        "ListSshGrants",
        "RequestSshGrant",
        "RevokeSshGrant",
    ];
    for route in known {
        assert!(seen.contains(&route.to_owned()), "{route} is not described: {seen:?}");
    }
    service.stop().await;
}

//! The real SDKs from PyPI.

use serde_json::{Value, json};

use super::{Axon, hex_seed, pairs};
use crate::python;

async fn calls(environment: &str, program: &str) -> Value {
    let axon = Axon::start().await;
    let port = axon.address.port().to_string();
    let hotkey = pairs()[0].hotkey().to_string();
    let arguments = [port.as_str(), &hotkey, &hex_seed(1), &hex_seed(2)];
    let results = python::run(environment, program, &arguments).await;
    axon.stop().await;
    results
}

/// `Dendrite` understands every answer, and nothing that was spoilt gets through.
async fn legacy(environment: &str, sdk: &str) {
    let results = calls(environment, "legacy_calls.py").await;
    assert!(results["sdk"].as_str().unwrap().starts_with(sdk), "{}", results["sdk"]);
    let [own, caller, _] = pairs();
    let honest = &results["honest"];
    assert_eq!((&honest["axon"], &honest["dendrite"]), (&json!(200), &json!(200)), "{honest}");
    assert_eq!(honest["success"], true);
    assert_eq!(honest["message"], "Success");
    assert_eq!(honest["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(honest["hotkey"], own.hotkey().to_string());
    assert!(honest["time_ns"].is_u64() && honest["process_time"].is_f64(), "{honest}");
    assert_eq!(honest["signed"], true, "the answer is signed by the axon: {honest}");
    assert_eq!(honest["dendrite_hotkey"], caller.hotkey().to_string());
    assert_eq!(results["again"]["axon"], 200);
    assert_eq!(results["query"]["axon"], 200);
    assert_eq!(results["echo"]["wrong"], json!([]), "{}", results["echo"]);
    for (name, status) in [
        ("wrong_receiver", 401),
        ("unknown", 404),
        ("fails", 400),
        ("slow", 408),
        ("stranger", 403),
    ] {
        let told = &results[name];
        assert_eq!(
            (&told["axon"], &told["dendrite"]),
            (&json!(status), &json!(status)),
            "{name}: {told}"
        );
        assert!(told["message"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {told}");
    }
    assert_eq!(results["stranger"]["blacklisted"], true);
    assert_eq!(results["first"]["status"], 200, "{}", results["first"]);
    let refused = [
        "no_signature",
        "no_nonce",
        "no_uuid",
        "no_hotkey",
        "no_hash",
        "bad_signature",
        "stale",
        "stale_long_timeout",
        "stale_old_version",
        "future",
        "replayed",
        "older",
        "tampered_field",
        "other_path",
        "tampered_hash",
        "not_json",
    ];
    for name in refused {
        let answer = &results[name];
        assert_eq!(answer["status"], 401, "{name}: {answer}");
        assert_eq!(answer["code"], "401", "{name}: {answer}");
        let message = answer["body"]["message"].as_str().unwrap();
        assert!(message.starts_with("Not Verified with error: "), "{name}: {answer}");
        let proven = matches!(name, "replayed" | "older");
        assert_eq!(answer["signature"].is_string(), proven, "only for who is proven: {name}");
    }
}

#[tokio::test]
async fn dendrite_of_sdk_9_is_answered() {
    legacy("sdk9", "9.12").await;
}

#[tokio::test]
async fn dendrite_of_sdk_10_is_answered() {
    legacy("sdk10", "10.5").await;
}

/// What `bittensor.http_auth` signs is answered, and what its `verify` refuses is refused by the same
/// name.
#[tokio::test]
async fn http_auth_of_sdk_11_is_answered() {
    let results = calls("sdk11", "btauth_calls.py").await;
    let results = results.as_object().unwrap();
    assert!(results["sdk"].as_str().unwrap().starts_with("11."));
    let own = pairs()[0].hotkey().to_string();
    let mut refused = 0;
    for (name, answer) in results.iter().filter(|(name, _)| *name != "sdk") {
        let (status, body) = (answer["status"].as_u64().unwrap(), &answer["body"]);
        match name.as_str() {
            "honest" | "honest_ed25519" | "honest_query" | "honest_synapse" | "first" => {
                assert_eq!((status, &answer["sdk"]), (200, &Value::Null), "{name}: {answer}");
                assert_eq!(body["hotkey"], own, "{name}");
            }
            "stranger" => {
                assert_eq!((status, &body["code"]), (403, &json!("no_permit")), "{answer}")
            }
            "not_json" => {
                assert_eq!((status, &body["code"]), (400, &json!("malformed_body")), "{answer}")
            }
            "unknown" => {
                assert_eq!((status, &body["code"]), (404, &json!("unknown_route")), "{answer}")
            }
            "method" => assert_eq!((status, &body["code"]), (405, &json!("method_not_allowed"))),
            _ => {
                assert_eq!(status, 401, "{name}: {answer}");
                assert_eq!(body["error"], answer["sdk"], "{name}: {answer}");
                assert!(body["detail"].is_string(), "{name}: {answer}");
                refused += 1;
            }
        }
        if status >= 400 && status != 401 {
            assert_eq!(answer["type"], "application/problem+json", "{name}");
        }
    }
    assert_eq!(refused, 21, "{:?}", results.keys().collect::<Vec<_>>());
}

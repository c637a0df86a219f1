//! Sessions of validators: a signature opens one, its token stands in for signatures until it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use orchestrator::axon::OPENAPI_PATH;
use orchestrator::store::now_ms;
use orchestrator::token::{self, session::SessionKey};
use orchestrator::wallet::HotkeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::validators::{axon, call, configure, miner, pair, signature};
use super::{Answer, Service, ask, ask_with, conforms, until};
use crate::cli::operator::{Operator, eventually};

pub const SECRET: &str = "b1c0e47fa92d5583641e0a7cc8d3f29b5e76014d";

/// What the configuration has beside the list of validators.
const JWT: &str = "[validator_comms.auth]\nmethod = \"jwt\"\n\
    [validator_comms.rate_limit]\nenabled = false\n";

pub fn operator(allowed: &[&HotkeyPair]) -> Operator {
    let operator = miner(allowed, JWT);
    with_secret(&operator);
    operator
}

/// The secret comes by a file that is named in the environment's stead: [security] is taken.
pub fn with_secret(operator: &Operator) {
    let path = operator.write("secret", SECRET);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(operator.file("orchestrator.toml")).unwrap();
    let text = text.replace("[security]\n", "[security]\njwt_secret_file = \"secret\"\n");
    operator.write("orchestrator.toml", &text);
}

async fn bearer(service: &Service, token: &str, path: &str, body: Value) -> Answer {
    let value = format!("Bearer {token}");
    let headers = [("Authorization", value.as_str())];
    ask_with(axon(service), "POST", path, &headers, &body.to_string()).await
}

/// Opens a session and returns its token and its id.
pub async fn open(service: &Service, who: &HotkeyPair) -> (String, String) {
    let opened = until("a session is opened", async || {
        let answer = call(service, who, "/v1/session", json!({})).await;
        assert!(matches!(answer.status, 200 | 401), "{answer:?}");
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let text = |name: &str| opened[name].as_str().unwrap().to_owned();
    (text("token"), text("session"))
}

#[track_caller]
fn refused(answer: Answer, code: &str) {
    let answer = answer.expect(401);
    assert_eq!(answer.json()["code"], code, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
}

#[tokio::test]
async fn a_token_stands_in_for_signatures_until_its_session_is_closed() {
    let (validator, other) = (pair(7), pair(8));
    let operator = operator(&[&validator, &other]);
    let service = Service::start(&operator).await;
    let (token, session) = open(&service, &validator).await;
    let pong = bearer(&service, &token, "/v1/ping", json!({})).await.expect(200).json();
    assert_eq!(pong["hotkey"], pair(1).hotkey().to_string());
    bearer(&service, &token, "/v1/hosts", json!({})).await.expect(200);
    // Signed requests go on as before.
    call(&service, &validator, "/v1/ping", json!({})).await.expect(200);
    // A token opens no session, and calls no synapse of the older SDKs.
    bearer(&service, &token, "/v1/session", json!({})).await.expect(401);
    bearer(&service, &token, "/Ping", json!({ "name": "Ping" })).await.expect(401);
    // Both at once are neither.
    let value = format!("Bearer {token}");
    let signed = signature(&validator, "/v1/ping", "{}");
    let mut headers: Vec<_> = signed.iter().map(|(name, text)| (*name, text.as_str())).collect();
    headers.push(("Authorization", &value));
    let both = ask_with(axon(&service), "POST", "/v1/ping", &headers, "{}").await.expect(401);
    assert_eq!(both.json()["error"], "MalformedAuth", "{both:?}");

    // Nobody closes another's session.
    let (others, _) = open(&service, &other).await;
    let close = async |token: &str, body: Value| {
        bearer(&service, token, "/v1/session/close", body).await.expect(200).json()["closed"]
            .clone()
    };
    assert_eq!(close(&others, json!({ "session": session })).await, 0);
    bearer(&service, &token, "/v1/ping", json!({})).await.expect(200);
    assert_eq!(close(&token, json!({})).await, 1);
    refused(bearer(&service, &token, "/v1/ping", json!({})).await, "ended_session");
    // Signed, and without a name: all of them.
    let (first, _) = open(&service, &validator).await;
    open(&service, &validator).await;
    let all = call(&service, &validator, "/v1/session/close", json!({})).await.expect(200);
    assert_eq!(all.json(), json!({ "closed": 2 }));
    refused(bearer(&service, &first, "/v1/ping", json!({})).await, "ended_session");
    bearer(&service, &others, "/v1/ping", json!({})).await.expect(200);

    // No more than so many of one validator.
    for _ in 0..16 {
        open(&service, &validator).await;
    }
    let full = call(&service, &validator, "/v1/session", json!({})).await.expect(409);
    assert_eq!(full.json()["code"], "too_many_sessions");
    for wrong in [json!(59), json!(3601), json!("60"), json!(-1)] {
        let body = json!({ "duration_secs": wrong });
        call(&service, &validator, "/v1/session", body).await.expect(400);
    }
    // The document knows of sessions.
    let document = ask(axon(&service), "GET", OPENAPI_PATH, &[]).await.expect(200).json();
    let security = |path: &str| document["paths"][path]["post"]["security"].to_string();
    assert!(security("/v1/hosts").contains("session"));
    assert!(!security("/v1/session").contains("\"session\""));
    let shape = &document["paths"]["/v1/session/close"]["post"]["responses"]["200"]["content"];
    conforms(&document, &shape["application/json"]["schema"], &all.json(), "close");
    service.stop().await;
    let kinds = operator.audit().await;
    for kind in ["session.opened", "session.ended"] {
        assert!(kinds.contains(&kind.to_owned()), "{kinds:?}");
    }
}

#[tokio::test]
async fn no_other_token_is_good() {
    let validator = pair(7);
    let operator = operator(&[&validator]);
    let service = Service::start(&operator).await;
    let (token, session) = open(&service, &validator).await;
    let key = SessionKey::derive(SECRET.as_bytes());
    let (own, hotkey) = (pair(1).hotkey().to_string(), validator.hotkey().to_string());
    let now = now_ms() / 1000;
    let stranger = pair(9).hotkey().to_string();
    let made = |key: &SessionKey, axon: &str, id: &str, until: i64| {
        key.issue(axon, &hotkey, id, now, until)
    };
    let another = SessionKey::derive(b"another secret, as long as the first is");
    for (wrong, code) in [
        ("x".to_owned(), "invalid_token"),
        (format!(" {token}"), "invalid_token"),
        (format!("{token}="), "invalid_token"),
        ("x".repeat(5000), "invalid_token"),
        // The operator's token, of the same secret.
        (token::issue(SECRET.as_bytes(), &hotkey, now, 60), "invalid_token"),
        (made(&another, &own, &session, now + 60), "invalid_token"),
        (made(&key, &stranger, &session, now + 60), "invalid_token"),
        (made(&key, &own, &session, now - 1), "expired_token"),
        // Signed with the right key, and of no session that was opened; or of another's.
        (made(&key, &own, "00", now + 60), "ended_session"),
    ] {
        refused(bearer(&service, &wrong, "/v1/ping", json!({})).await, code);
    }
    let as_another = key.issue(&own, &stranger, &session, now, now + 60);
    // Who is not let in is told so by a token, too.
    bearer(&service, &as_another, "/v1/ping", json!({})).await.expect(403);
    for value in ["Basic eDp5", "Bearer", "bearer"] {
        let headers = [("Authorization", value)];
        let answer = ask_with(axon(&service), "POST", "/v1/ping", &headers, "{}").await.expect(401);
        assert_eq!(answer.json()["code"], "MalformedAuth", "{value}");
    }
    // Nor is a validator's token good for the operator API.
    let of_session = orchestrator::token::check(SECRET.as_bytes(), &token, now);
    assert!(of_session.is_err());
    bearer(&service, &token, "/v1/ping", json!({})).await.expect(200);
    assert!(!service.running.written().1.contains(&token), "a token is logged");
    service.stop().await;
}

#[tokio::test]
async fn the_operator_ends_sessions_and_so_does_another_list() {
    let (validator, other) = (pair(7), pair(8));
    let operator = operator(&[&validator, &other]);
    let service = Service::start(&operator).await;
    let (token, session) = open(&service, &validator).await;
    let listed = operator.run(["sessions", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json_lines()[0][0]["id"], session.as_str(), "{listed:?}");
    assert!(!listed.stdout.contains(&token), "a token is kept");
    // Another process ends it, and this one knows at once.
    let ended = operator.run(["sessions", "revoke", &session]).await.expect(0);
    assert!(ended.stdout.contains("has ended"), "{ended:?}");
    refused(bearer(&service, &token, "/v1/ping", json!({})).await, "ended_session");
    operator.run(["sessions", "revoke", &session]).await.expect(1);
    operator.run(["sessions", "revoke"]).await.expect(2);
    let (token, _) = open(&service, &validator).await;
    let hotkey = validator.hotkey().to_string();
    operator.run(["sessions", "revoke", "--validator", &hotkey]).await.expect(0);
    refused(bearer(&service, &token, "/v1/ping", json!({})).await, "ended_session");

    // Not let in any more, and let in again: the token does not come back with it.
    let (token, _) = open(&service, &validator).await;
    let (kept, _) = open(&service, &other).await;
    let mut reloads = 0;
    let mut reload = async |allowed: &[&HotkeyPair]| {
        configure(&operator, allowed, JWT);
        with_secret(&operator);
        service.running.signal(Signal::HUP);
        reloads += 1;
        let said = || service.running.written().1.matches("were taken over").count() == reloads;
        eventually("it is read again", said).await;
    };
    reload(&[&other]).await;
    let answer = bearer(&service, &token, "/v1/ping", json!({})).await.expect(403);
    assert_eq!(answer.json()["code"], "not_allowed");
    reload(&[&validator, &other]).await;
    refused(bearer(&service, &token, "/v1/ping", json!({})).await, "ended_session");
    bearer(&service, &kept, "/v1/ping", json!({})).await.expect(200);
    // A restart ends nothing.
    service.stop().await;
    let service = Service::start(&operator).await;
    bearer(&service, &kept, "/v1/ping", json!({})).await.expect(200);
    operator.run(["sessions", "revoke", "--all"]).await.expect(0);
    refused(bearer(&service, &kept, "/v1/ping", json!({})).await, "ended_session");
    service.stop().await;
}

#[tokio::test]
async fn tokens_are_not_sent_in_the_open_and_not_by_default() {
    let validator = pair(7);
    let operator = operator(&[&validator]);
    let text = fs::read_to_string(operator.file("orchestrator.toml")).unwrap();
    let open = text.replace("[server]\nhost = \"127.0.0.1\"", "[server]\nhost = \"0.0.0.0\"");
    assert_ne!(open, text);
    operator.write("orchestrator.toml", &open);
    for verb in [&["serve"][..], &["config", "validate"]] {
        let refused = operator.run(verb.iter().copied()).await.expect(1);
        assert!(refused.stderr.contains("has no TLS"), "{refused:?}");
        assert!(refused.stderr.contains("cert_path"), "{refused:?}");
    }
    let (certificate, key) = (operator.write("cert", ""), operator.write("key", ""));
    let files = format!(
        "[security]\ncert_path = \"{}\"\nkey_path = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    operator.write("orchestrator.toml", &open.replace("[security]\n", &files));
    operator.run(["config", "validate"]).await.expect(0);
    // Nor without a secret.
    let without = text.replace("jwt_secret_file = \"secret\"\n", "");
    operator.write("orchestrator.toml", &without);
    let refused = operator.run(["serve"]).await.expect(1);
    assert!(refused.stderr.contains("head -c 32 /dev/urandom"), "{refused:?}");
    // Where it is not asked for there are no sessions, and a token is nothing.
    operator.write("orchestrator.toml", &text.replace("method = \"jwt\"\n", ""));
    let service = Service::start(&operator).await;
    until("it answers", async || {
        let answer = call(&service, &validator, "/v1/ping", json!({})).await;
        (answer.status == 200).then_some(())
    })
    .await;
    call(&service, &validator, "/v1/session", json!({})).await.expect(404);
    let key = SessionKey::derive(SECRET.as_bytes());
    let (own, hotkey) = (pair(1).hotkey().to_string(), validator.hotkey().to_string());
    let now = now_ms() / 1000;
    let token = key.issue(&own, &hotkey, "00", now, now + 60);
    let answer = bearer(&service, &token, "/v1/ping", json!({})).await.expect(401);
    assert_eq!(answer.header("www-authenticate"), Some("btauth"));
    service.stop().await;
}

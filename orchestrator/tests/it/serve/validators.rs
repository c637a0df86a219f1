//! A validator's way through `serve`: a signed request, a grant, a login, a revocation.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use orchestrator::axon::replay::now_ns;
use orchestrator::ssh::connect;
use orchestrator::transport::Transport as _;
use orchestrator::wallet::{Crypto, HotkeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Answer, CONFIG, Service, ask_with, until};
use crate::cli::operator::{Operator, eventually};
use crate::deploy::host::Host;
use crate::sshd::{context, generate_key};

pub fn pair(seed: u8) -> HotkeyPair {
    HotkeyPair::from_seed(Crypto::Sr25519, &[seed; 32]).unwrap()
}

/// An operator with a wallet, whose axon lets these in.
pub fn miner(allowed: &[&HotkeyPair], more: &str) -> Operator {
    let operator = Operator::new();
    let wallet = operator.home().join(".bittensor/wallets/miner/hotkeys");
    fs::create_dir_all(&wallet).unwrap();
    let file = wallet.join("default");
    fs::write(&file, format!("0x{}\n", "01".repeat(32))).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    configure(&operator, allowed, more);
    operator
}

pub fn configure(operator: &Operator, allowed: &[&HotkeyPair], more: &str) {
    let allowed: Vec<String> =
        allowed.iter().map(|pair| format!("\"{}\"", pair.hotkey())).collect();
    let text = format!(
        "{CONFIG}[server]\nhost = \"127.0.0.1\"\nport = 0\n\
         [bittensor]\nskip_registration = true\naxon_port = 0\n\
         [security]\nallowed_validators = [{}]\n[validator_assignment]\nstrategy = \"round_robin\"\n{more}",
        allowed.join(", ")
    );
    operator.write("orchestrator.toml", &text);
}

pub fn axon(service: &Service) -> SocketAddr {
    service.listeners["axon"][0].as_str().unwrap().parse().unwrap()
}

/// One request as SDK 11 signs it.
pub async fn call(service: &Service, who: &HotkeyPair, path: &str, body: Value) -> Answer {
    let body = body.to_string();
    let signed = signature(who, path, &body);
    let headers: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    ask_with(axon(service), "POST", path, &headers, &body).await
}

/// The headers of a request as SDK 11 signs it.
pub fn signature(who: &HotkeyPair, path: &str, body: &str) -> [(&'static str, String); 5] {
    let (nonce, sender, receiver) = (now_ns(), who.hotkey(), pair(1).hotkey());
    let digest = orchestrator::hex::sha256(body.as_bytes());
    let text = format!("btauth/1\nsr25519\nPOST\n{path}\n{digest}\n{nonce}\n{sender}\n{receiver}");
    let signature = format!("0x{}", orchestrator::hex::encode(&who.sign(text.as_bytes())));
    [
        ("X-Bittensor-Version", "1".to_owned()),
        ("X-Bittensor-Hotkey", sender.to_string()),
        ("X-Bittensor-Receiver", receiver.to_string()),
        ("X-Bittensor-Nonce", nonce.to_string()),
        ("X-Bittensor-Signature", signature),
    ]
}

/// Pings over a connection that stays open; returns the status.
async fn ping_on(stream: &mut BufReader<TcpStream>, who: &HotkeyPair) -> u16 {
    let mut head = "POST /v1/ping HTTP/1.1\r\nHost: axon\r\nContent-Length: 2\r\n".to_owned();
    for (name, value) in signature(who, "/v1/ping", "{}") {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{{}}").as_bytes()).await.unwrap();
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the connection was closed");
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    status.unwrap()
}

#[tokio::test]
async fn sighup_takes_over_rate_limits_and_keeps_connections() {
    let validator = pair(7);
    let limits = |rate: u32, burst: u32| {
        format!(
            "[validator_comms.rate_limit]\nrequests_per_second = {rate}\nburst_capacity = {burst}\n"
        )
    };
    let operator = miner(&[&validator], &limits(100_000, 100_000));
    let service = Service::start(&operator).await;
    let mut stream = BufReader::new(TcpStream::connect(axon(&service)).await.unwrap());
    until("it answers", async || (ping_on(&mut stream, &validator).await == 200).then_some(()))
        .await;
    let mut reloads = 0;
    let mut reload = async |limits: &str| {
        configure(&operator, &[&validator], limits);
        service.running.signal(Signal::HUP);
        reloads += 1;
        let said = || service.running.written().1.matches("were taken over").count() == reloads;
        eventually("it is read again", said).await;
    };
    reload(&limits(1, 2)).await;
    // Two at once and one a second: the connection is the same, and is told to wait.
    until("it is limited", async || (ping_on(&mut stream, &validator).await == 429).then_some(()))
        .await;
    reload(&limits(100_000, 100_000)).await;
    for _ in 0..20 {
        assert_eq!(ping_on(&mut stream, &validator).await, 200);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_validator_gets_a_grant_logs_in_and_is_put_out() {
    let host = Host::start();
    let keys_file = host.sshd.dir.path().join("authorized_keys");
    let session = format!("[ssh_session]\nauthorized_keys_file = \"{}\"\n", keys_file.display());
    let (validator, stranger) = (pair(7), pair(8));
    let operator = miner(&[&validator], &session);
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let before = fs::read(&keys_file).unwrap();
    let service = Service::start(&operator).await;
    assert_eq!(service.listeners["hotkey"], pair(1).hotkey().to_string());

    // What was signed before the axon began is refused, so the first calls may be.
    let refused = until("it answers", async || {
        let refused = call(&service, &stranger, "/v1/hosts", json!({})).await;
        (refused.status == 403).then_some(refused)
    })
    .await;
    assert_eq!(refused.json()["code"], "not_allowed");
    let hosts = call(&service, &validator, "/v1/hosts", json!({})).await.expect(200).json();
    assert_eq!(hosts["hosts"][0]["host"], "gpu-01");
    assert_eq!(hosts["hosts"][0]["port"], host.sshd.port);

    // The key, in a directory of the validator.
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    generate_key(&key, "ed25519", "");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    for (body, code) in [
        (json!({}), 400),
        (json!({ "public_key": 7 }), 400),
        (json!({ "public_key": format!("command=\"id\" {public}") }), 400),
        (json!({ "public_key": format!("{public}\n{public}") }), 400),
        (json!({ "public_key": public, "duration_secs": "1" }), 400),
        (json!({ "public_key": public, "host": "gpu-02" }), 404),
    ] {
        call(&service, &validator, "/v1/ssh-grants", body).await.expect(code);
    }
    let options = json!({ "public_key": format!("command=\"id\" {public}") });
    let refused = call(&service, &validator, "/v1/ssh-grants", options).await.expect(400);
    assert_eq!(refused.json()["code"], "invalid_public_key");
    // Signed well, and no JSON object.
    let signed = signature(&validator, "/v1/hosts", "[1]");
    let signed: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let refused = ask_with(axon(&service), "POST", "/v1/hosts", &signed, "[1]").await.expect(400);
    assert_eq!(refused.json()["code"], "malformed_body");
    assert_eq!(fs::read(&keys_file).unwrap(), before);
    let body = json!({ "public_key": public, "host": "gpu-01", "duration_secs": 600 });
    let granted = until("the fleet is ready and grants", async || {
        let answer = call(&service, &validator, "/v1/ssh-grants", body.clone()).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let grant = &granted["grants"][0];
    assert_eq!((&grant["ok"], &grant["from"]), (&json!(true), &json!("127.0.0.1")), "{granted}");
    let mut endpoint = host.sshd.endpoint();
    endpoint.identity_files = vec![key];
    let trusted = context(&[&host.sshd]);
    connect(&endpoint, &[], &trusted).await.unwrap().close().await;

    // Nobody takes back what is another's.
    let id = json!({ "grant": grant["grant"] });
    call(&service, &stranger, "/v1/ssh-grants/revoke", id.clone()).await.expect(403);
    let revoked = call(&service, &validator, "/v1/ssh-grants/revoke", id).await.expect(200).json();
    assert_eq!(revoked, json!({ "revoked": true, "removed": true }));
    assert_eq!(fs::read(&keys_file).unwrap(), before);
    assert!(connect(&endpoint, &[], &trusted).await.is_err());

    // Another list is taken over while it runs.
    configure(&operator, &[&stranger], &session);
    service.running.signal(Signal::HUP);
    eventually("it is read again", || service.running.written().1.contains("were taken over"))
        .await;
    call(&service, &validator, "/v1/hosts", json!({})).await.expect(403);
    call(&service, &stranger, "/v1/hosts", json!({})).await.expect(200);
    service.stop().await;
}

#[tokio::test]
async fn without_automated_sessions_there_is_no_such_route() {
    let validator = pair(7);
    let operator = miner(&[&validator], "[ssh_session]\nenable_automated_sessions = false\n");
    let service = Service::start(&operator).await;
    // What was signed before the axon began is refused, so the first calls may be.
    until("it answers", async || {
        let hosts = call(&service, &validator, "/v1/hosts", json!({})).await;
        (hosts.status == 200).then_some(())
    })
    .await;
    call(&service, &validator, "/v1/ssh-grants", json!({})).await.expect(404);
    service.stop().await;
}

#[tokio::test]
async fn a_wallet_that_was_asked_for_and_is_not_there_stops_the_start() {
    let operator = Operator::new();
    configure(&operator, &[], "");
    let refused = operator.run(["serve"]).await.expect(1);
    assert!(refused.stderr.contains(".bittensor/wallets/miner/hotkeys/default"), "{refused:?}");
}

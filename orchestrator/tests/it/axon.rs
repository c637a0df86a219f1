//! The axon, called by the real SDKs, by requests of our own making, and by callers who mean harm.

mod abuse;
mod again;
mod sdk;
mod streams;
mod tls;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use orchestrator::axon::replay::now_ns;
use orchestrator::axon::{
    Admission, AxonContext, AxonLimits, Denied, Rate, Rates, Refusal, Route, RouteDoc, Routes,
    TlsFiles, handler, schema, serve, streaming,
};
use orchestrator::hotkey::Hotkey;
use orchestrator::store::Store;
use orchestrator::wallet::{Crypto, HotkeyPair};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing here takes as long; what does hangs.
const STUCK: Duration = Duration::from_secs(120);

const SEEDS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

/// Whose axon it is, who may call, who may not.
fn pairs() -> [HotkeyPair; 3] {
    SEEDS.map(|seed| HotkeyPair::from_seed(Crypto::Sr25519, &seed).unwrap())
}

fn hex_seed(at: usize) -> String {
    format!("0x{}", orchestrator::hex::encode(&SEEDS[at]))
}

/// These hotkeys and no others.
struct Only(HashSet<Hotkey>);

impl Admission for Only {
    fn admit(&self, hotkey: &Hotkey) -> Result<(), Denied> {
        if self.0.contains(hotkey) { Ok(()) } else { Err(Denied::NoPermit) }
    }
}

/// A rate that nobody meets, so that a test meets the one it is about.
const UNHURRIED: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };

fn generous() -> AxonLimits {
    AxonLimits { request_timeout: Duration::from_secs(1), ..AxonLimits::default() }
}

fn routes() -> Routes {
    let route = |synapse, path, hash_fields, handler| Route {
        synapse,
        hash_fields,
        method: Method::POST,
        path,
        doc: RouteDoc {
            summary: "For the tests",
            request: schema::request(&[], &[]),
            answer: schema::request(&[], &[]),
        },
        handler,
    };
    const ECHO: &[&str] = &["name", "text", "count", "ratio", "flag", "nothing", "items", "table"];
    let echo =
        handler(async |_call| Ok(Map::from_iter([("echoed".to_owned(), Value::from(true))])));
    let fail = handler(async |_call| {
        Err(Refusal::new(StatusCode::BAD_REQUEST, "not_today", "the handler does not want to"))
    });
    let slow = handler(async |_call| std::future::pending().await);
    Routes::new()
        .with(route("Echo", "/v1/echo", ECHO, echo))
        .with(route("Fail", "/v1/fail", &["name"], fail))
        .with(route("Slow", "/v1/slow", &["name"], slow))
        .with(route("Lines", "/v1/lines", &["name"], streaming(streams::lines)))
}

/// A running axon with a database of its own.
struct Axon {
    address: SocketAddr,
    rates: Rates,
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Axon {
    async fn start() -> Self {
        Self::start_with(generous(), None).await
    }

    async fn start_with(limits: AxonLimits, tls: Option<TlsFiles>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let (context, tls) =
            (context(&folder.path().join("o.db"), limits, tls.clone()).await, tls.is_some());
        let (stop, rates) = (cancel.clone(), context.rates.clone());
        let task = tokio::spawn(async move { serve(listener, context, stop).await.unwrap() });
        let axon = Self { address, rates, cancel, task: Some(task), _folder: folder };
        if !tls {
            begun(axon.connect().await).await;
        }
        axon
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, request: &[u8]) -> Response {
        exchange(self.connect().await, request).await
    }

    /// Asks it to stop and waits until it has.
    async fn stop(mut self) {
        self.cancel.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(STUCK, task).await.expect("it does not stop").unwrap();
    }
}

impl Drop for Axon {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn context(database: &Path, limits: AxonLimits, tls: Option<TlsFiles>) -> AxonContext {
    let [own, caller, _] = pairs();
    let ed = HotkeyPair::from_seed(Crypto::Ed25519, &SEEDS[1]).unwrap();
    AxonContext {
        pair: Arc::new(own),
        store: Store::open(database).await.unwrap(),
        admission: Arc::new(Only([caller.hotkey(), ed.hotkey()].into())),
        routes: routes(),
        limits,
        rates: Rates::new(UNHURRIED, UNHURRIED),
        sessions: None,
        tls,
    }
}

/// Waits until the axon behind a connection answers. With a new database it accepts nothing that was
/// signed before it began.
async fn begun(stream: TcpStream) {
    let answer = exchange(stream, &request("GET", "/v1/nothing", &[], "")).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

/// What came back.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Value,
}

/// Sends a request and reads until the other side closes.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Response {
    let talk = async {
        // Who refuses early may close before all is sent.
        let _refused = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = tokio::time::timeout(STUCK, talk).await.expect("no answer");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    Response { status, head: head.to_lowercase(), body }
}

fn request(method: &str, path: &str, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: axon\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n" + body).into_bytes()
}

/// A ping signed by `btauth/1`.
fn btauth_ping(who: &HotkeyPair, nonce: i64) -> Vec<u8> {
    btauth(who, nonce, "/v1/ping", "{}", &[])
}

/// A request signed by `btauth/1`, with further headers.
fn btauth(
    who: &HotkeyPair,
    nonce: i64,
    path: &str,
    body: &str,
    more: &[(&str, String)],
) -> Vec<u8> {
    let receiver = pairs()[0].hotkey();
    let digest = orchestrator::hex::sha256(body.as_bytes());
    let (crypto, sender) = (who.crypto(), who.hotkey());
    let text = format!("btauth/1\n{crypto}\nPOST\n{path}\n{digest}\n{nonce}\n{sender}\n{receiver}");
    let signature = orchestrator::hex::encode(&who.sign(text.as_bytes()));
    let headers = [
        ("x-bittensor-version", "1".to_owned()),
        ("x-bittensor-crypto", crypto.to_string()),
        ("x-bittensor-hotkey", sender.to_string()),
        ("x-bittensor-receiver", receiver.to_string()),
        ("x-bittensor-nonce", nonce.to_string()),
        ("x-bittensor-signature", format!("0x{signature}")),
    ];
    request("POST", path, &[&headers[..], more].concat(), body)
}

/// A ping as `Dendrite` signs it.
fn legacy_ping(who: &HotkeyPair, uuid: &str, nonce: i64) -> Vec<u8> {
    let receiver = pairs()[0].hotkey();
    let sender = who.hotkey();
    let body = r#"{"name":"Ping"}"#;
    let hash = orchestrator::axon::auth::body_hash("Ping", body.as_bytes(), &["name"]).unwrap();
    let text = format!("{nonce}.{sender}.{receiver}.{uuid}.{hash}");
    let signature = orchestrator::hex::encode(&who.sign(text.as_bytes()));
    let headers = [
        ("timeout", "12.0".to_owned()),
        ("computed_body_hash", hash),
        ("bt_header_axon_hotkey", receiver.to_string()),
        ("bt_header_dendrite_hotkey", sender.to_string()),
        ("bt_header_dendrite_nonce", nonce.to_string()),
        ("bt_header_dendrite_uuid", uuid.to_owned()),
        ("bt_header_dendrite_signature", format!("0x{signature}")),
    ];
    request("POST", "/Ping", &headers, body)
}

#[tokio::test]
async fn a_stopping_axon_finishes_what_it_works_on() {
    let axon = Axon::start().await;
    let [_, caller, _] = pairs();
    // A head of which the end is missing, then the stop, then the end.
    let whole = btauth_ping(&caller, now_ns());
    let (begun, rest) = whole.split_at(whole.len() - 1);
    let mut stream = axon.connect().await;
    stream.write_all(begun).await.unwrap();
    // An answer on another connection shows that the axon has come round to accepting this one.
    assert_eq!(axon.send(&btauth_ping(&caller, now_ns())).await.status, 200);
    axon.cancel.cancel();
    let answer = exchange(stream, rest).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    axon.stop().await;
}

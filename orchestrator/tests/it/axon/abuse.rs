//! Callers who mean harm, or do not know better.

use std::time::Duration;

use orchestrator::axon::replay::now_ns;
use orchestrator::axon::{AxonLimits, Rate};
use orchestrator::wallet::{Crypto, HotkeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Axon, Response, SEEDS, STUCK, UNHURRIED, btauth_ping, exchange, generous, legacy_ping, pairs,
    request,
};

fn code(response: &Response) -> &str {
    let body = &response.body;
    body["code"].as_str().or(body["error"].as_str()).unwrap_or_else(|| panic!("{response:?}"))
}

#[tokio::test]
async fn unsigned_requests_get_what_their_path_suggests() {
    let axon = Axon::start().await;
    let plain = axon.send(&request("POST", "/v1/ping", &[], "{}")).await;
    assert_eq!((plain.status, code(&plain)), (401, "MalformedAuth"));
    let synapse = axon.send(&request("POST", "/Ping", &[], "{}")).await;
    assert_eq!(synapse.status, 401);
    assert!(synapse.body["message"].as_str().unwrap().starts_with("Not Verified"), "{synapse:?}");
    let unknown = axon.send(&request("GET", "/No-such_synapse!", &[], "")).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.body["message"], "Synapse name 'Nosuchsynapse' not found.");
}

#[tokio::test]
async fn a_header_that_is_there_twice_is_refused() {
    let axon = Axon::start().await;
    let [_, caller, _] = pairs();
    let text = String::from_utf8(btauth_ping(&caller, now_ns())).unwrap();
    let twice = text.replacen("x-bittensor-nonce", "x-bittensor-nonce: 1\r\nx-bittensor-nonce", 1);
    let refused = axon.send(twice.as_bytes()).await;
    assert_eq!((refused.status, code(&refused)), (401, "MalformedAuth"));
}

#[tokio::test]
async fn a_number_has_one_spelling() {
    let axon = Axon::start().await;
    let [_, caller, _] = pairs();
    let nonce = now_ns();
    let text = String::from_utf8(btauth_ping(&caller, nonce)).unwrap();
    for spelling in [format!("0{nonce}"), format!("+{nonce}"), format!("{nonce}e0"), "-1".into()] {
        let changed = text.replace(&nonce.to_string(), &spelling);
        let refused = axon.send(changed.as_bytes()).await;
        assert_eq!((refused.status, code(&refused)), (401, "MalformedAuth"), "{spelling}");
    }
}

#[tokio::test]
async fn bodies_and_heads_have_a_size() {
    let limits = AxonLimits { body_bytes: 1000, head_bytes: 8192, ..generous() };
    let axon = Axon::start_with(limits, None).await;
    let [_, caller, _] = pairs();
    let text = String::from_utf8(btauth_ping(&caller, now_ns())).unwrap();
    let stated = text.replace("content-length: 2", "content-length: 1001");
    let refused = axon.send(stated.as_bytes()).await;
    assert_eq!((refused.status, code(&refused)), (413, "too_large"));
    // Without a stated length the bytes are counted.
    let chunked = text.replace("content-length: 2", "transfer-encoding: chunked");
    let (head, _) = chunked.split_once("\r\n\r\n").unwrap();
    let body = format!("{head}\r\n\r\n3ea\r\n{}\r\n0\r\n\r\n", "x".repeat(1002));
    let refused = axon.send(body.as_bytes()).await;
    assert_eq!((refused.status, code(&refused)), (413, "too_large"));
    let head = request("POST", "/v1/ping", &[("x-padding", "x".repeat(20_000))], "{}");
    let mut stream = axon.connect().await;
    let _refused = stream.write_all(&head).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(STUCK, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(read.is_err() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(axon.send(&btauth_ping(&caller, now_ns())).await.status, 200);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_keeps_nobody_waiting() {
    let limits = AxonLimits {
        head_timeout: Duration::from_millis(500),
        body_timeout: Duration::from_millis(500),
        ..generous()
    };
    let axon = Axon::start_with(limits, None).await;
    let [_, caller, _] = pairs();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = axon.connect().await;
        stream.write_all(b"POST /v1/ping HTTP/1.1\r\nx-slow: ").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(axon.send(&btauth_ping(&caller, now_ns())).await.status, 200);
    for mut stream in slow {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(STUCK, stream.read_to_end(&mut answer)).await;
        ended.expect("the connection stays open").ok();
    }
    let text = String::from_utf8(btauth_ping(&caller, now_ns())).unwrap();
    let never_ends = text.replace("content-length: 2", "content-length: 9");
    let refused = axon.send(never_ends.as_bytes()).await;
    assert_eq!((refused.status, code(&refused)), (408, "timeout"));
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let limits = AxonLimits { connections_per_address: 3, ..generous() };
    let axon = Axon::start_with(limits, None).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(axon.connect().await);
    }
    let mut fourth = axon.connect().await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(STUCK, fourth.read_to_end(&mut answer)).await;
    ended.expect("the fourth stays open").ok();
    assert!(answer.is_empty());
    drop(open.pop());
    let [_, caller, _] = pairs();
    // The axon learns of the end in its own time.
    loop {
        let mut stream = axon.connect().await;
        let _closed = stream.write_all(&btauth_ping(&caller, now_ns())).await;
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        if answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
    }
}

#[tokio::test]
async fn rates_hold_for_each_hotkey_and_each_address() {
    // One more in a day would be best; a second is the longest there is, so the burst is what counts.
    let few = Rate { per_second: 1, burst: 3 };
    let axon = Axon::start().await;
    axon.rates.set(UNHURRIED, few);
    let [_, caller, _] = pairs();
    let ed = HotkeyPair::from_seed(Crypto::Ed25519, &SEEDS[1]).unwrap();
    let mut limited = None;
    for _ in 0..200 {
        let answer = axon.send(&btauth_ping(&caller, now_ns())).await;
        if answer.status != 200 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("two hundred at once get through");
    assert_eq!((limited.status, code(&limited)), (429, "rate_limited"));
    assert!(limited.head.contains("retry-after: 1"), "{limited:?}");
    assert_eq!(axon.send(&btauth_ping(&ed, now_ns())).await.status, 200, "another hotkey");

    axon.rates.set(few, UNHURRIED);
    let mut answer = axon.send(&request("POST", "/v1/ping", &[], "{}")).await;
    for _ in 0..200 {
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 401);
        answer = axon.send(&request("POST", "/v1/ping", &[], "{}")).await;
    }
    assert_eq!((answer.status, code(&answer)), (429, "rate_limited"));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.77:0".parse().unwrap()).unwrap();
    let other = socket.connect(axon.address).await.unwrap();
    assert_eq!(exchange(other, &btauth_ping(&caller, now_ns())).await.status, 200);
}

#[tokio::test]
async fn signatures_are_of_their_own_kind_of_key() {
    let axon = Axon::start().await;
    let ed = HotkeyPair::from_seed(Crypto::Ed25519, &SEEDS[1]).unwrap();
    assert_eq!(axon.send(&btauth_ping(&ed, now_ns())).await.status, 200);
    let swapped = String::from_utf8(btauth_ping(&ed, now_ns())).unwrap();
    let swapped = swapped.replace("x-bittensor-crypto: ed25519", "x-bittensor-crypto: sr25519");
    let refused = axon.send(swapped.as_bytes()).await;
    assert_eq!((refused.status, code(&refused)), (401, "BadSignature"));
    // The legacy scheme names no cryptography: it is sr25519.
    assert_eq!(axon.send(&legacy_ping(&ed, "u", now_ns())).await.status, 401);
}

#[tokio::test]
async fn strangers_who_send_bodies_slowly_take_no_place_away() {
    let limits = AxonLimits { sessions: 1, large_bodies: 1, ..generous() };
    let axon = Axon::start_with(limits, None).await;
    let [_, caller, _] = pairs();
    // The head is as good as any until its signature is checked, which needs the body.
    let stated = |length: usize| {
        let text = String::from_utf8(btauth_ping(&caller, now_ns())).unwrap();
        text.replace("content-length: 2", &format!("content-length: {length}"))
    };
    let mut slow = Vec::new();
    for length in [9, 9, 9, 100_000] {
        let mut stream = axon.connect().await;
        stream.write_all(stated(length).as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(axon.send(&btauth_ping(&caller, now_ns())).await.status, 200);
    // Large ones are counted: the one place is taken as soon as the axon has read that head.
    loop {
        let mut stream = axon.connect().await;
        stream.write_all(stated(100_000).as_bytes()).await.unwrap();
        let mut first = [0; 12];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut first));
        if let Ok(Ok(_)) = read.await {
            assert_eq!(&first, b"HTTP/1.1 503");
            break;
        }
        slow.push(stream);
    }
}

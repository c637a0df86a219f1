//! Answers in lines: as they come to those who ask for it, in one answer to others.

use std::time::Duration;

use hyper::StatusCode;
use orchestrator::axon::replay::now_ns;
use orchestrator::axon::{Answer, AxonLimits, Call, Lines, Refusal};
use orchestrator::wallet::HotkeyPair;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Axon, STUCK, btauth, btauth_ping, generous, legacy_ping, pairs};

/// Says `count` lines of `bytes`, then does what `then` says.
pub async fn lines(call: Call, lines: Lines) -> Answer {
    let number = |name: &str| call.body.get(name).and_then(Value::as_u64).unwrap_or(0);
    let filling = "x".repeat(usize::try_from(number("bytes")).unwrap());
    for number in 0..number("count") {
        let line = json!({ "number": number, "filling": filling }).as_object().unwrap().clone();
        if lines.say(line).await.is_err() {
            break;
        }
    }
    match call.body.get("then").and_then(Value::as_str) {
        Some("hang") => std::future::pending().await,
        Some("fail") => Err(Refusal::new(StatusCode::CONFLICT, "not_today", "it does not want to")),
        _ => Ok(Map::from_iter([("event".to_owned(), Value::from("result"))])),
    }
}

fn caller() -> HotkeyPair {
    let [_, caller, _] = pairs();
    caller
}

/// A connection on which this was asked for as a stream.
async fn ask(axon: &Axon, body: &Value) -> BufReader<TcpStream> {
    let accept = [("accept", "application/x-ndjson".to_owned())];
    let request = btauth(&caller(), now_ns(), "/v1/lines", &body.to_string(), &accept);
    let mut stream = axon.connect().await;
    stream.write_all(&request).await.unwrap();
    BufReader::new(stream)
}

/// The next line that is a JSON object; `None` at the end.
async fn next(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(STUCK, stream.read_line(&mut line)).await;
        match read.expect("no line comes") {
            Ok(0) | Err(_) => return None,
            Ok(_) if line.starts_with('{') => return Some(serde_json::from_str(&line).unwrap()),
            Ok(_) => {}
        }
    }
}

/// The status and the kind of an answer's head.
async fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head);
        assert_ne!(tokio::time::timeout(STUCK, read).await.unwrap().unwrap(), 0, "{head}");
    }
    head.to_lowercase()
}

/// One session: who asks meanwhile is told to come again.
fn one_session() -> AxonLimits {
    AxonLimits { sessions: 1, ..generous() }
}

async fn is_busy(axon: &Axon) -> bool {
    match axon.send(&btauth_ping(&caller(), now_ns())).await.status {
        503 => true,
        200 => false,
        other => panic!("{other}"),
    }
}

/// Waits until the session is free again; [`STUCK`] if it never is.
async fn until_free(axon: &Axon) {
    let wait = async { while is_busy(axon).await {} };
    tokio::time::timeout(STUCK, wait).await.expect("the session is still taken");
}

#[tokio::test]
async fn lines_come_as_they_are_said_and_the_session_ends_when_the_caller_goes() {
    let axon = Axon::start_with(AxonLimits { stream_timeout: STUCK, ..one_session() }, None).await;
    let mut stream = ask(&axon, &json!({ "count": 2, "then": "hang" })).await;
    let head = head(&mut stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("application/x-ndjson"), "{head}");
    for number in 0..2 {
        assert_eq!(next(&mut stream).await.unwrap()["number"], number);
    }
    // The work hangs, so what came was not kept back until its end.
    assert!(is_busy(&axon).await);
    drop(stream);
    until_free(&axon).await;
    axon.stop().await;
}

#[tokio::test]
async fn the_last_line_is_the_answer_or_why_there_is_none() {
    let axon = Axon::start_with(AxonLimits { stream_timeout: STUCK, ..one_session() }, None).await;
    let mut stream = ask(&axon, &json!({ "count": 100 })).await;
    for number in 0..100 {
        assert_eq!(next(&mut stream).await.unwrap()["number"], number);
    }
    assert_eq!(next(&mut stream).await.unwrap(), json!({ "event": "result" }));
    assert_eq!(next(&mut stream).await, None);
    until_free(&axon).await;
    // Nothing but the answer is a stream of one line.
    let mut stream = ask(&axon, &json!({})).await;
    assert_eq!(next(&mut stream).await.unwrap(), json!({ "event": "result" }));
    until_free(&axon).await;
    // A refusal has its own status, unless something was said before.
    let mut stream = ask(&axon, &json!({ "then": "fail" })).await;
    assert!(head(&mut stream).await.starts_with("http/1.1 409"));
    until_free(&axon).await;
    let mut stream = ask(&axon, &json!({ "count": 1, "then": "fail" })).await;
    assert!(head(&mut stream).await.starts_with("http/1.1 200"));
    assert_eq!(next(&mut stream).await.unwrap()["number"], 0);
    let last = next(&mut stream).await.unwrap();
    assert_eq!((&last["event"], &last["code"]), (&json!("error"), &json!("not_today")));
    assert_eq!(last["status"], 409);
    axon.stop().await;
}

#[tokio::test]
async fn who_asks_for_no_stream_gets_all_lines_at_the_end() {
    let axon = Axon::start_with(one_session(), None).await;
    let body = json!({ "count": 3 }).to_string();
    let whole = axon.send(&btauth(&caller(), now_ns(), "/v1/lines", &body, &[])).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.body["event"], "result");
    assert_eq!(whole.body["events"].as_array().unwrap().len(), 3);
    assert_eq!(whole.body["events"][2]["number"], 2);
    // Whatever it accepts: a legacy caller reads one answer.
    let text = String::from_utf8(legacy_ping(&caller(), "uuid", now_ns())).unwrap();
    let text = text.replace("host: axon", "host: axon\r\naccept: application/x-ndjson");
    assert_eq!(axon.send(text.as_bytes()).await.status, 200);
    // Of lines without end there is no answer, and memory for so many alone.
    let body = json!({ "count": 1_000_000 }).to_string();
    let many = axon.send(&btauth(&caller(), now_ns(), "/v1/lines", &body, &[])).await;
    assert_eq!((many.status, &many.body["code"]), (500, &json!("internal")), "{many:?}");
    axon.stop().await;
}

#[tokio::test]
async fn a_stream_has_a_time_of_its_own_and_who_does_not_read_is_cut_off() {
    let short = Duration::from_millis(200);
    let limits = AxonLimits { stream_timeout: short, stream_rest: short, ..one_session() };
    let axon = Axon::start_with(limits, None).await;
    let mut stream = ask(&axon, &json!({ "count": 1, "then": "hang" })).await;
    assert_eq!(next(&mut stream).await.unwrap()["number"], 0);
    let last = next(&mut stream).await.unwrap();
    assert_eq!((&last["status"], &last["code"]), (&json!(408), &json!("timeout")));
    until_free(&axon).await;
    // Far more than any buffer between us takes.
    let mut stream = ask(&axon, &json!({ "count": 1_000, "bytes": 100_000 })).await;
    assert!(head(&mut stream).await.starts_with("http/1.1 200"));
    until_free(&axon).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(STUCK, stream.read_to_end(&mut rest)).await;
    read.expect("the connection is still open").ok();
    let text = String::from_utf8_lossy(&rest);
    assert!(!text.contains("\"result\""), "it was all there");
    axon.stop().await;
}

#[tokio::test]
async fn a_stopping_axon_cuts_streams_off_after_its_drain() {
    let short = Duration::from_millis(200);
    let limits = AxonLimits { stream_timeout: STUCK, drain_timeout: short, ..one_session() };
    let axon = Axon::start_with(limits, None).await;
    let mut stream = ask(&axon, &json!({ "count": 1, "then": "hang" })).await;
    assert_eq!(next(&mut stream).await.unwrap()["number"], 0);
    axon.stop().await;
    assert_eq!(next(&mut stream).await, None);
}

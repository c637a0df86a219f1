//! Engines and containers that mean harm: clear errors in bounded memory, and nothing of theirs
//! reaches the terminal but the container's own output.

use super::engine::Engine;
use super::site::{HOST, Site, at, name, peak_bytes};
use super::tampering::{Tampering, TamperingEngine};
use crate::cli::operator::{Finished, Operator, Running, eventually};
use crate::deploy::host::Host;

/// What the orchestrator may need while an Engine sends without end.
const MEMORY: u64 = 128 << 20;

struct Hostile {
    operator: Operator,
    _host: Host,
    _engine: TamperingEngine,
}

impl Hostile {
    /// An operator of a host whose Engine lies when a request line has these words.
    async fn new(words: &'static str, tampering: Tampering) -> Self {
        let choose = move |line: &str| match line.contains(words) {
            true => tampering.clone(),
            false => Tampering::None,
        };
        let engine = TamperingEngine::start(Engine::shared().socket(), choose);
        let host = Host::with_docker(engine.socket(), &[], "");
        let operator = Operator::new();
        operator.fleet(&[host.pinned(HOST)]);
        // What the Engine says in a deploy is the runner's to read.
        operator.deploy([]).await;
        Self { operator, _host: host, _engine: engine }
    }

    async fn run(&self, name: &str) -> Finished {
        let running = self.operator.start(Site::arguments(&["--name", name], &["echo", "out"]));
        watched(running).await
    }
}

/// Waits for the end of a command, and that it never had much memory.
async fn watched(running: Running) -> Finished {
    let mut peak = 0;
    eventually("it ends", || {
        peak = peak.max(peak_bytes(&running).unwrap_or(0));
        running.has_ended()
    })
    .await;
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
    running.end().await
}

#[track_caller]
fn clear_failure(finished: &Finished, what: &str) {
    assert!(![Some(0), Some(70), Some(101), None].contains(&finished.code), "{what}: {finished:?}");
    assert!(finished.stderr.len() < 8 * 1024, "{what}: {} bytes", finished.stderr.len());
    assert!(
        finished.stderr.starts_with("error: ") || finished.stderr.contains("\nerror: "),
        "{what}: {finished:?}"
    );
    harmless(finished);
}

/// Nothing that a terminal would act on.
#[track_caller]
fn harmless(finished: &Finished) {
    for text in [&finished.stdout, &finished.stderr] {
        let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        assert_eq!(bad, None, "{finished:?}");
    }
}

const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn an_engine_that_speaks_no_http_is_said() {
    let garbage = b"\x00\xff\x1b]0;owned\x07 SSH-2.0-what\r\n\r\n".to_vec();
    for words in ["/create", "/start", "/json", "/wait"] {
        let hostile = Hostile::new(words, Tampering::Answer(garbage.clone())).await;
        clear_failure(&hostile.run(&name("garbage")).await, words);
    }
}

#[tokio::test]
async fn an_engine_whose_json_is_another_is_said() {
    for body in
        ["", "{", "[]", "null", "{\"Id\":7}", "{\"Id\":\"\u{1b}[2J\"}", "{\"Id\":\"../../x\"}"]
    {
        let answer = format!("{JSON}{body}").into_bytes();
        let hostile = Hostile::new("/containers/create", Tampering::Answer(answer)).await;
        clear_failure(&hostile.run(&name("json")).await, body);
    }
}

#[tokio::test]
async fn an_engine_that_never_stops_talking_is_cut_off() {
    let json = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[";
    let header = b"HTTP/1.1 200 OK\r\n";
    for words in ["/containers/create", "/start", "/images/"] {
        let hostile = Hostile::new(words, Tampering::Endless(json, b"\"aaaaaaaaaaaaaa\",")).await;
        clear_failure(&hostile.run(&name("endless")).await, words);
        let hostile =
            Hostile::new(words, Tampering::Endless(header, b"X-Long: aaaaaaaa\r\n")).await;
        clear_failure(&hostile.run(&name("headers")).await, words);
    }
}

#[tokio::test]
async fn an_error_of_the_engine_is_shown_without_its_escape_sequences() {
    let body = "{\"message\":\"\\u001b[2J\\u001b]0;owned\\u0007 no \\u202e way\"}";
    let answer = format!(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let hostile = Hostile::new("/containers/create", Tampering::Answer(answer.into_bytes())).await;
    let failed = hostile.run(&name("escapes")).await;
    clear_failure(&failed, "escapes");
    assert!(failed.stderr.contains("way"), "{failed:?}");
    assert!(!failed.stderr.contains('\u{202e}'), "{failed:?}");
}

#[tokio::test]
async fn frames_that_are_none_end_the_stream_with_an_error() {
    // Stream 9 does not exist; four gibibytes do not come; a header is cut off.
    let frames: [&[u8]; 3] =
        [b"\x09\0\0\0\0\0\0\x04abcd", b"\x01\0\0\0\xff\xff\xff\xffabc", b"\x01\0\0"];
    for frame in frames {
        let mut answer = b"HTTP/1.1 200 OK\r\n\
            Content-Type: application/vnd.docker.raw-stream\r\nConnection: close\r\n\r\n"
            .to_vec();
        answer.extend_from_slice(frame);
        let hostile = Hostile::new("/logs", Tampering::Answer(answer)).await;
        let name = name("frames");
        hostile.run(&name).await.expect(0);
        let logs = watched(hostile.operator.start(["logs", &at(&name)])).await;
        clear_failure(&logs, &format!("{frame:?}"));
    }
}

#[tokio::test]
async fn names_of_containers_are_harmless_in_tables_and_raw_in_the_stream_alone() {
    let lie = Tampering::Replaced("innocent-name", "\\u001b[2Jname");
    let hostile = Hostile::new("/json", lie).await;
    // What the container prints is its own.
    let script = "printf '\\033[31mred\\377\\n'";
    let arguments = Site::arguments(&["--name", "innocent-name"], &["sh", "-c", script]);
    let ran = hostile.operator.run(arguments).await;
    assert!(ran.stdout.contains("\u{1b}[31mred"), "{ran:?}");
    for listed in [
        vec!["ps"],
        vec!["ps", "--all"],
        vec!["ps", "--json"],
        vec!["inspect", "gpu-01/innocent-name"],
    ] {
        harmless(&hostile.operator.run(listed).await);
    }
    Engine::shared().docker(["rm", "--force", "innocent-name"]);
}

//! Hostile hosts: each ends in a clear error with a documented reason, in bounded memory, and
//! nothing that they say reaches the operator's terminal raw.

use futures_util::future::join_all;
use orchestrator::reason::Reason;
use runner_protocol::RequestId;

use super::host::sha256;
use crate::cli::operator::{Deployed, Operator, runner};
use crate::hostile::{Act, Answer, Greeting, HostileHost, Hostility, Stream, frames, script};
use crate::sshd::generate_key;

/// What a hostile host may make the orchestrator use. It holds the runner twice, 15 MB in a
/// development build.
const MOST_BYTES: u64 = 100 << 20;

async fn deploy_to(hostility: Hostility) -> Deployed {
    let host = HostileHost::start(hostility).await;
    let operator = Operator::new();
    generate_key(&operator.file("key"), "ed25519", "");
    operator.fleet(&[format!(
        "[[hosts]]\nname = \"gpu-01\"\naddress = \"127.0.0.1\"\nport = {}\nuser = \"user\"\n\
         identity_file = \"{}\"\nhost_key = \"{}\"\n",
        host.address().port(),
        operator.file("key").display(),
        host.fingerprint(),
    )]);
    // For programs and for people.
    let (deployed, told) =
        tokio::join!(operator.deploy([]), operator.run(["deploy", "--color", "never"]));
    assert_eq!(told.code, deployed.finished.code);
    for finished in [&deployed.finished, &told] {
        assert_calm(&finished.stdout);
        assert_calm(&finished.stderr);
        assert!(finished.peak_bytes < MOST_BYTES, "{} bytes", finished.peak_bytes);
    }
    operator.run(["audit", "verify"]).await.expect(0);
    deployed
}

/// No control characters but newlines, and none that turn the direction of text.
#[track_caller]
fn assert_calm(text: &str) {
    let wild = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(wild), "{text:?}");
}

#[track_caller]
fn assert_refused(name: &str, deployed: &Deployed, reasons: &[&str]) {
    let row = deployed.row("gpu-01");
    assert_eq!(deployed.finished.code, Some(3), "{name}: {row}");
    let reason = row["reason"].as_str().unwrap();
    assert!(Reason::ALL.iter().any(|known| known.code() == reason), "{name}: {row}");
    assert!(reasons.contains(&reason), "{name}: {row}");
    let message = row["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.len() < 2000, "{name}: {row}");
    assert!(!deployed.finished.stderr.contains("panicked"), "{name}: {:?}", deployed.finished);
}

/// The marker that the transport wants first on both streams, as the command line has it.
fn marker(line: &[u8]) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let start = line.find("orchestrator-").unwrap();
    let length = "orchestrator-".len() + 32;
    [line[start..start + length].as_bytes(), b"\n"].concat()
}

/// A host whose commands say the marker and then do this.
fn after_the_marker(acts: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> Hostility {
    Hostility::by_command(move |line| {
        let marker = marker(line);
        let mut all =
            vec![Act::Write(Stream::Out, marker.clone()), Act::Write(Stream::Err, marker)];
        all.extend(acts());
        all
    })
}

/// A host that says it has the runner, which then says this.
pub fn with_runner(acts: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> Hostility {
    after_the_marker(move || {
        let mut all = vec![Act::Write(Stream::Out, b"state=ready\nend\n".to_vec())];
        all.extend(acts());
        all
    })
}

type Case = (&'static str, Hostility, &'static [&'static str]);

async fn all_refused(cases: Vec<Case>) {
    // A few at a time: some keep a core busy, some wait for a deadline.
    for some in cases.chunks(4) {
        join_all(some.iter().map(async |(name, hostility, reasons)| {
            assert_refused(name, &deploy_to(hostility.clone()).await, reasons);
        }))
        .await;
    }
}

#[tokio::test]
async fn hosts_that_are_no_proper_ssh_server() {
    let host = |change: fn(&mut Hostility)| {
        let mut hostility = Hostility::on_exec(script::closes_at_once());
        change(&mut hostility);
        hostility
    };
    all_refused(vec![
        ("closes", host(|h| h.greeting = Greeting::Close), &["banner"]),
        ("endless greeting", host(|h| h.greeting = Greeting::EndlessLines), &["banner"]),
        ("no channel", host(|h| h.channel = Answer::Refuse), &["channel"]),
        ("cut at the channel", host(|h| h.channel = Answer::Cut), &["channel", "exec", "tcp"]),
        ("no exec", host(|h| h.exec = Answer::Refuse), &["exec"]),
        ("cut at the exec", host(|h| h.exec = Answer::Cut), &["channel", "exec", "tcp"]),
        ("nobody is let in", host(|h| h.lets_in = false), &["auth"]),
        (
            "a banner that drives the terminal",
            host(|h| {
                h.banner = Some(String::from_utf8_lossy(script::ESCAPES).into_owned());
                h.lets_in = false;
            }),
            &["auth"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn commands_that_are_not_ours() {
    let exec = Hostility::on_exec;
    all_refused(vec![
        ("endless stdout", exec(script::endless_stdout()), &["exec"]),
        ("endless stderr", exec(script::endless_stderr()), &["exec"]),
        ("a line of 1 GiB", exec(script::gibibyte_line()), &["exec"]),
        ("invalid UTF-8", exec(script::invalid_utf8()), &["exec"]),
        ("escape sequences", exec(script::escape_sequences()), &["exec"]),
        ("closes at once", exec(script::closes_at_once()), &["exec"]),
        ("cuts at once", exec(script::cuts_at_once()), &["exec", "channel", "tcp"]),
        ("a status alone", exec(script::status_without_output(0)), &["exec"]),
        ("output without status", exec(script::output_without_status()), &["exec"]),
        ("status before output", exec(script::status_before_output()), &["exec"]),
    ])
    .await;
}

#[tokio::test]
async fn commands_that_answer_wildly() {
    all_refused(vec![
        ("endless stdout", after_the_marker(script::endless_stdout), &["exec", "runner"]),
        ("a line of 1 GiB", after_the_marker(script::gibibyte_line), &["exec", "runner"]),
        ("invalid UTF-8", after_the_marker(script::invalid_utf8), &["exec"]),
        ("escape sequences", after_the_marker(script::escape_sequences), &["exec"]),
        ("nothing", after_the_marker(|| script::status_without_output(0)), &["exec"]),
        (
            "an answer full of escape sequences",
            after_the_marker(|| {
                let system = [b"state=absent\nsystem=", script::ESCAPES, b"\nend\n"].concat();
                let mut acts = vec![Act::Write(Stream::Out, system)];
                acts.extend(script::status_without_output(0));
                acts
            }),
            &["wrong_arch"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn runners_that_lie_from_the_start() {
    all_refused(vec![
        ("another build", with_runner(|| script::runner(frames::opening())), &["verify"]),
        (
            "another version",
            with_runner(|| script::runner(frames::another_protocol_version())),
            &["runner"],
        ),
        (
            "another magic",
            with_runner(|| script::dying_runner(frames::another_magic())),
            &["runner"],
        ),
        ("too much noise", with_runner(|| script::runner(frames::noise(8 << 20))), &["runner"]),
        ("dies at once", with_runner(|| script::dying_runner(Vec::new())), &["runner"]),
        ("endless stderr", with_runner(script::endless_stderr), &["runner", "exec", "deadline"]),
        ("endless stdout", with_runner(script::endless_stdout), &["runner", "exec"]),
    ])
    .await;
}

/// Puts the right build into a hello, so that the lie after it is reached.
pub fn honest_build(mut bytes: Vec<u8>) -> Vec<u8> {
    let ours = sha256(&std::fs::read(runner()).unwrap());
    let zeros = "0".repeat(64);
    let at = bytes.windows(64).position(|window| window == zeros.as_bytes()).unwrap();
    bytes[at..at + 64].copy_from_slice(ours.as_bytes());
    bytes
}

fn saying(bytes: fn() -> Vec<u8>) -> Hostility {
    with_runner(move || script::runner(honest_build(bytes())))
}

fn replying(reply: fn(RequestId) -> Vec<u8>) -> Hostility {
    with_runner(move || {
        vec![
            Act::Write(Stream::Out, honest_build(frames::opening())),
            Act::Reply(reply),
            Act::Killed,
            Act::Eof,
            Act::Close,
        ]
    })
}

#[tokio::test]
async fn runners_that_lie_in_frames() {
    all_refused(vec![
        ("hello twice", saying(frames::hello_twice), &["runner"]),
        ("a frame of 4 GiB", saying(frames::four_gibibytes), &["runner"]),
        ("an empty frame", saying(frames::empty), &["runner"]),
        ("no map", saying(frames::not_a_map), &["runner"]),
        ("broken CBOR", saying(frames::broken_cbor), &["runner"]),
        ("nested CBOR", saying(frames::nested_cbor), &["runner"]),
        ("unknown message", saying(frames::unknown_message), &["runner"]),
        ("unknown ids", replying(frames::unknown_ids), &["runner"]),
        ("no reply", replying(frames::finished_without_reply), &["runner"]),
        ("dies within the request", replying(frames::never_finished), &["runner"]),
        ("escapes in a failure", replying(frames::failure_with_escapes), &["runner"]),
        (
            "cut short",
            with_runner(|| script::dying_runner(honest_build(frames::cut_short()))),
            &["runner"],
        ),
    ])
    .await;
}

/// These end by deadlines of half a minute and more, all of them together.
#[tokio::test]
async fn hosts_that_are_silent() {
    let mut silent = Hostility::on_exec(script::never_answers());
    silent.greeting = Greeting::Silence;
    let mut no_exec = Hostility::on_exec(script::never_answers());
    no_exec.exec = Answer::Never;
    let cases: Vec<Case> = vec![
        ("the runner", with_runner(script::never_answers), &["deadline", "exec"]),
        ("the shell", Hostility::on_exec(script::never_answers()), &["deadline", "exec"]),
        ("exec", no_exec, &["deadline", "exec"]),
        ("the server", silent, &["banner"]),
    ];
    join_all(cases.into_iter().map(async |(name, hostility, reasons)| {
        assert_refused(name, &deploy_to(hostility).await, reasons);
    }))
    .await;
}

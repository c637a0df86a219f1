//! That the hostile host does what it says, as the OpenSSH client sees it.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use runner_protocol::{
    FactsQuery, FrameDecoder, FrameError, FromRunner, MagicScanner, RequestId, ToRunner, Unit,
    decode, encode_frame,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::*;

/// A test that hangs should say where; nothing here waits for time to pass.
const STUCK: Duration = Duration::from_secs(120);

struct Client {
    directory: TempDir,
    host: HostileHost,
}

impl Client {
    async fn of(hostility: Hostility) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(directory.path().join("key"))
            .status()
            .unwrap();
        assert!(made.success());
        let client = Self { directory, host: HostileHost::start(hostility).await };
        let key = client.host.host_key().to_openssh().unwrap();
        let line = format!("[127.0.0.1]:{} {key}\n", client.host.address().port());
        std::fs::write(client.known_hosts(), line).unwrap();
        client
    }

    fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    fn ssh(&self) -> Command {
        self.ssh_that_logs("ERROR")
    }

    fn ssh_that_logs(&self, level: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(format!("LogLevel={level}"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.known_hosts().display()))
            .arg("-i")
            .arg(self.directory.path().join("key"))
            .args(["-p", &self.host.address().port().to_string(), "user@127.0.0.1", "command"])
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        ssh
    }

    async fn run(&self) -> Output {
        tokio::time::timeout(STUCK, self.ssh().output()).await.expect("ssh is stuck").unwrap()
    }

    fn start(&self) -> Child {
        self.ssh().stdin(Stdio::piped()).spawn().unwrap()
    }

    async fn wait_for(&self, happened: impl FnMut(&Seen) -> bool) -> Seen {
        tokio::time::timeout(STUCK, self.host.wait_for(happened)).await.expect("never seen")
    }
}

async fn run(acts: Vec<Act>) -> Output {
    Client::of(Hostility::on_exec(acts)).await.run().await
}

#[tokio::test]
async fn a_client_that_refuses_the_host_key_sends_no_byte_of_authentication() {
    let client = Client::of(Hostility::on_exec(script::status_without_output(0))).await;
    let listed = Command::new("ssh-keygen").arg("-lf").arg(client.known_hosts()).output().await;
    assert!(String::from_utf8_lossy(&listed.unwrap().stdout).contains(&client.host.fingerprint()));
    let known_hosts = std::fs::read(client.known_hosts()).unwrap();
    std::fs::write(client.known_hosts(), "").unwrap();
    assert_eq!(client.run().await.status.code(), Some(255));
    let seen = client.wait_for(|seen| seen.ended == 1).await;
    assert_eq!(seen, Seen { connections: 1, ended: 1, ..Seen::default() });
    // The counter does count when the key is right.
    std::fs::write(client.known_hosts(), known_hosts).unwrap();
    assert_eq!(client.run().await.status.code(), Some(0));
    let seen = client.wait_for(|seen| seen.ended == 2).await;
    assert!(seen.authentication_requests > 1);
    assert_eq!(seen.commands, ["command"]);
    assert_eq!(seen.keys.len(), 1);
}

#[tokio::test]
async fn statuses_and_output_come_as_scripted() {
    assert_eq!(run(script::status_without_output(9)).await.status.code(), Some(9));
    assert_eq!(run(script::closes_at_once()).await.status.code(), Some(255));
    assert_eq!(run(script::cuts_at_once()).await.status.code(), Some(255));
    let unknown = run(script::output_without_status()).await;
    assert_eq!(
        (unknown.stdout.as_slice(), unknown.status.code()),
        (&b"all is well\n"[..], Some(255))
    );
    let late = run(script::status_before_output()).await;
    assert_eq!((late.stdout.as_slice(), late.status.code()), (&b"late\n"[..], Some(0)));
    let escapes = run(script::escape_sequences()).await;
    assert_eq!(
        (escapes.stdout.as_slice(), escapes.stderr.as_slice()),
        (script::ESCAPES, script::ESCAPES)
    );
    let invalid = run(script::invalid_utf8()).await;
    assert!(std::str::from_utf8(&invalid.stdout).is_err() && invalid.stdout == invalid.stderr);
    let line = run(script::line_of(8 << 20)).await;
    assert_eq!(line.stdout.len(), 8 << 20);
    assert!(!line.stdout.contains(&b'\n'));
}

#[tokio::test]
async fn endless_output_ends_with_its_reader() {
    for acts in [script::endless_stdout(), script::endless_stderr(), script::gibibyte_line()] {
        let client = Client::of(Hostility::on_exec(acts)).await;
        let mut ssh = client.start();
        client.wait_for(|seen| seen.output_bytes > 1 << 20).await;
        ssh.kill().await.unwrap();
        let seen = client.wait_for(|seen| seen.ended == 1).await;
        // Backpressure: the host wrote no more than windows and pipes hold.
        assert!(seen.output_bytes < 16 << 20, "{}", seen.output_bytes);
    }
}

#[tokio::test]
async fn refusals_cuts_and_silence_come_at_the_stage_asked_for() {
    let honest = || Hostility::on_exec(script::status_without_output(0));
    let failing = [
        Hostility { greeting: Greeting::Close, ..honest() },
        Hostility { greeting: Greeting::EndlessLines, ..honest() },
        Hostility { lets_in: false, ..honest() },
        Hostility { channel: Answer::Refuse, ..honest() },
        Hostility { channel: Answer::Cut, ..honest() },
        Hostility { exec: Answer::Refuse, ..honest() },
        Hostility { exec: Answer::Cut, ..honest() },
    ];
    for hostility in failing {
        let client = Client::of(hostility).await;
        assert_eq!(client.run().await.status.code(), Some(255));
    }
    let silent = [
        (Hostility { greeting: Greeting::Silence, ..honest() }, 0, 0),
        (Hostility { channel: Answer::Never, ..honest() }, 1, 0),
        (Hostility { exec: Answer::Never, ..honest() }, 1, 1),
        (Hostility::on_exec(script::never_answers()), 1, 1),
    ];
    for (hostility, channels, commands) in silent {
        let client = Client::of(hostility).await;
        let mut ssh = client.start();
        client
            .wait_for(|seen| {
                seen.connections == 1
                    && seen.channels == channels
                    && seen.commands.len() == commands
            })
            .await;
        assert_eq!(ssh.try_wait().unwrap(), None);
        ssh.kill().await.unwrap();
        client.wait_for(|seen| seen.ended == 1).await;
    }
}

#[tokio::test]
async fn a_banner_is_shown_before_login() {
    let hostility = Hostility {
        banner: Some("pay here\n".into()),
        ..Hostility::on_exec(script::status_without_output(0))
    };
    let client = Client::of(hostility).await;
    let shown = client.ssh_that_logs("INFO").output().await.unwrap();
    assert_eq!(shown.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("pay here"));
}

#[tokio::test]
async fn a_command_can_be_run_for_real_between_lies() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().to_owned();
    let client = Client::of(Hostility::by_command(move |line| {
        assert!(line.starts_with(b"command"));
        vec![Act::Run(home.clone())]
    }))
    .await;
    let mut ssh = client.ssh();
    let mut ssh = ssh.arg("; cat; pwd; exit 6").stdin(Stdio::piped()).spawn().unwrap();
    ssh.stdin.take().unwrap().write_all(b"from stdin\n").await.unwrap();
    let real = tokio::time::timeout(STUCK, ssh.wait_with_output()).await.unwrap().unwrap();
    let expected = format!("from stdin\n{}\n", directory.path().display());
    assert_eq!((String::from_utf8(real.stdout).unwrap(), real.status.code()), (expected, Some(6)));
}

#[tokio::test]
async fn a_runner_dies_or_waits_after_its_opening() {
    let dying = run(script::dying_runner(frames::opening())).await;
    assert!(dying.stdout == frames::opening());
    assert_eq!(dying.status.code(), Some(255));

    let client = Client::of(Hostility::on_exec(script::runner(frames::opening()))).await;
    let mut ssh = client.start();
    let mut received = vec![0; frames::opening().len()];
    let read = ssh.stdout.as_mut().unwrap().read_exact(&mut received);
    tokio::time::timeout(STUCK, read).await.expect("no opening").unwrap();
    assert_eq!(client.host.seen().ended, 0);
}

#[tokio::test]
async fn a_command_that_reads_all_answers_only_after_the_end() {
    let acts = vec![Act::ReadAll, Act::Exit(4), Act::Eof, Act::Close];
    let client = Client::of(Hostility::on_exec(acts)).await;
    let mut ssh = client.start();
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(&[7; 100_000]).await.unwrap();
    client.wait_for(|seen| seen.stdin_bytes == 100_000).await;
    assert_eq!(ssh.try_wait().unwrap(), None);
    drop(stdin);
    let ended = tokio::time::timeout(STUCK, ssh.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(4));
}

#[tokio::test]
async fn a_runner_lies_about_the_request_it_was_sent() {
    let client =
        Client::of(Hostility::on_exec(script::runner_replying(frames::finished_twice))).await;
    let mut ssh = client.start();
    let id = RequestId(77);
    let renew = encode_frame(&ToRunner::Renew {}).unwrap();
    let request =
        encode_frame(&ToRunner::Request { id, unit: Unit::Facts(FactsQuery::default()) }).unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(&[renew, request].concat()).await.unwrap();
    let expected = [frames::opening(), frames::finished(id), frames::finished(id)].concat();
    let mut received = vec![0; expected.len()];
    let read = ssh.stdout.as_mut().unwrap().read_exact(&mut received);
    tokio::time::timeout(STUCK, read).await.expect("no reply").unwrap();
    assert!(received == expected);
    drop(stdin);
    ssh.kill().await.unwrap();
}

/// The messages of a stream up to its first error.
fn read_stream(stream: &[u8]) -> (Vec<FromRunner>, Result<(), FrameError>) {
    let mut input = stream;
    assert_eq!(MagicScanner::new().push(&mut input), Ok(true));
    let (mut decoder, mut messages) = (FrameDecoder::new(), Vec::new());
    loop {
        let message = match decoder.push(&mut input) {
            Ok(None) => return (messages, decoder.finish()),
            Ok(Some(body)) => decode(&body),
            Err(error) => Err(error),
        };
        match message {
            Ok(message) => messages.push(message),
            Err(error) => return (messages, Err(error)),
        }
    }
}

#[test]
fn each_lie_is_the_one_its_name_says() {
    assert!(matches!(read_stream(&frames::opening()), (hello, Ok(())) if hello.len() == 1));
    let error = |stream: Vec<u8>| {
        let (messages, ended) = read_stream(&stream);
        assert_eq!(messages.len(), 1, "the hello before the lie is honest");
        ended.unwrap_err()
    };
    assert!(matches!(error(frames::four_gibibytes()), FrameError::TooLarge { .. }));
    assert!(matches!(error(frames::cut_short()), FrameError::Truncated { .. }));
    assert!(matches!(error(frames::empty()), FrameError::Empty));
    assert!(matches!(error(frames::not_a_map()), FrameError::NotAMap { .. }));
    assert!(matches!(error(frames::broken_cbor()), FrameError::Decode(_)));
    assert!(matches!(error(frames::nested_cbor()), FrameError::Decode(_)));
    assert!(matches!(error(frames::unknown_message()), FrameError::Decode(_)));

    let (messages, _) = read_stream(&frames::another_protocol_version());
    assert!(matches!(&messages[0], FromRunner::Hello(hello) if hello.protocol_version == 2));
    assert_eq!(read_stream(&frames::hello_twice()).0.len(), 2);
    assert_eq!(read_stream(&frames::noise(1000)).0.len(), 1);
    assert_eq!(MagicScanner::new().push(&mut frames::another_magic().as_slice()), Ok(false));
    assert!(MagicScanner::new().push(&mut frames::noise(1 << 20).as_slice()).is_err());

    let id = RequestId(5);
    let after_opening = |lie: fn(RequestId) -> Vec<u8>| {
        let (messages, ended) = read_stream(&[frames::opening(), lie(id)].concat());
        ended.unwrap();
        messages[1..].to_vec()
    };
    let is_end = |message: &FromRunner| matches!(message, FromRunner::Finished { id: end, .. } if *end == id);
    assert!(!after_opening(frames::unknown_ids).iter().any(is_end));
    assert_eq!(after_opening(frames::finished_twice).iter().filter(|m| is_end(m)).count(), 2);
    assert!(is_end(&after_opening(frames::progress_after_the_end)[0]));
    assert!(!after_opening(frames::never_finished).iter().any(is_end));
    assert_eq!(after_opening(frames::finished_without_reply).len(), 1);
    assert!(is_end(&after_opening(frames::failure_with_escapes)[0]));
}

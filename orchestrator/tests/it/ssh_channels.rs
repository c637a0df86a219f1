//! What runs over one connection: its limits, its bounds, and that nothing is left behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use orchestrator::reason::Reason;
use orchestrator::ssh::{Connection, Limits, connect};
use orchestrator::transport::local::Local;
use orchestrator::transport::{ExecRequest, ExitStatus, Failure, Input, RemoteCommand, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::sshd::{Sshd, User, command, context, context_with, limits, need, sh};

const START: Duration = Duration::from_secs(60);

async fn connected(server: &Sshd) -> Connection {
    connect(&server.endpoint(), &[], &context(&[server])).await.unwrap()
}

#[tokio::test]
async fn a_thousand_execs_on_one_connection_leak_no_session() {
    // A login shell without rc files: a thousand logins wait for nothing else.
    let user = User::add(&need("/bin/dash", "dash"));
    let server = Sshd::start(&["MaxSessions 10"]);
    let mut endpoint = server.endpoint();
    endpoint.user = user.name.clone();
    let connection = connect(&endpoint, &[], &context(&[&server])).await.unwrap();
    for _ in 0..1000 / 8 {
        let eight = join_all((0..8).map(|_| sh(&connection, "exit 3"))).await;
        assert!(eight.iter().all(|output| output.status == ExitStatus::Code(3)));
    }
    connection.close().await;
}

#[tokio::test]
async fn abandoned_execs_free_their_sessions() {
    let server = Sshd::start(&["MaxSessions 2"]);
    let connection = connected(&server).await;
    for _ in 0..20 {
        let mut process = connection.spawn(command("exec cat"), START).await.unwrap();
        process.stdin.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        process.stdout.read_exact(&mut pong).await.unwrap();
        drop(process);
        // Polled once: its channel is being opened when it is dropped.
        assert!(sh(&connection, "exec cat").now_or_never().is_none());
    }
    assert_eq!(sh(&connection, "echo free").await.stdout, b"free\n");
}

#[tokio::test]
async fn a_server_with_one_session_runs_parallel_execs_one_by_one() {
    let server = Sshd::start(&["MaxSessions 1"]);
    let connection = connected(&server).await;
    let outputs = join_all((0..12).map(|_| sh(&connection, "echo done"))).await;
    assert!(outputs.iter().all(|output| output.stdout == b"done\n"));

    // Held by a process, the only session cannot be had: that is what the error says.
    let process = connection.spawn(command("exec cat"), START).await.unwrap();
    let request = ExecRequest::new(command("true")).deadline(Duration::from_millis(300));
    let error = connection.exec(request).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::SessionsExhausted { limit: 1 }), "{error}");
    assert!(error.hint().unwrap().contains("MaxSessions"));
    process.close().await;
    assert_eq!(sh(&connection, "echo free").await.stdout, b"free\n");
}

#[tokio::test]
async fn a_server_without_sessions_refuses_the_channel() {
    let server = Sshd::start(&["MaxSessions 0"]);
    let connection = connected(&server).await;
    let error = connection.exec(ExecRequest::new(command("true"))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Channel, "{error}");
    assert!(matches!(error.failure(), Failure::ChannelRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_flood_is_capped_and_stalls_nobody() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let flood = ExecRequest::new(command("exec cat /dev/zero")).caps(1000, 1000);
    let mut flood = connection.exec(flood).boxed();
    // The others run while the flood does.
    let mut others = join_all((0..5).map(|_| sh(&connection, "echo through"))).boxed();
    let outputs = tokio::select! {
        _ = &mut flood => None,
        outputs = &mut others => Some(outputs),
    };
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => others.await,
    };
    assert!(outputs.iter().all(|output| output.stdout == b"through\n"));
    drop(flood);

    let error = connection.exec(ExecRequest::new(command("exec cat /dev/zero"))).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Flood(_)), "{error}");

    let capped = ExecRequest::new(command("head -c 5000 /dev/zero; echo x >&2")).caps(1000, 1);
    let output = connection.exec(capped).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (1000, 1));
    assert!(output.stdout_truncated && output.stderr_truncated);
    assert_eq!(output.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_process_whose_output_nobody_reads_is_closed_and_alone() {
    let server = Sshd::start(&[]);
    let limits = Limits { unread_bytes: 100_000, ..limits() };
    let context = context_with(&[&server], limits);
    let connection = connect(&server.endpoint(), &[], &context).await.unwrap();
    let mut loud = connection.spawn(command("exec cat /dev/zero"), START).await.unwrap();
    let error = loud.wait().await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Overflow(100_000)), "{error}");
    // What was buffered can be read, and then the error.
    let mut bytes = Vec::new();
    assert!(loud.stdout.read_to_end(&mut bytes).await.is_err());
    assert!(!bytes.is_empty() && bytes.len() <= 100_000);
    assert!(loud.wait().await.is_err());
    assert_eq!(sh(&connection, "echo here").await.stdout, b"here\n");
}

#[tokio::test]
async fn a_session_talks_both_ways_and_ends_with_its_input() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let script = "while read line; do echo \"got $line\"; done; echo bye >&2; exit 5";
    let mut process = connection.spawn(command(script), START).await.unwrap();
    for word in ["one", "two"] {
        process.stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; 8];
        process.stdout.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, format!("got {word}\n").into_bytes());
    }
    process.stdin.shutdown().await.unwrap();
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Code(5));
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Code(5), "kept until it is asked for");
    let mut rest = String::new();
    process.stderr.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye\n");
}

#[tokio::test]
async fn writing_to_a_process_that_has_ended_fails() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let mut process = connection.spawn(command("exit 0"), START).await.unwrap();
    assert!(process.wait().await.unwrap().success());
    assert!(process.stdin.write_all(&[0; 1024 * 1024]).await.is_err());
}

/// An input that is large, not zero, and not a multiple of any packet.
fn payload() -> Vec<u8> {
    (0..5_000_011_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn upload(transport: &dyn Transport) {
    let payload = payload();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&seen);
    let len = payload.len() as u64;
    let reader = Box::new(std::io::Cursor::new(payload.clone()));
    let request = ExecRequest::new(command("exec cat"))
        .stdin(Input::Reader { reader, len })
        .caps(payload.len(), 1000)
        .progress(Box::new(move |sent| progress.lock().unwrap().push(sent)));
    let output = transport.exec(request).await.unwrap();
    assert!(output.stdout == payload && !output.stdout_truncated);
    let seen = seen.lock().unwrap().clone();
    assert!(seen.is_sorted() && seen.last() == Some(&len));

    let request = ExecRequest::new(command("wc -c")).stdin(Input::Bytes(payload));
    let output = transport.exec(request).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), len.to_string());
}

#[tokio::test]
async fn an_upload_arrives_whole_over_ssh_without_any_subsystem() {
    let server = Sshd::start(&[]);
    upload(&connected(&server).await).await;
}

#[tokio::test]
async fn an_upload_arrives_whole_on_this_machine() {
    upload(&Local::new()).await;
}

/// An input that breaks off must not look complete to the command.
#[tokio::test]
async fn an_input_that_breaks_off_is_never_followed_by_end_of_file() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let mark = server.dir.path().join("complete");
    let script = "cat >/dev/null; touch \"$1\"";
    let command = RemoteCommand::script(script, [mark.to_str().unwrap()]).unwrap();
    let reader = Box::new(&b"only this"[..]);
    let request = ExecRequest::new(command).stdin(Input::Reader { reader, len: 100 });
    let error = connection.exec(request).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Input { .. }), "{error}");
    assert_eq!(error.reason(), Reason::Upload);
}

#[tokio::test]
async fn a_command_that_ends_without_its_input_tells_its_status() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    for transport in [&connection as &dyn Transport, &Local::new()] {
        let request =
            ExecRequest::new(command("exit 4")).stdin(Input::Bytes(vec![0; 16 * 1024 * 1024]));
        assert_eq!(transport.exec(request).await.unwrap().status, ExitStatus::Code(4));
    }
}

#[tokio::test]
async fn signals_missing_programs_and_deadlines_are_told_apart() {
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let local = Local::new();
    for transport in [&connection as &dyn Transport, &local] {
        let output = sh(transport, "kill -TERM $$").await;
        assert_eq!(output.status, ExitStatus::Signal("TERM".to_owned()));
        let missing = RemoteCommand::argv("/no/such/program", [""; 0]).unwrap();
        let output = transport.exec(ExecRequest::new(missing)).await.unwrap();
        assert_eq!(output.status, ExitStatus::Code(127));
        let request = ExecRequest::new(command("while echo; do sleep 0.2; done"))
            .deadline(Duration::from_secs(2));
        let error = transport.exec(request).await.unwrap_err();
        assert!(matches!(error.failure(), Failure::ExecTimeout(_)), "{error}");
    }
    local.close().await;
    assert!(local.exec(ExecRequest::new(command("true"))).await.is_err());
}

#[tokio::test]
async fn a_local_command_dies_with_its_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let local = Local::new();
    // A grandchild holds the fifo's writing end for as long as it lives.
    let script = "(exec 9>\"$1\"; echo up; while :; do sleep 1; done) & wait";
    let command = RemoteCommand::script(script, [fifo.to_str().unwrap()]).unwrap();
    let reading = tokio::task::spawn_blocking(move || std::fs::read(fifo).unwrap());
    let mut process = local.spawn(command, START).await.unwrap();
    let mut up = [0; 3];
    process.stdout.read_exact(&mut up).await.unwrap();
    process.close().await;
    // End of file comes when the last writer is gone.
    assert_eq!(reading.await.unwrap(), b"");
}

#[tokio::test]
async fn a_forced_command_is_noticed() {
    let server = Sshd::start(&["ForceCommand echo only this is allowed"]);
    let connection = connected(&server).await;
    let error = connection.exec(ExecRequest::new(command("true"))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Exec);
    assert!(error.to_string().contains("it said: only this is allowed"), "{error}");
    assert!(error.hint().unwrap().contains("ForceCommand"));
    assert!(connection.spawn(command("true"), START).await.is_err());

    // One that waits is ended by the deadline.
    let server = Sshd::start(&["ForceCommand cat"]);
    let connection = connected(&server).await;
    let error = connection.spawn(command("true"), Duration::from_secs(1)).await.err().unwrap();
    assert!(matches!(error.failure(), Failure::LoginTimeout(_)), "{error}");
}

#[tokio::test]
async fn a_socket_on_the_host_is_reached_unless_forbidden() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let served = Arc::clone(&count);
    let echo = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            served
                .fetch_add(tokio::io::copy(&mut read, &mut write).await.unwrap(), Ordering::SeqCst);
        }
    });
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let mut stream = connection.open_socket(path.to_str().unwrap()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    assert_eq!(count.load(Ordering::SeqCst), 5);
    // Dropping one closes it, which the other side sees.
    let before = count.load(Ordering::SeqCst);
    let mut stream = connection.open_socket(path.to_str().unwrap()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.read_exact(&mut answer[..1]).await.unwrap();
    drop(stream);
    while count.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    let error = connection.open_socket("/no/such/socket").await.err().unwrap();
    assert_eq!(error.reason(), Reason::Channel, "{error}");

    let server = Sshd::start(&["AllowStreamLocalForwarding no"]);
    let connection = connected(&server).await;
    let error = connection.open_socket(path.to_str().unwrap()).await.err().unwrap();
    assert!(matches!(error.failure(), Failure::ChannelRefused { .. }), "{error}");
    assert!(error.hint().unwrap().contains("AllowStreamLocalForwarding"), "{error}");
    echo.abort();
}

#[tokio::test]
async fn the_end_of_a_socket_is_heard_while_our_side_of_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Sshd::start(&[]);
    let connection = connected(&server).await;
    let mut stream = connection.open_socket(path.to_str().unwrap()).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"last words").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut heard = String::new();
    let end = tokio::time::timeout(START, stream.read_to_string(&mut heard)).await;
    end.expect("the end is never heard").unwrap();
    assert_eq!(heard, "last words");
    // The other direction goes on.
    stream.write_all(b"understood").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "understood");
}

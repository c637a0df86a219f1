//! Servers that are absent, silent, frozen, full, or cut off in the middle.

use std::time::Duration;

use orchestrator::host_spec::{AgentSocket, Endpoint};
use orchestrator::reason::Reason;
use orchestrator::ssh::{HostConnections, Lane, Limits, SshContext, connect};
use orchestrator::transport::{Error, ExecRequest, Failure, Input, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sshd::{
    Sshd, command, context, context_with, free_port, generate_key, limits, open_dir, sh, trust,
};

/// Gives up at once: what is tested is that it ends and how, not after how long.
fn impatient() -> Limits {
    Limits {
        handshake: Duration::from_millis(300),
        connect_attempts: 1,
        dropped_attempts: 1,
        ..limits()
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Connects to a server that serves one connection with `serve`, and expects an error and no
/// task left over.
async fn fail<F>(serve: impl FnOnce(TcpStream) -> F) -> Error
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = open_dir();
    generate_key(&dir.path().join("user"), "ed25519", "");
    let endpoint = Endpoint {
        address: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        user: "nobody".to_owned(),
        identity_files: vec![dir.path().join("user")],
        certificate_files: Vec::new(),
        agent: AgentSocket::Disabled,
        host_key: None,
        host_key_alias: None,
        known_hosts_files: Vec::new(),
    };
    let context = SshContext::new(impatient(), trust(""));
    let before = tasks();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    };
    let (error, ()) = tokio::join!(connect(&endpoint, &[], &context), server);
    while tasks() > before {
        tokio::task::yield_now().await;
    }
    error.err().unwrap()
}

/// Reads until the client is gone.
async fn swallow(mut stream: TcpStream) {
    let mut sink = [0; 1024];
    while let Ok(1..) = stream.read(&mut sink).await {}
}

#[tokio::test]
async fn a_refused_connection_is_a_tcp_error_that_may_pass() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.port = free_port();
    let context = context_with(&[&server], impatient());
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Tcp);
    assert!(error.is_transient() && error.hint().is_some());

    endpoint.address = "no-such-host.invalid".to_owned();
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Resolve, "{error}");
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_is_given_up() {
    let error = fail(swallow).await;
    assert!(matches!(error.failure(), Failure::BannerTimeout(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_freezes_after_its_greeting_is_given_up_and_leaves_no_task() {
    let error = fail(|mut stream| async {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        swallow(stream).await;
    })
    .await;
    assert!(matches!(error.failure(), Failure::KexTimeout(_)), "{error}");
}

#[tokio::test]
async fn something_else_on_the_port_is_named() {
    let error = fail(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad\x1b[31m Request\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        swallow(stream).await;
    })
    .await;
    let Failure::NotSsh(said) = error.failure() else { panic!("{error}") };
    assert_eq!(said.as_str(), "HTTP/1.1 400 Bad [31m Request");
}

#[tokio::test]
async fn a_server_without_room_is_told_from_one_that_is_no_ssh_server() {
    let error = fail(|mut stream| async move {
        stream.write_all(b"Exceeded MaxStartups\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        swallow(stream).await;
    })
    .await;
    assert!(matches!(error.failure(), Failure::BannerClosed(_)), "{error}");
    assert!(error.hint().unwrap().contains("MaxStartups"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn garbage_after_the_greeting_is_a_failed_key_exchange() {
    let error = fail(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        stream.write_all(&[0xff; 512]).await.unwrap();
        swallow(stream).await;
    })
    .await;
    assert_eq!(error.reason(), Reason::Kex, "{error}");
}

#[tokio::test]
async fn many_connects_to_a_server_that_takes_one_at_a_time_all_succeed() {
    let server = Sshd::start(&["MaxStartups 1"]);
    let context = context(&[&server]);
    let endpoint = server.endpoint();
    let all = (0..16).map(|_| connect(&endpoint, &[], &context));
    for connection in futures_util::future::join_all(all).await {
        connection.unwrap();
    }
    // Without the retries this would not have been true.
    assert!(server.log().contains("MaxStartups"), "no connection was ever dropped");
}

/// Forwards one connection and cuts it, in both directions, after `limit` bytes from the server.
async fn cutting_proxy(server: u16, limit: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let mut limited = from_server.take(limit);
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut limited, &mut to_client) => {}
        }
    });
    port
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_fails_what_runs_and_is_replaced() {
    let server = Sshd::start(&[]);
    let port = cutting_proxy(server.port, 200_000).await;
    let mut endpoint = server.endpoint();
    endpoint.port = port;
    let line = format!("[127.0.0.1]:{port} {}\n", server.host_key_line("ed25519"));
    let context = SshContext::new(limits(), trust(&line));
    let connection = connect(&endpoint, &[], &context).await.unwrap();
    let mut process = connection.spawn(command("exec cat"), Duration::from_secs(60)).await.unwrap();
    let error = connection
        .exec(ExecRequest::new(command("cat /dev/zero")).caps(usize::MAX, 0))
        .await
        .unwrap_err();
    assert!(matches!(error.failure(), Failure::Lost(_)), "{error}");
    let error = process.wait().await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Lost(_)), "{error}");
    connection.gone().await;
    let error = connection.exec(ExecRequest::new(command("true"))).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Channel);
}

#[tokio::test]
async fn a_host_has_at_most_two_connections_and_a_lost_one_is_opened_anew() {
    let server = Sshd::start(&[]);
    let context = std::sync::Arc::new(context(&[&server]));
    let host = HostConnections::new(server.endpoint(), Vec::new(), context);
    let all = (0..4).map(|_| host.get(Lane::Control));
    let all = futures_util::future::join_all(all).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|other| std::sync::Arc::ptr_eq(first, other.as_ref().unwrap())));
    let bulk = host.get(Lane::Bulk).await.unwrap();
    assert!(!std::sync::Arc::ptr_eq(first, &bulk));
    assert_eq!(server.log().matches("Accepted publickey").count(), 2);

    first.close().await;
    let again = host.get(Lane::Control).await.unwrap();
    assert_eq!(sh(&*again, "echo back").await.stdout, b"back\n");
    host.close().await;
    assert!(again.is_gone() && bulk.is_gone());
}

#[tokio::test]
async fn a_host_that_keeps_failing_is_left_alone() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.port = free_port();
    let context = std::sync::Arc::new(context_with(&[&server], impatient()));
    let host = HostConnections::new(endpoint, Vec::new(), context);
    for _ in 0..3 {
        assert_eq!(host.get(Lane::Control).await.err().unwrap().reason(), Reason::Tcp);
    }
    assert_eq!(host.get(Lane::Control).await.err().unwrap().reason(), Reason::CircuitOpen);
}

#[tokio::test]
async fn dropping_a_connect_in_the_middle_leaves_no_task() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.port = listener.local_addr().unwrap().port();
    let context = context(&[&server]);
    let before = tasks();
    let accepted = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        // The client has greeted and begun its key exchange.
        let mut buf = [0; 200];
        stream.read_exact(&mut buf).await.unwrap();
        stream
    };
    let stream = tokio::select! {
        _ = connect(&endpoint, &[], &context) => panic!("there is no server"),
        stream = accepted => stream,
    };
    swallow(stream).await;
    while tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn dropping_a_connection_ends_its_tasks_and_its_processes() {
    let server = Sshd::start(&[]);
    let context = context(&[&server]);
    let before = tasks();
    let connection = connect(&server.endpoint(), &[], &context).await.unwrap();
    let mut process = connection.spawn(command("exec cat"), Duration::from_secs(60)).await.unwrap();
    drop(connection);
    assert!(process.wait().await.is_err());
    let mut rest = Vec::new();
    assert!(process.stdout.read_to_end(&mut rest).await.is_err());
    while tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_input_that_is_never_taken_stalls() {
    let server = Sshd::start(&[]);
    let connection = connect(&server.endpoint(), &[], &context(&[&server])).await.unwrap();
    // Reads nothing, and ends when nobody reads what it writes. The input is far more than
    // every buffer on the way.
    let request = ExecRequest::new(command("while echo; do sleep 0.2; done"))
        .stdin(Input::Bytes(vec![0; 64 * 1024 * 1024]))
        .stall_timeout(Duration::from_millis(500));
    let error = connection.exec(request).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Stalled { .. }), "{error}");
    assert_eq!(error.reason(), Reason::Upload);
    assert_eq!(sh(&connection, "echo still here").await.stdout, b"still here\n");
}

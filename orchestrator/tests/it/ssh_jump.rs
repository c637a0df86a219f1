//! Through other servers: each is judged and logged in to on its own.

use orchestrator::reason::Reason;
use orchestrator::ssh::{SshContext, connect, look_at_host_key};
use orchestrator::transport::{Failure, Hop, Transport};

use crate::sshd::{Sshd, context, free_port, limits, sh, trust};

#[tokio::test]
async fn two_jumps_lead_to_the_host_and_each_has_its_decision() {
    let (first, second, host) = (Sshd::start(&[]), Sshd::start(&[]), Sshd::start(&[]));
    let jumps = [first.endpoint(), second.endpoint()];
    let connection =
        connect(&host.endpoint(), &jumps, &context(&[&first, &second, &host])).await.unwrap();
    let ports: Vec<_> = connection.decisions().iter().map(|decision| decision.port).collect();
    assert_eq!(ports, [first.port, second.port, host.port]);
    let output = sh(&connection, "echo $SSH_CONNECTION").await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.trim().ends_with(&host.port.to_string()), "{text}");
    connection.close().await;

    let presented =
        look_at_host_key(&host.endpoint(), &jumps, &context(&[&first, &second])).await.unwrap();
    assert_eq!(presented.key_line, host.host_key_line("ed25519"));
}

#[tokio::test]
async fn an_error_names_the_hop_it_happened_at() {
    let (jump, host) = (Sshd::start(&[]), Sshd::start(&[]));
    let jumps = [jump.endpoint()];
    let error = connect(&host.endpoint(), &jumps, &context(&[&host])).await.err().unwrap();
    assert_eq!((error.reason(), error.hop()), (Reason::HostKey, Hop::Jump { number: 1, of: 1 }));
    assert!(error.to_string().contains("(jump 1 of 1)"), "{error}");
    assert!(!host.log().contains("Connection from"), "the host was reached: {}", host.log());

    let error = connect(&host.endpoint(), &jumps, &context(&[&jump])).await.err().unwrap();
    assert_eq!((error.reason(), error.hop()), (Reason::HostKey, Hop::Host));

    let mut elsewhere = host.endpoint();
    elsewhere.port = free_port();
    let error = connect(&elsewhere, &jumps, &context(&[&jump])).await.err().unwrap();
    assert_eq!((error.reason(), error.hop()), (Reason::Tcp, Hop::Host), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_jump_that_forbids_forwarding_says_which_option() {
    for option in ["DisableForwarding yes", "AllowTcpForwarding no", "PermitOpen none"] {
        let (jump, host) = (Sshd::start(&[option]), Sshd::start(&[]));
        let context = context(&[&jump, &host]);
        let error = connect(&host.endpoint(), &[jump.endpoint()], &context).await.err().unwrap();
        let Failure::JumpRefused { prohibited: true, .. } = error.failure() else {
            panic!("{option}: {error}")
        };
        assert_eq!(error.reason(), Reason::Channel);
        assert!(error.hint().unwrap().contains("DisableForwarding"), "{error}");
    }
}

#[tokio::test]
async fn closing_the_host_closes_the_jumps() {
    let (jump, host) = (Sshd::start(&[]), Sshd::start(&[]));
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let context = context(&[&jump, &host]);
    let connection = connect(&host.endpoint(), &[jump.endpoint()], &context).await.unwrap();
    assert!(tasks() > before);
    connection.close().await;
    drop(connection);
    while tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_jump_is_trusted_for_the_key_of_its_host() {
    let (jump, host) = (Sshd::start(&[]), Sshd::start(&[]));
    // The jump's key under the host's name: what a jump that lies would present.
    let lines = format!(
        "[127.0.0.1]:{} {}\n[127.0.0.1]:{} {}\n",
        jump.port,
        jump.host_key_line("ed25519"),
        host.port,
        jump.host_key_line("ed25519"),
    );
    let context = SshContext::new(limits(), trust(&lines));
    let error = connect(&host.endpoint(), &[jump.endpoint()], &context).await.err().unwrap();
    assert_eq!((error.reason(), error.hop()), (Reason::HostKey, Hop::Host));
}

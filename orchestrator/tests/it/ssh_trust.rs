//! Host keys against a real sshd: who is believed, and that nobody else is told anything.

use std::fs;
use std::sync::{Arc, Mutex};

use orchestrator::reason::Reason;
use orchestrator::ssh::{
    HostKeySource, SshContext, StoredPins, TrustPolicy, connect, look_at_host_key,
};
use orchestrator::transport::{Error, HostKeyProblem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sshd::{Sshd, fingerprint, generate_key, keygen, limits, open_dir, public_line, trust};

fn problem(error: &Error) -> &HostKeyProblem {
    assert_eq!(error.reason(), Reason::HostKey, "{error}");
    assert!(error.hint().is_some());
    assert!(!error.is_transient());
    error.host_key().unwrap()
}

async fn refused(server: &Sshd, trust: TrustPolicy) -> Error {
    let context = SshContext::new(limits(), trust);
    connect(&server.endpoint(), &[], &context).await.err().unwrap()
}

async fn accepted(server: &Sshd, trust: TrustPolicy) -> HostKeySource {
    let context = SshContext::new(limits(), trust);
    connect(&server.endpoint(), &[], &context).await.unwrap().decisions()[0].source
}

/// A key line of another host.
fn stranger(server: &Sshd, kind: &str) -> String {
    let path = server.dir.path().join(format!("stranger_{kind}"));
    generate_key(&path, kind, "");
    public_line(&path.with_extension("pub"))
}

fn host_line(server: &Sshd, key: &str) -> String {
    format!("[127.0.0.1]:{} {key}\n", server.port)
}

/// Forwards one connection to the server and keeps what the client sends.
async fn tap(server: &Sshd) -> (u16, Arc<Mutex<Vec<u8>>>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (target, kept) = (server.port, Arc::clone(&sent));
    let task = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = async {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = from_client.read(&mut buf).await {
                kept.lock().unwrap().extend_from_slice(&buf[..n]);
                if to_server.write_all(&buf[..n]).await.is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown().await;
        };
        let down = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        };
        tokio::join!(up, down);
    });
    (port, sent, task)
}

/// Splits what a client sent into its greeting, the types of its clear packets up to NEWKEYS,
/// and the encrypted rest (RFC 4253, 6).
fn parse(sent: &[u8]) -> (Vec<u8>, usize) {
    let greeting = sent.iter().position(|&b| b == b'\n').unwrap() + 1;
    let mut rest = &sent[greeting..];
    let mut types = Vec::new();
    while types.last() != Some(&21) && !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        types.push(rest[5]);
        rest = &rest[4 + len..];
    }
    (types, rest.len())
}

#[tokio::test]
async fn a_refused_server_is_sent_nothing_after_the_key_exchange() {
    let server = Sshd::start(&[]);
    let key = server.host_key_line("ed25519");
    let other = stranger(&server, "ed25519");
    for case in ["unknown", "changed", "revoked"] {
        let (port, sent, task) = tap(&server).await;
        let name = format!("[127.0.0.1]:{port}");
        let lines = match case {
            "unknown" => String::new(),
            "changed" => format!("{name} {other}\n"),
            _ => format!("{name} {key}\n@revoked * {key}\n"),
        };
        let mut endpoint = server.endpoint();
        endpoint.port = port;
        let context = SshContext::new(limits(), trust(&lines));
        let error = connect(&endpoint, &[], &context).await.err().unwrap();
        problem(&error);
        task.await.unwrap();
        let (types, encrypted) = parse(&sent.lock().unwrap());
        // KEXINIT, KEX_ECDH_INIT, NEWKEYS, and then not one byte.
        assert_eq!((types, encrypted), (vec![20, 30, 21], 0), "{case}");
    }

    // The tap would see it: a server that is believed is sent more.
    let (port, sent, task) = tap(&server).await;
    let mut endpoint = server.endpoint();
    endpoint.port = port;
    let known = trust(&format!("[127.0.0.1]:{port} {key}\n"));
    drop(connect(&endpoint, &[], &SshContext::new(limits(), known)).await.unwrap());
    task.await.unwrap();
    assert!(parse(&sent.lock().unwrap()).1 > 0);
}

#[tokio::test]
async fn an_unknown_key_is_refused_unless_new_keys_are_accepted() {
    let server = Sshd::start(&[]);
    let error = refused(&server, trust("")).await;
    let HostKeyProblem::Unknown(presented) = problem(&error) else { panic!("{error}") };
    assert_eq!(presented.key_line, server.host_key_line("ed25519"));
    assert!(error.hint().unwrap().contains("--accept-new-host-keys"));

    let accepting = TrustPolicy { accept_new: true, ..trust("") };
    assert_eq!(accepted(&server, accepting).await, HostKeySource::AcceptedNew);
}

#[tokio::test]
async fn a_changed_key_is_refused_even_where_new_keys_are_accepted() {
    let server = Sshd::start(&[]);
    let other = stranger(&server, "ed25519");
    let line = host_line(&server, &other);
    let error = refused(&server, TrustPolicy { accept_new: true, ..trust(&line) }).await;
    let HostKeyProblem::Changed { presented, expected } = problem(&error) else {
        panic!("{error}")
    };
    assert_eq!(presented.key_line, server.host_key_line("ed25519"));
    assert_eq!(expected[0].from, "known_hosts line 1");
    assert!(error.hint().unwrap().contains("hosts trust"));
}

#[tokio::test]
async fn a_server_without_a_key_of_the_pinned_type_is_refused() {
    let server = Sshd::start(&[]);
    let line = host_line(&server, &stranger(&server, "ecdsa"));
    let error = refused(&server, TrustPolicy { accept_new: true, ..trust(&line) }).await;
    let HostKeyProblem::NoPinnedType { theirs, .. } = problem(&error) else { panic!("{error}") };
    assert_eq!(theirs, &["ssh-ed25519"]);
}

#[tokio::test]
async fn a_server_with_several_keys_presents_the_pinned_one() {
    let server = Sshd::with_host_keys(&["ed25519", "ecdsa"], &[]);
    let line = host_line(&server, &server.host_key_line("ecdsa"));
    assert_eq!(accepted(&server, trust(&line)).await, HostKeySource::KnownHosts);

    // A fingerprint does not tell its type: the server is asked for one key after the other.
    let mut endpoint = server.endpoint();
    endpoint.host_key = Some(fingerprint(&server.dir.path().join("host_ecdsa.pub")));
    let context = SshContext::new(limits(), trust(""));
    let connection = connect(&endpoint, &[], &context).await.unwrap();
    assert_eq!(connection.decisions()[0].source, HostKeySource::Pinned);
    assert_eq!(connection.decisions()[0].algorithm, "ecdsa-sha2-nistp256");

    let wrong = server.dir.path().join("wrong");
    generate_key(&wrong, "ed25519", "");
    endpoint.host_key = Some(fingerprint(&wrong.with_extension("pub")));
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(matches!(problem(&error), HostKeyProblem::Changed { .. }), "{error}");

    endpoint.host_key = Some("MD5:00:11".to_owned());
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(matches!(problem(&error), HostKeyProblem::InvalidPin { .. }), "{error}");
}

#[tokio::test]
async fn the_first_source_that_knows_a_server_decides() {
    let server = Sshd::start(&[]);
    let (key, other) = (server.host_key_line("ed25519"), stranger(&server, "ed25519"));
    let stored = |key: &str| {
        let mut pins = StoredPins::default();
        pins.insert("127.0.0.1", server.port, key).unwrap();
        pins
    };
    let known = trust(&host_line(&server, &key));
    let good = TrustPolicy { stored: stored(&key), ..trust(&host_line(&server, &other)) };
    assert_eq!(accepted(&server, good).await, HostKeySource::Stored);
    let error = refused(&server, TrustPolicy { stored: stored(&other), ..known }).await;
    assert!(matches!(problem(&error), HostKeyProblem::Changed { .. }), "{error}");

    // A revocation outweighs even the fleet file.
    let mut endpoint = server.endpoint();
    endpoint.host_key = Some(fingerprint(&server.dir.path().join("host_ed25519.pub")));
    let context = SshContext::new(limits(), trust(&format!("@revoked * {key}\n")));
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(matches!(problem(&error), HostKeyProblem::Revoked { .. }), "{error}");
}

#[tokio::test]
async fn a_host_with_rsa_keys_only_says_what_to_do() {
    let server = Sshd::with_host_keys(&["rsa"], &[]);
    let error = refused(&server, TrustPolicy { accept_new: true, ..trust("") }).await;
    let HostKeyProblem::Unsupported { theirs } = problem(&error) else { panic!("{error}") };
    assert!(theirs.iter().all(|name| name.contains("rsa")), "{theirs:?}");
    assert!(error.hint().unwrap().contains("ssh-keygen -A"));

    let pinned = trust(&host_line(&server, &server.host_key_line("rsa")));
    let error = refused(&server, pinned).await;
    assert!(matches!(problem(&error), HostKeyProblem::PinUnsupported { .. }), "{error}");
}

#[tokio::test]
async fn an_alias_is_looked_up_instead_of_the_address() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.host_key_alias = Some("gpu-07".to_owned());
    let line = format!("gpu-07 {}\n", server.host_key_line("ed25519"));
    let context = SshContext::new(limits(), trust(&line));
    connect(&endpoint, &[], &context).await.unwrap();
    let context = SshContext::new(limits(), trust(&host_line(&server, &line)));
    assert!(connect(&endpoint, &[], &context).await.is_err());
}

#[tokio::test]
async fn looking_at_a_key_trusts_nobody_and_logs_in_nowhere() {
    let server = Sshd::start(&[]);
    let other = stranger(&server, "ed25519");
    let context = SshContext::new(limits(), trust(&host_line(&server, &other)));
    let mut endpoint = server.endpoint();
    endpoint.identity_files = Vec::new();
    let presented = look_at_host_key(&endpoint, &[], &context).await.unwrap();
    assert_eq!(presented.key_line, server.host_key_line("ed25519"));
    assert!(!server.log().contains("Accepted"));
}

/// A server whose host key an authority has signed with these arguments of `ssh-keygen -s`.
fn certified(arguments: &[&str]) -> (Sshd, String) {
    let dir = open_dir();
    let path = dir.path().to_str().unwrap().to_owned();
    for key in ["ca", "host_ed25519", "user"] {
        generate_key(&dir.path().join(key), "ed25519", "");
    }
    let (ca, key) = (format!("{path}/ca"), format!("{path}/host_ed25519.pub"));
    let mut all = vec!["-q", "-s", &ca, "-I", "id"];
    all.extend_from_slice(arguments);
    all.push(&key);
    keygen(&all);
    let option = format!("HostCertificate {path}/host_ed25519-cert.pub");
    let authority = public_line(&dir.path().join("ca.pub"));
    (Sshd::in_dir(dir, &["ed25519"], &[&option]), authority)
}

#[tokio::test]
async fn a_host_certificate_of_a_known_authority_is_believed() {
    let (server, authority) = certified(&["-h", "-n", "127.0.0.1", "-V", "-1d:+1d"]);
    let line = format!("@cert-authority [127.0.0.1]:* {authority}\n");
    assert_eq!(accepted(&server, trust(&line)).await, HostKeySource::Certificate);

    // The bare key where a certificate is due is a downgrade, also for who accepts new keys.
    let plain = Sshd::start(&[]);
    let error = refused(&plain, TrustPolicy { accept_new: true, ..trust(&line) }).await;
    assert!(error.to_string().contains("instead of a certificate"), "{error}");

    let revoked = trust(&format!("{line}@revoked * {authority}\n"));
    assert!(matches!(problem(&refused(&server, revoked).await), HostKeyProblem::Unknown(_)));

    // Another authority's certificate is worth its plain key.
    let other = host_line(&server, &server.host_key_line("ed25519"));
    let stranger = stranger(&server, "ed25519");
    let lines = format!("@cert-authority * {stranger}\n{other}");
    assert_eq!(accepted(&server, trust(&lines)).await, HostKeySource::KnownHosts);
}

#[tokio::test]
async fn a_host_certificate_must_be_for_this_host_and_for_now() {
    for (arguments, why) in [
        (&["-h", "-n", "other", "-V", "-1d:+1d"][..], "not for 127.0.0.1"),
        (&["-h", "-V", "-1d:+1d"], "no host at all"),
        (&["-h", "-n", "127.0.0.1", "-V", "-2d:-1d"], "not valid at this time"),
        (&["-h", "-n", "127.0.0.1", "-V", "+1d:+2d"], "not valid at this time"),
    ] {
        let (server, authority) = certified(arguments);
        let line = format!("@cert-authority * {authority}\n");
        let error = refused(&server, TrustPolicy { accept_new: true, ..trust(&line) }).await;
        assert!(matches!(problem(&error), HostKeyProblem::Certificate { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_unreadable_known_hosts_file_cannot_become_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let loop_file = dir.path().join("loop");
    std::os::unix::fs::symlink(&loop_file, &loop_file).unwrap();
    assert!(fs::read(&loop_file).is_err());
    let error = orchestrator::ssh::known_hosts::KnownHosts::load([&loop_file]).unwrap_err();
    assert!(error.to_string().contains("cannot read the known hosts file"));
}

//! Logging in to a real sshd.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator::host_spec::AgentSocket;
use orchestrator::reason::Reason;
use orchestrator::ssh::{
    HostKeySource, Identities, PassphraseFile, PassphraseProvider, Secret, connect,
};
use orchestrator::transport::{ExitStatus, Failure, IdentityProblem, Transport};

use crate::sshd::{Sshd, context, fingerprint, generate_key, keygen, need, open_dir, sh, succeed};

/// A real ssh-agent, ended on drop.
struct Agent {
    child: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let mut child = Command::new(need("/usr/bin/ssh-agent", "openssh-client"))
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It prints its variables once the socket listens.
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        succeed(
            Command::new(need("/usr/bin/ssh-add", "openssh-client"))
                .arg("-q")
                .arg(key)
                .env("SSH_AUTH_SOCK", &self.socket),
        );
    }

    fn as_socket(&self) -> AgentSocket {
        AgentSocket::Path(self.socket.clone())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces the server's only authorized key.
fn authorize(server: &Sshd, public: &Path) {
    fs::copy(public, server.dir.path().join("authorized_keys")).unwrap();
}

#[tokio::test]
async fn a_key_without_passphrase_logs_in_and_runs_a_command() {
    let server = Sshd::start(&[]);
    let connection = connect(&server.endpoint(), &[], &context(&[&server])).await.unwrap();
    let decision = &connection.decisions()[0];
    assert_eq!(decision.source, HostKeySource::KnownHosts);
    assert_eq!(decision.key_line, server.host_key_line("ed25519"));
    assert_eq!(decision.fingerprint, fingerprint(&server.dir.path().join("host_ed25519.pub")));

    let output = sh(&connection, "echo out; echo err >&2; exit 7").await;
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status, ExitStatus::Code(7));
    connection.close().await;
}

#[tokio::test]
async fn ecdsa_keys_of_all_three_sizes_log_in() {
    for bits in ["256", "384", "521"] {
        let server = Sshd::start(&[]);
        let key = server.dir.path().join("ecdsa");
        keygen(&["-q", "-t", "ecdsa", "-b", bits, "-N", "", "-f", key.to_str().unwrap()]);
        authorize(&server, &key.with_extension("pub"));
        let mut endpoint = server.endpoint();
        endpoint.identity_files = vec![key];
        connect(&endpoint, &[], &context(&[&server])).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_in_pkcs8_form_logs_in() {
    let server = Sshd::start(&[]);
    let key = server.dir.path().join("pkcs8");
    let name = key.to_str().unwrap();
    keygen(&["-q", "-t", "ecdsa", "-m", "PKCS8", "-N", "", "-f", name]);
    assert!(fs::read_to_string(&key).unwrap().contains("BEGIN PRIVATE KEY"));
    authorize(&server, &key.with_extension("pub"));
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![key];
    connect(&endpoint, &[], &context(&[&server])).await.unwrap();
}

#[tokio::test]
async fn a_refusal_names_the_keys_that_were_offered() {
    let server = Sshd::start(&[]);
    let other = server.dir.path().join("other");
    generate_key(&other, "ed25519", "");
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![other.clone()];
    let error = connect(&endpoint, &[], &context(&[&server])).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Auth);
    let text = error.to_string();
    assert!(text.contains(&fingerprint(&other.with_extension("pub"))), "{text}");
    assert!(text.contains(other.to_str().unwrap()), "{text}");
    assert!(error.hint().unwrap().contains("authorized_keys"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn the_agent_signs_also_with_rsa() {
    for kind in ["ed25519", "rsa"] {
        let server = Sshd::start(&[]);
        let agent = Agent::start(server.dir.path());
        let key = server.dir.path().join("agent_key");
        generate_key(&key, kind, "");
        agent.add(&key);
        authorize(&server, &key.with_extension("pub"));
        let mut endpoint = server.endpoint();
        endpoint.identity_files = Vec::new();
        endpoint.agent = agent.as_socket();
        connect(&endpoint, &[], &context(&[&server])).await.unwrap();

        // The same by the environment, which the caller reads.
        endpoint.agent = AgentSocket::Environment;
        let mut context = context(&[&server]);
        let error = connect(&endpoint, &[], &context).await.err().unwrap();
        assert_eq!(error.reason(), Reason::Identity, "{error}");
        context.agent_socket = Some(agent.socket.clone());
        connect(&endpoint, &[], &context).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_keys_are_offered_than_a_server_allows() {
    let server = Sshd::start(&[]);
    let agent = Agent::start(server.dir.path());
    for number in 0..9 {
        let key = server.dir.path().join(format!("key{number}"));
        generate_key(&key, "ed25519", "");
        agent.add(&key);
    }
    let mut endpoint = server.endpoint();
    endpoint.identity_files = Vec::new();
    endpoint.agent = agent.as_socket();
    let error = connect(&endpoint, &[], &context(&[&server])).await.err().unwrap();
    let offered = match error.failure() {
        Failure::Auth { offered, .. } | Failure::AuthClosed { offered, .. } => offered,
        other => panic!("{other}"),
    };
    assert_eq!(offered.len(), 6);
}

#[tokio::test]
async fn an_rsa_key_in_a_file_says_what_to_do_unless_the_agent_has_it() {
    let server = Sshd::start(&[]);
    let key = server.dir.path().join("rsa");
    generate_key(&key, "rsa", "");
    authorize(&server, &key.with_extension("pub"));
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![key.clone()];
    let error = connect(&endpoint, &[], &context(&[&server])).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Identity);
    assert!(error.to_string().contains("RSA keys are not supported in files"), "{error}");
    assert!(error.hint().unwrap().contains("ssh-keygen -t ed25519"));

    let agent = Agent::start(server.dir.path());
    agent.add(&key);
    endpoint.agent = agent.as_socket();
    connect(&endpoint, &[], &context(&[&server])).await.unwrap();
}

/// Counts how often it is asked.
struct Counting(&'static str, AtomicUsize);

impl PassphraseProvider for Counting {
    fn passphrase(&self, _key: &Path) -> io::Result<Option<Secret>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Secret::new(self.0.as_bytes().to_vec())))
    }
}

fn encrypted(server: &Sshd) -> PathBuf {
    let key = server.dir.path().join("encrypted");
    generate_key(&key, "ed25519", "open sesame");
    authorize(server, &key.with_extension("pub"));
    key
}

#[tokio::test]
async fn an_encrypted_key_is_asked_for_once_and_its_passphrase_must_be_right() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![encrypted(&server)];
    let mut context = context(&[&server]);

    let problem = |error: orchestrator::transport::Error| match error.failure() {
        Failure::Identity { problem, .. } => problem.clone(),
        other => panic!("{other}"),
    };
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(error.hint().unwrap().contains("ORCHESTRATOR_KEY_PASSPHRASE_FILE"));
    assert_eq!(problem(error), IdentityProblem::PassphraseMissing);

    context.identities = Identities::new(Arc::new(Counting("wrong", AtomicUsize::new(0))));
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert_eq!(problem(error), IdentityProblem::PassphraseWrong);

    let right = Arc::new(Counting("open sesame", AtomicUsize::new(0)));
    context.identities = Identities::new(Arc::clone(&right) as Arc<dyn PassphraseProvider>);
    let all = [&endpoint; 4].map(|endpoint| connect(endpoint, &[], &context));
    for connection in futures_util::future::join_all(all).await {
        connection.unwrap();
    }
    assert_eq!(right.1.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_passphrase_file_is_read_and_must_not_be_open_to_others() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![encrypted(&server)];
    let file = server.dir.path().join("passphrase");
    fs::write(&file, "open sesame\r\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut context = context(&[&server]);
    context.identities = Identities::new(Arc::new(PassphraseFile(file.clone())));
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(error.to_string().contains("the passphrase cannot be had"), "{error}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    connect(&endpoint, &[], &context).await.unwrap();
}

#[tokio::test]
async fn an_encrypted_key_that_the_agent_holds_needs_no_passphrase() {
    let server = Sshd::start(&[]);
    let key = encrypted(&server);
    let agent = Agent::start(server.dir.path());
    let plain = server.dir.path().join("plain");
    fs::copy(&key, &plain).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
    keygen(&["-q", "-p", "-P", "open sesame", "-N", "", "-f", plain.to_str().unwrap()]);
    agent.add(&plain);
    let mut endpoint = server.endpoint();
    endpoint.identity_files = vec![key];
    endpoint.agent = agent.as_socket();
    connect(&endpoint, &[], &context(&[&server])).await.unwrap();
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let server = Sshd::start(&[]);
    let key = server.dir.path().join("user");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = connect(&server.endpoint(), &[], &context(&[&server])).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Identity);
    assert!(error.to_string().contains("640"), "{error}");
    assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", key.display()));
}

#[tokio::test]
async fn a_user_certificate_logs_in_and_an_expired_one_says_so() {
    let dir = open_dir();
    let ca = dir.path().join("ca");
    generate_key(&ca, "ed25519", "");
    generate_key(&dir.path().join("host_ed25519"), "ed25519", "");
    generate_key(&dir.path().join("user"), "ed25519", "");
    // Only the authority is trusted, not the key.
    fs::write(dir.path().join("authorized_keys"), "").unwrap();
    let trusted = format!("TrustedUserCAKeys {}", dir.path().join("ca.pub").display());
    let server = Sshd::in_dir(dir, &["ed25519"], &[&trusted]);
    let context = context(&[&server]);
    let user = server.endpoint().user;
    let (ca, key) = (ca.to_str().unwrap(), server.dir.path().join("user.pub"));
    let certificate = server.dir.path().join("user-cert.pub");
    let sign = |validity: &str| {
        keygen(&["-q", "-s", ca, "-I", "id", "-n", &user, "-V", validity, key.to_str().unwrap()]);
    };

    let error = connect(&server.endpoint(), &[], &context).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Auth);

    // Beside its key it is found by its name, as OpenSSH does.
    sign("-1d:+1d");
    connect(&server.endpoint(), &[], &context).await.unwrap();

    let elsewhere = server.dir.path().join("certificate");
    fs::rename(&certificate, &elsewhere).unwrap();
    let mut endpoint = server.endpoint();
    endpoint.certificate_files = vec![elsewhere];
    connect(&endpoint, &[], &context).await.unwrap();

    sign("-2d:-1d");
    endpoint.certificate_files = vec![certificate];
    let error = connect(&endpoint, &[], &context).await.err().unwrap();
    assert!(error.to_string().contains("the certificate is not valid now"), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_no_keys_is_told_apart() {
    let server = Sshd::start(&["PubkeyAuthentication no", "PasswordAuthentication yes"]);
    let error = connect(&server.endpoint(), &[], &context(&[&server])).await.err().unwrap();
    assert!(error.hint().unwrap().contains("PubkeyAuthentication yes"), "{error}");
}

#[tokio::test]
async fn with_no_key_at_all_the_error_says_so() {
    let server = Sshd::start(&[]);
    let mut endpoint = server.endpoint();
    endpoint.identity_files = Vec::new();
    let error = connect(&endpoint, &[], &context(&[&server])).await.err().unwrap();
    assert_eq!(error.reason(), Reason::Identity);
    endpoint.identity_files = vec![server.dir.path().join("no such key")];
    let error = connect(&endpoint, &[], &context(&[&server])).await.err().unwrap();
    assert!(error.to_string().contains("it cannot be read"), "{error}");
}

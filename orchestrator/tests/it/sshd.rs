//! A real OpenSSH server on the loopback interface, with its own keys and configuration.
//!
//! It installs nothing: a missing program is named with the package that has it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orchestrator::host_spec::{AgentSocket, Endpoint};
use orchestrator::ssh::known_hosts::KnownHosts;
use orchestrator::ssh::{Limits, SshContext, TrustPolicy};
use orchestrator::transport::{ExecOutput, ExecRequest, RemoteCommand, Transport};
use tempfile::TempDir;

/// How long a server may take to say that it listens; only a broken one takes as long.
const STARTUP: Duration = Duration::from_secs(20);

/// A running server; dropping it ends it.
pub struct Sshd {
    child: Child,
    pub port: u16,
    pub dir: TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

impl Sshd {
    /// Starts a server with one Ed25519 host key and these lines before the rest of its
    /// configuration (sshd takes the first value of an option).
    pub fn start(options: &[&str]) -> Self {
        Self::with_host_keys(&["ed25519"], options)
    }

    /// Starts a server with host keys of these types.
    pub fn with_host_keys(types: &[&str], options: &[&str]) -> Self {
        let dir = open_dir();
        for kind in types {
            generate_key(&dir.path().join(format!("host_{kind}")), kind, "");
        }
        generate_key(&dir.path().join("user"), "ed25519", "");
        Self::in_dir(dir, types, options)
    }

    /// Starts a server on a machine that has this Unix socket at `/var/run/docker.sock`, whatever
    /// the machine of the test has there. The socket need not exist.
    pub fn with_docker_socket(socket: &Path, options: &[&str]) -> Self {
        let dir = open_dir();
        for key in ["host_ed25519", "user"] {
            generate_key(&dir.path().join(key), "ed25519", "");
        }
        Self::launched(dir, &["ed25519"], options, Some(socket))
    }

    /// Starts a server in a prepared directory, which has the host keys and `user.pub`.
    pub fn in_dir(dir: TempDir, types: &[&str], options: &[&str]) -> Self {
        Self::launched(dir, types, options, None)
    }

    fn launched(dir: TempDir, types: &[&str], options: &[&str], docker: Option<&Path>) -> Self {
        let program = need("/usr/sbin/sshd", "openssh-server");
        // sshd refuses to start as root without it.
        fs::create_dir_all("/run/sshd").unwrap();
        let path = dir.path();
        let authorized = path.join("authorized_keys");
        if !authorized.exists() {
            fs::copy(path.join("user.pub"), &authorized).unwrap();
            fs::set_permissions(&authorized, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let mut config = options.join("\n");
        for kind in types {
            config += &format!("\nHostKey {}", path.join(format!("host_{kind}")).display());
        }
        config += &format!(
            "\nListenAddress 127.0.0.1\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nUseDNS no\nLogLevel VERBOSE\n",
            authorized.display(),
        );
        fs::write(path.join("sshd_config"), config).unwrap();
        // The port is free now and may be taken before sshd has it: then another one.
        for _ in 0..10 {
            let port = free_port();
            if let Some((child, log)) = launch(&program, docker, path, port) {
                return Self { child, port, dir, log };
            }
        }
        panic!("sshd did not start; its configuration is in {}", path.display());
    }

    /// The server as an endpoint for the current user with the key in the server's directory.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: current_user(),
            identity_files: vec![self.dir.path().join("user")],
            certificate_files: Vec::new(),
            agent: AgentSocket::Disabled,
            host_key: None,
            host_key_alias: None,
            known_hosts_files: Vec::new(),
        }
    }

    /// The `known_hosts` lines of its keys.
    pub fn known_hosts_lines(&self) -> String {
        let mut lines = String::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("host_") && name.ends_with(".pub") && !name.contains("-cert") {
                lines +=
                    &format!("[127.0.0.1]:{} {}", self.port, fs::read_to_string(&path).unwrap());
            }
        }
        lines
    }

    /// The public key line of its host key of this type, without comment.
    pub fn host_key_line(&self, kind: &str) -> String {
        public_line(&self.dir.path().join(format!("host_{kind}.pub")))
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The listener only: sessions end with their clients.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sshd log ---\n{}", self.log());
        }
    }
}

/// Starts sshd and waits until it says that it listens; `None` when the port is taken.
fn launch(
    program: &Path,
    docker: Option<&Path>,
    dir: &Path,
    port: u16,
) -> Option<(Child, Arc<Mutex<Vec<String>>>)> {
    let mut child = docker
        .map_or_else(|| Command::new(program), |socket| in_own_run(program, socket))
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .args(["-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (listening, listens) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let lines = Arc::clone(&log);
    // Ends with the last process that holds the pipe.
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains("Server listening on") {
                let _ = listening.send(());
            }
            lines.lock().unwrap().push(line);
        }
    });
    if listens.recv_timeout(STARTUP).is_ok() {
        return Some((child, log));
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = log.lock().unwrap().join("\n");
    assert!(said.contains("Address already in use"), "sshd does not start: {said}");
    None
}

/// A program that sees a `/run` of its own, in which `docker.sock` is this socket.
fn in_own_run(program: &Path, socket: &Path) -> Command {
    const MOUNT: &str = "mount -t tmpfs -o mode=755 host /run && mkdir /run/sshd && \
        ln -s \"$1\" /run/docker.sock && shift && exec \"$@\"";
    assert_eq!(current_user(), "root", "this test mounts a /run of its own: run as root");
    let mut command = Command::new(need("/usr/bin/unshare", "util-linux"));
    command.args(["--mount", "/bin/sh", "-c", MOUNT, "sh"]).arg(socket).arg(program);
    command
}

/// A context that trusts these servers by `known_hosts` lines.
pub fn context(servers: &[&Sshd]) -> SshContext {
    context_with(servers, limits())
}

pub fn context_with(servers: &[&Sshd], limits: Limits) -> SshContext {
    let lines: String = servers.iter().map(|server| server.known_hosts_lines()).collect();
    SshContext::new(limits, trust(&lines))
}

/// Limits for a loaded machine: tests wait for events, and these only end what hangs.
pub fn limits() -> Limits {
    Limits {
        handshake: Duration::from_secs(60),
        auth: Duration::from_secs(60),
        ..Limits::default()
    }
}

pub fn trust(known_hosts: &str) -> TrustPolicy {
    let mut known = KnownHosts::default();
    known.add(known_hosts.as_bytes(), Path::new("known_hosts"));
    TrustPolicy { known_hosts: Arc::new(known), ..TrustPolicy::default() }
}

/// Runs a constant script on a host.
pub async fn sh(transport: &dyn Transport, script: &'static str) -> ExecOutput {
    transport.exec(ExecRequest::new(command(script))).await.unwrap()
}

pub fn command(script: &'static str) -> RemoteCommand {
    RemoteCommand::script(script, [""; 0]).unwrap()
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A directory that users of other names can enter.
pub fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Makes a key pair with `ssh-keygen`.
pub fn generate_key(path: &Path, kind: &str, passphrase: &str) {
    let path = path.to_str().unwrap();
    let mut command = Command::new(need("/usr/bin/ssh-keygen", "openssh-client"));
    // Few rounds: the key derivation is not what is tested, and it is slow by design.
    command.args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-a", "1", "-f", path]);
    if kind == "rsa" {
        command.args(["-b", "2048"]);
    }
    succeed(&mut command);
}

/// `type base64` of a public key file.
pub fn public_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

pub fn keygen(args: &[&str]) -> Output {
    succeed(Command::new(need("/usr/bin/ssh-keygen", "openssh-client")).args(args))
}

pub fn fingerprint(public: &Path) -> String {
    let output = keygen(&["-l", "-f", public.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().nth(1).unwrap().to_owned()
}

pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// A program that the test cannot do without.
pub fn need(program: &str, package: &str) -> PathBuf {
    let path = PathBuf::from(program);
    assert!(path.exists(), "this test needs {program}: apt-get install {package}");
    path
}

pub fn current_user() -> String {
    let output = succeed(Command::new("id").arg("-un"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A user with a login shell and a home of its own; dropping it removes it.
#[derive(Debug)]
pub struct User {
    pub name: String,
    pub home: TempDir,
}

/// `useradd` locks its files by waiting a little and then failing.
static PASSWD: Mutex<()> = Mutex::new(());

fn passwd() -> MutexGuard<'static, ()> {
    PASSWD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl User {
    pub fn add(shell: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        assert_eq!(current_user(), "root", "this test adds a user with a login shell: run as root");
        let name = format!("orch-it-{}-{count}", std::process::id());
        let home = open_dir();
        let _locked = passwd();
        succeed(
            Command::new(need("/usr/sbin/useradd", "passwd"))
                .args(["--no-create-home", "--no-user-group", "--gid", "nogroup", "--home-dir"])
                .arg(home.path())
                .arg("--shell")
                .arg(shell)
                .arg(&name),
        );
        // Without a password an account counts as locked, also for keys.
        succeed(Command::new("usermod").args(["--password", "*", &name]));
        Self { name, home }
    }

    /// Adds the user to a group.
    pub fn join(&self, group: &str) {
        let _locked = passwd();
        succeed(Command::new("usermod").args(["--append", "--groups", group, &self.name]));
    }

    /// Writes a file into the home.
    pub fn write(&self, file: &str, content: &str) {
        let path = self.home.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _locked = passwd();
        let _ = Command::new("userdel").args(["--force", &self.name]).output();
    }
}

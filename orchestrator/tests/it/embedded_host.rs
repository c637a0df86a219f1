//! Embedded hosts as the OpenSSH client sees them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use orchestrator::embedded_host::{EmbeddedFleet, EmbeddedHost, EmbeddedOptions};
use russh::keys::PublicKey;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// A test that hangs should say where; nothing here waits for time to pass.
const STUCK: Duration = Duration::from_secs(120);

struct Fixture {
    directory: TempDir,
    fleet: EmbeddedFleet,
}

fn new_key(path: &Path) -> PublicKey {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    PublicKey::from_openssh(&public).unwrap()
}

impl Fixture {
    async fn start(hosts: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = new_key(&directory.path().join("key"));
        let options = EmbeddedOptions::new(directory.path().join("hosts"), hosts, key);
        let fleet = EmbeddedFleet::start(options).await.unwrap();
        Self { directory, fleet }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn host(&self) -> &EmbeddedHost {
        &self.fleet.hosts()[0]
    }

    /// `ssh <options> <host>`, ready for a command, and killed when dropped.
    fn ssh(&self, options: &[&str]) -> Command {
        let host = self.host();
        let mut ssh = Command::new("ssh");
        // ssh takes the first value it is given for an option.
        ssh.args(options)
            .args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg("-p")
            .arg(host.port.to_string())
            .arg("-i")
            .arg(self.path("key"))
            .arg(format!("anyone@{}", host.address))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        ssh
    }

    async fn run(&self, line: &str) -> Output {
        output(self.ssh(&[]).arg(line)).await
    }

    /// A FIFO on the host's side: its reader sees the end when every process that opened it for
    /// writing is gone.
    fn fifo(&self, name: &str) -> pipe::Receiver {
        let path = self.host().home.join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        pipe::OpenOptions::new().open_receiver(&path).unwrap()
    }
}

async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(STUCK, command.output()).await.expect("ssh is stuck").unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn wait_for_line(child: &mut Child, expected: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let line = tokio::time::timeout(STUCK, lines.next_line()).await.expect("no line");
    assert_eq!(line.unwrap().as_deref(), Some(expected));
}

async fn wait_for_end(mut fifo: pipe::Receiver) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(STUCK, fifo.read_to_end(&mut rest)).await;
    read.expect("a process of the command is still alive").unwrap();
}

/// Holds `fifo` open in a shell, in its child and in a grandchild that ignores hang-ups.
fn process_tree(fifo: &str) -> String {
    format!("exec 9>{fifo}; sleep 1000 & (trap '' HUP TERM INT; sleep 1000) & echo ready; wait")
}

#[tokio::test]
async fn exec_carries_output_errors_and_exit_status() {
    let fixture = Fixture::start(1).await;
    let both = fixture.run("printf out; printf err >&2; exit 7").await;
    assert_eq!((text(&both.stdout), text(&both.stderr)), ("out", "err"));
    assert_eq!(both.status.code(), Some(7));
    for code in [0, 1, 42, 254] {
        assert_eq!(fixture.run(&format!("exit {code}")).await.status.code(), Some(code));
    }
    fixture.fleet.shutdown().await;
}

#[tokio::test]
async fn the_host_key_is_the_one_announced() {
    let fixture = Fixture::start(1).await;
    assert!(fixture.run("true").await.status.success());
    let listed = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(fixture.path("known_hosts"))
        .output()
        .await
        .unwrap();
    assert!(text(&listed.stdout).contains(&fixture.host().host_key_fingerprint));
}

#[tokio::test]
async fn a_killed_command_reports_its_signal() {
    let fixture = Fixture::start(1).await;
    let killed = output(fixture.ssh(&["-o", "LogLevel=DEBUG2"]).arg("kill -TERM $$")).await;
    assert_eq!(killed.status.code(), Some(255));
    assert!(text(&killed.stderr).contains("rtype exit-signal"), "{}", text(&killed.stderr));
}

#[tokio::test]
async fn commands_get_a_home_of_their_own_and_a_minimal_environment() {
    let fixture = Fixture::start(1).await;
    let seen = output(fixture.ssh(&["-o", "SetEnv=SMUGGLED=1"]).arg("pwd; env")).await;
    let home = fixture.host().home.display().to_string();
    let lines: Vec<&str> = text(&seen.stdout).lines().collect();
    assert_eq!(lines[0], home);
    let mut names: Vec<&str> = lines[1..].iter().filter_map(|l| l.split('=').next()).collect();
    // The shell itself sets PWD, and some shells the two others.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    let expected =
        ["HOME", "LANG", "LOGNAME", "ORCHESTRATOR_EMBEDDED_HOST", "PATH", "SHELL", "USER"];
    assert_eq!(names, expected);
    assert!(lines.contains(&format!("HOME={home}").as_str()));
}

#[tokio::test]
async fn fifty_mebibytes_go_through_cat_unchanged() {
    let fixture = Fixture::start(1).await;
    let mut sent = vec![0_u8; 50 << 20];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut sent).unwrap();
    std::fs::write(fixture.path("sent"), &sent).unwrap();
    let status = fixture
        .ssh(&[])
        .arg("cat")
        .stdin(File::open(fixture.path("sent")).unwrap())
        .stdout(File::create(fixture.path("received")).unwrap())
        .status();
    assert!(tokio::time::timeout(STUCK, status).await.expect("stuck").unwrap().success());
    let digest =
        |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec();
    assert!(digest(&std::fs::read(fixture.path("received")).unwrap()) == digest(&sent));
}

#[tokio::test]
async fn a_client_that_reads_nothing_until_all_is_sent_is_served() {
    let fixture = Fixture::start(1).await;
    let mut ssh = fixture.ssh(&[]).arg("cat").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    let mut sent = vec![0_u8; 24 << 20];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut sent).unwrap();
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        drop(stdin);
    };
    tokio::time::timeout(STUCK, write).await.expect("stdin is stuck");
    let received = tokio::time::timeout(STUCK, ssh.wait_with_output()).await.unwrap().unwrap();
    assert!(received.stdout == sent);
}

#[tokio::test]
async fn a_command_that_does_not_read_its_stdin_ends_all_the_same() {
    let fixture = Fixture::start(1).await;
    File::create(fixture.path("zeros")).unwrap().set_len(16 << 20).unwrap();
    let input = File::open(fixture.path("zeros")).unwrap();
    let done = output(fixture.ssh(&[]).arg("echo done; exit 3").stdin(input)).await;
    assert_eq!((text(&done.stdout), done.status.code()), ("done\n", Some(3)));
}

#[tokio::test]
async fn another_key_is_refused() {
    let fixture = Fixture::start(1).await;
    new_key(&fixture.path("other"));
    std::fs::rename(fixture.path("other"), fixture.path("key")).unwrap();
    std::fs::rename(fixture.path("other.pub"), fixture.path("key.pub")).unwrap();
    let refused = fixture.run("echo in").await;
    assert_eq!((text(&refused.stdout), refused.status.code()), ("", Some(255)));
    assert!(text(&refused.stderr).contains("Permission denied (publickey)"));
}

#[tokio::test]
async fn a_lost_client_takes_its_process_tree_with_it() {
    let fixture = Fixture::start(1).await;
    let fifo = fixture.fifo("alive");
    let mut ssh = fixture.ssh(&[]).arg(process_tree("alive")).spawn().unwrap();
    wait_for_line(&mut ssh, "ready").await;
    ssh.kill().await.unwrap();
    wait_for_end(fifo).await;
}

#[tokio::test]
async fn a_lost_client_is_noticed_while_the_command_ignores_a_full_stdin() {
    let fixture = Fixture::start(1).await;
    let fifo = fixture.fifo("alive");
    let mut ssh =
        fixture.ssh(&[]).arg(process_tree("alive")).stdin(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut ssh, "ready").await;
    let mut stdin = ssh.stdin.take().unwrap();
    tokio::time::timeout(STUCK, stdin.write_all(&vec![0; 12 << 20])).await.unwrap().unwrap();
    ssh.kill().await.unwrap();
    wait_for_end(fifo).await;
}

#[tokio::test]
async fn dropping_the_fleet_kills_every_command() {
    let fixture = Fixture::start(1).await;
    let fifo = fixture.fifo("alive");
    let mut ssh = fixture.ssh(&[]).arg(process_tree("alive")).spawn().unwrap();
    wait_for_line(&mut ssh, "ready").await;
    drop(fixture.fleet);
    wait_for_end(fifo).await;
    let ended = tokio::time::timeout(STUCK, ssh.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(255));
}

#[tokio::test]
async fn background_processes_end_with_their_command() {
    let fixture = Fixture::start(1).await;
    let fifo = fixture.fifo("alive");
    let left = fixture.run("sleep 1000 9>alive >/dev/null 2>&1 </dev/null & echo left").await;
    assert_eq!((text(&left.stdout), left.status.code()), ("left\n", Some(0)));
    wait_for_end(fifo).await;
}

#[tokio::test]
async fn one_connection_carries_two_sessions_at_once_and_they_end_apart() {
    let fixture = Fixture::start(1).await;
    let socket = fixture.path("mux").display().to_string();
    let master = ["-M", "-N", "-f", "-o", "ControlPersist=yes", "-S", &socket];
    assert!(output(&mut fixture.ssh(&master)).await.status.success());
    let (kept, ended) = (fixture.fifo("kept"), fixture.fifo("ended"));
    let session = |name| fixture.ssh(&["-S", &socket]).arg(process_tree(name)).spawn().unwrap();
    let (mut first, mut second) = (session("kept"), session("ended"));
    wait_for_line(&mut first, "ready").await;
    wait_for_line(&mut second, "ready").await;
    second.kill().await.unwrap();
    wait_for_end(ended).await;
    // The other session of the same connection is untouched.
    assert_eq!(first.try_wait().unwrap(), None);
    assert!(output(&mut fixture.ssh(&["-S", &socket, "-O", "exit"])).await.status.success());
    wait_for_end(kept).await;
}

#[tokio::test]
async fn shell_terminal_forwarding_and_subsystems_are_refused() {
    let fixture = Fixture::start(1).await;
    let port = fixture.host().port;

    let shell = output(&mut fixture.ssh(&["-T"])).await;
    assert_eq!(shell.status.code(), Some(255));
    assert!(text(&shell.stderr).contains("shell request failed"), "{}", text(&shell.stderr));

    let terminal = output(fixture.ssh(&["-tt"]).arg("echo ran")).await;
    assert_eq!((text(&terminal.stdout), terminal.status.code()), ("", Some(255)));
    assert!(text(&terminal.stderr).contains("PTY allocation request failed"));

    let stdio = output(&mut fixture.ssh(&["-W", &format!("127.0.0.1:{port}")])).await;
    assert_eq!((text(&stdio.stdout), stdio.status.code()), ("", Some(255)));

    let remote = ["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"];
    let remote = output(&mut fixture.ssh(&remote)).await;
    assert_eq!(remote.status.code(), Some(255));
    assert!(text(&remote.stderr).contains("remote port forwarding failed"));

    let sftp = output(fixture.ssh(&["-s"]).arg("sftp")).await;
    assert_eq!(sftp.status.code(), Some(255));
    assert!(text(&sftp.stderr).contains("subsystem request failed"), "{}", text(&sftp.stderr));
}

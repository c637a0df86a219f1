//! The operator's side: the built binary in a sealed environment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::sshd::{need, succeed};

/// Nothing here takes as long; a command that does hangs, and the test should say where.
pub const STUCK: Duration = Duration::from_secs(120);

/// A home, a working directory and a place for temporary files, and nothing else of this machine.
pub struct Operator {
    dir: TempDir,
}

impl Operator {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "tmp", "work", "bin"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    /// A file or directory of the working directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    /// The home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Where temporary files go.
    pub fn temporary(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// The database, where it is without configuration.
    pub fn database(&self) -> PathBuf {
        self.home().join(".local/state/orchestrator/orchestrator.db")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes `fleet.toml` from `[[hosts]]` entries.
    pub fn fleet(&self, entries: &[String]) {
        self.write("fleet.toml", &format!("[defaults]\nagent = false\n{}", entries.concat()));
    }

    /// The program with these arguments, in the sealed environment.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.args(arguments);
        self.seal(&mut command);
        command
    }

    /// Takes the environment of this machine away from a command. The PATH is empty, so that no
    /// program of this machine has a say; a test that wants one sets it.
    pub fn seal(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", self.home())
            .env("USER", "operator")
            .env("PATH", self.dir.path().join("bin"))
            .env("TMPDIR", self.temporary())
            .env("ORCHESTRATOR_RUNNER", runner())
            .current_dir(self.dir.path().join("work"))
            .stdin(Stdio::null());
    }

    pub fn start<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Running {
        Running::start(self.command(arguments))
    }

    pub async fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        self.start(arguments).end().await
    }

    /// Runs `deploy --json` with these further arguments.
    pub async fn deploy<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Deployed {
        Deployed::of(self.run(["deploy", "--json"].into_iter().chain(arguments)).await)
    }

    /// The kinds of the audit events, oldest first. The chain must be whole.
    pub async fn audit(&self) -> Vec<String> {
        self.run(["audit", "verify"]).await.expect(0);
        let events = self.run(["audit", "export"]).await.expect(0);
        let kind = |event: Value| event["kind"].as_str().unwrap().to_owned();
        events.json_lines().into_iter().map(kind).collect()
    }

    /// Exit status and both streams, with what differs from run to run replaced.
    pub fn transcript(&self, finished: &Finished) -> String {
        let status = finished.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let streams = format!(
            "exit status {status}\n--- stdout\n{}--- stderr\n{}",
            finished.stdout, finished.stderr
        );
        streams.replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

/// A running command. Its output goes to files, so nothing waits for a reader.
pub struct Running {
    pid: Pid,
    ended: Option<JoinHandle<(ExitStatus, u64)>>,
    output: TempDir,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let output = tempfile::tempdir().unwrap();
        let create = |name| File::create(output.path().join(name)).unwrap();
        command.stdout(create("out")).stderr(create("err"));
        Self::spawn(command, output)
    }

    /// Starts a command whose streams are set already, for example to a terminal.
    pub fn start_on_terminal(command: Command) -> Self {
        let output = tempfile::tempdir().unwrap();
        for name in ["out", "err"] {
            File::create(output.path().join(name)).unwrap();
        }
        Self::spawn(command, output)
    }

    fn spawn(mut command: Command, output: TempDir) -> Self {
        let child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let ended = tokio::task::spawn_blocking(move || wait(child));
        Self { pid, ended: Some(ended), output }
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid, signal).unwrap();
    }

    /// Its process.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How many bytes it has written to standard output so far.
    pub fn written_bytes(&self) -> u64 {
        fs::metadata(self.output.path().join("out")).unwrap().len()
    }

    /// What it has written so far: standard output and standard error.
    pub fn written(&self) -> (String, String) {
        let read = |name| {
            String::from_utf8_lossy(&fs::read(self.output.path().join(name)).unwrap()).into_owned()
        };
        (read("out"), read("err"))
    }

    pub async fn end(self) -> Finished {
        self.end_within(STUCK).await
    }

    /// Waits for the end, which must come before a longer deadline of the program itself would
    /// bring it about.
    pub async fn end_within(mut self, limit: Duration) -> Finished {
        let ended = self.ended.as_mut().unwrap();
        let Ok(ended) = tokio::time::timeout(limit, ended).await else {
            let (stdout, stderr) = self.written();
            panic!("it hangs\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        };
        self.ended = None;
        let (status, peak_bytes) = ended.unwrap();
        let (stdout, stderr) = self.written();
        Finished { code: status.code(), stdout, stderr, peak_bytes }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.as_ref().is_some_and(|ended| !ended.is_finished()) {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
    }
}

/// Waits for a child and returns its status and the most memory it had, in bytes. What wait4(2)
/// says would count this process's memory too, which the child had until it became the program.
fn wait(mut child: Child) -> (ExitStatus, u64) {
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let between_looks = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut peak = 0;
    loop {
        peak = peak.max(peak_bytes(pid).unwrap_or(0));
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&between_looks)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return (child.wait().unwrap(), peak),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The most memory that a live process had so far, see proc_pid_status(5).
fn peak_bytes(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().unwrap() * 1024)
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The most memory that it had, as last seen some milliseconds before its end.
    pub peak_bytes: u64,
}

impl Finished {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// The rows of a `deploy --json`.
#[derive(Debug)]
pub struct Deployed {
    pub finished: Finished,
    pub rows: Vec<Value>,
    pub summary: Value,
}

impl Deployed {
    #[track_caller]
    fn of(finished: Finished) -> Self {
        let mut documents = finished.json_lines();
        let summary = documents.pop().unwrap_or_else(|| panic!("no output: {finished:?}"));
        assert_eq!(summary["event"], "summary", "{finished:?}");
        let rows = documents
            .into_iter()
            .inspect(|document| assert_eq!(document["event"], "host"))
            .collect();
        Self { finished, rows, summary }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        Self { finished: self.finished.expect(code), ..self }
    }

    /// The row of one host.
    #[track_caller]
    pub fn row(&self, host: &str) -> &Value {
        self.rows.iter().find(|row| row["host"] == host).unwrap_or_else(|| panic!("{self:?}"))
    }

    /// Why a host failed; `null` when it did not.
    #[track_caller]
    pub fn reason(&self, host: &str) -> &Value {
        &self.row(host)["reason"]
    }

    /// What was changed on a host.
    #[track_caller]
    pub fn change(&self, host: &str) -> &Value {
        &self.row(host)["change"]
    }
}

/// The runner that operators upload: the one beside the program under test, without its debug
/// information, which is most of a development build and would make every test slower.
pub fn runner() -> PathBuf {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    let strip = || {
        let whole = runner_beside();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Under another name first: another test process may be using the file.
        let made = tempfile::NamedTempFile::new_in(folder).unwrap().into_temp_path();
        let mut strip = Command::new(need("/usr/bin/strip", "binutils"));
        succeed(strip.arg("-o").arg(&made).arg(whole));
        let path = folder.join("remote-runner-stripped");
        made.persist(&path).unwrap();
        path
    };
    STRIPPED.get_or_init(strip).clone()
}

/// The runner that the program under test finds by itself.
pub fn runner_beside() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_orchestrator")).parent().unwrap();
    let runner = folder.join("remote-runner");
    assert!(
        runner.exists(),
        "this test uploads {}: run `cargo build --workspace` first, as scripts/test does",
        runner.display()
    );
    runner
}

/// Waits until something is true that nothing tells of: the files and the processes of others.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(STUCK, wait).await.is_ok(), "it never came about: {what}");
}

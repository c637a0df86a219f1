//! A runner process and its pipes, and the fake NVML library.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use runner_protocol::{
    ExitCode, FactsQuery, FrameDecoder, FromRunner, Hello, HostFacts, MagicScanner, Outcome, Reply,
    RequestId, ToRunner, Unit, decode, encode_frame,
};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_remote-runner");

/// A command that starts the binary with clean surroundings: no NVML but the fake one, if chosen.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The same with the fake NVML library in a mode.
pub fn with_nvml(mode: &str, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.env("LD_LIBRARY_PATH", fake_nvml()).env("FAKE_NVML", mode);
    command
}

/// The folder of the fake library, compiled once.
fn fake_nvml() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml/fake_nvml.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_nvml");
        fs::create_dir_all(&folder).unwrap();
        // Under another name first: another test process may be using the library.
        let library = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
        let status = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cuda/shim"))
            .arg("-o")
            .arg(&library)
            .arg(source)
            .status()
            .expect("a C compiler (cc) builds the fake NVML library");
        assert!(status.success());
        library.persist(folder.join("libnvidia-ml.so.1")).unwrap();
        folder
    })
}

/// The folder of the fake CUDA driver and of the fake NVML that shows the same devices, built once.
pub fn fake_gpu() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_gpu");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-fake-gpu");
        let output = Command::new(script).arg(&folder).output().expect("scripts/build-fake-gpu");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    })
}

/// A running session.
pub struct Runner {
    pub child: Child,
    pub hello: Hello,
    pub stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
}

impl Runner {
    /// Starts a session and reads its hello.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut scanner = MagicScanner::new();
        let mut buffer = Vec::new();
        loop {
            let bytes = read_some(&mut stdout).expect("a magic line before the end");
            let mut rest = bytes.as_slice();
            if scanner.push(&mut rest).unwrap() {
                buffer.extend_from_slice(rest);
                break;
            }
        }
        assert_eq!(scanner.noise(), b"", "the runner's first bytes are the magic line");
        let stdin = child.stdin.take();
        let decoder = FrameDecoder::new();
        let mut runner = Self { child, hello: Hello::default(), stdin, stdout, decoder, buffer };
        match runner.next() {
            Some(FromRunner::Hello(hello)) => runner.hello = hello,
            other => panic!("no hello but {other:?}"),
        }
        runner
    }

    /// The next message; `None` at the end of the stream, which must be between frames.
    pub fn next(&mut self) -> Option<FromRunner> {
        loop {
            let mut bytes = self.buffer.as_slice();
            let body = self.decoder.push(&mut bytes).unwrap();
            self.buffer = bytes.to_vec();
            if let Some(body) = body {
                return Some(decode(&body).unwrap());
            }
            match read_some(&mut self.stdout) {
                Some(bytes) => self.buffer = bytes,
                None => {
                    self.decoder.finish().unwrap();
                    return None;
                }
            }
        }
    }

    pub fn send(&mut self, message: &ToRunner) {
        self.write(&encode_frame(message).unwrap());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    pub fn request(&mut self, id: u64, unit: Unit) {
        self.send(&ToRunner::Request { id: RequestId(id), unit });
    }

    /// Reads up to the `Finished` of a request; the replies before it, all of its id.
    pub fn answer(&mut self, id: u64) -> (Vec<Reply>, Outcome) {
        let mut replies = Vec::new();
        loop {
            match self.next().expect("an answer before the end") {
                FromRunner::Reply { id: of, reply } if of.0 == id => replies.push(reply),
                FromRunner::Finished { id: of, outcome } if of.0 == id => {
                    return (replies, outcome);
                }
                other => panic!("not of request {id}: {other:?}"),
            }
        }
    }

    pub fn facts(&mut self) -> HostFacts {
        self.request(1, Unit::Facts(FactsQuery::default()));
        match self.answer(1) {
            (mut replies, Outcome::Ok {}) if replies.len() == 1 => match replies.remove(0) {
                Reply::Facts(facts) => *facts,
                other => panic!("no facts but {other:?}"),
            },
            other => panic!("no facts but {other:?}"),
        }
    }

    /// The processes that it started and that still run.
    pub fn children(&self) -> Vec<rustix::process::Pid> {
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .unwrap()
            // A thread may end meanwhile.
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .map(|pid| rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap())
            .collect()
    }

    /// Blocks until every process that it has started has ended: without a limit, so that it hangs
    /// if one does not.
    pub fn wait_for_children(&self) {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::process::{PidfdFlags, pidfd_open};
        for child in self.children() {
            // One that is gone already has no file descriptor to wait on.
            if let Ok(process) = pidfd_open(child, PidfdFlags::empty()) {
                assert_eq!(poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap(), 1);
            }
        }
    }

    /// Waits for the end; its exit code and its log.
    pub fn end(mut self) -> (ExitCode, String) {
        drop(self.stdin.take());
        self.end_with_stdin_open()
    }

    /// The same, while standard input stays open.
    pub fn end_with_stdin_open(mut self) -> (ExitCode, String) {
        while self.next().is_some() {}
        self.exit()
    }

    /// The same, without reading what the runner says.
    pub fn exit(mut self) -> (ExitCode, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
        }
        let code = status.code().unwrap_or_else(|| panic!("{status}: {log}"));
        (ExitCode::from_status(u32::try_from(code).unwrap()).unwrap(), log)
    }
}

/// What is there to read; `None` at the end.
fn read_some(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut chunk = vec![0; 4096];
    let length = stream.read(&mut chunk).unwrap();
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// A pipe with a name, held by processes that hang. Its reader learns of their end.
pub struct Fifo {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Fifo {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Self { _folder: folder, path }
    }

    /// Blocks until a process hangs, and gives the end to wait on.
    pub fn hanging(&self) -> fs::File {
        let mut file = fs::File::open(&self.path).unwrap();
        let mut line = [0; 8];
        file.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hanging\n");
        file
    }
}

/// Blocks until every process that holds the pipe is gone.
pub fn all_gone(mut file: fs::File) {
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

//! A child of the runner: the same executable, doing what may hang, crash or take all the time of a
//! processor. It writes frames to its standard output, and killing it takes back all it holds.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use runner_protocol::{FrameDecoder, encode_frame};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;

use crate::units::UnitEvent;

/// How long a child that closed its output may take to be gone.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// A running child. Dropping it kills it.
pub(crate) struct Subprocess {
    child: Child,
    /// To the thread that writes to the child.
    frames: Option<Sender<Vec<u8>>>,
}

impl Subprocess {
    /// Starts this executable with `arguments` and the own process id after them. Its frames and its
    /// end are sent to `events`. Its standard input is a pipe if it listens, else empty;
    /// `environment` is added to the runner's own.
    ///
    /// # Errors
    ///
    /// The child or the thread that reads it cannot be started.
    pub(crate) fn start(
        role: &'static str,
        arguments: &[String],
        environment: &[(&str, OsString)],
        listens: bool,
        events: Sender<UnitEvent>,
    ) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(role).arg(std::process::id().to_string()).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // Standard error is not passed on: a child stuck in the kernel would hold the SSH channel
        // open, and a library's own words are no JSON lines.
        command.stdin(if listens { Stdio::piped() } else { Stdio::null() });
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut started = Self { child, frames: None };
        if let Some(stdin) = started.child.stdin.take() {
            let (frames, to_write) = channel();
            started.frames = Some(frames);
            let name = "child stdin".to_owned();
            thread::Builder::new().name(name).spawn(move || write(stdin, &to_write))?;
        }
        if let Some(stdout) = started.child.stdout.take() {
            let name = "child".to_owned();
            thread::Builder::new().name(name).spawn(move || relay(stdout, &events))?;
        }
        Ok(started)
    }

    /// Sends the child a message, without waiting for it to read: a child that hangs must not hold
    /// the one who would kill it.
    ///
    /// # Errors
    ///
    /// The message cannot be encoded, or the child does not listen any more.
    pub(crate) fn say<T: Serialize>(&self, message: &T) -> io::Result<()> {
        let frame = encode_frame(message).map_err(io::Error::other)?;
        let frames = self.frames.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        frames.send(frame).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The child's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether a child that closed its output ended with success.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.how_it_ended();
        matches!(self.child.try_wait(), Ok(Some(status)) if status.success())
    }

    /// How a child that closed its output ended, in words.
    pub(crate) fn how_it_ended(&mut self) -> String {
        let end = Instant::now().checked_add(EXIT_GRACE);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("with {status}"),
                Ok(None) if end.is_some_and(|end| Instant::now() < end) => {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(None) => return "without ending its process".to_owned(),
                Err(error) => return format!("and cannot be waited for: {error}"),
            }
        }
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        // Fails only for one that is gone. It is not waited for without a limit: it may be stuck
        // in the kernel.
        let _ = self.child.kill();
        let _ = self.how_it_ended();
    }
}

/// Writes frames until the child does not listen any more, or nobody has more to say.
fn write(mut stdin: ChildStdin, frames: &Receiver<Vec<u8>>) {
    for frame in frames {
        if stdin.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Sends the child's frames, then its end. The parent is who reads: nothing here is logged.
fn relay(mut stdout: ChildStdout, events: &Sender<UnitEvent>) {
    let mut decoder = FrameDecoder::new();
    let mut chunk = vec![0; 16 * 1024];
    'stream: while let Ok(length @ 1..) = stdout.read(&mut chunk) {
        let mut bytes = chunk.get(..length).unwrap_or_default();
        loop {
            match decoder.push(&mut bytes) {
                Ok(Some(body)) => {
                    if events.send(UnitEvent::Child(body)).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    // The request is gone if it did not need more.
    let _ = events.send(UnitEvent::ChildEnded);
}

/// The child's side: has the kernel kill this process with the thread that started it, even if the
/// runner is killed by SIGKILL. `false` if the parent ended before, which is seen by its id.
pub(crate) fn bind_to_parent(parent: u32) -> bool {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    now == i32::try_from(parent).ok()
}

/// The child's side: sends the parent a message.
pub(crate) fn say_to_parent<T: Serialize>(message: &T) -> io::Result<()> {
    let frame = encode_frame(message).map_err(io::Error::other)?;
    let mut stdout = io::stdout();
    stdout.write_all(&frame)?;
    stdout.flush()
}

//! A child of the runner: the same executable, doing what may hang, crash or take all the time of a
//! processor. It writes frames to its standard output, and killing it takes back all it holds.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::Sender;
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
    stdin: Option<ChildStdin>,
}

impl Subprocess {
    /// Starts this executable with `arguments` and the own process id after them. Its frames and its
    /// end are sent to `events`. Its standard input is a pipe if it listens, else empty.
    ///
    /// # Errors
    ///
    /// The child or the thread that reads it cannot be started.
    pub(crate) fn start(
        role: &'static str,
        arguments: &[String],
        listens: bool,
        events: Sender<UnitEvent>,
    ) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(role).arg(std::process::id().to_string()).args(arguments);
        // Standard error is not passed on: a child stuck in the kernel would hold the SSH channel
        // open, and a library's own words are no JSON lines.
        command.stdin(if listens { Stdio::piped() } else { Stdio::null() });
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut started = Self { child, stdin: None };
        started.stdin = started.child.stdin.take();
        if let Some(stdout) = started.child.stdout.take() {
            let name = "child".to_owned();
            thread::Builder::new().name(name).spawn(move || relay(stdout, &events))?;
        }
        Ok(started)
    }

    /// Sends the child a message, which must be small enough for an empty pipe (pipe(7)).
    ///
    /// # Errors
    ///
    /// The child does not listen any more.
    pub(crate) fn say<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        say_to(stdin, message)
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
    say_to(&mut io::stdout(), message)
}

fn say_to<T: Serialize>(stream: &mut dyn Write, message: &T) -> io::Result<()> {
    let frame = encode_frame(message).map_err(io::Error::other)?;
    stream.write_all(&frame)?;
    stream.flush()
}

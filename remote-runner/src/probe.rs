//! NVML in a child process.
//!
//! The driver's library is foreign code that talks to a kernel module and to hardware that may be
//! broken: a call may hang in the kernel, and a mismatched library may crash. So it is loaded in a
//! child of its own, the same executable, which writes frames to its standard output. A thread with
//! a deadline would survive a hang, not a crash.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use runner_protocol::FrameDecoder;
use runner_protocol::facts::{DriverState, GpuFacts};
use runner_protocol::telemetry::GpuTelemetry;
use serde::{Deserialize, Serialize};

use crate::units::UnitEvent;

pub(crate) mod child;

/// How long a probe that closed its output may take to be gone.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// One sample, from the child to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TelemetryFrame {
    pub(crate) gpus: Vec<GpuTelemetry>,
}

/// What facts say of a driver that could not be asked.
pub(crate) fn broken(code: &str, message: &str) -> GpuFacts {
    GpuFacts {
        driver: DriverState::Failed { code: code.to_owned(), message: message.to_owned() },
        devices: Vec::new(),
    }
}

/// A running probe. Dropping it kills the child.
pub(crate) struct Probe {
    child: Child,
}

impl Probe {
    /// Starts a probe that samples at `interval`, or gives the facts once. Its frames and its end
    /// are sent to `events`.
    ///
    /// # Errors
    ///
    /// The child or the thread that reads it cannot be started.
    pub(crate) fn start(interval: Option<Duration>, events: Sender<UnitEvent>) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--probe-for").arg(std::process::id().to_string());
        if let Some(interval) = interval {
            command.arg("--probe-interval-ms").arg(interval.as_millis().to_string());
        }
        // Standard error is not passed on: a child stuck in the kernel would hold the SSH channel
        // open, and a library's own words are no JSON lines.
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut probe = Self { child };
        if let Some(stdout) = probe.child.stdout.take() {
            let name = "probe".to_owned();
            thread::Builder::new().name(name).spawn(move || relay(stdout, &events))?;
        }
        Ok(probe)
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

impl Drop for Probe {
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
                    if events.send(UnitEvent::Probe(body)).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => break 'stream,
            }
        }
    }
    // The request is gone if it did not need more.
    let _ = events.send(UnitEvent::ProbeEnded);
}

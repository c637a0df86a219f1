//! The child's side of a probe.

use std::io::{self, Write};
use std::thread;

use runner_protocol::{ExitCode, encode_frame};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;

use super::TelemetryFrame;
use crate::args::ProbeOptions;
use crate::gpu;

/// Answers once, or at an interval until killed.
pub(crate) fn run(options: &ProbeOptions) -> ExitCode {
    // The kernel kills this process with the thread that started it, even if the runner is killed
    // by SIGKILL. A parent that ended before this line is seen by its id.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != i32::try_from(options.parent).ok() {
        return ExitCode::Environment;
    }
    let nvml = gpu::Library::load();
    let written = match options.interval {
        None => say(&gpu::facts(&nvml)),
        Some(interval) => loop {
            if let Err(error) = say(&TelemetryFrame { gpus: gpu::telemetry(&nvml) }) {
                break Err(error);
            }
            thread::sleep(interval);
        },
    };
    // NVML is not shut down: a call that hangs now would keep the answer's end from the parent.
    std::mem::forget(nvml);
    match written {
        Ok(()) => ExitCode::Ok,
        Err(_) => ExitCode::StdoutClosed,
    }
}

fn say<T: Serialize>(message: &T) -> io::Result<()> {
    let frame = encode_frame(message).map_err(io::Error::other)?;
    let mut stdout = io::stdout();
    stdout.write_all(&frame)?;
    stdout.flush()
}

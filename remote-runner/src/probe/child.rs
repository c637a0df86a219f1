//! The child's side of a probe.

use std::thread;

use runner_protocol::ExitCode;

use super::TelemetryFrame;
use crate::args::ProbeOptions;
use crate::gpu;
use crate::subprocess::{bind_to_parent, say_to_parent};

/// Answers once, or at an interval until killed.
pub(crate) fn run(options: &ProbeOptions) -> ExitCode {
    if !bind_to_parent(options.parent) {
        return ExitCode::Environment;
    }
    let nvml = gpu::Library::load();
    let written = match options.interval {
        None => say_to_parent(&gpu::facts(&nvml)),
        Some(interval) => loop {
            let sample = TelemetryFrame { gpus: gpu::telemetry(&nvml) };
            if let Err(error) = say_to_parent(&sample) {
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

//! NVML in a child process.
//!
//! The driver's library is foreign code that talks to a kernel module and to hardware that may be
//! broken: a call may hang in the kernel, and a mismatched library may crash. So it is loaded in a
//! child of its own. A thread with a deadline would survive a hang, not a crash.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use runner_protocol::facts::{DriverState, GpuFacts};
use runner_protocol::telemetry::GpuTelemetry;
use serde::{Deserialize, Serialize};

use crate::subprocess::Subprocess;
use crate::units::UnitEvent;

pub(crate) mod child;

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

/// Starts a probe that samples at `interval`, or gives the facts once. Its frames and its end are
/// sent to `events`.
///
/// # Errors
///
/// The child or the thread that reads it cannot be started.
pub(crate) fn start(
    interval: Option<Duration>,
    events: Sender<UnitEvent>,
) -> io::Result<Subprocess> {
    let arguments = match interval {
        None => Vec::new(),
        Some(interval) => {
            vec!["--probe-interval-ms".to_owned(), interval.as_millis().to_string()]
        }
    };
    Subprocess::start("--probe-for", &arguments, &[], false, events)
}

//! The unit `prove`: a proof-of-work in rounds, computed in a child process.
//!
//! The CUDA backend is not built yet: a request for it ends by saying what is missing. It is never
//! answered with the CPU instead.

use std::time::{Duration, Instant};

use runner_protocol::facts::{DriverState, GpuFacts};
use runner_protocol::{Backend, ProveEvent, ProveReply, Reply, Round, decode};

use super::{Request, Stop, UnitEvent};
use crate::args::Options;
use crate::probe;
use crate::prove::FromProver;
use crate::subprocess::Subprocess;

/// How long the reference may take from its start to `release`, waiting for rounds included. The
/// largest sizes it accepts take seconds; whoever wants more wants a GPU.
const REFERENCE_DEADLINE: Duration = Duration::from_secs(120);

/// Proves until released.
pub(super) fn run(request: &Request, options: &Options, backend: Backend) -> Result<(), Stop> {
    match backend {
        Backend::Cuda => Err(missing_for_cuda(request, options)),
        Backend::Reference => reference(request),
    }
}

/// Why there is no CUDA backend here: no driver, or else no kernels.
fn missing_for_cuda(request: &Request, options: &Options) -> Stop {
    let driver = match driver(request, options) {
        Ok(driver) => driver,
        Err(stop) => return stop,
    };
    match driver {
        DriverState::NoDriver { message } => Stop::failed("no_driver", message),
        DriverState::Failed { code, message } => {
            Stop::failed("no_driver", format!("the NVIDIA driver failed: {code}: {message}"))
        }
        DriverState::Present { .. } => Stop::failed(
            "no_kernels",
            "CUDA kernels required: this runner was built without its CUDA backend",
        ),
    }
}

fn driver(request: &Request, options: &Options) -> Result<DriverState, Stop> {
    let mut probe = probe::start(None, request.sender()).map_err(environment)?;
    match request.events.recv_timeout(options.probe_deadline) {
        Ok(UnitEvent::Cancel) => Err(Stop::Cancelled),
        Ok(UnitEvent::Round(round)) => Err(Stop::unexpected(&round)),
        Ok(UnitEvent::Child(body)) => Ok(decode::<GpuFacts>(&body)?.driver),
        Ok(UnitEvent::ChildEnded | UnitEvent::Host(_)) => {
            let message = format!("the NVML probe ended {}", probe.how_it_ended());
            Err(Stop::failed("probe_failed", message))
        }
        Err(_) => {
            let waited = options.probe_deadline.as_millis();
            Err(Stop::failed("probe_stalled", format!("NVML did not answer within {waited} ms")))
        }
    }
}

/// Hands rounds to the child and its steps to the orchestrator, until released.
fn reference(request: &Request) -> Result<(), Stop> {
    let end = Instant::now().checked_add(REFERENCE_DEADLINE);
    // Dropped on every way out: the memory is free when the request ends.
    let mut child =
        Subprocess::start("--prove-for", &[], true, request.sender()).map_err(environment)?;
    let say =
        |event| request.reply(Reply::Prove(ProveReply { backend: Backend::Reference, event }));
    say(ProveEvent::Prepared { device: None })?;
    let mut busy = false;
    loop {
        let wait =
            end.map_or(REFERENCE_DEADLINE, |end| end.saturating_duration_since(Instant::now()));
        match request.events.recv_timeout(wait) {
            Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
            Ok(UnitEvent::Round(Round::Unknown { name })) => {
                return Err(Stop::Unsupported { name });
            }
            // One round at a time: that also bounds what waits in the child's pipe.
            Ok(UnitEvent::Round(round)) if busy => return Err(Stop::unexpected(&round)),
            Ok(UnitEvent::Round(Round::Release {})) => return Ok(()),
            Ok(UnitEvent::Round(round)) => {
                busy = true;
                if child.say(&round).is_err() {
                    return Err(ended(&mut child));
                }
            }
            Ok(UnitEvent::Child(body)) => match decode(&body)? {
                FromProver::Step { event, last } => {
                    // Before it is said: the next round may be here a moment later.
                    busy = !last;
                    say(event)?;
                }
                FromProver::Refused { code, message } => {
                    return Err(Stop::Failed { code, message });
                }
            },
            Ok(UnitEvent::ChildEnded) => return Err(ended(&mut child)),
            Ok(UnitEvent::Host(_)) => {}
            Err(_) => {
                let secs = REFERENCE_DEADLINE.as_secs();
                let message = format!("the reference prover was not released within {secs} s");
                return Err(Stop::failed("deadline", message));
            }
        }
    }
}

fn ended(child: &mut Subprocess) -> Stop {
    Stop::failed("crashed", format!("the reference prover ended {}", child.how_it_ended()))
}

fn environment(error: std::io::Error) -> Stop {
    Stop::failed("environment", format!("cannot start a child process: {error}"))
}

//! The unit `prove`: a proof-of-work in rounds, of one GPU or by the CPU reference, computed in a
//! child process.
//!
//! The child sees one device: it is started with `CUDA_VISIBLE_DEVICES` of that UUID alone. Before it
//! is started, NVML is asked whether the device is there and free, so that a device in use is never
//! touched. There is no fall back from a GPU to the CPU.

use std::ffi::OsString;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use runner_protocol::facts::{DriverState, Gpu, GpuFacts, GpuProcess};
use runner_protocol::{Backend, ProveEvent, ProveReply, Reply, Round, decode};

use super::{Request, Stop, UnitEvent};
use crate::args::Options;
use crate::probe;
use crate::prove::FromProver;
use crate::subprocess::Subprocess;

/// How long the reference waits for a round: whoever wants to hold it longer wants a GPU.
const REFERENCE_IDLE: Duration = Duration::from_secs(120);

/// How long a filled GPU waits for a round. A challenge that holds the memory asks again after a
/// random time, which is shorter.
const GPU_IDLE: Duration = Duration::from_secs(60 * 60);

/// How long a killed child's last frames are waited for.
const DRAIN: Duration = Duration::from_secs(5);

/// Proves until released.
pub(super) fn run(
    request: &Request,
    options: &Options,
    backend: Backend,
    gpu: Option<&str>,
) -> Result<(), Stop> {
    let (arguments, environment, idle) = match backend {
        Backend::Reference => (Vec::new(), Vec::new(), REFERENCE_IDLE),
        Backend::Cuda => {
            let uuid = gpu.ok_or_else(|| {
                Stop::failed("gpu_required", "a proof-of-work with CUDA needs the UUID of a GPU")
            })?;
            check_free(&device(request, options, uuid)?)?;
            (vec!["--prove-gpu".to_owned(), uuid.to_owned()], environment(uuid), GPU_IDLE)
        }
    };
    let child = Subprocess::start("--prove-for", &arguments, &environment, true, request.sender())
        .map_err(cannot_start)?;
    let mut exchange = Exchange { request, child, backend };
    let done = exchange.run(options.phase_deadline, idle);
    let pid = exchange.child.id();
    // Killed, if it has not ended: what it held is free.
    drop(exchange);
    match (done, gpu) {
        (Err(Stop::Failed { code, message }), Some(uuid)) if code == "out_of_memory" => {
            drain(request)?;
            let holders = device(request, options, uuid).map(|gpu| holders(&gpu, pid));
            let holders =
                holders.unwrap_or_else(|_| "NVML does not say who holds the rest".to_owned());
            Err(Stop::Failed { code, message: format!("{message}; {holders}") })
        }
        (done, _) => done,
    }
}

/// What the child of a device is started with.
fn environment(uuid: &str) -> Vec<(&'static str, OsString)> {
    vec![
        // One device, by a name that no order of devices changes.
        ("CUDA_VISIBLE_DEVICES", uuid.into()),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()),
        // What is compiled from PTX is not written to the home directory.
        ("CUDA_CACHE_DISABLE", "1".into()),
    ]
}

/// Rounds to the child, its steps to the orchestrator.
struct Exchange<'request> {
    request: &'request Request,
    child: Subprocess,
    backend: Backend,
}

impl Exchange<'_> {
    /// Until the child was released and has ended.
    fn run(&mut self, phase: Duration, idle: Duration) -> Result<(), Stop> {
        // What the child is doing; `None` while it waits for a round.
        let mut doing = Some("start");
        let mut end = Instant::now().checked_add(phase);
        loop {
            let wait = end.map_or(phase, |end| end.saturating_duration_since(Instant::now()));
            match self.request.events.recv_timeout(wait) {
                Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
                Ok(UnitEvent::Round(Round::Unknown { name })) => {
                    return Err(Stop::Unsupported { name });
                }
                // One round at a time.
                Ok(UnitEvent::Round(round)) if doing.is_some() => {
                    return Err(Stop::unexpected(&round));
                }
                Ok(UnitEvent::Round(round)) => {
                    doing = Some(phase_of(&round));
                    end = Instant::now().checked_add(phase);
                    if self.child.say(&round).is_err() {
                        return Err(self.ended());
                    }
                }
                Ok(UnitEvent::Child(body)) => match decode(&body)? {
                    FromProver::Step { event, last } => {
                        // Before it is said: the next round may be here a moment later.
                        if last {
                            doing = None;
                            end = Instant::now().checked_add(idle);
                        }
                        self.say(event)?;
                    }
                    FromProver::Refused { code, message } => {
                        return Err(Stop::Failed { code, message });
                    }
                },
                Ok(UnitEvent::ChildEnded) if doing == Some("release") => {
                    return match self.child.ended_well() {
                        true => Ok(()),
                        false => Err(self.ended()),
                    };
                }
                Ok(UnitEvent::ChildEnded) => return Err(self.ended()),
                Ok(UnitEvent::Host(_)) => {}
                Err(_) => return Err(overdue(doing, phase, idle)),
            }
        }
    }

    fn say(&self, event: ProveEvent) -> Result<(), Stop> {
        Ok(self.request.reply(Reply::Prove(ProveReply { backend: self.backend, event }))?)
    }

    fn ended(&mut self) -> Stop {
        Stop::failed("crashed", format!("the prover's process ended {}", self.child.how_it_ended()))
    }
}

fn phase_of(round: &Round) -> &'static str {
    match round {
        Round::Load { .. } => "load",
        Round::Fill { .. } => "fill",
        Round::Probe { .. } => "probe",
        Round::Open { .. } => "open",
        Round::Release {} => "release",
        // Of other units, or of a later version: the child refuses them.
        Round::Send { .. } | Round::Grant { .. } | Round::End {} | Round::Unknown { .. } => {
            "unknown"
        }
    }
}

fn overdue(doing: Option<&str>, phase: Duration, idle: Duration) -> Stop {
    let message = match doing {
        Some(phase_name) => format!(
            "the phase {phase_name} did not end within {} ms, so its process was killed",
            phase.as_millis()
        ),
        None => format!("no round came within {} s, so the memory was given back", idle.as_secs()),
    };
    Stop::failed("deadline", message)
}

/// What NVML says of a device, or why there is nothing to say.
fn device(request: &Request, options: &Options, uuid: &str) -> Result<Gpu, Stop> {
    if !is_uuid(uuid) {
        let message = "the GPU's name is no UUID such as GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10";
        return Err(Stop::failed("gpu_not_found", message));
    }
    let facts = facts(request, options)?;
    match facts.driver {
        DriverState::NoDriver { message } => return Err(Stop::failed("no_driver", message)),
        DriverState::Failed { code, message } => {
            let message = format!("the NVIDIA driver failed: {code}: {message}");
            return Err(Stop::failed("no_driver", message));
        }
        DriverState::Present { .. } => {}
    }
    let known: Vec<_> = facts.devices.iter().map(|gpu| gpu.uuid.clone()).collect();
    facts.devices.into_iter().find(|gpu| gpu.uuid == uuid).ok_or_else(|| {
        let known = known.join(", ");
        Stop::failed("gpu_not_found", format!("no GPU is {uuid}; this host has: {known}"))
    })
}

/// `GPU-` and a UUID in lower case: nothing else becomes part of an environment.
fn is_uuid(text: &str) -> bool {
    let Some(digits) = text.strip_prefix("GPU-") else { return false };
    digits.len() == 36
        && digits.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Refuses a device that is broken, divided, or computing for somebody.
fn check_free(gpu: &Gpu) -> Result<(), Stop> {
    if let Some(problem) = &gpu.problem {
        return Err(Stop::failed("gpu_lost", problem.clone()));
    }
    if gpu.mig_enabled == Some(true) {
        let message = "MIG is enabled: the GPU is divided into instances, and a proof is of a whole \
            one (nvidia-smi -mig 0)";
        return Err(Stop::failed("mig_enabled", message));
    }
    let computing = gpu.processes.iter().flatten().filter(|process| !process.graphics);
    let computing: Vec<_> = computing.map(describe).collect();
    if computing.is_empty() {
        return Ok(());
    }
    let message = format!("the GPU is in use and was not touched: {}", computing.join(", "));
    Err(Stop::failed("gpu_busy", message))
}

/// Who holds memory on a device, but for the own child.
fn holders(gpu: &Gpu, own: u32) -> String {
    let others = gpu.processes.iter().flatten().filter(|process| process.pid != own);
    let others: Vec<_> = others.map(describe).collect();
    if others.is_empty() {
        return "NVML lists no other process on this GPU".to_owned();
    }
    format!("on this GPU: {}", others.join(", "))
}

fn describe(process: &GpuProcess) -> String {
    let name = process.name.as_deref().unwrap_or("unknown name");
    match process.used_memory_bytes {
        Some(bytes) => format!("process {} ({name}) holds {bytes} bytes", process.pid),
        None => format!("process {} ({name})", process.pid),
    }
}

/// Asks NVML, and waits until its child is gone, so that its end is not taken for a prover's.
fn facts(request: &Request, options: &Options) -> Result<GpuFacts, Stop> {
    let mut probe = probe::start(None, request.sender()).map_err(cannot_start)?;
    let mut facts = None;
    loop {
        match request.events.recv_timeout(options.probe_deadline) {
            Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
            Ok(UnitEvent::Round(round)) => return Err(Stop::unexpected(&round)),
            Ok(UnitEvent::Child(body)) => facts = Some(decode::<GpuFacts>(&body)?),
            Ok(UnitEvent::ChildEnded) => {
                return facts.ok_or_else(|| {
                    let message = format!("the NVML probe ended {}", probe.how_it_ended());
                    Stop::failed("probe_failed", message)
                });
            }
            Ok(UnitEvent::Host(_)) => {}
            Err(_) => {
                let waited = options.probe_deadline.as_millis();
                let message = format!("NVML did not answer within {waited} ms");
                return Err(Stop::failed("probe_stalled", message));
            }
        }
    }
}

/// Takes what a child that is gone still said.
fn drain(request: &Request) -> Result<(), Stop> {
    loop {
        match request.events.recv_timeout(DRAIN) {
            Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
            Ok(UnitEvent::ChildEnded)
            | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(_) => {}
        }
    }
}

fn cannot_start(error: std::io::Error) -> Stop {
    Stop::failed("environment", format!("cannot start a child process: {error}"))
}

#[cfg(test)]
mod tests {
    use super::is_uuid;

    #[test]
    fn only_a_uuid_as_the_driver_writes_it_names_a_device() {
        assert!(is_uuid("GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10"));
        for other in [
            "",
            "0",
            "GPU-",
            "MIG-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10",
            "GPU-6A1F0C1E-52a4-4a44-9a39-1b1d3b7c0f10",
            "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10,0",
            "GPU-6a1f0c1e052a4-4a44-9a39-1b1d3b7c0f10",
        ] {
            assert!(!is_uuid(other), "{other}");
        }
    }
}

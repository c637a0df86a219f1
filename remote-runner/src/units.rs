//! The units: what a request does, on its own thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

use runner_protocol::facts::{FactsQuery, GpuFacts, HostFacts};
use runner_protocol::{
    FrameError, FromRunner, Held, HoldEvent, Outcome, Reply, RequestId, Round, Telemetry, Unit,
    decode, encode_frame,
};

use crate::args::Options;
use crate::facts::{self, Root};
use crate::hold::Hold;
use crate::probe::{self, TelemetryFrame};
use crate::session::Event;
use crate::subprocess::Subprocess;
use crate::{health, log};

mod dial;
mod prove;

/// What `Hello` says the runner can do.
pub(crate) const CAPABILITIES: [&str; 8] =
    ["facts", "health", "watch", "prove", "prove.cuda", "prove.reference", "dial", "hold"];

/// How long the host's own files and sockets may take. Each part that can hang has a shorter
/// deadline of its own; this one holds if one was forgotten.
const HOST_DEADLINE: Duration = Duration::from_secs(30);

/// The shortest interval of a watch.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// What the thread of a request waits for.
#[derive(Debug)]
pub(crate) enum UnitEvent {
    /// The orchestrator wants it stopped.
    Cancel,
    /// The host's facts, without its GPUs.
    Host(Box<HostFacts>),
    /// The orchestrator's next round.
    Round(Round),
    /// A frame of the child process.
    Child(Vec<u8>),
    /// The child process will say nothing more.
    ChildEnded,
}

/// A request in work. Exactly one `Finished` ends it: [`Request::finish`] takes it, and dropping it
/// on any other way says so as well.
pub(crate) struct Request {
    id: RequestId,
    output: SyncSender<Vec<u8>>,
    session: SyncSender<Event>,
    sender: Sender<UnitEvent>,
    events: Receiver<UnitEvent>,
    finished: bool,
}

impl Request {
    /// A request that answers through `output`.
    pub(crate) fn new(
        id: RequestId,
        output: SyncSender<Vec<u8>>,
        session: SyncSender<Event>,
    ) -> Self {
        let (sender, events) = channel();
        Self { id, output, session, sender, events, finished: false }
    }

    /// Where its events go.
    pub(crate) fn sender(&self) -> Sender<UnitEvent> {
        self.sender.clone()
    }

    /// Sends a result, waiting for the writer if it is behind.
    fn reply(&self, reply: Reply) -> Result<(), FrameError> {
        self.replier().reply(reply)
    }

    /// What a further thread of the request answers with.
    fn replier(&self) -> Replier {
        Replier { id: self.id, output: self.output.clone() }
    }

    /// Ends the request.
    fn finish(mut self, outcome: Outcome) {
        self.say_finished(outcome);
    }

    fn say_finished(&mut self, outcome: Outcome) {
        self.finished = true;
        // First the session, then the orchestrator: as soon as that hears of it, it may use the
        // id again.
        let _ = self.session.send(Event::Finishing(self.id));
        match encode_frame(&FromRunner::Finished { id: self.id, outcome }) {
            Ok(frame) => drop(self.output.send(frame)),
            Err(error) => log::error("cannot encode an outcome", &error.to_string()),
        }
    }
}

/// Sends results of a request.
struct Replier {
    id: RequestId,
    output: SyncSender<Vec<u8>>,
}

impl Replier {
    fn reply(&self, reply: Reply) -> Result<(), FrameError> {
        let frame = encode_frame(&FromRunner::Reply { id: self.id, reply })?;
        // The writer is gone only when the session ends.
        let _ = self.output.send(frame);
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.finished {
            self.say_finished(failed("bug", "the request was dropped"));
        }
    }
}

/// Why a unit stopped early.
enum Stop {
    Cancelled,
    Failed { code: String, message: String },
    Unsupported { name: String },
}

impl Stop {
    fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed { code: code.to_owned(), message: message.into() }
    }

    /// The orchestrator said something that has no place now.
    fn unexpected(round: &Round) -> Self {
        let name = match round {
            Round::Unknown { .. } => "of a later version",
            known => known.name(),
        };
        Self::failed("unexpected", format!("the round {name} has no place here"))
    }
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooLarge { .. } => "too_large",
            _ => "bug",
        };
        Self::failed(code, error.to_string())
    }
}

fn failed(code: &str, message: &str) -> Outcome {
    Outcome::Failed { code: code.to_owned(), message: message.to_owned() }
}

/// Does a unit and finishes its request.
pub(crate) fn run(unit: Unit, request: Request, options: &Options) {
    let done = match unit {
        Unit::Facts(query) => gather(&request, options, query)
            .and_then(|facts| Ok(request.reply(Reply::Facts(Box::new(facts)))?)),
        Unit::Health {} => gather(&request, options, FactsQuery::default())
            .and_then(|facts| Ok(request.reply(Reply::Health(health::report(&facts)))?)),
        Unit::Watch { interval_ms } => {
            let interval = Duration::from_millis(interval_ms).max(MIN_INTERVAL);
            watch(&request, options, interval)
        }
        Unit::Prove { backend, gpu } => prove::run(&request, options, backend, gpu.as_deref()),
        Unit::Dial { socket } => dial::run(&request, &socket),
        Unit::Hold(held) => hold(&request, held),
        Unit::Unknown { name } => return request.finish(Outcome::Unsupported { unit: name }),
    };
    request.finish(match done {
        Ok(()) => Outcome::Ok {},
        Err(Stop::Cancelled) => Outcome::Cancelled {},
        Err(Stop::Failed { code, message }) => Outcome::Failed { code, message },
        Err(Stop::Unsupported { name }) => Outcome::Unsupported { unit: name },
    });
}

/// Reads all facts: the host's on one thread, NVML's in a child, at the same time.
fn gather(request: &Request, options: &Options, query: FactsQuery) -> Result<HostFacts, Stop> {
    let root = Root::new(&options.root);
    let sender = request.sender();
    let started = thread::Builder::new().name("facts".into()).spawn({
        let root = root.clone();
        // The request is gone if it was cancelled meanwhile.
        move || drop(sender.send(UnitEvent::Host(Box::new(facts::host(&root, &query)))))
    });
    if let Err(error) = started {
        return Err(Stop::failed("environment", error.to_string()));
    }
    let mut probe = probe::start(None, request.sender());
    let probe_end = Instant::now().checked_add(options.probe_deadline);
    let host_end = Instant::now().checked_add(HOST_DEADLINE);
    let (mut host, mut gpus) = (None, None);
    if let Err(error) = &probe {
        gpus = Some(probe::broken("environment", &format!("cannot start the probe: {error}")));
    }
    loop {
        if host.is_some() && gpus.is_some() {
            break;
        }
        let end = if gpus.is_none() { probe_end } else { host_end };
        let wait = end.map_or(HOST_DEADLINE, |end| end.saturating_duration_since(Instant::now()));
        match request.events.recv_timeout(wait) {
            Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
            Ok(UnitEvent::Round(round)) => return Err(Stop::unexpected(&round)),
            Ok(UnitEvent::Host(facts)) => host = Some(facts),
            Ok(UnitEvent::Child(body)) => {
                let decoded = decode::<GpuFacts>(&body);
                gpus = Some(decoded.unwrap_or_else(|error| {
                    probe::broken("crashed", &format!("the probe's answer is damaged: {error}"))
                }));
            }
            Ok(UnitEvent::ChildEnded) => {
                let how = probe.as_mut().map_or_else(|_| String::new(), Subprocess::how_it_ended);
                gpus.get_or_insert_with(|| {
                    probe::broken("crashed", &format!("the NVML probe ended {how}"))
                });
            }
            Err(RecvTimeoutError::Timeout) if gpus.is_none() => {
                let waited = options.probe_deadline.as_millis();
                gpus = Some(probe::broken(
                    "stalled",
                    &format!("NVML did not answer within {waited} ms"),
                ));
            }
            Err(_) => {
                return Err(Stop::failed("stalled", "the host's files did not answer"));
            }
        }
    }
    let (Some(mut facts), Some(gpus)) = (host, gpus) else {
        // The loop ends only when both are there.
        return Err(Stop::failed("bug", "facts are missing"));
    };
    facts.gpus = gpus;
    facts::cross_check(&root, &mut facts);
    Ok(*facts)
}

/// Keeps a container until it is released or its time is over. Ended in any other way, it stays
/// among those that are stopped when the session ends.
fn hold(request: &Request, held: Held) -> Result<(), Stop> {
    let timeout = held.timeout_secs.map(Duration::from_secs);
    let hold = Hold::take(held).map_err(|(code, message)| Stop::failed(code, message))?;
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    request.reply(Reply::Hold(HoldEvent::Holding {}))?;
    loop {
        let event = match end {
            Some(end) => request.events.recv_timeout(end.saturating_duration_since(Instant::now())),
            None => request.events.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(UnitEvent::Round(Round::Release {})) => {
                hold.release();
                return Ok(());
            }
            Ok(UnitEvent::Round(round)) => return Err(Stop::unexpected(&round)),
            Err(RecvTimeoutError::Timeout) => {
                hold.stop();
                request.reply(Reply::Hold(HoldEvent::Expired {}))?;
                return Ok(());
            }
            Ok(UnitEvent::Cancel) | Err(RecvTimeoutError::Disconnected) => {
                return Err(Stop::Cancelled);
            }
            Ok(UnitEvent::Host(_) | UnitEvent::Child(_) | UnitEvent::ChildEnded) => {}
        }
    }
}

/// Sends samples until cancelled. The probe's frames set the pace.
fn watch(request: &Request, options: &Options, interval: Duration) -> Result<(), Stop> {
    let root = Root::new(&options.root);
    let environment = |error: std::io::Error| {
        Stop::failed("environment", format!("cannot start the probe: {error}"))
    };
    let mut probe = probe::start(Some(interval), request.sender()).map_err(environment)?;
    loop {
        let wait = interval.saturating_add(options.probe_deadline);
        match request.events.recv_timeout(wait) {
            Ok(UnitEvent::Cancel) => return Err(Stop::Cancelled),
            Ok(UnitEvent::Round(round)) => return Err(Stop::unexpected(&round)),
            Ok(UnitEvent::Host(_)) => {}
            Ok(UnitEvent::Child(body)) => {
                let TelemetryFrame { gpus } = decode(&body)?;
                request.reply(Reply::Telemetry(Telemetry {
                    at_unix_ms: log::unix_ms(),
                    load: root.load().unwrap_or_default(),
                    memory_available_bytes: root.memory().unwrap_or_default().available_bytes,
                    gpus,
                }))?;
            }
            Ok(UnitEvent::ChildEnded) => {
                let message = format!("the NVML probe ended {}", probe.how_it_ended());
                return Err(Stop::failed("probe_failed", message));
            }
            Err(_) => {
                let message = format!("NVML did not answer within {} ms", wait.as_millis());
                return Err(Stop::failed("probe_stalled", message));
            }
        }
    }
}

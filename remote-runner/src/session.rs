//! One session: from the magic line to the exit status.
//!
//! The main thread owns [`Session`] and handles one [`Event`] after the other. It never writes,
//! reads or waits for anything but the next event, so the lease, the deadline and the signals end
//! the session whatever else hangs.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use runner_protocol::{
    ExitCode, FromRunner, Hello, Outcome, PROTOCOL_VERSION, RequestId, ToRunner, Unit, encode_frame,
};

use crate::args::Options;
use crate::units::{self, Request, UnitEvent};
use crate::{build, facts, hold, log, os, tree};

mod input;
mod output;

/// How many requests may run at once: a proof-of-work on each of 16 GPUs with a watch beside them,
/// facts and health for another caller, and as much room again.
const MAX_REQUESTS: usize = 40;

/// How many events wait for the main thread before the reader waits for it.
const EVENT_QUEUE: usize = 64;

/// How many frames wait for the writer before requests wait for it.
const FRAME_QUEUE: usize = 64;

/// How long requests have to finish after `Shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Something that the session reacts to.
#[derive(Debug)]
pub(crate) enum Event {
    /// The orchestrator said something.
    Message(ToRunner),
    /// Standard input ended.
    StdinClosed,
    /// Standard input carries something else than frames.
    StdinBroken(String),
    /// A signal that asks to end.
    Signal(i32),
    /// Standard output takes nothing more.
    StdoutClosed,
    /// Everything is written, and nobody is left who could say more.
    Drained,
    /// A request is about to say `Finished`.
    Finishing(RequestId),
}

/// Runs one session, kills what it started, and says why it ended.
pub(crate) fn run(options: Options) -> ExitCode {
    os::block_ending_signals();
    tree::take_root();
    let code = match Session::start(options) {
        Ok((mut session, events)) => session.serve(&events),
        Err(error) => {
            log::error("cannot start a session", &error.to_string());
            ExitCode::Environment
        }
    };
    tree::kill_descendants();
    hold::stop_all();
    log::info("session ended", code.name());
    code
}

/// What the main thread owns.
struct Session {
    options: Options,
    events: SyncSender<Event>,
    /// `None` once the session is shutting down: the writer ends when the last sender is gone.
    output: Option<SyncSender<Vec<u8>>>,
    running: BTreeMap<RequestId, Sender<UnitEvent>>,
    lease_end: Instant,
    deadline: Option<Instant>,
    shutdown_end: Option<Instant>,
}

impl Session {
    /// Starts the threads and says hello.
    fn start(options: Options) -> io::Result<(Self, Receiver<Event>)> {
        let hello = hello(&options)?;
        let (events, receiver) = sync_channel(EVENT_QUEUE);
        let (output, frames) = sync_channel(FRAME_QUEUE);
        output::start(frames, events.clone())?;
        let now = Instant::now();
        let mut session = Self {
            lease_end: later(now, options.lease),
            deadline: options.deadline.map(|after| later(now, after)),
            shutdown_end: None,
            output: Some(output),
            running: BTreeMap::new(),
            events: events.clone(),
            options,
        };
        session.rearm();
        // Nothing was said before, so the queue has room and the writer is there.
        let _ = session.send(&FromRunner::Hello(hello));
        let signals = events.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            while signals.send(Event::Signal(os::wait_for_ending_signal())).is_ok() {}
        })?;
        input::start(events)?;
        Ok((session, receiver))
    }

    /// Handles events until one of them, or the clock, ends the session.
    fn serve(&mut self, events: &Receiver<Event>) -> ExitCode {
        loop {
            let now = Instant::now();
            if let Some(code) = self.expired(now) {
                return code;
            }
            let ends = [Some(self.lease_end), self.deadline, self.shutdown_end];
            let next = ends.into_iter().flatten().min().unwrap_or(now);
            match events.recv_timeout(next.saturating_duration_since(now)) {
                Ok(event) => {
                    if let Some(code) = self.handle(event) {
                        return code;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // This thread holds a sender itself.
                Err(RecvTimeoutError::Disconnected) => return ExitCode::Bug,
            }
        }
    }

    /// Says whether a time has passed that ends the session.
    fn expired(&self, now: Instant) -> Option<ExitCode> {
        if self.deadline.is_some_and(|end| now >= end) {
            return Some(ExitCode::Deadline);
        }
        if now >= self.lease_end {
            return Some(ExitCode::LeaseLapsed);
        }
        if self.shutdown_end.is_some_and(|end| now >= end) {
            log::error("requests did not finish after shutdown", "");
            return Some(ExitCode::Ok);
        }
        None
    }

    /// Handles one event; the exit code if it ends the session.
    fn handle(&mut self, event: Event) -> Option<ExitCode> {
        match event {
            Event::Message(message) => self.obey(message),
            Event::Finishing(id) => {
                self.running.remove(&id);
                None
            }
            // After `Shutdown` the orchestrator may close its end first.
            Event::StdinClosed if self.shutdown_end.is_some() => None,
            Event::StdinClosed => Some(ExitCode::StdinClosed),
            Event::StdinBroken(error) => {
                log::error("standard input is not of this protocol", &error);
                Some(ExitCode::ProtocolError)
            }
            Event::Signal(number) => {
                log::info("signal", &number.to_string());
                Some(ExitCode::Terminated)
            }
            Event::StdoutClosed => Some(ExitCode::StdoutClosed),
            Event::Drained => Some(ExitCode::Ok),
        }
    }

    /// Does what the orchestrator says.
    fn obey(&mut self, message: ToRunner) -> Option<ExitCode> {
        match message {
            ToRunner::Request { id, unit } => self.request(id, unit),
            ToRunner::Renew {} => {
                self.lease_end = later(Instant::now(), self.options.lease);
                self.rearm();
                None
            }
            ToRunner::Continue { id, round } => {
                if let Some(request) = self.running.get(&id) {
                    // It may have ended meanwhile: its `Finished` is the answer.
                    let _ = request.send(UnitEvent::Round(round));
                }
                None
            }
            ToRunner::Cancel { id } => {
                if let Some(request) = self.running.get(&id) {
                    // It may have ended meanwhile, which is as good.
                    let _ = request.send(UnitEvent::Cancel);
                }
                None
            }
            ToRunner::Shutdown {} => {
                for request in self.running.values() {
                    let _ = request.send(UnitEvent::Cancel);
                }
                self.output = None;
                self.shutdown_end = Some(later(Instant::now(), SHUTDOWN_GRACE));
                None
            }
        }
    }

    /// Starts a request, or answers why not.
    fn request(&mut self, id: RequestId, unit: Unit) -> Option<ExitCode> {
        if self.running.contains_key(&id) {
            // Two requests of one name cannot be told apart, so neither could be answered.
            log::error("a request has the id of one that still runs", &id.to_string());
            return Some(ExitCode::ProtocolError);
        }
        let refusal = match unit {
            // Nothing can be answered after `Shutdown`, which the orchestrator knows.
            _ if self.output.is_none() => return None,
            Unit::Unknown { name } => Outcome::Unsupported { unit: name },
            _ if self.running.len() >= MAX_REQUESTS => Outcome::Failed {
                code: "busy".into(),
                message: format!("{MAX_REQUESTS} requests run already"),
            },
            unit => match self.spawn(id, unit) {
                Ok(()) => return None,
                Err(error) => {
                    self.running.remove(&id);
                    let message = format!("cannot start a thread: {error}");
                    Outcome::Failed { code: "environment".into(), message }
                }
            },
        };
        self.send(&FromRunner::Finished { id, outcome: refusal })
    }

    /// Starts the thread of a request.
    fn spawn(&mut self, id: RequestId, unit: Unit) -> io::Result<()> {
        let Some(output) = self.output.clone() else { return Ok(()) };
        let request = Request::new(id, output, self.events.clone());
        self.running.insert(id, request.sender());
        let options = self.options.clone();
        thread::Builder::new()
            .name(format!("request {id}"))
            .spawn(move || units::run(unit, request, &options))
            .map(|_| ())
    }

    /// Says something from the main thread, without waiting.
    fn send(&mut self, message: &FromRunner) -> Option<ExitCode> {
        let frame = match encode_frame(message) {
            Ok(frame) => frame,
            Err(error) => {
                log::error("cannot encode a message", &error.to_string());
                return Some(ExitCode::Bug);
            }
        };
        match self.output.as_ref()?.try_send(frame) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => {
                log::error("nobody reads standard output", "");
                Some(ExitCode::StdoutClosed)
            }
            Err(TrySendError::Disconnected(_)) => Some(ExitCode::StdoutClosed),
        }
    }

    /// Has the kernel end this process well after the lease, in case this thread cannot.
    fn rearm(&self) {
        let secs = self.options.lease.as_secs().saturating_mul(2).saturating_add(10);
        os::alarm(u32::try_from(secs).unwrap_or(u32::MAX));
    }
}

/// Who is speaking.
fn hello(options: &Options) -> io::Result<Hello> {
    Ok(Hello {
        protocol_version: PROTOCOL_VERSION,
        build: build::own_sha256()?,
        runner_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: units::CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
        pid: std::process::id(),
        boot_id: facts::Root::new(&options.root).boot_id().unwrap_or_default(),
    })
}

/// A time after `now`. One that the clock cannot express is a year away, which no session reaches.
fn later(now: Instant, after: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    now.checked_add(after.min(YEAR)).unwrap_or(now)
}

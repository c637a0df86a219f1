//! One channel, driven by a task of its own.
//!
//! The task opens the channel, so that a caller that goes away in the middle leaves nothing
//! open; it reads whatever comes, so that one slow reader never holds up the others (the
//! protocol task waits for a channel whose queue is full); and it closes the channel at its end,
//! because dropping it would tell the server nothing and use up one of its sessions for good.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelWriteHalf, Sig};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::oneshot;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::frame::Deframer;
use super::link::Link;
use super::slots::Slot;
use crate::transport::{
    Capture, DISCARD_LIMIT_BYTES, Excerpt, ExitStatus, Failure, Feed, PipeWriter,
};

/// The size of an SSH data packet.
const CHUNK_BYTES: usize = 32 * 1024;

/// What is first read of a pipe at a time; each read that fills it doubles it, up to
/// [`CHUNK_BYTES`].
const FIRST_CHUNK_BYTES: usize = 512;

/// What the channel is for.
pub(super) enum Target {
    /// Runs this line, which prints this marker first.
    Exec { line: String, marker: String },
    /// Connects to this Unix socket on the host.
    Socket { path: String },
}

/// What goes into the channel.
pub(super) enum Source {
    /// The input of an exec; the remote side may stall this long.
    Feed(Feed, Duration),
    /// Whatever the holder of the other end writes.
    Pipe(DuplexStream),
}

/// Where the channel's data goes.
pub(super) enum Sink {
    Capture {
        stdout: Capture,
        stderr: Capture,
    },
    /// Without `stdout` once its end has come.
    Pipe {
        stdout: Option<PipeWriter>,
        stderr: PipeWriter,
        capacity: usize,
    },
}

/// What a pump needs to know.
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) source: Source,
    pub(super) sink: Sink,
    /// Cancelled when nobody wants the channel any more.
    pub(super) cancel: CancellationToken,
    /// Told when the command has started (its marker came) or the socket is connected.
    pub(super) started: Option<oneshot::Sender<()>>,
    /// How far it is, for whoever times out.
    pub(super) phase: Phase,
}

/// How far a channel is.
#[derive(Debug, Clone, Default)]
pub(super) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// Asked for, or with a login that has not come to the command.
    const STARTING: u8 = 0;
    /// Waiting for one of the server's sessions.
    const WAITING: u8 = 1;
    /// The command runs.
    const RUNNING: u8 = 2;

    pub(super) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::WAITING
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::RUNNING
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }
}

/// The first pause before a refused session is asked for again: sshd reaps within milliseconds.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// The longest such pause.
const REAP_PAUSE_MAX: Duration = Duration::from_millis(500);

impl Sink {
    fn stdout(&mut self, bytes: Bytes) -> Result<(), Failure> {
        match self {
            Self::Capture { stdout, .. } => stdout.push(&bytes).map_err(|_| flood()),
            Self::Pipe { stdout: Some(stdout), capacity, .. } => {
                stdout.push(bytes).map_err(|_| Failure::Overflow(*capacity))
            }
            // RFC 4254, 5.3: no data comes after the end.
            Self::Pipe { stdout: None, .. } => Ok(()),
        }
    }

    /// The reader of standard output finds its end; nothing else is over.
    fn end_stdout(&mut self) {
        if let Self::Pipe { stdout, .. } = self {
            *stdout = None;
        }
    }

    fn stderr(&mut self, bytes: Bytes) -> Result<(), Failure> {
        match self {
            Self::Capture { stderr, .. } => stderr.push(&bytes).map_err(|_| flood()),
            Self::Pipe { stderr, capacity, .. } => {
                stderr.push(bytes).map_err(|_| Failure::Overflow(*capacity))
            }
        }
    }

    /// Ends the pipes; their readers see why when it was not a clean end.
    fn finish(self, failure: Option<&Failure>) -> Option<(Capture, Capture)> {
        match (self, failure) {
            (Self::Capture { stdout, stderr }, _) => Some((stdout, stderr)),
            (Self::Pipe { .. }, None) => None,
            (Self::Pipe { stdout, stderr, .. }, Some(failure)) => {
                let kind = match failure {
                    Failure::Lost(_) => io::ErrorKind::ConnectionReset,
                    Failure::Closed => io::ErrorKind::ConnectionAborted,
                    _ => io::ErrorKind::Other,
                };
                if let Some(stdout) = stdout {
                    stdout.fail(kind, failure.to_string());
                }
                stderr.fail(kind, failure.to_string());
                None
            }
        }
    }
}

fn flood() -> Failure {
    Failure::Flood(DISCARD_LIMIT_BYTES)
}

/// How a channel ended, and what it wrote if that was kept.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) captured: Option<(Capture, Capture)>,
}

/// Drives one channel from its opening to its close.
pub(super) async fn pump(link: Arc<Link>, job: Job) -> Result<Ended, Failure> {
    let Job { target, source, mut sink, cancel, started, phase } = job;
    let outcome = async {
        let (channel, slot) = open(&link, &target, &cancel, &phase).await?;
        let (mut deframe, line) = match target {
            Target::Exec { line, marker } => {
                let limit = link.limits.noise_bytes;
                let both = (Deframer::new(&marker, limit), Deframer::new(&marker, limit));
                (Some(both), Some(line))
            }
            Target::Socket { .. } => (None, None),
        };
        let mut running = Running { started, phase };
        if deframe.is_none() {
            running.now();
        }
        let ended =
            drive(&link, channel, line, source, &mut sink, &cancel, &mut deframe, &mut running);
        let ended = ended.await;
        drop(slot);
        ended
    }
    .await;
    match outcome {
        Ok(status) => Ok(Ended { status, captured: sink.finish(None) }),
        Err(failure) => {
            sink.finish(Some(&failure));
            Err(failure)
        }
    }
}

struct Running {
    started: Option<oneshot::Sender<()>>,
    phase: Phase,
}

impl Running {
    fn now(&mut self) {
        self.phase.set(Phase::RUNNING);
        if let Some(started) = self.started.take() {
            // A caller that is gone has cancelled as well.
            let _ = started.send(());
        }
    }
}

/// Opens the channel, waiting for a session to end where the server's limit is reached.
async fn open(
    link: &Arc<Link>,
    target: &Target,
    cancel: &CancellationToken,
    phase: &Phase,
) -> Result<(Channel<Msg>, Option<Slot>), Failure> {
    let mut pause = REAP_PAUSE;
    loop {
        let slot = match target {
            Target::Socket { .. } => None,
            Target::Exec { .. } => {
                phase.set(Phase::WAITING);
                Some(wanted(link, cancel, link.slots.take()).await?)
            }
        };
        // Not raced with `cancel`: once asked for, the channel must be received to be closed.
        let opened = async {
            match target {
                Target::Exec { .. } => link.handle.channel_open_session().await,
                Target::Socket { path } => {
                    link.handle.channel_open_direct_streamlocal(path.as_str()).await
                }
            }
        };
        let opened = tokio::select! {
            // When the link is gone the server's side of the channel is, too.
            opened = opened => opened,
            () = link.gone() => return Err(link.ending.failure()),
        };
        match (opened, slot) {
            (Ok(channel), slot) => {
                if let Some(slot) = &slot {
                    slot.opened();
                }
                phase.set(Phase::STARTING);
                return Ok((channel, slot));
            }
            (Err(russh::Error::ChannelOpenFailure(why)), Some(slot)) => {
                slot.refused().map_err(|_| refused("session", &why))?;
                wanted(link, cancel, tokio::time::sleep(pause)).await?;
                pause = (pause * 2).min(REAP_PAUSE_MAX);
            }
            (Err(russh::Error::ChannelOpenFailure(why)), None) => {
                return Err(refused("connection to a socket", &why));
            }
            (Err(_), _) => return Err(link.ending.failure()),
        }
    }
}

/// Waits as long as the channel is wanted and the link is there.
async fn wanted<T>(
    link: &Link,
    cancel: &CancellationToken,
    wait: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::select! {
        // Waits only: whichever loses has taken nothing.
        done = wait => Ok(done),
        () = cancel.cancelled() => Err(Failure::Closed),
        () = link.gone() => Err(link.ending.failure()),
    }
}

fn refused(what: &'static str, why: &ChannelOpenFailure) -> Failure {
    Failure::ChannelRefused { what, answer: why.description().to_lowercase() }
}

#[expect(clippy::too_many_arguments, reason = "one loop over the parts of one channel")]
async fn drive(
    link: &Link,
    channel: Channel<Msg>,
    line: Option<String>,
    source: Source,
    sink: &mut Sink,
    cancel: &CancellationToken,
    deframe: &mut Option<(Deframer, Deframer)>,
    running: &mut Running,
) -> Result<ExitStatus, Failure> {
    let (mut incoming, outgoing) = channel.split();
    let mut closed_by_server = false;
    let result = async {
        if let Some(line) = line {
            outgoing.exec(true, line).await.map_err(|_| link.ending.failure())?;
        }
        let mut feeding = pin!(feed(&outgoing, source));
        let mut fed = false;
        let mut status = ExitStatus::Missing;
        loop {
            let message = tokio::select! {
                // `wait` and `cancelled` lose nothing when they lose; `feeding` is kept.
                message = incoming.wait() => message,
                result = &mut feeding, if !fed => {
                    fed = true;
                    result?;
                    continue;
                }
                () = cancel.cancelled() => return Err(Failure::Closed),
                () = link.cut.cancelled() => return Err(link.ending.failure()),
            };
            match message {
                Some(ChannelMsg::Data { data }) => match deframe {
                    Some((stdout, _)) => {
                        let was_found = stdout.found();
                        let bytes = stdout.push(data).map_err(|_| noise(link))?;
                        if stdout.found() && !was_found {
                            running.now();
                        }
                        sink.stdout(bytes)?;
                    }
                    None => sink.stdout(data)?,
                },
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => match deframe {
                    Some((_, stderr)) => {
                        sink.stderr(stderr.push(data).map_err(|_| noise(link))?)?;
                    }
                    None => sink.stderr(data)?,
                },
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    status = ExitStatus::Code(exit_status);
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    status = ExitStatus::Signal(signal(signal_name));
                }
                // A socket's peer is done, and may go on reading: the channel stays. Of a command
                // the end is known when its status is.
                Some(ChannelMsg::Eof) if deframe.is_none() => sink.end_stdout(),
                Some(ChannelMsg::Failure) if deframe.is_some() => return Err(Failure::ExecRefused),
                Some(ChannelMsg::Close) => {
                    closed_by_server = true;
                    return ran(deframe, status);
                }
                None => return Err(link.ending.failure()),
                Some(_) => {}
            }
        }
    }
    .await;
    if !closed_by_server {
        tokio::select! {
            // Only queues the message; when the link is gone there is nobody to tell.
            _ = outgoing.close() => {}
            () = link.gone() => {}
        }
    }
    if let Some((stdout, stderr)) = deframe {
        log_noise(link, stdout, stderr);
    }
    result
}

/// Checks that the command whose end this is was ours.
fn ran(
    deframe: &mut Option<(Deframer, Deframer)>,
    status: ExitStatus,
) -> Result<ExitStatus, Failure> {
    let Some((stdout, stderr)) = deframe else { return Ok(status) };
    if stdout.found() {
        return Ok(status);
    }
    stdout.end();
    stderr.end();
    let words = if stdout.noise().is_empty() { stderr.noise() } else { stdout.noise() };
    Err(Failure::NotOurCommand { said_instead: Excerpt::of(words), status })
}

fn noise(link: &Link) -> Failure {
    Failure::Noise(link.limits.noise_bytes)
}

fn log_noise(link: &Link, stdout: &Deframer, stderr: &Deframer) {
    for (stream, noise) in [("stdout", stdout.noise()), ("stderr", stderr.noise())] {
        if !noise.is_empty() {
            let said = Excerpt::of(noise);
            tracing::debug!(server = %link.place.server, stream, %said, "login noise");
        }
    }
}

fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => Excerpt::of(name.as_bytes()).as_str().to_owned(),
        known => format!("{known:?}"),
    }
}

/// Sends the input and then end of file. Waits, without holding up anyone else, while the
/// command does not read.
async fn feed(channel: &ChannelWriteHalf<Msg>, source: Source) -> Result<(), Failure> {
    match source {
        Source::Feed(mut feed, timeout) => {
            while let Some(chunk) = feed.next().await? {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let part = rest.split_to(rest.len().min(CHUNK_BYTES));
                    let bytes = part.len();
                    match tokio::time::timeout(timeout, channel.data_bytes(part)).await {
                        Ok(Ok(())) => feed.took(bytes),
                        // The session is gone; the reading side says why.
                        Ok(Err(_)) => return Ok(()),
                        Err(_) => return Err(Failure::Stalled { sent: feed.sent(), timeout }),
                    }
                }
            }
        }
        Source::Pipe(mut pipe) => {
            // Most channels send a few small messages, and there are hundreds of them at a time.
            let mut size = FIRST_CHUNK_BYTES;
            loop {
                let mut chunk = BytesMut::with_capacity(size);
                // A pipe between two tasks of this process ends; it does not fail.
                let read = pipe.read_buf(&mut chunk).await.unwrap_or(0);
                if read == 0 {
                    break;
                }
                if read >= size {
                    size = size.saturating_mul(2).min(CHUNK_BYTES);
                }
                if channel.data_bytes(chunk.freeze()).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    let _ = channel.eof().await;
    Ok(())
}

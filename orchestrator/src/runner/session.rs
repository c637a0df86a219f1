//! One runner process: its hello, its requests, its end.
//!
//! The session is driven by the caller's own task. While it waits for an answer it renews the
//! lease and drains standard error; between requests nobody renews, so a caller that pauses for
//! longer than [`runner_protocol::LEASE_DURATION`] loses its runner, which is what the lease is for.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::future::Either;
use runner_protocol::message::Progress;
use runner_protocol::{
    ExitCode, FrameDecoder, FromRunner, Hello, HostFacts, LEASE_RENEW_INTERVAL, MagicScanner,
    Outcome, PROTOCOL_VERSION, Reply, RequestId, Round, ToRunner, Unit, decode, encode_frame,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Interval, MissedTickBehavior};

use super::answer::Answer;
use super::{Artifact, Error, commands, install};
use crate::printable::{last_line, printable};
use crate::transport::{ExitStatus, Process, Transport};

/// From the command to the runner's hello. A login shell's rc files may take seconds, checking
/// the file's hash milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an upload may make no progress at all: a line that takes nothing in this time is dead.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that are handed to the channel at a time, and the grain of the progress that is told.
const UPLOAD_CHUNK_BYTES: usize = 32 * 1024;

/// From the last byte of the upload to the host's answer: it hashes the file twice and runs it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);

/// For one short unit of work. NVML on a host of eight GPUs takes a second or two; a driver that
/// hangs is reported by the runner itself within its own shorter deadlines.
const UNIT_TIMEOUT: Duration = Duration::from_secs(60);

/// For the runner to end after `Shutdown`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of standard error is kept: its end says why a runner died.
const STDERR_KEPT_BYTES: usize = 16 * 1024;

/// Bytes taken from the channel at a time.
const READ_BYTES: usize = 32 * 1024;

/// The longest that one runner may live, whatever else fails. Renewed leases end it much sooner
/// when nobody is there; this is the last line.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// What came of starting the runner.
pub enum Started {
    /// It runs and has said hello.
    Running {
        /// The session.
        session: Box<Session>,
        /// Whether it had to be uploaded.
        uploaded: bool,
    },
    /// It is not there, or damaged, and it was not to be uploaded: what the host said of itself.
    NotThere(Answer),
}

/// A running runner.
pub struct Session {
    process: Process,
    input: Vec<u8>,
    decoder: FrameDecoder,
    stderr: Vec<u8>,
    stderr_open: bool,
    /// Ticks once there is a runner whose lease wants renewing.
    renewal: Option<Interval>,
    hello: Hello,
    last_id: u64,
}

impl Session {
    /// Starts the runner in `work_dir`, uploading it first if it is not there and `upload` says
    /// how to tell the progress: one command in any case.
    ///
    /// # Errors
    /// The command failed or gave no answer, the host cannot run the artifact, the upload broke
    /// off or arrived damaged, or what runs there is not our runner.
    ///
    /// # Cancel safety
    /// Dropping the future closes the channel. A runner then ends by itself; a script that is
    /// receiving sees its input end early and removes its temporary file.
    pub async fn start(
        transport: &dyn Transport,
        work_dir: Option<&str>,
        artifact: &Artifact,
        upload: Option<&mut UploadProgress<'_>>,
    ) -> Result<Started, Error> {
        Self::start_for(transport, work_dir, artifact, LIFETIME, upload).await
    }

    /// As [`Session::start`] for work that may take as long as `lifetime`.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub async fn start_for(
        transport: &dyn Transport,
        work_dir: Option<&str>,
        artifact: &Artifact,
        lifetime: Duration,
        upload: Option<&mut UploadProgress<'_>>,
    ) -> Result<Started, Error> {
        let command = commands::start(work_dir, artifact, lifetime).map_err(Error::Command)?;
        let process = transport
            .spawn(command, START_TIMEOUT)
            .await
            .map_err(|source| Error::Transport { operation: "start the runner", source })?;
        let mut session = Self::new(process);
        match session.settle(artifact, upload).await {
            Ok(Settled::Running { uploaded }) => {
                Ok(Started::Running { session: Box::new(session), uploaded })
            }
            Ok(Settled::NotThere(answer)) => {
                session.process.close().await;
                Ok(Started::NotThere(answer))
            }
            Err(error) => {
                session.process.close().await;
                Err(error)
            }
        }
    }

    fn new(process: Process) -> Self {
        Self {
            process,
            input: Vec::new(),
            decoder: FrameDecoder::new(),
            stderr: Vec::new(),
            stderr_open: true,
            renewal: None,
            hello: Hello::default(),
            last_id: 0,
        }
    }

    /// Goes with the start script from its first answer to the runner's hello.
    async fn settle(
        &mut self,
        artifact: &Artifact,
        upload: Option<&mut UploadProgress<'_>>,
    ) -> Result<Settled, Error> {
        let answer = within(START_TIMEOUT, "start the runner", self.answer()).await?;
        let mut uploaded = false;
        if answer.get("state") != "ready" {
            let Some(progress) = upload else { return Ok(Settled::NotThere(answer)) };
            install::check_fit(&answer, artifact)?;
            let payload =
                if answer.get("encoding") == "gzip" { &artifact.gzip } else { &artifact.bytes };
            // The script that stopped reading has said why.
            let sent = self.upload(payload, progress).await;
            let installed = within(INSTALL_TIMEOUT, "install the runner", self.answer()).await;
            match (sent, installed) {
                (_, Ok(answer)) if answer.get("installed") == artifact.sha256 => uploaded = true,
                (_, Ok(answer)) => return Err(install::refusal(&answer)),
                (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
            }
        }
        within(START_TIMEOUT, "start the runner", self.await_hello(&artifact.sha256)).await?;
        self.renewal = Some(renewal());
        Ok(Settled::Running { uploaded })
    }

    async fn upload(
        &mut self,
        payload: &[u8],
        progress: &mut UploadProgress<'_>,
    ) -> Result<(), Error> {
        let total = payload.len() as u64;
        let mut sent = 0;
        progress(sent, total);
        self.feed(commands::SEND).await?;
        for chunk in payload.chunks(UPLOAD_CHUNK_BYTES) {
            self.feed(chunk).await?;
            sent += chunk.len() as u64;
            progress(sent, total);
        }
        Ok(())
    }

    /// Hands bytes to the start script, which must take them before the line counts as dead.
    async fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::Stream { operation: "upload the runner", source };
        within(STALL_TIMEOUT, "take any of the upload", async {
            self.process.stdin.write_all(bytes).await.map_err(failed)?;
            self.process.stdin.flush().await.map_err(failed)
        })
        .await
    }

    /// What the runner said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for the host's facts.
    ///
    /// # Errors
    /// The runner or the connection failed, or the answer did not come in time.
    pub async fn facts(&mut self) -> Result<HostFacts, Error> {
        let mut facts = None;
        self.request(Unit::Facts {}, UNIT_TIMEOUT, &mut |event| {
            if let UnitEvent::Reply(Reply::Facts(found)) = event {
                facts = Some(*found);
            }
        })
        .await?;
        facts.ok_or(Error::Unexpected { expected: "facts", found: "the end of the request" })
    }

    /// Runs one unit to its end and hands each of its messages to `on_event`.
    ///
    /// # Errors
    /// The runner or the connection failed, the unit failed, or it did not end in time.
    pub async fn request(
        &mut self,
        unit: Unit,
        limit: Duration,
        on_event: &mut (dyn FnMut(UnitEvent) + Send),
    ) -> Result<(), Error> {
        let work = async {
            let mut exchange = self.open(unit).await?;
            while let Some(event) = exchange.next().await? {
                on_event(event);
            }
            Ok(())
        };
        within(limit, "answer", work).await
    }

    /// Starts a unit and leaves the talk with it to the caller, who sets the time limits. The
    /// session is of no more use if the exchange is dropped before its end.
    ///
    /// # Errors
    /// The runner or the connection failed.
    pub async fn open(&mut self, unit: Unit) -> Result<Exchange<'_>, Error> {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.send(&ToRunner::Request { id, unit }).await?;
        Ok(Exchange { session: self, id })
    }

    /// The talk with a unit that runs already, after the [`Exchange`] that began it was dropped.
    pub(super) fn resume(&mut self, id: RequestId) -> Exchange<'_> {
        Exchange { session: self, id }
    }

    /// Ends the runner and closes its channel. The runner is given a moment to end by itself;
    /// closing the channel ends it in any case.
    pub async fn close(mut self) {
        let orderly = async {
            if self.send(&ToRunner::Shutdown {}).await.is_ok() {
                while self.next_message().await.is_ok() {}
            }
        };
        let _ended_or_not = tokio::time::timeout(SHUTDOWN_TIMEOUT, orderly).await;
        self.process.close().await;
    }

    async fn send(&mut self, message: &ToRunner) -> Result<(), Error> {
        let frame = encode_frame(message).map_err(Error::Frame)?;
        let failed = |error| Error::Stream { operation: "write to the runner", source: error };
        self.process.stdin.write_all(&frame).await.map_err(failed)?;
        self.process.stdin.flush().await.map_err(failed)
    }

    /// Reads one answer of the start script.
    async fn answer(&mut self) -> Result<Answer, Error> {
        loop {
            if let Some((answer, end)) = Answer::find(&self.input) {
                self.input.drain(..end);
                return Ok(answer);
            }
            if self.input.len() > super::answer::MAX_BYTES {
                return Err(Error::NoAnswer {
                    status: "still running".to_owned(),
                    said: "more output than any answer".to_owned(),
                });
            }
            if !self.read_more().await? {
                return Err(self.no_answer().await);
            }
        }
    }

    /// Reads the runner's magic line and its hello.
    async fn await_hello(&mut self, sha256: &str) -> Result<(), Error> {
        let mut scanner = MagicScanner::new();
        loop {
            let mut input = self.input.as_slice();
            let found = scanner.push(&mut input).map_err(Error::Magic)?;
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if found {
                break;
            }
            if !self.read_more().await? {
                return Err(self.ended().await);
            }
        }
        match self.next_message().await? {
            FromRunner::Hello(hello) if hello.protocol_version != PROTOCOL_VERSION => {
                Err(Error::Version { found: hello.protocol_version, ours: PROTOCOL_VERSION })
            }
            FromRunner::Hello(hello) if hello.build != sha256 => {
                Err(Error::Build { found: printable(&hello.build), expected: sha256.to_owned() })
            }
            FromRunner::Hello(hello) => {
                self.hello = hello;
                Ok(())
            }
            other => Err(Error::Unexpected { expected: "hello", found: name(&other) }),
        }
    }

    /// The next message, renewing the lease while it waits.
    async fn next_message(&mut self) -> Result<FromRunner, Error> {
        match self.next_message_or(std::future::pending::<Infallible>()).await? {
            Either::Left(message) => Ok(message),
            Either::Right(never) => match never {},
        }
    }

    /// The next message, or what `wake` gives if that comes first. What is being sent is sent
    /// whole either way.
    async fn next_message_or<T>(
        &mut self,
        wake: impl Future<Output = T>,
    ) -> Result<Either<FromRunner, T>, Error> {
        let mut wake = pin!(wake);
        loop {
            let mut input = self.input.as_slice();
            let frame = self.decoder.push(&mut input).map_err(Error::Frame)?;
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if let Some(body) = frame {
                return decode(&body).map(Either::Left).map_err(Error::Frame);
            }
            match self.read_more_or(wake.as_mut()).await? {
                Either::Left(true) => {}
                Either::Left(false) => return Err(self.ended().await),
                Either::Right(woken) => return Ok(Either::Right(woken)),
            }
        }
    }

    /// Waits for more of standard output and appends it to the input. `false` at its end.
    async fn read_more(&mut self) -> Result<bool, Error> {
        match self.read_more_or(pin!(std::future::pending::<Infallible>())).await? {
            Either::Left(more) => Ok(more),
            Either::Right(never) => match never {},
        }
    }

    /// As [`Self::read_more`], unless `wake` comes first.
    async fn read_more_or<T>(
        &mut self,
        mut wake: Pin<&mut impl Future<Output = T>>,
    ) -> Result<Either<bool, T>, Error> {
        let mut out = vec![0_u8; READ_BYTES];
        let mut err = [0_u8; 4096];
        loop {
            // Cancel safety: both reads and the tick lose nothing when dropped; what the losing
            // branches would have read stays in the channel. `wake` is only polled here.
            tokio::select! {
                read = self.process.stdout.read(&mut out) => {
                    let count = read.map_err(|error| Error::Stream {
                        operation: "read from the runner",
                        source: error,
                    })?;
                    self.input.extend(out.iter().take(count));
                    return Ok(Either::Left(count > 0));
                }
                read = self.process.stderr.read(&mut err), if self.stderr_open => {
                    let count = read.unwrap_or(0);
                    self.stderr_open = count > 0;
                    self.stderr.extend(err.iter().take(count));
                    let excess = self.stderr.len().saturating_sub(STDERR_KEPT_BYTES);
                    self.stderr.drain(..excess);
                }
                () = tick(&mut self.renewal) => self.send(&ToRunner::Renew {}).await?,
                woken = wake.as_mut() => return Ok(Either::Right(woken)),
            }
        }
    }

    async fn ended(&mut self) -> Error {
        let status = self.process.wait().await.ok();
        let exit = match status {
            Some(ExitStatus::Code(code)) => ExitCode::from_status(code),
            _ => None,
        };
        Error::Ended { exit, said: self.last_words().await }
    }

    async fn no_answer(&mut self) -> Error {
        let status = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(_) => "unknown".to_owned(),
        };
        Error::NoAnswer { status, said: self.last_words().await }
    }

    /// The end of standard error. Standard output is at its end when this is asked, so the rest
    /// of standard error is there or never comes; a short wait covers packets still on the way.
    async fn last_words(&mut self) -> String {
        const LATE_WORDS: Duration = Duration::from_millis(500);
        let mut rest = vec![0_u8; STDERR_KEPT_BYTES];
        while self.stderr_open && self.stderr.len() < STDERR_KEPT_BYTES {
            match tokio::time::timeout(LATE_WORDS, self.process.stderr.read(&mut rest)).await {
                Ok(Ok(count)) if count > 0 => self.stderr.extend(rest.iter().take(count)),
                _ => self.stderr_open = false,
            }
        }
        last_line(&self.stderr)
    }
}

/// What came of the start script.
enum Settled {
    Running { uploaded: bool },
    NotThere(Answer),
}

/// Told the bytes that have gone out and the bytes in all.
pub type UploadProgress<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// Bounds the time of one exchange with the host.
async fn within<T>(
    limit: Duration,
    operation: &'static str,
    exchange: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, exchange)
        .await
        .map_err(|_| Error::TimedOut { operation, seconds: limit.as_secs() })?
}

fn renewal() -> Interval {
    let mut interval = tokio::time::interval(LEASE_RENEW_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick of an interval is due at once, and a new lease needs no renewing yet.
    interval.reset();
    interval
}

/// The next tick; never, where there is nothing to renew.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// The talk with one running unit.
pub struct Exchange<'s> {
    session: &'s mut Session,
    id: RequestId,
}

impl Exchange<'_> {
    /// The request that it is about.
    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    /// Sends the next round.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn proceed(&mut self, round: Round) -> Result<(), Error> {
        self.session.send(&ToRunner::Continue { id: self.id, round }).await
    }

    /// The unit's next message; `None` once it has ended well. The lease is renewed meanwhile.
    ///
    /// # Errors
    /// The runner or the connection failed, or the unit did.
    pub async fn next(&mut self) -> Result<Option<UnitEvent>, Error> {
        let message = self.session.next_message().await?;
        self.event(message)
    }

    /// As [`Exchange::next`], or what `wake` gives if that comes first.
    ///
    /// # Errors
    /// As [`Exchange::next`].
    pub(super) async fn next_or<T>(
        &mut self,
        wake: impl Future<Output = T>,
    ) -> Result<Either<Option<UnitEvent>, T>, Error> {
        match self.session.next_message_or(wake).await? {
            Either::Left(message) => self.event(message).map(Either::Left),
            Either::Right(woken) => Ok(Either::Right(woken)),
        }
    }

    fn event(&self, message: FromRunner) -> Result<Option<UnitEvent>, Error> {
        match message {
            FromRunner::Progress(progress) if progress.id == self.id => {
                Ok(Some(UnitEvent::Progress(progress)))
            }
            FromRunner::Reply { id, reply } if id == self.id => Ok(Some(UnitEvent::Reply(reply))),
            FromRunner::Finished { id, outcome } if id == self.id => {
                finished(outcome).map(|()| None)
            }
            // One request at a time is open: a message of another is a defect or a lie.
            other => Err(Error::Unexpected {
                expected: "an answer to the open request",
                found: name(&other),
            }),
        }
    }
}

/// A message of a running unit.
#[derive(Debug)]
pub enum UnitEvent {
    /// How far it is.
    Progress(Progress),
    /// A result.
    Reply(Reply),
}

fn finished(outcome: Outcome) -> Result<(), Error> {
    let (code, message) = match outcome {
        Outcome::Ok {} => return Ok(()),
        Outcome::Cancelled {} => ("cancelled".to_owned(), String::new()),
        Outcome::Failed { code, message } => (printable(&code), printable(&message)),
        Outcome::Unsupported { unit } => ("unsupported".to_owned(), printable(&unit)),
    };
    Err(Error::Failed { code, message })
}

fn name(message: &FromRunner) -> &'static str {
    match message {
        FromRunner::Hello(_) => "hello",
        FromRunner::Progress(_) => "progress",
        FromRunner::Reply { .. } => "a reply",
        FromRunner::Finished { .. } => "the end of a request",
    }
}

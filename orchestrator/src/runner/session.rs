//! One runner process: its hello, its requests, its end.
//!
//! The session is driven by the caller's own task. While it waits for an answer it renews the
//! lease and drains standard error; between requests nobody renews, so a caller that pauses for
//! longer than [`runner_protocol::LEASE_DURATION`] loses its runner, which is what the lease is for.
//!
//! Several requests may be open at once. Their messages come out of [`Session::incoming`] in the
//! order in which they arrive, each with the id of its request; a message of a request that is not
//! open is a lie or a defect, and ends the session.

mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runner_protocol::message::Progress;
use runner_protocol::{
    FactsQuery, FromRunner, Hello, HostFacts, Outcome, PROTOCOL_VERSION, Reply, RequestId,
    ToRunner, Unit,
};
use serde::Serialize;

use self::wire::Wire;
use super::answer::Answer;
use super::{Artifact, Error, commands, install};
use crate::printable::printable;
use crate::transport::Transport;

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

/// The most messages of one request: a watch of a day at its usual pace, and far less than a host that
/// says the same without end could keep us busy with.
const MAX_MESSAGES: u64 = 1_000_000;

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
    wire: Wire,
    hello: Hello,
    last_id: u64,
    /// The requests without an end so far, and how many messages each has sent.
    open: BTreeMap<RequestId, u64>,
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
        let mut session = Self {
            wire: Wire::new(process),
            hello: Hello::default(),
            last_id: 0,
            open: BTreeMap::new(),
        };
        match session.settle(artifact, upload).await {
            Ok(Settled::Running { uploaded }) => {
                Ok(Started::Running { session: Box::new(session), uploaded })
            }
            Ok(Settled::NotThere(answer)) => {
                session.wire.close().await;
                Ok(Started::NotThere(answer))
            }
            Err(error) => {
                session.wire.close().await;
                Err(error)
            }
        }
    }

    /// Goes with the start script from its first answer to the runner's hello.
    async fn settle(
        &mut self,
        artifact: &Artifact,
        upload: Option<&mut UploadProgress<'_>>,
    ) -> Result<Settled, Error> {
        let answer = within(START_TIMEOUT, "start the runner", self.wire.answer()).await?;
        let mut uploaded = false;
        if answer.get("state") != "ready" {
            let Some(progress) = upload else { return Ok(Settled::NotThere(answer)) };
            install::check_fit(&answer, artifact)?;
            let payload =
                if answer.get("encoding") == "gzip" { &artifact.gzip } else { &artifact.bytes };
            // The script that stopped reading has said why.
            let sent = self.upload(payload, progress).await;
            let installed = within(INSTALL_TIMEOUT, "install the runner", self.wire.answer()).await;
            match (sent, installed) {
                (_, Ok(answer)) if answer.get("installed") == artifact.sha256 => uploaded = true,
                (_, Ok(answer)) => return Err(install::refusal(&answer)),
                (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
            }
        }
        within(START_TIMEOUT, "start the runner", self.await_hello(&artifact.sha256)).await?;
        self.wire.renew_lease();
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
            self.wire.feed(bytes).await.map_err(failed)
        })
        .await
    }

    /// What the runner said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for the host's facts, and for what `query` adds to them.
    ///
    /// # Errors
    /// The runner or the connection failed, or the answer did not come in time.
    pub async fn facts(&mut self, query: FactsQuery) -> Result<HostFacts, Error> {
        let mut facts = None;
        self.request(Unit::Facts(query), UNIT_TIMEOUT, &mut |event| {
            if let UnitEvent::Reply(Reply::Facts(found)) = event {
                facts = Some(*found);
            }
        })
        .await?;
        facts.ok_or(Error::Unexpected { expected: "facts", found: "the end of the request" })
    }

    /// Runs one unit to its end and hands each of its messages to `on_event`. No other request may be
    /// open.
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
            let id = self.open(unit).await?;
            loop {
                let incoming = self.incoming().await?;
                match incoming.event {
                    _ if incoming.id != id => {
                        return Err(Error::Unexpected {
                            expected: "an answer to the open request",
                            found: "one of another",
                        });
                    }
                    UnitEvent::Finished(end) => return end,
                    event => on_event(event),
                }
            }
        };
        within(limit, "answer", work).await
    }

    /// Starts a unit. Its messages come out of [`Self::incoming`]; the caller sets the time limits.
    ///
    /// # Errors
    /// The runner or the connection failed.
    pub async fn open(&mut self, unit: Unit) -> Result<RequestId, Error> {
        let ids = self.open_all([unit]).await?;
        ids.into_iter().next().ok_or(Error::Unexpected { expected: "an id", found: "none" })
    }

    /// Starts units, all of them in one write. Returns the ids in their order.
    ///
    /// # Errors
    /// The runner or the connection failed.
    pub async fn open_all(
        &mut self,
        units: impl IntoIterator<Item = Unit>,
    ) -> Result<Vec<RequestId>, Error> {
        let mut ids = Vec::new();
        for unit in units {
            let id = self.next_id();
            self.wire.queue(&ToRunner::Request { id, unit })?;
            ids.push(id);
        }
        self.wire.write_out().await?;
        Ok(ids)
    }

    /// Says these things, all of them in one write, and returns when the first byte of it was handed
    /// to the connection.
    ///
    /// # Errors
    /// The connection failed.
    ///
    /// # Cancel safety
    /// Safe for the session: what is not written yet goes out before anything else.
    pub async fn say(
        &mut self,
        messages: impl IntoIterator<Item = ToRunner>,
    ) -> Result<Instant, Error> {
        for message in messages {
            self.wire.queue(&message)?;
        }
        self.wire.write_out().await
    }

    /// The next message of any open request. The lease is renewed meanwhile.
    ///
    /// # Errors
    /// The runner or the connection failed, or it said something about a request that is not open. A
    /// request that failed is not an error of the session: it is in [`UnitEvent::Finished`].
    ///
    /// # Cancel safety
    /// Safe: no message is lost.
    pub async fn incoming(&mut self) -> Result<Incoming, Error> {
        let (message, at) = self.wire.next_message().await?;
        let found = name(&message);
        let (id, event) = match message {
            FromRunner::Progress(progress) => (progress.id, UnitEvent::Progress(progress)),
            FromRunner::Reply { id, reply } => (id, UnitEvent::Reply(reply)),
            FromRunner::Finished { id, outcome } => (id, UnitEvent::Finished(finished(outcome))),
            FromRunner::Hello(_) => {
                return Err(Error::Unexpected { expected: "an answer to an open request", found });
            }
        };
        let Some(count) = self.open.get_mut(&id) else {
            return Err(Error::Unexpected { expected: "an answer to an open request", found });
        };
        // What is relayed is bounded by its own windows, and may go on for days.
        if !matches!(event, UnitEvent::Reply(Reply::Relay(_))) {
            *count += 1;
        }
        if *count > MAX_MESSAGES {
            return Err(Error::Unexpected { expected: "the end of a request", found: "a flood" });
        }
        if matches!(event, UnitEvent::Finished(_)) {
            self.open.remove(&id);
        }
        Ok(Incoming { id, event, at })
    }

    /// How long a small question and its answer take: the unit `echo` is one that no runner knows,
    /// and which the protocol has it refuse at once. No other request may be open.
    ///
    /// # Errors
    /// The runner or the connection failed, or there was no answer in time.
    pub async fn round_trip(&mut self) -> Result<Duration, Error> {
        /// A request of a unit that [`Unit`] has no name for.
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Later {
            Request { id: RequestId, unit: BTreeMap<&'static str, BTreeMap<&'static str, u8>> },
        }
        let id = self.next_id();
        let unit = BTreeMap::from([("echo", BTreeMap::new())]);
        let answer = async {
            self.wire.queue(&Later::Request { id, unit })?;
            let begun = self.wire.write_out().await?;
            match self.incoming().await? {
                Incoming { id: answered, event: UnitEvent::Finished(_), at } if answered == id => {
                    Ok(at.saturating_duration_since(begun))
                }
                _ => Err(Error::Unexpected { expected: "an echo", found: "something else" }),
            }
        };
        within(UNIT_TIMEOUT, "answer", answer).await
    }

    fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        self.open.insert(id, 0);
        id
    }

    /// Ends the runner and closes its channel. The runner is given a moment to end by itself;
    /// closing the channel ends it in any case.
    pub async fn close(mut self) {
        let orderly = async {
            if self.say([ToRunner::Shutdown {}]).await.is_ok() {
                while self.wire.next_message().await.is_ok() {}
            }
        };
        let _ended_or_not = tokio::time::timeout(SHUTDOWN_TIMEOUT, orderly).await;
        self.wire.close().await;
    }

    /// Reads the runner's magic line and its hello.
    async fn await_hello(&mut self, sha256: &str) -> Result<(), Error> {
        self.wire.await_magic().await?;
        match self.wire.next_message().await?.0 {
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

/// A message, whose it is, and when it came.
#[derive(Debug)]
pub struct Incoming {
    /// The request.
    pub id: RequestId,
    /// What it says.
    pub event: UnitEvent,
    /// When the bytes that end it were read.
    pub at: Instant,
}

/// A message of a running unit.
#[derive(Debug)]
pub enum UnitEvent {
    /// How far it is.
    Progress(Progress),
    /// A result.
    Reply(Reply),
    /// Its end, and whether that is a good one. No message of it comes after this.
    Finished(Result<(), Error>),
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

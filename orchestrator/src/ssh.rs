//! SSH to hosts: who is trusted, how one gets in, and what may run over the connection.
//!
//! # Shape
//! - [`connect`] goes from an [`Endpoint`] (through jumps, each pinned and authenticated on its
//!   own) to a [`Connection`], which is a [`Transport`]. [`HostConnections`] keeps at most two of
//!   them per host.
//! - [`trust`](TrustPolicy) decides about host keys inside the key exchange, before the first
//!   byte of authentication; [`known_hosts`] is our own reader of OpenSSH's files.
//! - Each connection has one protocol task (the library's) and one task per open channel (ours).
//!   The channel tasks always read, so that the protocol task never waits for a slow reader.
//!
//! # Who ends what
//! Dropping a [`Connection`] cuts its stream; the protocol task and all channel tasks end by
//! that, and so does the connection to the jump below. [`Transport::close`] does the same after
//! a goodbye and waits for it. Dropping a process or an exec closes its channel.
//!
//! # What must not be here
//! No password, no agent forwarding, no channel that a server opens, no host key that is
//! believed without a source, no knowledge of what is run, no environment variable, no `$HOME`.

mod auth;
mod certificate;
mod channel;
mod circuit;
mod connect;
mod frame;
mod gate;
mod handler;
pub mod known_hosts;
mod limits;
mod link;
mod pool;
mod slots;
mod stream;
mod trust;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::auth::{Identities, NoPassphrase, PassphraseFile, PassphraseProvider, Secret};
pub use self::circuit::{Circuit, Clock, SystemClock};
pub use self::gate::Gate;
pub use self::limits::Limits;
pub use self::pool::{HostConnections, Lane};
pub use self::trust::{HostKeyDecision, HostKeySource, InvalidStoredKey, StoredPins, TrustPolicy};

use self::channel::{Ended, Job, Sink, Source, Target, pump};
use self::connect::Step;
use self::link::Link;
use crate::host_spec::Endpoint;
use crate::transport::{
    Capture, Error, ExecOutput, ExecRequest, Failure, Feed, Hop, HostKeyProblem, PresentedKey,
    Process, ProcessHandle, RemoteCommand, Transport, bounded_pipe,
};

/// Bytes that wait in front of a channel's input: one SSH packet and a bit.
const STDIN_BUFFER_BYTES: usize = 64 * 1024;

/// What connecting needs to know besides the endpoint. One for a whole operation: its gate and
/// its identities are shared by all hosts.
pub struct SshContext {
    /// Deadlines, caps and counts.
    pub limits: Arc<Limits>,
    /// Who is trusted.
    pub trust: TrustPolicy,
    /// Private keys, read and decrypted once.
    pub identities: Identities,
    /// The agent for endpoints that take it from the environment: the value of
    /// `SSH_AUTH_SOCK`, which the caller reads.
    pub agent_socket: Option<PathBuf>,
    /// Unauthenticated connects per server.
    pub gate: Gate,
}

impl SshContext {
    /// A context without passphrases and agent.
    #[must_use]
    pub fn new(limits: Limits, trust: TrustPolicy) -> Self {
        let gate = Gate::new(limits.gate);
        let limits = Arc::new(limits);
        Self { limits, trust, identities: Identities::default(), agent_socket: None, gate }
    }

    /// Reads the keys of these servers now, so that a person is asked for passphrases before an
    /// operation begins and not in its middle. Keys that cannot be used are reported by the
    /// connects that need them.
    ///
    /// # Cancel safety
    /// Safe: keys that were read stay read.
    pub async fn unlock(&self, endpoints: impl IntoIterator<Item = &Endpoint>) {
        let mut seen = HashSet::new();
        for endpoint in endpoints {
            let keys = (&endpoint.identity_files, &endpoint.certificate_files, &endpoint.agent);
            if seen.insert(keys) {
                let socket = self.agent_socket.as_deref();
                let patience = self.limits.auth;
                let prepared = auth::prepare(endpoint, &self.identities, socket, patience).await;
                drop(prepared);
            }
        }
    }
}

/// An authenticated connection to a host. Dropping it ends it.
pub struct Connection {
    link: Arc<Link>,
    decisions: Vec<HostKeyDecision>,
    _cut: DropGuard,
}

/// Connects to `endpoint`, through `jumps` if there are any, first hop first.
///
/// Each server's host key is judged before anything of authentication is sent to it. Failures
/// that pass by themselves are tried again as [`Limits`] say.
///
/// # Errors
/// [`Error::reason`] says at which stage, [`Error::server`] and [`Error::hop`] at which server.
///
/// # Cancel safety
/// Dropping the future ends everything that it started.
pub async fn connect(
    endpoint: &Endpoint,
    jumps: &[Endpoint],
    context: &SshContext,
) -> Result<Connection, Error> {
    let started = Instant::now();
    let (through, mut decisions) = approach(jumps, context, started).await?;
    let step = Step::new(context, endpoint, Hop::Host, started, false)?;
    let (link, decision) = step.take(through).await?;
    decisions.push(decision);
    let cut = link.cut.clone().drop_guard();
    Ok(Connection { link: Arc::new(link), decisions, _cut: cut })
}

/// Looks at the host key of `endpoint` without trusting it or logging in there. Jumps are
/// trusted and logged in to as in [`connect`].
///
/// # Errors
/// As [`connect`], and when the key is revoked.
pub async fn look_at_host_key(
    endpoint: &Endpoint,
    jumps: &[Endpoint],
    context: &SshContext,
) -> Result<PresentedKey, Error> {
    let started = Instant::now();
    let (through, _) = approach(jumps, context, started).await?;
    let step = Step::new(context, endpoint, Hop::Host, started, true)?;
    let looked = step.look(through).await;
    match looked {
        Ok(never) => match never {},
        Err(error) => match error.host_key() {
            Some(HostKeyProblem::Unknown(presented)) => Ok(presented.clone()),
            _ => Err(error),
        },
    }
}

/// Connects to the jumps, each through the one before.
async fn approach(
    jumps: &[Endpoint],
    context: &SshContext,
    started: Instant,
) -> Result<(Option<Box<Link>>, Vec<HostKeyDecision>), Error> {
    let mut through = None;
    let mut decisions = Vec::new();
    for (index, jump) in jumps.iter().enumerate() {
        let hop = Hop::Jump { number: index + 1, of: jumps.len() };
        let step = Step::new(context, jump, hop, started, false)?;
        let (link, decision) = step.take(through).await?;
        decisions.push(decision);
        through = Some(Box::new(link));
    }
    Ok((through, decisions))
}

/// What a channel's task answers.
type Answer = oneshot::Receiver<Result<Ended, Failure>>;

impl Connection {
    /// The host keys that were believed on the way, jumps first and the host last. The caller
    /// records those that are new.
    #[must_use]
    pub fn decisions(&self) -> &[HostKeyDecision] {
        &self.decisions
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.link.is_gone()
    }

    /// Waits until the connection has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn gone(&self) {
        self.link.gone().await;
    }

    /// Connects to a Unix socket on the host (`direct-streamlocal@openssh.com`).
    ///
    /// What the socket sends waits in a bounded buffer: a reader that falls behind by
    /// [`Limits::unread_bytes`] finds an error, and the channel is closed.
    ///
    /// # Errors
    /// sshd forbids it, nothing listens there, or the link broke.
    ///
    /// # Cancel safety
    /// Dropping the future or the stream closes the channel.
    pub async fn open_socket(&self, path: &str) -> Result<SocketStream, Error> {
        let began = Instant::now();
        let deadline = self.link.limits.handshake;
        let target = Target::Socket { path: path.to_owned() };
        let opened = self.start(target, deadline).await;
        let (process, _answer) = opened.map_err(|failure| self.link.error(began, failure))?;
        let Started { stdin, stdout, cancel, .. } = process;
        let io = tokio::io::join(stdout, stdin);
        Ok(SocketStream { io, _cancel: cancel.drop_guard() })
    }

    fn launch(&self, job: Job) -> Answer {
        let (answer, answered) = oneshot::channel();
        let link = Arc::clone(&self.link);
        self.link.pumps.spawn(async move {
            let ended = pump(link, job).await;
            // Nobody may be left to hear it.
            let _ = answer.send(ended);
        });
        answered
    }

    async fn run(&self, request: ExecRequest) -> Result<ExecOutput, Failure> {
        let ExecRequest { command, stdin, deadline, stdout_cap, stderr_cap, .. } = request;
        let cancel = CancellationToken::new();
        let _abandon = cancel.clone().drop_guard();
        let running = Arc::new(AtomicBool::new(false));
        let (stdout, stderr) = (Capture::new(stdout_cap), Capture::new(stderr_cap));
        let answer = self.launch(Job {
            target: exec_target(&command),
            source: Source::Feed(Feed::new(stdin, request.progress), request.stall_timeout),
            sink: Sink::Capture { stdout, stderr },
            cancel,
            started: None,
            running: Arc::clone(&running),
        });
        let ended = match tokio::time::timeout(deadline, answer).await {
            Ok(ended) => ended.unwrap_or_else(|_| Err(self.link.ending.failure()))?,
            Err(_) => return Err(self.too_late(&running, deadline)),
        };
        let (stdout, stderr) = ended.captured.ok_or(Failure::Closed)?;
        let (stdout, stdout_truncated) = stdout.finish();
        let (stderr, stderr_truncated) = stderr.finish();
        Ok(ExecOutput { stdout, stderr, status: ended.status, stdout_truncated, stderr_truncated })
    }

    /// What it means that a deadline has passed.
    fn too_late(&self, running: &AtomicBool, deadline: Duration) -> Failure {
        if running.load(Ordering::Acquire) {
            Failure::ExecTimeout(deadline)
        } else if self.link.slots.is_full() {
            Failure::SessionsExhausted { limit: self.link.slots.limit() }
        } else {
            Failure::LoginTimeout(deadline)
        }
    }

    /// Starts a channel whose ends are streams and waits until it runs.
    async fn start(
        &self,
        target: Target,
        deadline: Duration,
    ) -> Result<(Started, Answer), Failure> {
        let capacity = self.link.limits.unread_bytes;
        let (stdout, stdout_reader) = bounded_pipe(capacity);
        let (stderr, stderr_reader) = bounded_pipe(capacity);
        let (stdin, stdin_reader) = tokio::io::duplex(STDIN_BUFFER_BYTES);
        let cancel = CancellationToken::new();
        let abandon = cancel.clone().drop_guard();
        let running = Arc::new(AtomicBool::new(false));
        let (started, has_started) = oneshot::channel();
        let mut answer = self.launch(Job {
            target,
            source: Source::Pipe(stdin_reader),
            sink: Sink::Pipe { stdout, stderr, capacity },
            cancel,
            started: Some(started),
            running: Arc::clone(&running),
        });
        match tokio::time::timeout(deadline, has_started).await {
            Ok(Ok(())) => {}
            // The task ended before it ran.
            Ok(Err(_)) => {
                let ended = (&mut answer).await;
                let ended = ended.unwrap_or_else(|_| Err(self.link.ending.failure()));
                return Err(ended.err().unwrap_or(Failure::Closed));
            }
            Err(_) => return Err(self.too_late(&running, deadline)),
        }
        let cancel = abandon.disarm();
        let started = Started { stdin, stdout: stdout_reader, stderr: stderr_reader, cancel };
        Ok((started, answer))
    }
}

struct Started {
    stdin: tokio::io::DuplexStream,
    stdout: crate::transport::PipeReader,
    stderr: crate::transport::PipeReader,
    cancel: CancellationToken,
}

fn exec_target(command: &RemoteCommand) -> Target {
    let marker = frame::new_marker();
    Target::Exec { line: command.framed_line(&marker), marker }
}

impl Transport for Connection {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, Error>> {
        async move {
            let began = Instant::now();
            self.run(request).await.map_err(|failure| self.link.error(began, failure))
        }
        .boxed()
    }

    fn spawn(
        &self,
        command: RemoteCommand,
        start_deadline: Duration,
    ) -> BoxFuture<'_, Result<Process, Error>> {
        async move {
            let began = Instant::now();
            let started = self.start(exec_target(&command), start_deadline).await;
            let (started, answer) = started.map_err(|failure| self.link.error(began, failure))?;
            let Started { stdin, stdout, stderr, cancel } = started;
            let place = self.link.place.clone();
            let outcome = answer.map(move |ended| {
                let ended = ended.unwrap_or(Err(Failure::Lost(None)));
                ended
                    .map(|ended| ended.status)
                    .map_err(|failure| Error::new(place, began.elapsed(), failure))
            });
            Ok(Process {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(stderr),
                handle: ProcessHandle::new(outcome.boxed(), cancel),
            })
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.link.close().boxed()
    }
}

/// A connection to a Unix socket on a host. Dropping it closes its channel.
pub struct SocketStream {
    io: tokio::io::Join<crate::transport::PipeReader, tokio::io::DuplexStream>,
    _cancel: DropGuard,
}

impl AsyncRead for SocketStream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

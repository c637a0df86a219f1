//! What runs over a connection: commands, processes and sockets, each a channel with a task of
//! its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::{Ended, Job, Phase, Sink, Source, Target, pump};
use super::frame;
use super::link::Link;
use super::trust::HostKeyDecision;
use crate::transport::{
    Capture, Error, ExecOutput, ExecRequest, Failure, Feed, Process, ProcessHandle, RemoteCommand,
    Transport, bounded_pipe,
};

/// Bytes that wait in front of a channel's input: one SSH packet and a bit.
const STDIN_BUFFER_BYTES: usize = 64 * 1024;

/// An authenticated connection to a host. Dropping it ends it.
pub struct Connection {
    link: Arc<Link>,
    decisions: Vec<HostKeyDecision>,
    _cut: DropGuard,
}

/// What a channel's task answers.
type Answer = oneshot::Receiver<Result<Ended, Failure>>;

impl Connection {
    pub(super) fn new(link: Link, decisions: Vec<HostKeyDecision>) -> Self {
        let cut = link.cut.clone().drop_guard();
        Self { link: Arc::new(link), decisions, _cut: cut }
    }

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
    /// [`Limits::unread_bytes`](super::Limits::unread_bytes) finds an error, and the channel is closed.
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
        let phase = Phase::default();
        let (stdout, stderr) = (Capture::new(stdout_cap), Capture::new(stderr_cap));
        let answer = self.launch(Job {
            target: exec_target(&command),
            source: Source::Feed(Feed::new(stdin, request.progress), request.stall_timeout),
            sink: Sink::Capture { stdout, stderr },
            cancel,
            started: None,
            phase: phase.clone(),
        });
        let ended = match tokio::time::timeout(deadline, answer).await {
            Ok(ended) => ended.unwrap_or_else(|_| Err(self.link.ending.failure()))?,
            Err(_) => return Err(self.too_late(&phase, deadline)),
        };
        let (stdout, stderr) = ended.captured.ok_or(Failure::Closed)?;
        let (stdout, stdout_truncated) = stdout.finish();
        let (stderr, stderr_truncated) = stderr.finish();
        Ok(ExecOutput { stdout, stderr, status: ended.status, stdout_truncated, stderr_truncated })
    }

    /// What it means that a deadline has passed.
    fn too_late(&self, phase: &Phase, deadline: Duration) -> Failure {
        if phase.is_running() {
            Failure::ExecTimeout(deadline)
        } else if phase.is_waiting() {
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
        let phase = Phase::default();
        let (started, has_started) = oneshot::channel();
        let mut answer = self.launch(Job {
            target,
            source: Source::Pipe(stdin_reader),
            sink: Sink::Pipe { stdout: Some(stdout), stderr, capacity },
            cancel,
            started: Some(started),
            phase: phase.clone(),
        });
        match tokio::time::timeout(deadline, has_started).await {
            Ok(Ok(())) => {}
            // The task ended before it ran.
            Ok(Err(_)) => {
                let ended = (&mut answer).await;
                let ended = ended.unwrap_or_else(|_| Err(self.link.ending.failure()));
                return Err(ended.err().unwrap_or(Failure::Closed));
            }
            Err(_) => return Err(self.too_late(&phase, deadline)),
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

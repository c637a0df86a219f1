//! This machine as a transport: the same command lines through a local `sh -c`.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus as OsStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::capture::DISCARD_LIMIT_BYTES;
use super::feed::Feed;
use super::{
    Capture, Error, ExecOutput, ExecRequest, ExitStatus, Failure, Hop, Place, Process,
    ProcessHandle, RemoteCommand, Transport,
};

/// Runs commands on this machine. Each gets its own process group, which is killed when the
/// command is abandoned.
#[derive(Debug, Default)]
pub struct Local {
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl Local {
    /// A transport to this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn start(&self, command: &RemoteCommand) -> Result<Group, Failure> {
        if self.closed.is_cancelled() {
            return Err(Failure::Closed);
        }
        let child = Command::new("sh")
            .arg("-c")
            // The outer shell becomes the command, so that its status is the command's.
            .arg(format!("exec {}", command.line()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::Spawn)?;
        Ok(Group { child })
    }

    async fn run(&self, request: ExecRequest) -> Result<ExecOutput, Failure> {
        let ExecRequest { command, stdin, deadline, stdout_cap, stderr_cap, .. } = request;
        let mut group = self.start(&command)?;
        let (input, output, errors) =
            (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let feed = Feed::new(stdin, request.progress);
        let work = async {
            let (fed, stdout, stderr) = tokio::join!(
                write_all(feed, input, request.stall_timeout),
                read_all(output, stdout_cap),
                read_all(errors, stderr_cap),
            );
            fed?;
            let (stdout, stdout_truncated) = stdout?;
            let (stderr, stderr_truncated) = stderr?;
            let status = group.wait().await?;
            Ok(ExecOutput { stdout, stderr, status, stdout_truncated, stderr_truncated })
        };
        // Whichever comes first, the group's drop ends what still runs.
        tokio::select! {
            done = tokio::time::timeout(deadline, work) => {
                done.unwrap_or(Err(Failure::ExecTimeout(deadline)))
            }
            () = self.closed.cancelled() => Err(Failure::Closed),
        }
    }

    fn run_detached(&self, command: &RemoteCommand) -> Result<Process, Failure> {
        let mut group = self.start(command)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take())
        else {
            return Err(Failure::Spawn(std::io::ErrorKind::BrokenPipe.into()));
        };
        let cancel = self.closed.child_token();
        let (answer, outcome) = oneshot::channel();
        let started = Instant::now();
        let cancelled = cancel.clone();
        self.tasks.spawn(async move {
            // Both branches own nothing that a lost race would drop half-done.
            let ended = tokio::select! {
                ended = group.wait() => ended,
                () = cancelled.cancelled() => Err(Failure::Closed),
            };
            drop(group);
            let _ = answer.send(ended.map_err(|failure| error(started, failure)));
        });
        Ok(Process {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            handle: ProcessHandle::new(
                outcome.map(|ended| ended.unwrap_or_else(|_| Err(Error::process_gone()))).boxed(),
                cancel,
            ),
        })
    }
}

impl Transport for Local {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, Error>> {
        async move {
            let started = Instant::now();
            self.run(request).await.map_err(|failure| error(started, failure))
        }
        .boxed()
    }

    fn spawn(
        &self,
        command: RemoteCommand,
        _start_deadline: Duration,
    ) -> BoxFuture<'_, Result<Process, Error>> {
        async move {
            let started = Instant::now();
            self.run_detached(&command).map_err(|failure| error(started, failure))
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closed.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
        .boxed()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn error(started: Instant, failure: Failure) -> Error {
    let place = Place { server: "this machine".to_owned(), hop: Hop::Host };
    Error::new(place, started.elapsed(), failure)
}

/// A child that leads a process group; dropping it kills what is left of the group.
struct Group {
    child: Child,
}

impl Group {
    async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.child.wait().await.map(status).map_err(Failure::Spawn)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is None once the child is reaped: its group number may belong to others by then.
        let leader = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // Fails only when nobody is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn status(status: OsStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code.cast_unsigned()),
        (None, Some(signal)) => {
            let name = Signal::from_named_raw(signal)
                .map_or_else(|| signal.to_string(), |named| format!("{named:?}"));
            // rustix shows them as `"Signal::TERM"`.
            ExitStatus::Signal(name.trim_matches('"').trim_start_matches("Signal::").to_owned())
        }
        (None, None) => ExitStatus::Missing,
    }
}

async fn write_all(
    mut feed: Feed,
    pipe: Option<ChildStdin>,
    stall: Duration,
) -> Result<(), Failure> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    while let Some(chunk) = feed.next().await? {
        for part in chunk.chunks(32 * 1024) {
            match tokio::time::timeout(stall, pipe.write_all(part)).await {
                Ok(Ok(())) => feed.took(part.len()),
                // A command may end without reading its input; its status tells what that meant.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Failure::Stalled { sent: feed.sent(), timeout: stall }),
            }
        }
    }
    Ok(())
}

async fn read_all(
    pipe: Option<impl AsyncRead + Unpin>,
    cap: usize,
) -> Result<(Vec<u8>, bool), Failure> {
    let mut capture = Capture::new(cap);
    let mut buf = vec![0; 32 * 1024];
    if let Some(mut pipe) = pipe {
        loop {
            let n = pipe.read(&mut buf).await.map_err(|e| Failure::Lost(Some(e.into())))?;
            let Some(part) = buf.get(..n).filter(|part| !part.is_empty()) else { break };
            capture.push(part).map_err(|_| Failure::Flood(DISCARD_LIMIT_BYTES))?;
        }
    }
    Ok(capture.finish())
}

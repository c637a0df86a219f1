//! One command on an embedded host: its process group, its pipes, and its SSH channel.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::process_groups::ProcessGroups;
use super::stdin_queue::StdinQueue;

/// `PATH` of a command: where a system has its own programs. The path of this process is not
/// passed on, since a demo should behave as a bare host does.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes read from a pipe at a time: the usual largest SSH packet.
const READ_BYTES: usize = 32 << 10;

/// `SSH_EXTENDED_DATA_STDERR`, RFC 4254 section 5.2.
const STDERR: u32 = 1;

/// How one host starts commands.
#[derive(Debug)]
pub(super) struct Shell {
    /// Name of the host.
    pub(super) host: String,
    /// Working directory and `$HOME`.
    pub(super) home: PathBuf,
    /// Where unread stdin spills to.
    pub(super) spill: PathBuf,
    pub(super) groups: Arc<ProcessGroups>,
    pub(super) tasks: TaskTracker,
}

/// A started command, and how to know that it has ended without reaping it.
pub(super) struct Started {
    child: Child,
    leader: Pid,
    /// Opened before the start, so that no SIGCHLD is missed.
    child_signals: Signal,
}

impl Shell {
    /// Runs `/bin/sh -c <line>` in a process group of its own.
    pub(super) fn spawn(&self, line: &[u8]) -> io::Result<Started> {
        let child_signals = signal(SignalKind::child())?;
        let child = tokio::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(line))
            .current_dir(&self.home)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.home)
            .env("USER", "embedded")
            .env("LOGNAME", "embedded")
            .env("SHELL", "/bin/sh")
            .env("LANG", "C.UTF-8")
            .env("ORCHESTRATOR_EMBEDDED_HOST", &self.host)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the shell has no process id"))?;
        self.groups.add(leader);
        Ok(Started { child, leader, child_signals })
    }
}

/// A command that is to be run to its end.
pub(super) struct Command {
    pub(super) child: Started,
    pub(super) stdin: Arc<StdinQueue>,
    pub(super) writer: ChannelWriteHalf<Msg>,
    pub(super) session: Handle,
    /// Cancelled when the channel, the connection or the fleet ends.
    pub(super) closed: CancellationToken,
    /// Tells the connection that the channel is free.
    pub(super) done: DropGuard,
}

impl Command {
    /// Carries bytes until the command has exited and its output has ended, or until its channel
    /// is closed; then kills what is left of the process group and reaps the leader.
    pub(super) async fn run(self, shell: Arc<Shell>) {
        let Self { child: started, stdin, writer, session, closed, done } = self;
        let Started { mut child, leader, mut child_signals } = started;
        let (pipe_in, pipe_out, pipe_err) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());

        let finished = {
            let exit = async {
                // An error (not our child) cannot happen before we reap it; no status is sent then.
                if let Ok(status) = exited(leader, &mut child_signals).await {
                    let _ = send_status(&writer, &session, &status).await;
                }
            };
            let output = async {
                tokio::join!(
                    exit,
                    copy_out(pipe_out, &writer, None),
                    copy_out(pipe_err, &writer, Some(STDERR)),
                );
            };
            let input = async {
                copy_in(&stdin, pipe_in).await;
                stdin.discard();
                std::future::pending::<()>().await;
            };
            // Cancel safe: a loser is dropped for good, and bytes in flight in it are of no use,
            // either because the command has ended or because the client has gone.
            tokio::select! {
                () = output => true,
                () = input => false,
                () = closed.cancelled() => false,
            }
        };

        shell.groups.kill(leader);
        let _ = child.wait().await;
        stdin.discard();
        if finished {
            let _ = writer.eof().await;
            let _ = writer.close().await;
        }
        drop(done);
    }
}

/// Feeds stdin until its end, or until the command no longer reads.
async fn copy_in(queue: &StdinQueue, pipe: Option<ChildStdin>) {
    let Some(mut pipe) = pipe else { return };
    loop {
        match queue.next().await {
            Ok(Some(bytes)) => {
                if pipe.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "embedded host ends a command's stdin");
                return;
            }
        }
    }
}

/// Sends one output pipe, as fast as the client's window opens.
async fn copy_out(
    pipe: Option<impl AsyncRead + Unpin>,
    writer: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
) {
    let Some(mut pipe) = pipe else { return };
    loop {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        match pipe.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let sent = match extended {
            None => writer.data_bytes(bytes).await,
            Some(code) => writer.extended_data_bytes(code, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Waits until the leader has exited, leaving it unreaped so that its group id stays its own.
async fn exited(leader: Pid, child_signals: &mut Signal) -> io::Result<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(leader), options) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if child_signals.recv().await.is_none() {
            return Err(io::Error::other("SIGCHLD is no longer delivered"));
        }
    }
}

async fn send_status(
    writer: &ChannelWriteHalf<Msg>,
    session: &Handle,
    status: &WaitIdStatus,
) -> Result<(), ()> {
    if let Some(number) = status.terminating_signal() {
        let (name, core) = (signal_name(number), status.dumped());
        session.exit_signal_request(writer.id(), name, core, String::new(), String::new()).await
    } else {
        // The low eight bits are all there is of it (POSIX waitpid).
        let code = status.exit_status().unwrap_or_default().unsigned_abs() & 0xff;
        writer.exit_status(code).await.map_err(drop)
    }
}

/// The name of a signal in the protocol (RFC 4254 section 6.10).
fn signal_name(number: i32) -> Sig {
    match number {
        libc::SIGABRT => Sig::ABRT,
        libc::SIGALRM => Sig::ALRM,
        libc::SIGFPE => Sig::FPE,
        libc::SIGHUP => Sig::HUP,
        libc::SIGILL => Sig::ILL,
        libc::SIGINT => Sig::INT,
        libc::SIGKILL => Sig::KILL,
        libc::SIGPIPE => Sig::PIPE,
        libc::SIGQUIT => Sig::QUIT,
        libc::SIGSEGV => Sig::SEGV,
        libc::SIGTERM => Sig::TERM,
        libc::SIGUSR1 => Sig::USR1,
        libc::SIGUSR2 => Sig::Custom("USR2".into()),
        libc::SIGBUS => Sig::Custom("BUS@orchestrator".into()),
        other => Sig::Custom(format!("SIG{other}@orchestrator")),
    }
}

//! Running commands on a host, whatever lies between: the one interface that the rest of the
//! orchestrator sees.
//!
//! There are exactly two implementations: [`crate::ssh::Connection`] and [`local::Local`] (this
//! machine, for `--transport local` and for tests). Both take the same [`RemoteCommand`], and
//! both keep the same promises:
//!
//! - what a host sends is bounded: [`Transport::exec`] keeps at most the caps of its request and
//!   counts the rest, [`Transport::spawn`] buffers a bounded amount and ends the process on
//!   overflow; neither ever holds up anything else on the same connection;
//! - every call has a deadline;
//! - dropping a future or a [`Process`] releases what it held on the host's side of the link.
//!
//! Nothing here reads the environment, opens a network connection or knows what is run.

mod capture;
mod command;
mod error;
mod feed;
pub mod local;
mod pipe;
mod process;
mod quote;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncRead;

pub use self::command::{CommandError, MAX_LINE_BYTES, RemoteCommand};
pub use self::error::{
    Error, Excerpt, Failure, Hop, HostKeyProblem, IdentityProblem, KeyLabel, OfferedKey,
    PresentedKey,
};
pub use self::process::{Process, ProcessHandle, ReadStream, WriteStream};

pub(crate) use self::capture::{Capture, DISCARD_LIMIT_BYTES};
pub(crate) use self::error::Place;
pub(crate) use self::feed::Feed;
pub(crate) use self::pipe::{PipeReader, PipeWriter, bounded_pipe};

/// Deadline of an exec that names none: a probe on a loaded host answers within seconds, and
/// rc files that take this long are worth an error of their own.
pub const DEFAULT_EXEC_DEADLINE: Duration = Duration::from_secs(60);

/// How long an upload may make no progress at all. A link that moves not one window in this
/// time is dead even when keepalives still pass.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of each output stream that an exec keeps unless told otherwise: far above any probe's
/// output, far below what would hurt with 64 hosts at once.
pub const DEFAULT_OUTPUT_CAP_BYTES: usize = 1024 * 1024;

/// Runs commands on one host.
pub trait Transport: Send + Sync {
    /// Runs a command to its end and returns what it wrote.
    ///
    /// A non-zero exit status is not an error here: it is in [`ExecOutput::status`].
    ///
    /// # Errors
    /// The command could not be started, did not end by its deadline, did not take its input, or
    /// the link broke.
    ///
    /// # Cancel safety
    /// Dropping the future closes the command's channel; over SSH the remote process may live on,
    /// as with any SSH client without a terminal.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, Error>>;

    /// Starts a command and hands over its streams.
    ///
    /// # Errors
    /// The command could not be started within `start_deadline`.
    ///
    /// # Cancel safety
    /// As [`Transport::exec`].
    fn spawn(
        &self,
        command: RemoteCommand,
        start_deadline: Duration,
    ) -> BoxFuture<'_, Result<Process, Error>>;

    /// Ends everything on this link and the link itself. Idempotent; never fails, because there
    /// is nothing a caller could do about it.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What is fed to a command's standard input.
#[derive(Default)]
pub enum Input {
    /// Nothing: the command sees end of file at once.
    #[default]
    Empty,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// Exactly `len` bytes of a reader, then end of file. A reader that ends early or has more is
    /// an error, and the command is closed without having seen end of file.
    Reader {
        /// Where the bytes come from.
        reader: Box<dyn AsyncRead + Send + Unpin>,
        /// How many there are.
        len: u64,
    },
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Input may be a secret, so its bytes are never shown.
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Reader { len, .. } => write!(f, "Reader({len} bytes)"),
        }
    }
}

/// Called with the bytes of input handed to the link so far.
pub type ProgressFn = Box<dyn FnMut(u64) + Send>;

/// One command to run to its end.
pub struct ExecRequest {
    /// What to run.
    pub command: RemoteCommand,
    /// Its standard input.
    pub stdin: Input,
    /// Time from the call to the end of the command.
    pub deadline: Duration,
    /// Bytes of standard output to keep.
    pub stdout_cap: usize,
    /// Bytes of standard error to keep.
    pub stderr_cap: usize,
    /// Time the command may take none of the input it is offered.
    pub stall_timeout: Duration,
    /// Told how much input has gone out.
    pub progress: Option<ProgressFn>,
}

impl ExecRequest {
    /// A request with no input and the default limits.
    #[must_use]
    pub fn new(command: RemoteCommand) -> Self {
        Self {
            command,
            stdin: Input::Empty,
            deadline: DEFAULT_EXEC_DEADLINE,
            stdout_cap: DEFAULT_OUTPUT_CAP_BYTES,
            stderr_cap: DEFAULT_OUTPUT_CAP_BYTES,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            progress: None,
        }
    }

    /// Sets the input.
    #[must_use]
    pub fn stdin(mut self, stdin: Input) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the deadline, counted from the call.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the caps of both output streams, in bytes.
    #[must_use]
    pub fn caps(mut self, stdout: usize, stderr: usize) -> Self {
        self.stdout_cap = stdout;
        self.stderr_cap = stderr;
        self
    }

    /// Sets how long the input may make no progress.
    #[must_use]
    pub fn stall_timeout(mut self, stall_timeout: Duration) -> Self {
        self.stall_timeout = stall_timeout;
        self
    }

    /// Sets the progress callback.
    #[must_use]
    pub fn progress(mut self, progress: ProgressFn) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecRequest")
            .field("command", &self.command)
            .field("stdin", &self.stdin)
            .field("deadline", &self.deadline)
            .field("stdout_cap", &self.stdout_cap)
            .field("stderr_cap", &self.stderr_cap)
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u32),
    /// A signal ended it; the name has no `SIG` prefix (RFC 4254, 6.10).
    Signal(String),
    /// The channel closed without saying. Output may be incomplete; never success.
    Missing,
}

impl ExitStatus {
    /// Whether the command exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(name) => write!(f, "signal {}", Excerpt::of(name.as_bytes())),
            Self::Missing => f.write_str("no exit status"),
        }
    }
}

/// What a command wrote and how it ended. The bytes are a host's: untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, at most the request's cap.
    pub stdout: Vec<u8>,
    /// Standard error, at most the request's cap.
    pub stderr: Vec<u8>,
    /// How the command ended.
    pub status: ExitStatus,
    /// Whether there was more standard output than the cap.
    pub stdout_truncated: bool,
    /// Whether there was more standard error than the cap.
    pub stderr_truncated: bool,
}

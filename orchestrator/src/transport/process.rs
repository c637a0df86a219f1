//! A running command with its streams.

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Error, ExitStatus};

/// A stream that is read.
pub type ReadStream = Box<dyn AsyncRead + Send + Unpin>;
/// A stream that is written; dropping or shutting it down is end of file for the command.
pub type WriteStream = Box<dyn AsyncWrite + Send + Unpin>;

/// A command that runs. The parts may be moved out and used from different tasks; dropping
/// [`ProcessHandle`] ends the process's channel.
pub struct Process {
    /// Its standard input.
    pub stdin: WriteStream,
    /// Its standard output: bounded, so a reader that falls behind by the whole buffer finds an
    /// error instead of the rest, and the process is closed.
    pub stdout: ReadStream,
    /// Its standard error, bounded likewise.
    pub stderr: ReadStream,
    /// Waits for it or ends it.
    pub handle: ProcessHandle,
}

impl Process {
    /// As [`ProcessHandle::wait`].
    ///
    /// # Errors
    /// As [`ProcessHandle::wait`].
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.handle.wait().await
    }

    /// As [`ProcessHandle::close`].
    pub async fn close(self) {
        self.handle.close().await;
    }
}

/// Waits for a process or ends it.
pub struct ProcessHandle {
    /// Taken once it has answered: a future must not be asked again.
    outcome: Option<BoxFuture<'static, Result<ExitStatus, Error>>>,
    known: Option<ExitStatus>,
    cancel: DropGuard,
}

impl ProcessHandle {
    /// A handle on a pump that answers `outcome` once, at its very end, and that ends soon after
    /// `cancel`.
    pub(crate) fn new(
        outcome: BoxFuture<'static, Result<ExitStatus, Error>>,
        cancel: CancellationToken,
    ) -> Self {
        Self { outcome: Some(outcome), known: None, cancel: cancel.drop_guard() }
    }

    /// Waits until the command has ended and its channel is closed.
    ///
    /// # Errors
    /// The link broke, or the process was closed because nobody read its output. An error is
    /// told once; later calls say that the process is gone.
    ///
    /// # Cancel safety
    /// Safe: the status is kept until it is asked for.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = &self.known {
            return Ok(status.clone());
        }
        let Some(outcome) = &mut self.outcome else {
            return Err(Error::process_gone());
        };
        let answer = outcome.await;
        self.outcome = None;
        let status = answer?;
        self.known = Some(status.clone());
        Ok(status)
    }

    /// Closes the process's channel and waits until that is done.
    pub async fn close(self) {
        let Self { outcome, cancel, .. } = self;
        drop(cancel);
        if let Some(outcome) = outcome {
            // Whatever the outcome is, nobody asked for it.
            let _ = outcome.await;
        }
    }
}

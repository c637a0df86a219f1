//! One authenticated SSH connection: the protocol task, and everything that runs over it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{DisconnectReason, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::ClientHandler;
use super::limits::Limits;
use super::slots::Slots;
use crate::transport::{Error, Excerpt, Failure, Place};

/// Why a connection ended, as the protocol task saw it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(Arc<Mutex<Option<String>>>);

impl Ending {
    pub(super) fn note(&self, reason: &DisconnectReason<super::handler::HandlerError>) {
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("the server said goodbye: {}", Excerpt::of(info.message.as_bytes()))
            }
            DisconnectReason::Error(error) => error.to_string(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    pub(super) fn failure(&self) -> Failure {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Failure::Lost(text.map(Into::into))
    }
}

/// The parts of a connection that its channels share.
pub(super) struct Link {
    pub(super) handle: Handle<ClientHandler>,
    /// Cancelled to end the connection at once, whatever state it is in.
    pub(super) cut: CancellationToken,
    /// Cancelled when the protocol task has ended.
    pub(super) ended: CancellationToken,
    pub(super) ending: Ending,
    /// The pumps of the open channels; each ends by itself soon after `cut`.
    pub(super) pumps: TaskTracker,
    pub(super) slots: Arc<Slots>,
    pub(super) limits: Arc<Limits>,
    pub(super) place: Place,
    /// The connection that this one runs through, kept as long as this one lives.
    pub(super) through: Option<Box<Link>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl Link {
    pub(super) fn error(&self, started: Instant, failure: Failure) -> Error {
        Error::new(self.place.clone(), started.elapsed(), failure)
    }

    /// Says goodbye and waits, for a moment, until every task of this connection has ended; what
    /// has not ended by then is cut.
    pub(super) async fn close(&self) {
        let goodbye = async {
            let reason = russh::Disconnect::ByApplication;
            // A connection that is already gone needs no goodbye.
            let _ = self.handle.disconnect(reason, "", "").await;
            self.ended.cancelled().await;
        };
        let _ = tokio::time::timeout(self.limits.goodbye, goodbye).await;
        self.cut.cancel();
        self.ended.cancelled().await;
        self.pumps.close();
        self.pumps.wait().await;
        if let Some(through) = &self.through {
            Box::pin(through.close()).await;
        }
    }

    /// Waits until the connection is no longer usable.
    pub(super) async fn gone(&self) {
        tokio::select! {
            // Both are plain waits: losing one loses nothing.
            () = self.cut.cancelled() => {}
            () = self.ended.cancelled() => {}
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.cut.is_cancelled() || self.ended.is_cancelled()
    }
}

/// Waits at most `limit` for `future`.
pub(super) async fn within<T>(
    limit: Duration,
    late: Failure,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, future).await.unwrap_or(Err(late))
}

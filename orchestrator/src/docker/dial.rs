//! Where the client's streams come from.

use std::error::Error as StdError;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::reason::Reason;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Questions and short answers.
    Control,
    /// Output of containers: long, and read only as fast as somebody wants it.
    Output,
}

/// Both directions of a stream.
pub trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A stream to the engine's socket. Dropping it closes it.
pub type Stream = Box<dyn Both>;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DialError {
    /// What could not be done, and why.
    pub what: String,
    /// The stable code.
    pub reason: Reason,
    /// What to do about it.
    pub hint: Option<String>,
    /// What is behind it.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Opens streams to the socket of one engine.
pub trait Dial: Send + Sync {
    /// Opens a stream.
    ///
    /// # Errors
    /// The host is not reached, or nothing that may be used listens there.
    fn dial(&self, lane: Lane) -> BoxFuture<'_, Result<Stream, DialError>>;
}

//! Why there is no verdict.

use super::nonces::NoNonce;
use crate::fleet::link::LinkError;
use crate::pow::NoRandomness;
use crate::reason::Reason;
use crate::{runner, store};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The host could not be reached, or did not do its part.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The challenges or their ends could not be recorded.
    #[error("cannot record the challenge")]
    Store(#[source] store::Error),
    /// No challenge could be made.
    #[error("cannot issue a challenge")]
    Random(#[from] NoRandomness),
    /// A proof could not be written as a document.
    #[error("cannot write the proof as a document")]
    Document(#[from] serde_json::Error),
    /// The driver shows no GPU.
    #[error("the NVIDIA driver of the host shows no GPU")]
    NoGpus,
    /// The driver shows no such GPU.
    #[error("the host has no GPU {uuid}")]
    UnknownGpu {
        /// What was asked for.
        uuid: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The GPUs cannot be held for the verification.
    #[error("cannot take a lease of the GPUs")]
    Lease(#[source] store::LeaseError),
    /// The host's key has no SHA-256 fingerprint to bind the challenge to.
    #[error("the host key has no SHA-256 fingerprint")]
    HostId,
    /// The verifier's thread died.
    #[error("the verifier did not end")]
    Verifier(#[source] tokio::task::JoinError),
    /// Who chooses the nonces sent none.
    #[error(transparent)]
    NoNonce(#[from] NoNonce),
    /// The caller stopped it.
    #[error("stopped before it ended")]
    Cancelled,
}

impl From<runner::Error> for VerifyError {
    fn from(error: runner::Error) -> Self {
        Self::Link(LinkError::Runner(error))
    }
}

impl VerifyError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Link(error) => error.reason(),
            Self::Store(_) => Reason::Store,
            Self::Lease(_) => Reason::Lease,
            Self::NoGpus | Self::UnknownGpu { .. } => Reason::GpuNotFound,
            Self::NoNonce(_) => Reason::Deadline,
            Self::Cancelled => Reason::Cancelled,
            Self::Random(_) | Self::Document(_) | Self::HostId | Self::Verifier(_) => Reason::Bug,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Link(error) => error.hint(),
            Self::UnknownGpu { known, .. } => {
                Some(format!("the driver shows: {}", known.join(", ")))
            }
            _ => None,
        }
    }
}

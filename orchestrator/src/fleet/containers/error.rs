//! Why something with a container was not done.

use super::choose::HostDoesNotFit;
use crate::docker::{self, AuthError, PlanError};
use crate::error_chain::causes;
use crate::fleet::link::LinkError;
use crate::ids::HostName;
use crate::reason::Reason;
use crate::runner;
use crate::store::{self, LeaseError};

/// Why something with a container was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The host is not reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] docker::Error),
    /// The GPUs or the host cannot be had.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The plan is against the rules of the host.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The registry's credentials cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The database cannot be read or written.
    #[error("cannot read or record what runs on the host")]
    Store(#[from] store::Error),
    /// The host has not the GPUs.
    #[error("{0}")]
    Gpus(String),
    /// No host has what is wanted.
    #[error("no host fits")]
    NoHostFits(Vec<HostDoesNotFit>),
    /// There is no such container.
    #[error("there is no container {what} of ours{}", host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default())]
    NotFound {
        /// How it was named.
        what: String,
        /// Where it was looked for.
        host: Option<HostName>,
    },
    /// A name stands for several.
    #[error("{what} stands for {} containers", ids.len())]
    Ambiguous {
        /// How it was named.
        what: String,
        /// What it stands for.
        ids: Vec<String>,
    },
    /// The session that holds the container was lost.
    #[error("the session that holds the container was lost")]
    HoldLost(#[source] runner::Error),
    /// The container's output could not be passed on.
    #[error("cannot write the container's output")]
    Output(#[source] std::io::Error),
    /// There is no runner, and the container needs one.
    #[error("a container in the foreground needs the runner, and there is none to upload")]
    NoRunner,
    /// The caller stopped it before the container ran.
    #[error("stopped before the container ran")]
    Cancelled,
}

impl From<runner::Error> for ContainerError {
    fn from(error: runner::Error) -> Self {
        Self::Link(LinkError::Runner(error))
    }
}

impl ContainerError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Link(error) => error.reason(),
            Self::Engine(error) => error.reason(),
            Self::Lease(LeaseError::Store(_)) | Self::Store(_) => Reason::Store,
            Self::Lease(LeaseError::UnknownHost(_)) | Self::Plan(_) | Self::Auth(_) => {
                Reason::Input
            }
            Self::Lease(_) | Self::Gpus(_) => Reason::Lease,
            Self::NoHostFits(_) => Reason::NoHostFits,
            Self::NotFound { .. } | Self::Ambiguous { .. } => Reason::Container,
            Self::HoldLost(error) => error.reason(),
            Self::NoRunner => Reason::Input,
            Self::Output(_) | Self::Cancelled => Reason::Cancelled,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Link(error) => return error.hint(),
            Self::Engine(error) => return error.hint(),
            Self::Auth(error) => return error.hint(),
            Self::HoldLost(error) => return error.hint(),
            Self::Lease(LeaseError::Held(_) | LeaseError::TooFew { .. }) => {
                "`orchestrator ps` shows what runs; `orchestrator stop` ends it"
            }
            Self::Lease(LeaseError::NotTaking { .. }) => {
                "`orchestrator hosts resume` brings a drained host back; `orchestrator deploy` looks at it again"
            }
            Self::Gpus(_) => "`orchestrator hosts show HOST` lists the GPUs that were found",
            Self::Plan(PlanError::Privileged) => {
                "containers = { allow_privileged = true } in the fleet file allows it, after the next deploy"
            }
            Self::Plan(PlanError::OverLimit { .. }) => {
                "ask for less, or raise the limit in `containers` of the fleet file and deploy"
            }
            Self::NotFound { .. } => "`orchestrator ps --all` lists them",
            Self::Ambiguous { ids, .. } => {
                return Some(format!("name one of them: {}", ids.join(", ")));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The messages behind this one.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        match self {
            Self::NoHostFits(hosts) => hosts.iter().map(ToString::to_string).collect(),
            other => causes(other),
        }
    }

    /// Whether another host may do what this one did not.
    #[must_use]
    pub fn is_of_the_host(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Lease(_) | Self::Gpus(_) | Self::Plan(_))
            || matches!(self, Self::Engine(docker::Error::Dial(_) | docker::Error::NoControlGroups))
    }
}

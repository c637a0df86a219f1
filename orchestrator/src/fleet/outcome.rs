//! What an operation reports of each host, while it runs and at its end.

use std::time::Duration;

use serde::Serialize;

use crate::host_state::HostState;
use crate::ids::HostName;
use crate::reason::Reason;

/// What one host's task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reaching it: name, TCP, key exchange, authentication, jumps.
    Connecting,
    /// Looking for the runner.
    Checking,
    /// Sending the runner.
    Uploading {
        /// Bytes that have gone out.
        sent: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Waiting for its facts.
    Facts,
    /// Writing to the database.
    Recording,
}

impl Step {
    /// The step in one or two words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Checking => "checking",
            Self::Uploading { .. } => "uploading",
            Self::Facts => "reading facts",
            Self::Recording => "recording",
        }
    }
}

/// What an operation tells while it runs.
#[derive(Debug, Clone)]
pub enum FleetEvent {
    /// A host's task went on to a step.
    Step {
        /// The host.
        host: HostName,
        /// The step.
        step: Step,
    },
    /// A host's task ended.
    Done(Box<HostOutcome>),
}

/// What an operation changed on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nothing: all was as it should be.
    None,
    /// The runner was uploaded.
    Uploaded,
    /// `--dry-run`: the runner would be uploaded.
    WouldUpload,
}

/// The end of one host's task. Serializes to one row of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct HostOutcome {
    /// The host.
    pub host: HostName,
    /// Whether the host is as it should be now.
    pub ok: bool,
    /// Why not.
    pub reason: Option<Reason>,
    /// The outcome in one sentence.
    pub message: String,
    /// The causes behind the message, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// From the task's start to its end.
    pub elapsed_ms: u64,
    /// What was changed on the host.
    pub change: Change,
    /// The host's state now; absent where nothing is recorded (`--dry-run`).
    pub state: Option<HostState>,
    /// The host key that was accepted, as `SHA256:...`, and by what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// SHA-256 of the runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// The GPUs in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<String>,
    /// The driver's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

impl HostOutcome {
    /// The message and its innermost cause.
    #[must_use]
    pub fn whole_message(&self) -> String {
        match self.causes.last() {
            Some(cause) => format!("{}: {cause}", self.message),
            None => self.message.clone(),
        }
    }

    /// The outcome of a task that did not begin or was stopped.
    #[must_use]
    pub fn stopped(host: HostName, reason: Reason, message: &str, elapsed: Duration) -> Self {
        Self {
            host,
            ok: false,
            reason: Some(reason),
            message: message.to_owned(),
            causes: Vec::new(),
            hint: None,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            change: Change::None,
            state: None,
            host_key: None,
            runner: None,
            gpus: None,
            driver: None,
        }
    }
}

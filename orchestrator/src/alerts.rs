//! Alerts: what is told, to whom, and how it gets there.
//!
//! An [`Alert`] lists the hosts whose state changed, or stays bad for long. [`Channels`] are the ways
//! it goes, each made from the configuration: a webhook, Slack, Discord, mail. A URL is a secret: it
//! is read from a variable or a file, and appears in no error, log or database. What must *not* be
//! here: what was told before and what waits (the store has both), the environment (the caller
//! reads it), anything that prints.

mod body;
mod mail;
mod target;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AlertsConfig;
use crate::ids::HostName;
use crate::printable::printable;
use crate::retry::{RetryPolicy, retry};

pub use target::{Channel, ChannelError, Channels};

/// Hosts that an alert names one by one; the rest is a number. A fleet that lost its network is one
/// message of a page.
const MOST_NAMED: usize = 20;

/// Changes of hosts to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who tells: user and machine of the orchestrator.
    pub from: String,
    /// Hosts of the sweep.
    pub hosts: usize,
    /// Of them, how many are well.
    pub well: u64,
    /// The changes, the worst first.
    pub changes: Vec<AlertChange>,
    /// Whether somebody only tries whether alerts arrive.
    pub test: bool,
    /// What happened that is no change of a host, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// One host whose state changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertChange {
    /// The host.
    pub host: HostName,
    /// Its state as it was told last.
    pub before: String,
    /// Its state now.
    pub after: String,
    /// Whether nothing changed, for long.
    pub reminder: bool,
    /// Whether the state now is a good one.
    pub well: bool,
    /// What is worst, in words; empty for a host that is well.
    pub message: String,
    /// What mends it.
    pub fix: String,
}

impl Alert {
    /// One line: `3 hosts changed: gpu-01 unreachable, gpu-02 ready, ...`.
    #[must_use]
    pub fn subject(&self) -> String {
        if self.test {
            return format!("a test alert of {}", printable(&self.from));
        }
        if let Some(notice) = &self.notice {
            return printable(notice);
        }
        let named: Vec<String> = self
            .changes
            .iter()
            .take(3)
            .map(|change| format!("{} {}", change.host, change.after))
            .collect();
        let more = self.changes.len().saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = if self.changes.iter().all(|change| change.reminder) {
            "still in trouble"
        } else {
            "changed"
        };
        let count = self.changes.len();
        let hosts = if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
        format!("{hosts} {what}: {}{more}", named.join(", "))
    }

    /// One line for each host, with what mends it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.test {
            return vec!["Nothing happened: somebody tried whether alerts arrive.".to_owned()];
        }
        if self.notice.is_some() {
            return vec![format!("Told by {}.", printable(&self.from))];
        }
        let mut lines: Vec<String> = self
            .changes
            .iter()
            .take(MOST_NAMED)
            .map(|change| {
                let how = if change.reminder {
                    format!("still {}", change.after)
                } else {
                    format!("{} (was {})", change.after, change.before)
                };
                let why = match change.message.as_str() {
                    "" => String::new(),
                    message => format!(": {}", printable(message)),
                };
                format!("{}: {how}{why}", change.host)
            })
            .collect();
        if self.changes.len() > MOST_NAMED {
            lines.push(format!("... and {} more", self.changes.len() - MOST_NAMED));
        }
        lines.push(format!("{} of {} hosts are well.", self.well, self.hosts));
        lines
    }
}

/// Why an alert was not delivered. Never has a URL in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The other side did not take it.
    #[error("{channel} answered {status}")]
    Refused {
        /// The channel.
        channel: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// It could not be reached, or did not answer in time.
    #[error("cannot reach {channel}: {why}")]
    Unreached {
        /// The channel.
        channel: &'static str,
        /// What happened, without the address.
        why: String,
    },
    /// The mail program failed.
    #[error("cannot send mail: {0}")]
    Mail(String),
    /// The body could not be made.
    #[error("cannot write the body for {channel}: {why}")]
    Body {
        /// The channel.
        channel: &'static str,
        /// What is wrong with the template.
        why: String,
    },
}

impl SendError {
    /// Whether the same may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreached { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Mail(_) | Self::Body { .. } => false,
        }
    }
}

impl Channels {
    /// Sends an alert over one channel, trying twice.
    ///
    /// # Errors
    /// [`SendError`]; each attempt is bounded by the configuration's `timeout`.
    ///
    /// # Cancel safety
    /// Dropped in the middle, the alert may or may not have arrived.
    pub async fn send(&self, channel: &Channel, alert: &Alert) -> Result<(), SendError> {
        let policy = RetryPolicy {
            attempts: 2,
            pause: Duration::from_millis(500),
            pause_max: Duration::from_millis(500),
        };
        retry(&policy, SendError::is_transient, || self.attempt(channel, alert)).await
    }
}

/// The configuration's channels by name, as the outbox has them.
#[must_use]
pub fn longest_delivery(config: &AlertsConfig) -> Duration {
    // Two attempts, their pause with its jitter, and a moment for the database.
    config.timeout.saturating_mul(2).saturating_add(Duration::from_secs(3))
}

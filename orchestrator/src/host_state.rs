//! The state of a host and the one function that changes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What we may do with a host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Declared, and never reached yet, or resumed and not reached since.
    Unknown,
    /// Reached, and as it should be: takes leases.
    Ready,
    /// Its GPUs are held by a lease.
    Leased,
    /// Reached, and something is wrong that a person should look at.
    Degraded,
    /// Not reached at the last attempt.
    Unreachable,
    /// Set aside after repeated failures; only a person brings it back.
    Quarantined,
    /// Set aside by a person: takes no new lease.
    Draining,
}

/// What happened to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostEvent {
    /// Reached, and all is as declared.
    FoundWell,
    /// Reached, and something is wrong with it.
    FoundFaulty,
    /// Not reached.
    NotReached,
    /// Looked at, and what was seen is not certain yet: a trouble that may pass, or a good moment of
    /// a host that was not well.
    Suspected,
    /// A lease took its GPUs.
    LeaseTaken,
    /// Its last lease ended.
    LeaseReleased,
    /// It failed too often.
    FailedTooOften,
    /// A person set it aside.
    Drain,
    /// A person brought it back.
    Resume,
}

impl HostState {
    /// Every state, for tables.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Ready,
        Self::Leased,
        Self::Degraded,
        Self::Unreachable,
        Self::Quarantined,
        Self::Draining,
    ];

    /// The state after `event`. Total: every pair has an answer, and a person's decision
    /// (draining, quarantine) is undone by a person alone.
    #[must_use]
    pub fn after(self, event: HostEvent) -> Self {
        match (self, event) {
            (_, HostEvent::Drain) => Self::Draining,
            (Self::Draining | Self::Quarantined, HostEvent::Resume) => Self::Unknown,
            (state, HostEvent::Resume | HostEvent::Suspected) => state,
            (Self::Draining, _) => Self::Draining,
            (Self::Quarantined, _) | (_, HostEvent::FailedTooOften) => Self::Quarantined,
            // Neither a good nor a faulty finding ends a lease: its holder does.
            (Self::Leased, HostEvent::FoundWell | HostEvent::FoundFaulty) => Self::Leased,
            (_, HostEvent::FoundWell) => Self::Ready,
            (_, HostEvent::FoundFaulty) => Self::Degraded,
            (_, HostEvent::NotReached) => Self::Unreachable,
            (_, HostEvent::LeaseTaken) => Self::Leased,
            (Self::Leased, HostEvent::LeaseReleased) => Self::Ready,
            (state, HostEvent::LeaseReleased) => state,
        }
    }

    /// The name in JSON, tables and the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Degraded => "degraded",
            Self::Unreachable => "unreachable",
            Self::Quarantined => "quarantined",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host state")]
pub struct UnknownHostState(pub String);

impl FromStr for HostState {
    type Err = UnknownHostState;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| UnknownHostState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::HostEvent::*;
    use super::HostState::{self, *};

    const EVENTS: [super::HostEvent; 9] = [
        FoundWell,
        FoundFaulty,
        NotReached,
        Suspected,
        LeaseTaken,
        LeaseReleased,
        FailedTooOften,
        Drain,
        Resume,
    ];

    /// One row for each state, one column for each event in the order of `EVENTS`.
    const TABLE: [(HostState, [HostState; 9]); 7] = [
        (
            Unknown,
            [
                Ready,
                Degraded,
                Unreachable,
                Unknown,
                Leased,
                Unknown,
                Quarantined,
                Draining,
                Unknown,
            ],
        ),
        (Ready, [Ready, Degraded, Unreachable, Ready, Leased, Ready, Quarantined, Draining, Ready]),
        (
            Leased,
            [Leased, Leased, Unreachable, Leased, Leased, Ready, Quarantined, Draining, Leased],
        ),
        (
            Degraded,
            [
                Ready,
                Degraded,
                Unreachable,
                Degraded,
                Leased,
                Degraded,
                Quarantined,
                Draining,
                Degraded,
            ],
        ),
        (
            Unreachable,
            [
                Ready,
                Degraded,
                Unreachable,
                Unreachable,
                Leased,
                Unreachable,
                Quarantined,
                Draining,
                Unreachable,
            ],
        ),
        (
            Quarantined,
            [
                Quarantined,
                Quarantined,
                Quarantined,
                Quarantined,
                Quarantined,
                Quarantined,
                Quarantined,
                Draining,
                Unknown,
            ],
        ),
        (
            Draining,
            [
                Draining, Draining, Draining, Draining, Draining, Draining, Draining, Draining,
                Unknown,
            ],
        ),
    ];

    #[test]
    fn transitions_are_the_table() {
        for (state, expected) in TABLE {
            assert_eq!(EVENTS.map(|event| state.after(event)), expected, "from {state}");
        }
    }

    #[test]
    fn names_read_back() {
        for state in HostState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert!("asleep".parse::<HostState>().is_err());
    }
}

//! What a sweep thinks of a host: pure functions from what was found now, what is known from
//! before, and the thresholds, to findings, and from findings to the event that moves the host's
//! state.
//!
//! One way in: [`judge`] takes an [`Observation`] and gives its [`Finding`]s; [`assess`] takes those
//! with what the sweeps before had seen and gives a [`Assessment`]. [`Schedule`] says when the next
//! sweep is due. What must *not* be here: I/O, the clock (the caller passes the time), the
//! database, anything that prints.

mod assess;
mod code;
mod containers;
mod memory;
mod passport;
mod probes;
mod schedule;

pub use assess::{Assessment, Known, assess};
pub use code::{Code, Confirmation, FixPlaces, UnknownCode};
pub use containers::{ContainerFault, ContainerLife, Holder};
pub use memory::{HostMemory, Repair, RepairMark};
pub use passport::{Passport, PassportGpu};
pub use probes::containers::{HeldLease, Leases, findings as container_findings};
pub use probes::grants::{Grants, KnownGrant, findings as grant_findings};
pub use probes::{History, Observation, Probed, ProofTime, arrange, judge};
pub use schedule::{InvalidSchedule, Schedule};

pub use runner_protocol::Severity;

use crate::printable::printable;

/// One thing that is not as it should be. All text is cleaned: much of it is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a mount point, a GPU's UUID, a socket, or `host`.
    pub subject: String,
    /// What was seen.
    pub seen: String,
    /// What was expected.
    pub expected: String,
}

impl Finding {
    /// A finding of the code's own severity.
    #[must_use]
    pub fn new(
        code: Code,
        subject: impl AsRef<str>,
        seen: impl ToString,
        expected: impl ToString,
    ) -> Self {
        Self {
            code,
            severity: code.severity(),
            subject: printable(subject.as_ref()),
            seen: printable(&seen.to_string()),
            expected: printable(&expected.to_string()),
        }
    }

    /// The same with another severity.
    #[must_use]
    pub fn severe(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// What makes it the same finding as one of another sweep.
    #[must_use]
    pub fn key(&self) -> (Code, &str) {
        (self.code, &self.subject)
    }
}

/// The word of a severity in JSON, tables and the database.
#[must_use]
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// The severity of a word.
#[must_use]
pub fn severity_of(name: &str) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity_name(*severity) == name)
}

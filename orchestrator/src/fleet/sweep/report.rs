//! What a sweep reports.

use serde::Serialize;

use crate::host_state::HostState;
use crate::ids::HostName;
use crate::store::SweepCounts;
use crate::sweep::{Code, Finding, Repair, severity_name};

/// A whole pass.
#[derive(Debug, Clone)]
pub struct SweepReport {
    /// Its id in the database.
    pub sweep: String,
    /// Every host that was looked at, by name.
    pub hosts: Vec<HostReport>,
    /// Hosts whose turn did not come before the deadline.
    pub not_probed: Vec<HostName>,
    /// The same in numbers.
    pub counts: SweepCounts,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// One host. Serializes to one row of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct HostReport {
    /// The host.
    pub host: HostName,
    /// Whether its state is a good one.
    pub ok: bool,
    /// The code of what is worst and counts, if anything does.
    pub reason: Option<Code>,
    /// The same in words.
    pub message: String,
    /// How long the look took.
    pub elapsed_ms: u64,
    /// Its state now.
    pub state: HostState,
    /// Its state before.
    pub before: HostState,
    /// What was found, the most severe first.
    pub findings: Vec<FindingReport>,
    /// What was mended, or tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<RepairReport>,
}

/// One finding of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingReport {
    /// The kind.
    pub code: Code,
    /// How much it matters, in one word.
    pub severity: &'static str,
    /// What it is about.
    pub subject: String,
    /// What it means.
    pub message: &'static str,
    /// What was seen.
    pub seen: String,
    /// What was expected.
    pub expected: String,
    /// What mends it.
    pub fix: String,
    /// Whether it counts for the host's state.
    pub confirmed: bool,
    /// How often in a row it was seen, up to where it counts.
    pub times: u32,
    /// When it was first seen, milliseconds.
    pub since_ms: i64,
}

/// A repair and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What.
    pub repair: Repair,
    /// Whether it worked.
    pub ok: bool,
    /// What happened.
    pub message: String,
}

impl FindingReport {
    /// Whether it matters at all for the state.
    #[must_use]
    pub fn matters(&self) -> bool {
        self.severity != severity_name(crate::sweep::Severity::Info)
    }

    pub(super) fn new(
        finding: &Finding,
        fix: String,
        confirmed: bool,
        times: u32,
        since_ms: i64,
    ) -> Self {
        Self {
            code: finding.code,
            severity: severity_name(finding.severity),
            subject: finding.subject.clone(),
            message: finding.code.message(),
            seen: finding.seen.clone(),
            expected: finding.expected.clone(),
            fix,
            confirmed,
            times,
            since_ms,
        }
    }
}

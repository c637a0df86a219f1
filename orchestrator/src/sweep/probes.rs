//! The probes: each a pure function from what was found, what is known and the thresholds, to
//! findings.

pub(super) mod containers;
mod driver;
mod gpu;
mod gpu_set;
pub(super) mod grants;
mod host;
mod proof;
mod reach;

use std::time::Duration;

use runner_protocol::HostFacts;

use super::{Finding, HostMemory, Passport};
use crate::config::SweepConfig;
use crate::reason::Reason;

/// The most findings of one look: a host that makes up its disks and errors anew each time must not
/// fill the database. Nobody reads as many.
const MOST_FINDINGS: usize = 100;

/// One look at a host.
#[derive(Debug, Clone)]
pub struct Probed {
    /// What its runner found.
    pub facts: HostFacts,
    /// Our clock just before the facts were asked for, milliseconds since the Unix epoch.
    pub asked_ms: i64,
    /// Our clock just after they came.
    pub answered_ms: i64,
}

/// What came of trying to look at a host.
#[derive(Debug, Clone)]
pub enum Observation {
    /// Its facts.
    Probed(Box<Probed>),
    /// Nothing, and why.
    Failed {
        /// The stable code.
        reason: Reason,
        /// Whether a connection stood by then.
        connected: bool,
        /// What happened, with its cause.
        message: String,
    },
}

/// How long one proof took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofTime {
    /// When it was judged, milliseconds.
    pub at_ms: i64,
    /// The GPU's UUID, or `host` for a proof of none.
    pub gpu: String,
    /// What makes times comparable: the kernels and the sizes of the challenge, as a hash.
    pub kind: i64,
    /// Chains and products together, as measured here, nanoseconds.
    pub nanos: u64,
}

/// What is known of a host from before.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Its passport, if it ever had one.
    pub passport: Option<&'a Passport>,
    /// What the sweeps remember.
    pub memory: &'a HostMemory,
    /// Its proofs, newest first.
    pub proofs: &'a [ProofTime],
    /// When the last proof was accepted, milliseconds.
    pub last_proof_ms: Option<i64>,
}

/// Every finding of one look, the most severe first, without those that are not wanted.
#[must_use]
pub fn judge(
    observation: &Observation,
    history: &History<'_>,
    now_ms: i64,
    config: &SweepConfig,
) -> Vec<Finding> {
    let mut found = match observation {
        Observation::Failed { reason, connected, message } => {
            vec![reach::finding(*reason, *connected, message)]
        }
        Observation::Probed(probed) => {
            let facts = &probed.facts;
            let mut found = host::findings(probed, history.memory, config);
            found.extend(driver::findings(facts));
            found.extend(gpu_set::findings(facts, history.passport));
            found.extend(gpu::findings(facts, history.memory, now_ms, config));
            found.extend(proof::findings(facts, history, now_ms, config));
            found
        }
    };
    arrange(&mut found, config);
    found
}

/// Leaves out what is not wanted, puts the most severe first, and keeps the whole in bounds.
pub fn arrange(found: &mut Vec<Finding>, config: &SweepConfig) {
    found.retain(|finding| !config.ignore.iter().any(|code| code == finding.code.name()));
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.key().cmp(&b.key())));
    // Two sources may say the same of the same thing; the first is the more severe.
    found.dedup_by(|b, a| a.key() == b.key());
    found.truncate(MOST_FINDINGS);
}

/// How long before `now_ms` a time was.
fn ago(at_ms: i64, now_ms: i64) -> String {
    let passed = u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0);
    format!("{} ago", words(Duration::from_millis(passed)))
}

/// A duration in the largest unit that fits.
fn words(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        secs @ 1..120 => format!("{secs} s"),
        secs @ 120..7_200 => format!("{} min", secs / 60),
        secs @ 7_200..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests;

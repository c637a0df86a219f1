//! What is wrong with a host.

use serde::{Deserialize, Serialize};

use crate::bounded;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Degrades work, or will.
    Warning,
    /// The host, or the named GPU, should get no work.
    Critical,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word, such as `disk_space_low` or `gpu_ecc_uncorrected`.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a mount point, a GPU's UUID, a socket, or `host`.
    #[serde(default)]
    pub subject: String,
    /// One sentence for a person.
    #[serde(default)]
    pub message: String,
    /// What was seen.
    #[serde(default)]
    pub seen: String,
    /// What a healthy host shows.
    #[serde(default)]
    pub expected: String,
}

/// The findings of one look at a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthReport {
    /// When the facts behind it were read: the host's clock, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The findings, the most severe first. None means healthy.
    #[serde(deserialize_with = "bounded::list::<2048, _, _>")]
    pub findings: Vec<Finding>,
}

impl HealthReport {
    /// The highest severity found, `None` for a healthy host.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

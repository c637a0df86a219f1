//! What a verification says, check by check.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, PieceResult, Policy};
use crate::proof::Backend;
use crate::timing::{Baseline, Evidence, PhaseJudgement, Timings};

/// What is looked at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The proof is of a GPU, or the reference was allowed.
    Backend,
    /// The proof is of this challenge and has its shape.
    Parameters,
    /// Every opening leads to its root.
    Openings,
    /// Sampled segments of chains follow from their starts.
    ProbeReplay,
    /// Sampled entries of products are right.
    Gemm,
    /// The chains were as fast as with everything resident.
    ResidencyTiming,
    /// The products were as fast as the model.
    GemmTiming,
    /// Nothing was faster than the model can be.
    TooFast,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Passed,
    /// Wrong.
    Failed,
    /// There was nothing to judge it by.
    NotJudged,
}

/// One check and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Which.
    pub check: Check,
    /// How it ended.
    pub status: Status,
    /// One line for a person. Made of our own words and numbers, never of the prover's.
    pub detail: String,
}

/// The sum of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every check passed.
    Accepted,
    /// Nothing failed, but not everything could be judged.
    Unproven,
    /// Something failed.
    Rejected,
}

/// The judgement of one proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// All checks, in the order of [`Check`].
    pub checks: Vec<CheckResult>,
    /// The weakest evidence behind the baseline that judged the times; `None` when they were not.
    pub evidence: Option<Evidence>,
}

impl Verdict {
    /// The sum of the checks. A verdict without checks, as one may be read from a file, is unproven.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let has = |status| self.checks.iter().any(|result| result.status == status);
        if has(Status::Failed) {
            Outcome::Rejected
        } else if has(Status::NotJudged) || self.checks.is_empty() {
            Outcome::Unproven
        } else {
            Outcome::Accepted
        }
    }

    /// How one check ended.
    #[must_use]
    pub fn status(&self, check: Check) -> Option<Status> {
        self.checks.iter().find(|result| result.check == check).map(|result| result.status)
    }

    /// The first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&CheckResult> {
        self.checks.iter().find(|result| result.status == Status::Failed)
    }
}

impl Check {
    /// A stable name for logs, metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Parameters => "parameters",
            Self::Openings => "openings",
            Self::ProbeReplay => "probe_replay",
            Self::Gemm => "gemm",
            Self::ResidencyTiming => "residency_timing",
            Self::GemmTiming => "gemm_timing",
            Self::TooFast => "too_fast",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn result(check: Check, status: Status, detail: impl Into<String>) -> CheckResult {
    CheckResult { check, status, detail: detail.into() }
}

pub(super) fn backend(backend: Backend, allow_reference: bool) -> CheckResult {
    match (backend, allow_reference) {
        (Backend::Cuda, _) => result(Check::Backend, Status::Passed, "computed on a GPU"),
        (Backend::Reference, true) => result(
            Check::Backend,
            Status::Passed,
            "the CPU reference, which was allowed: nothing is shown of a GPU",
        ),
        (Backend::Reference, false) => {
            result(Check::Backend, Status::Failed, "computed by the CPU reference")
        }
    }
}

pub(super) fn parameters(mismatch: Option<&'static str>) -> CheckResult {
    match mismatch {
        None => result(Check::Parameters, Status::Passed, "as asked"),
        Some(why) => result(Check::Parameters, Status::Failed, why),
    }
}

pub(super) fn openings(done: &[Option<PieceResult>]) -> CheckResult {
    tally(Check::Openings, "openings lead to their root", done.len(), done, |piece| {
        Some(piece.opened)
    })
}

pub(super) fn content(check: Check, kind: Kind, done: &[Option<PieceResult>]) -> CheckResult {
    let of_kind: Vec<_> =
        done.iter().copied().filter(|piece| piece.is_none_or(|p| p.kind == kind)).collect();
    let what = match kind {
        Kind::Probe => "sampled segments follow from their start",
        Kind::Gemm => "sampled entries are right",
    };
    let total = of_kind.iter().flatten().count();
    tally(check, what, total, &of_kind, |piece| piece.content)
}

/// Failed when one is wrong, passed when all are right, not judged when one is missing.
fn tally(
    check: Check,
    what: &str,
    total: usize,
    pieces: &[Option<PieceResult>],
    answer: impl Fn(&PieceResult) -> Option<bool>,
) -> CheckResult {
    let answers: Vec<_> = pieces.iter().map(|piece| piece.as_ref().and_then(&answer)).collect();
    let right = answers.iter().filter(|answer| **answer == Some(true)).count();
    let status = if answers.contains(&Some(false)) {
        Status::Failed
    } else if answers.is_empty() || answers.contains(&None) {
        Status::NotJudged
    } else {
        Status::Passed
    };
    result(check, status, format!("{right} of {total} {what}"))
}

pub(super) fn evidence(baseline: &Baseline) -> Evidence {
    baseline.chain.evidence.min(baseline.gemm.evidence)
}

pub(super) fn times(
    judged: Option<(&Timings, &Baseline)>,
    policy: &Policy,
    gemms: usize,
) -> [CheckResult; 3] {
    let (held, policy) = (policy.held, &policy.timing);
    let Some((timings, baseline)) = judged else {
        return [Check::ResidencyTiming, Check::GemmTiming, Check::TooFast]
            .map(|check| result(check, Status::NotJudged, "no baseline, or no measured time"));
    };
    let (chain, chain_limit_ns, meaning) = if held {
        let judgement = policy.judge_held(baseline, timings.chain_ns);
        (judgement, policy.held_limit_ns(baseline), " with no time to fill the memory again")
    } else {
        let judgement = policy.judge(&baseline.chain, timings.chain_ns);
        (judgement, policy.limit_ns(&baseline.chain), "")
    };
    let products: Vec<_> =
        timings.gemm_ns.iter().map(|ns| policy.judge(&baseline.gemm, *ns)).collect();
    let fill = timings.fill_ns.map(|ns| policy.judge(&baseline.fill, ns));
    let residency = result(
        Check::ResidencyTiming,
        passed(chain != PhaseJudgement::TooSlow),
        format!(
            "chains took {} us, at most {} us{meaning}",
            timings.chain_ns / 1000,
            chain_limit_ns / 1000
        ),
    );
    let slowest = timings.gemm_ns.iter().max().copied().unwrap_or_default();
    let complete = products.len() == gemms;
    let gemm = result(
        Check::GemmTiming,
        passed(complete && !products.contains(&PhaseJudgement::TooSlow)),
        format!(
            "{} of {gemms} products timed, the slowest took {} us, at most {} us",
            products.len(),
            slowest / 1000,
            policy.limit_ns(&baseline.gemm) / 1000
        ),
    );
    let fast = fill == Some(PhaseJudgement::TooFast)
        || policy.beats_floor(baseline, timings.chain_ns, &timings.gemm_ns);
    let too_fast = result(
        Check::TooFast,
        passed(!fast),
        if fast {
            "a phase beat the datasheet: another device"
        } else {
            "no phase beat the datasheet"
        },
    );
    [residency, gemm, too_fast]
}

fn passed(yes: bool) -> Status {
    if yes { Status::Passed } else { Status::Failed }
}

//! Our policy: what counts as a pass.

use pow_kernels::timing::{Baseline, TimingPolicy, Timings};
use pow_kernels::{
    Backend, Challenge, Check, Context, Mode, ModelTable, Outcome, Policy, Proof, Status, Verdict,
    verify,
};

/// What a proof is judged by, besides itself.
#[derive(Debug, Clone, Copy)]
pub struct Judgement<'t> {
    /// The models and their times.
    pub table: &'t ModelTable,
    /// Whether a proof of the CPU reference may pass.
    pub allow_reference: bool,
    /// The smallest round trip ever seen to the host, in nanoseconds. It lowers what the network is
    /// allowed, and never raises it over the mode's own cap.
    pub least_rtt_ns: Option<u64>,
    /// Whether the memory was filled before an earlier probe.
    pub held: bool,
}

impl Judgement<'_> {
    /// What the network may add to a phase, in nanoseconds.
    #[must_use]
    pub fn allowance_ns(&self, mode: Mode) -> u64 {
        TimingPolicy::for_mode(mode, self.least_rtt_ns).allowance_ns
    }
}

/// Judges a proof and its measured times.
#[must_use]
pub fn judge(
    challenge: &Challenge,
    proof: &Proof,
    timings: &Timings,
    by: &Judgement<'_>,
) -> Verdict {
    let policy = Policy {
        allow_reference: by.allow_reference,
        baseline: baseline(&challenge.context, by.table),
        timing: TimingPolicy::for_mode(challenge.context.mode, by.least_rtt_ns),
        held: by.held,
    };
    verify(challenge, proof, Some(timings), &policy)
}

/// The band of the promised model, if the challenge has the sizes that the band is for.
fn baseline(context: &Context, table: &ModelTable) -> Option<Baseline> {
    let model = table.by_id(context.model_id)?;
    let profile = model.profile(context.mode);
    (profile.sizes == context.parameters && model.variant == context.variant)
        .then(|| profile.baseline())
}

/// Whether the caller has what it asked for. An unproven answer is a pass only of the reference, and
/// only where the caller allowed that: its times can never be judged.
#[must_use]
pub fn passes(verdict: &Verdict, backend: Backend, allow_reference: bool) -> bool {
    match verdict.outcome() {
        Outcome::Accepted => true,
        Outcome::Unproven => allow_reference && backend == Backend::Reference,
        Outcome::Rejected => false,
    }
}

/// Whether nothing but slowness is held against a proof, so that a fresh challenge may show that
/// the host was only disturbed. What is wrong, or faster than the model can be, is no disturbance.
#[must_use]
pub fn only_slow(verdict: &Verdict) -> bool {
    let failed: Vec<Check> = verdict
        .checks
        .iter()
        .filter(|result| result.status == Status::Failed)
        .map(|result| result.check)
        .collect();
    !failed.is_empty()
        && failed.iter().all(|check| matches!(check, Check::ResidencyTiming | Check::GemmTiming))
}

/// The outcome in one word, as in JSON and in the database.
#[must_use]
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Unproven => "unproven",
        Outcome::Rejected => "rejected",
    }
}

/// The backend in one word, as in JSON and in the database.
#[must_use]
pub fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Cuda => "cuda",
        Backend::Reference => "reference",
    }
}

/// The mode in one word, as on the command line, in JSON and in the database.
#[must_use]
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Quick => "quick",
        Mode::Deep => "deep",
        Mode::Hold => "hold",
    }
}

#[cfg(test)]
mod tests {
    use pow_kernels::CheckResult;

    use super::*;

    fn verdict(failed: &[Check]) -> Verdict {
        let all = [
            Check::Openings,
            Check::ProbeReplay,
            Check::Gemm,
            Check::ResidencyTiming,
            Check::GemmTiming,
            Check::TooFast,
        ];
        let result = |check: Check| CheckResult {
            check,
            status: if failed.contains(&check) { Status::Failed } else { Status::Passed },
            detail: String::new(),
        };
        Verdict { checks: all.map(result).to_vec(), evidence: None }
    }

    #[test]
    fn slowness_alone_deserves_another_try() {
        assert!(only_slow(&verdict(&[Check::ResidencyTiming])));
        assert!(only_slow(&verdict(&[Check::GemmTiming, Check::ResidencyTiming])));
        assert!(!only_slow(&verdict(&[])), "nothing to try again");
        for wrong in [Check::Openings, Check::ProbeReplay, Check::Gemm, Check::TooFast] {
            assert!(!only_slow(&verdict(&[wrong])));
            assert!(!only_slow(&verdict(&[wrong, Check::ResidencyTiming])));
        }
    }

    #[test]
    fn a_round_trip_only_lowers_the_allowance() {
        let by = |least_rtt_ns| Judgement {
            table: ModelTable::embedded(),
            allow_reference: false,
            least_rtt_ns,
            held: false,
        };
        assert_eq!(by(None).allowance_ns(Mode::Quick), 15_000_000);
        assert_eq!(by(Some(u64::MAX)).allowance_ns(Mode::Hold), 15_000_000);
        assert_eq!(by(Some(300_000)).allowance_ns(Mode::Deep), 300_000);
    }
}

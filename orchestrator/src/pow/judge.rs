//! Our policy: what counts as a pass.

use pow_kernels::timing::{Baseline, TimingPolicy, Timings};
use pow_kernels::{
    Backend, Challenge, Context, ModelTable, Outcome, Policy, Proof, Verdict, verify,
};

/// Judges a proof and its measured times.
#[must_use]
pub fn judge(
    challenge: &Challenge,
    proof: &Proof,
    timings: &Timings,
    allow_reference: bool,
) -> Verdict {
    let policy = Policy {
        allow_reference,
        baseline: baseline(&challenge.context),
        // No history of round trips is kept yet, so the network's allowance is the mode's own.
        timing: TimingPolicy::for_mode(challenge.context.mode, None),
    };
    verify(challenge, proof, Some(timings), &policy)
}

/// The band of the promised model, if the challenge has the sizes that the band is for.
fn baseline(context: &Context) -> Option<Baseline> {
    let model = ModelTable::embedded().by_id(context.model_id)?;
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

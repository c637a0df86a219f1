//! The judgement of times at its edges.

use pow_kernels::timing::Baseline;
use pow_kernels::timing::{
    DEEP_ALLOWANCE_NS, Evidence, PhaseBaseline, PhaseJudgement, QUICK_ALLOWANCE_NS, TimingPolicy,
};
use pow_kernels::{Mode, ModelTable, Outcome, Status, Verdict};

const PHASE: PhaseBaseline =
    PhaseBaseline { expected_us: 1000, floor_us: 800, evidence: Evidence::Measured };
const POLICY: TimingPolicy = TimingPolicy { slack_permille: 350, allowance_ns: 7 };

#[test]
fn limits_are_exact_to_the_nanosecond() {
    assert_eq!(POLICY.judge(&PHASE, 759_999), PhaseJudgement::TooFast);
    assert_eq!(POLICY.judge(&PHASE, 760_000), PhaseJudgement::InBand);
    assert_eq!(POLICY.judge(&PHASE, 1_350_007), PhaseJudgement::InBand);
    assert_eq!(POLICY.judge(&PHASE, 1_350_008), PhaseJudgement::TooSlow);
}

#[test]
fn extreme_numbers_do_not_wrap() {
    let phase = PhaseBaseline { expected_us: u64::MAX, floor_us: u64::MAX, ..PHASE };
    let policy = TimingPolicy { slack_permille: u32::MAX, allowance_ns: u64::MAX };
    assert_eq!(policy.judge(&phase, u64::MAX), PhaseJudgement::TooFast);
    let phase = PhaseBaseline { floor_us: 0, ..phase };
    assert_eq!(policy.judge(&phase, u64::MAX), PhaseJudgement::InBand);
}

/// A host that answers slowly gains nothing: a round trip only lowers the allowance.
#[test]
fn a_long_round_trip_does_not_raise_the_allowance() {
    let allowance = |mode, rtt| TimingPolicy::for_mode(mode, rtt).allowance_ns;
    assert_eq!(allowance(Mode::Quick, None), QUICK_ALLOWANCE_NS);
    assert_eq!(allowance(Mode::Quick, Some(u64::MAX)), QUICK_ALLOWANCE_NS);
    assert_eq!(allowance(Mode::Quick, Some(400_000)), 400_000);
    assert_eq!(allowance(Mode::Deep, Some(u64::MAX)), DEEP_ALLOWANCE_NS);
}

#[test]
fn a_verdict_without_checks_is_not_an_acceptance() {
    let verdict = Verdict { checks: Vec::new(), evidence: None };
    assert_eq!(verdict.outcome(), Outcome::Unproven);
    assert_ne!(Status::NotJudged, Status::Passed);
}

/// Whatever the network is allowed, nobody has the time to fill the memory again; and the limit is no
/// stricter than the slack for any model, so a held card passes as it does without the hold.
#[test]
fn a_held_memory_cannot_be_filled_again_inside_the_limit() {
    let generous = TimingPolicy { slack_permille: 350, allowance_ns: 10_000_000_000 };
    let exact = TimingPolicy { slack_permille: 350, allowance_ns: 0 };
    for model in ModelTable::embedded().models() {
        let baseline = model.profile(Mode::Hold).baseline();
        let limit = generous.held_limit_ns(&baseline);
        let refilled_us = baseline.fill.floor_us + baseline.chain.floor_us;
        assert!(limit < u128::from(refilled_us) * 1000, "{}", model.name);
        assert!(limit >= exact.limit_ns(&baseline.chain), "{}", model.name);
        let measured = |ns: u128| u64::try_from(ns).unwrap();
        assert_eq!(generous.judge_held(&baseline, measured(limit)), PhaseJudgement::InBand);
        assert_eq!(generous.judge_held(&baseline, measured(limit) + 1), PhaseJudgement::TooSlow);
        let ordinary = generous.judge(&baseline.chain, measured(limit) + 1);
        assert_eq!(ordinary, PhaseJudgement::InBand, "only the hold makes it too slow");
    }
}

/// Two roots that arrive together, because the first was late: no device is faster for that.
#[test]
fn a_late_root_does_not_make_the_next_one_too_fast() {
    let phase = |floor_us| PhaseBaseline { expected_us: 2000, floor_us, ..PHASE };
    let baseline = Baseline { fill: phase(1), chain: phase(1000), gemm: phase(500) };
    let beats = |chain_ns, gemm_ns: &[u64]| POLICY.beats_floor(&baseline, chain_ns, gemm_ns);
    assert!(!beats(1_500_000, &[0, 500_000]));
    assert!(!beats(950_000, &[475_000, 475_000]), "the edge");
    assert!(beats(949_999, &[10_000_000]), "the records' root alone");
    assert!(beats(950_000, &[474_999]));
    assert!(beats(1_424_999, &[0]));
    assert!(beats(1_425_000, &[0, 0]));
    assert!(!beats(u64::MAX, &[u64::MAX; 16]), "extreme numbers do not wrap");
}

#[test]
fn a_held_chain_can_be_too_fast_too() {
    let phase = |floor_us| PhaseBaseline { expected_us: 1000, floor_us, ..PHASE };
    let baseline = Baseline { fill: phase(900), chain: PHASE, gemm: PHASE };
    assert_eq!(POLICY.judge_held(&baseline, 1), PhaseJudgement::TooFast);
}

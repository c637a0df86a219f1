//! The judgement of measured times: integer arithmetic on durations, no clock. `SPEC.md` section 13.

use serde::{Deserialize, Serialize};

use crate::context::Mode;

/// Where a number of a baseline comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Arithmetic from instruction counts and datasheet peaks.
    Modelled,
    /// Seen on a card that the operator trusts.
    Measured,
}

/// How long one phase takes on one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseBaseline {
    /// Expected time, microseconds.
    pub expected_us: u64,
    /// What the datasheet's peak would need, microseconds. Faster is another device.
    pub floor_us: u64,
    /// Where `expected_us` comes from; a floor is always arithmetic.
    pub evidence: Evidence,
}

/// The expected time band of a GPU model for one challenge size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The whole fill.
    pub fill: PhaseBaseline,
    /// The chains and the commitment to their records.
    pub chain: PhaseBaseline,
    /// One product and the commitment to it.
    pub gemm: PhaseBaseline,
}

/// Times the verifier measured, in nanoseconds, from message to message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Fill to Filled, where it was taken. Information: it is not judged slow.
    pub fill_ns: Option<u64>,
    /// Probe to the root over the records.
    pub chain_ns: u64,
    /// From the root before it to the root of each product.
    pub gemm_ns: Vec<u64>,
}

/// How strict the judgement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimingPolicy {
    /// Thousandths of the expected time that a phase may take longer.
    pub slack_permille: u32,
    /// What the network may add to a phase, nanoseconds.
    pub allowance_ns: u64,
}

/// Default slack: the spread between cards and boost states, under the 1.64 that separates the PCIe
/// from the SXM form of the same GPU.
pub const DEFAULT_SLACK_PERMILLE: u32 = 350;
/// Longest allowance in quick mode: shorter than refilling a memory.
pub const QUICK_ALLOWANCE_NS: u64 = 15_000_000;
/// Longest allowance in deep mode, whose chain takes eight times as long.
pub const DEEP_ALLOWANCE_NS: u64 = 60_000_000;
/// Thousandths of the floor below which a phase is too fast to be the model.
const TOO_FAST_PERMILLE: u128 = 950;

/// One phase against its band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseJudgement {
    /// Faster than the hardware can be.
    TooFast,
    /// Inside the band.
    InBand,
    /// Slower than the promised model with everything resident.
    TooSlow,
}

impl TimingPolicy {
    /// The default strictness. `least_rtt_ns` is the smallest round trip ever seen to the host, from
    /// history; it can only lower the allowance, because a host can always answer later.
    #[must_use]
    pub fn for_mode(mode: Mode, least_rtt_ns: Option<u64>) -> Self {
        let cap = match mode {
            Mode::Quick | Mode::Hold => QUICK_ALLOWANCE_NS,
            Mode::Deep => DEEP_ALLOWANCE_NS,
        };
        Self {
            slack_permille: DEFAULT_SLACK_PERMILLE,
            allowance_ns: least_rtt_ns.map_or(cap, |rtt| rtt.min(cap)),
        }
    }

    /// Longest time, in nanoseconds, that a phase may take.
    #[must_use]
    pub fn limit_ns(&self, phase: &PhaseBaseline) -> u128 {
        // A 64-bit factor times a 33-bit one.
        u128::from(phase.expected_us) * (1000 + u128::from(self.slack_permille))
            + u128::from(self.allowance_ns)
    }

    /// Whether any root came earlier after Probe than the datasheet allows for all the work up to it.
    ///
    /// The times from one root to the next say less: a root that is late, or that waits here for the
    /// one before it, makes the next one look fast. No root arrives before it is computed.
    #[must_use]
    pub fn beats_floor(&self, baseline: &Baseline, chain_ns: u64, gemm_ns: &[u64]) -> bool {
        let mut arrived = u128::from(chain_ns);
        let mut floor_us = u128::from(baseline.chain.floor_us);
        let mut early = arrived < floor_us * TOO_FAST_PERMILLE;
        for ns in gemm_ns {
            arrived += u128::from(*ns);
            floor_us += u128::from(baseline.gemm.floor_us);
            early |= arrived < floor_us * TOO_FAST_PERMILLE;
        }
        early
    }

    /// Longest time, in nanoseconds, of chains over a memory that was filled before an earlier probe.
    /// However much the network is allowed, it is less than filling and walking take at the
    /// datasheet's peak: who gave the memory away meanwhile is always too slow.
    #[must_use]
    pub fn held_limit_ns(&self, baseline: &Baseline) -> u128 {
        let refilled = u128::from(baseline.fill.floor_us) + u128::from(baseline.chain.floor_us);
        self.limit_ns(&baseline.chain).min(refilled * TOO_FAST_PERMILLE)
    }

    /// Judges chains over a memory that was filled before an earlier probe.
    #[must_use]
    pub fn judge_held(&self, baseline: &Baseline, measured_ns: u64) -> PhaseJudgement {
        match self.judge(&baseline.chain, measured_ns) {
            PhaseJudgement::InBand if u128::from(measured_ns) > self.held_limit_ns(baseline) => {
                PhaseJudgement::TooSlow
            }
            judgement => judgement,
        }
    }

    /// Judges one phase.
    #[must_use]
    pub fn judge(&self, phase: &PhaseBaseline, measured_ns: u64) -> PhaseJudgement {
        let measured = u128::from(measured_ns);
        if measured < u128::from(phase.floor_us) * TOO_FAST_PERMILLE {
            PhaseJudgement::TooFast
        } else if measured > self.limit_ns(phase) {
            PhaseJudgement::TooSlow
        } else {
            PhaseJudgement::InBand
        }
    }
}

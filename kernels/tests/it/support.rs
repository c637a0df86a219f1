//! A small challenge that a CPU answers in a moment, and its honest prover.

use std::sync::LazyLock;

use pow_kernels::reference::{Committed, Prover};
use pow_kernels::timing::{Baseline, Evidence, PhaseBaseline, TimingPolicy};
use pow_kernels::verify::Policy;
use pow_kernels::{
    Challenge, Context, KernelVariant, Mode, Parameters, Proof, QueryCounts, Sizes, Timings,
};

/// Small sizes with two products of different slices, and a third window that is shorter.
pub const TINY: Sizes = Sizes {
    leaf_iterations: 1,
    blocks: 601,
    chains: 16,
    steps: 4,
    windows: 3,
    window_shift: 2,
    gemms: 2,
    gemm_dimension: 256,
};

pub const COUNTS: QueryCounts = QueryCounts { probe: 32, gemm: 32 };

pub fn context(sizes: Sizes) -> Context {
    Context {
        mode: Mode::Quick,
        nonce_fill: [1; 32],
        validator_hotkey: [2; 32],
        orchestrator_hotkey: [3; 32],
        host_id: [4; 32],
        gpu_uuid: [5; 16],
        gpu_index: 6,
        gpu_count: 8,
        model_id: 4,
        variant: KernelVariant::Mma,
        parameters: Parameters::new(sizes).unwrap(),
        issued_at_ms: 1_700_000_000_000,
        challenge_id: [7; 16],
    }
}

pub fn challenge(sizes: Sizes) -> Challenge {
    Challenge { context: context(sizes), nonce_probe: [8; 32], nonce_open: [9; 32], counts: COUNTS }
}

pub fn baseline() -> Baseline {
    let phase = |expected_us| PhaseBaseline {
        expected_us,
        floor_us: expected_us / 2,
        evidence: Evidence::Modelled,
    };
    Baseline { fill: phase(70_000), chain: phase(26_000), gemm: phase(8_000) }
}

/// Accepts the reference as if it were a GPU: the backend is set by [`as_gpu`].
pub fn policy() -> Policy {
    Policy {
        allow_reference: false,
        baseline: Some(baseline()),
        timing: TimingPolicy::for_mode(Mode::Quick, Some(0)),
        held: false,
    }
}

pub fn honest_times(gemms: usize) -> Timings {
    Timings { fill_ns: Some(70_000_000), chain_ns: 26_000_000, gemm_ns: vec![8_000_000; gemms] }
}

/// A proof as a GPU would label it; the mathematics is the same.
pub fn as_gpu(mut proof: Proof) -> Proof {
    proof.backend = pow_kernels::Backend::Cuda;
    proof
}

/// The honest prover of [`TINY`], filled and committed once for all tests.
pub static TINY_PROVER: LazyLock<(Prover, Committed)> = LazyLock::new(|| {
    let challenge = challenge(TINY);
    let prover = Prover::fill(&challenge.context);
    let committed = prover.commit(&challenge.nonce_probe, prover.walk(&challenge.nonce_probe));
    (prover, committed)
});

pub fn honest_proof() -> Proof {
    as_gpu(TINY_PROVER.1.open(&[9; 32], COUNTS))
}

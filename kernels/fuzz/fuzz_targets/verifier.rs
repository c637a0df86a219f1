//! The verifier over honest proofs with bytes changed: the input is a list of places and values.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pow_kernels::reference::Prover;
use pow_kernels::timing::TimingPolicy;
use pow_kernels::verify::Policy;
use pow_kernels::{
    Challenge, Context, KernelVariant, Mode, Outcome, Parameters, Proof, QueryCounts, Sizes, verify,
};

static HONEST: LazyLock<(Challenge, Proof, Vec<u8>)> = LazyLock::new(|| {
    let sizes = Sizes {
        leaf_iterations: 1,
        blocks: 512,
        chains: 4,
        steps: 2,
        windows: 1,
        window_shift: 0,
        gemms: 1,
        gemm_dimension: 256,
    };
    let context = Context {
        mode: Mode::Quick,
        nonce_fill: [1; 32],
        validator_hotkey: [2; 32],
        orchestrator_hotkey: [3; 32],
        host_id: [4; 32],
        gpu_uuid: [5; 16],
        gpu_index: 0,
        gpu_count: 1,
        model_id: 1,
        variant: KernelVariant::Reference,
        parameters: Parameters::new(sizes).unwrap(),
        issued_at_ms: 0,
        challenge_id: [6; 16],
    };
    let counts = QueryCounts { probe: 4, gemm: 4 };
    let proof = Prover::prove(&context, &[7; 32], &[8; 32], counts);
    let bytes = minicbor_serde::to_vec(&proof).unwrap();
    (Challenge { context, nonce_probe: [7; 32], nonce_open: [8; 32], counts }, proof, bytes)
});

fuzz_target!(|changes: Vec<(u16, u8)>| {
    let (challenge, honest, bytes) = &*HONEST;
    let mut bytes = bytes.clone();
    for (place, value) in changes {
        let place = usize::from(place) % bytes.len();
        bytes[place] = value;
    }
    let Ok(proof) = minicbor_serde::from_slice::<Proof>(&bytes) else { return };
    let policy = Policy {
        allow_reference: true,
        baseline: None,
        timing: TimingPolicy::for_mode(Mode::Quick, None),
        held: false,
    };
    let verdict = verify(challenge, &proof, None, &policy);
    // Without times the honest proof is unproven. Its label alone may change without being wrong.
    let same = Proof { backend: honest.backend, ..proof } == *honest;
    assert!(same || verdict.outcome() == Outcome::Rejected);
    assert_ne!(verdict.outcome(), Outcome::Accepted);
});

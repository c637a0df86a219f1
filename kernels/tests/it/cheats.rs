//! Provers that cheat, each caught by the check that is meant for it; and the honest one.

use pow_kernels::proof::CHUNK_BYTES;
use pow_kernels::reference::{self, Prover};
use pow_kernels::timing::TimingPolicy;
use pow_kernels::verify::Policy;
use pow_kernels::{
    BLOCK_WORDS, Backend, Challenge, Check, Digest, Evidence, Mode, ModelTable, Outcome, Path,
    Proof, Sizes, Status, Timings, Verdict, Verification, verify,
};
use proptest::prelude::*;

use crate::support::{
    COUNTS, TINY, TINY_PROVER, as_gpu, challenge, context, honest_proof, honest_times, policy,
};

fn judge(challenge: &Challenge, proof: &Proof) -> Verdict {
    let gemms = usize::from(challenge.context.parameters.gemms);
    verify(challenge, proof, Some(&honest_times(gemms)), &policy())
}

#[track_caller]
fn assert_caught_by(check: Check, verdict: &Verdict) {
    assert_eq!(verdict.outcome(), Outcome::Rejected);
    assert_eq!(verdict.status(check), Some(Status::Failed), "{verdict:#?}");
}

fn failed_checks(verdict: &Verdict) -> Vec<Check> {
    let failed = verdict.checks.iter().filter(|result| result.status == Status::Failed);
    failed.map(|result| result.check).collect()
}

fn prove(sizes: Sizes) -> (Challenge, Proof) {
    let challenge = challenge(sizes);
    let (probe, open) = (&challenge.nonce_probe, &challenge.nonce_open);
    let proof = as_gpu(Prover::prove(&challenge.context, probe, open, COUNTS));
    (challenge, proof)
}

#[test]
fn an_honest_prover_passes_every_check() {
    let verdict = judge(&challenge(TINY), &honest_proof());
    assert_eq!(verdict.outcome(), Outcome::Accepted, "{verdict:#?}");
    assert_eq!(verdict.checks.len(), 8);
    assert_eq!(verdict.evidence, Some(Evidence::Modelled));
    assert_eq!(verdict.first_failure(), None);
}

#[test]
fn an_honest_prover_passes_at_every_edge_of_the_sizes() {
    let edges = [
        ("the smallest memory, where a slice has no choice", Sizes { blocks: 512, ..TINY }),
        ("one window", Sizes { windows: 1, window_shift: 0, ..TINY }),
        ("most windows, each a single step", Sizes { windows: 16, window_shift: 0, ..TINY }),
        ("the largest shift", Sizes { window_shift: 14, ..TINY }),
        ("windows that do not divide an odd memory", Sizes { blocks: 515, windows: 7, ..TINY }),
        ("two chains", Sizes { chains: 2, ..TINY }),
        ("one step between checkpoints", Sizes { steps: 1, ..TINY }),
        ("most steps", Sizes { steps: 256, chains: 2, ..TINY }),
        ("more leaf iterations", Sizes { leaf_iterations: 7, ..TINY }),
        ("a larger product", Sizes { blocks: 1025, gemm_dimension: 512, ..TINY }),
        ("most products", Sizes { gemms: 16, ..TINY }),
    ];
    for (what, edge) in edges {
        // One product is enough where products are not the edge.
        let gemms = if edge.gemms == 16 { 16 } else { 1 };
        let (challenge, proof) = prove(Sizes { gemms, ..edge });
        let verdict = judge(&challenge, &proof);
        assert_eq!(verdict.outcome(), Outcome::Accepted, "{what}: {verdict:#?}");
    }
}

#[test]
fn portable_and_vector_verifiers_agree() {
    let (challenge, honest) = (challenge(TINY), honest_proof());
    let mut wrong = honest.clone();
    wrong.probe_openings.swap(0, 1);
    for proof in [honest, wrong] {
        let fast = Verification::begin(&challenge, &proof);
        let portable = Verification::begin(&challenge, &proof).portable();
        for piece in 0..fast.pieces() {
            assert_eq!(fast.run(piece), portable.run(piece));
        }
    }
}

/// 2048 sampled reads: one per cent of faked lines passes with a chance of 1e-9.
#[test]
fn one_per_cent_of_lines_faked_is_caught_by_the_probe_replay() {
    let challenge = challenge(Sizes { steps: 32, gemms: 1, ..TINY });
    let mut prover = Prover::fill(&challenge.context);
    for line in (0..prover.memory.len() / 32).step_by(100) {
        prover.memory[32 * line..][..32].fill(0);
    }
    let committed = prover.commit(&challenge.nonce_probe, prover.walk(&challenge.nonce_probe));
    let verdict = judge(&challenge, &as_gpu(committed.open(&challenge.nonce_open, COUNTS)));
    assert_caught_by(Check::ProbeReplay, &verdict);
}

/// The prover invents the end of every fifth segment and goes on from there.
#[test]
fn skipped_segments_are_caught_by_the_probe_replay() {
    let challenge = challenge(Sizes { gemms: 1, ..TINY });
    let prover = Prover::fill(&challenge.context);
    let key = prover.chain_key(&challenge.nonce_probe);
    let mut records = Vec::new();
    for chain in 0..16 {
        let mut state = reference::chain_start(key, chain);
        for segment in 0..64 {
            if segment % 5 == 4 {
                state = state.map(|word| word.wrapping_mul(0x9E37_79B9));
            } else {
                for t in 4 * segment..4 * segment + 4 {
                    let parameters = &challenge.context.parameters;
                    state = reference::step(parameters, key, &|i| prover.line(i), state, t);
                }
            }
            records.extend(state.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
    let committed = prover.commit(&challenge.nonce_probe, records);
    let verdict = judge(&challenge, &as_gpu(committed.open(&challenge.nonce_open, COUNTS)));
    assert_eq!(failed_checks(&verdict), [Check::ProbeReplay]);
}

/// The chains are honest; a fifth of the rows is zero when the products are made.
#[test]
fn a_wrong_product_is_caught_by_the_gemm_check() {
    let challenge = challenge(Sizes { gemms: 1, ..TINY });
    let mut prover = Prover::fill(&challenge.context);
    let records = prover.walk(&challenge.nonce_probe);
    for block in (0..601).step_by(5) {
        prover.memory[block * BLOCK_WORDS..][..BLOCK_WORDS].fill(0);
    }
    let committed = prover.commit(&challenge.nonce_probe, records);
    let verdict = judge(&challenge, &as_gpu(committed.open(&challenge.nonce_open, COUNTS)));
    assert_eq!(failed_checks(&verdict), [Check::Gemm]);
}

#[test]
fn swapped_paths_and_swapped_openings_are_caught_by_the_openings_check() {
    let challenge = challenge(TINY);
    let honest = honest_proof();
    let unlike = |a: usize, b: usize| honest.probe_openings[a] != honest.probe_openings[b];
    let other = (1..32).find(|i| unlike(0, *i)).unwrap();

    let mut paths = honest.clone();
    let path = paths.probe_openings[0].path.clone();
    paths.probe_openings[0].path = paths.probe_openings[other].path.clone();
    paths.probe_openings[other].path = path;
    assert_caught_by(Check::Openings, &judge(&challenge, &paths));

    let mut records = honest.clone();
    records.probe_openings.swap(0, other);
    assert_caught_by(Check::Openings, &judge(&challenge, &records));

    let mut entries = honest.clone();
    entries.gemm_openings.swap(0, 1);
    assert_caught_by(Check::Openings, &judge(&challenge, &entries));
}

/// A proof that was right for yesterday's nonces.
#[test]
fn reused_nonces_are_caught_by_the_openings_check() {
    let proof = honest_proof();
    let honest = challenge(TINY);
    let probe = Challenge { nonce_probe: [88; 32], ..honest.clone() };
    assert_caught_by(Check::Openings, &judge(&probe, &proof));
    let open = Challenge { nonce_open: [99; 32], ..honest.clone() };
    assert_caught_by(Check::Openings, &judge(&open, &proof));
    let mut fill = honest;
    fill.context.nonce_fill = [77; 32];
    assert_caught_by(Check::Parameters, &judge(&fill, &proof));
}

/// Another GPU's or another host's proof: it names its context, or lies about it, or is recomputed
/// under our keys over the other's memory.
#[test]
fn a_proof_of_another_uuid_or_host_key_is_caught() {
    let ours = challenge(Sizes { gemms: 1, ..TINY });
    let mut uuid = ours.clone();
    uuid.context.gpu_uuid = [55; 16];
    let mut host = ours.clone();
    host.context.host_id = [44; 32];
    let mut index = ours.clone();
    index.context.gpu_index = 0;
    for theirs in [uuid, host, index] {
        let other = Prover::fill(&theirs.context);
        let committed = other.commit(&ours.nonce_probe, other.walk(&ours.nonce_probe));
        let mut proof = as_gpu(committed.open(&ours.nonce_open, COUNTS));
        assert_caught_by(Check::Parameters, &judge(&ours, &proof));
        proof.context_hash = Digest(ours.context.hash());
        assert_caught_by(Check::Openings, &judge(&ours, &proof));

        let mut relabelled = Prover::fill(&ours.context);
        relabelled.memory = other.memory;
        let records = relabelled.walk(&ours.nonce_probe);
        let committed = relabelled.commit(&ours.nonce_probe, records);
        let proof = as_gpu(committed.open(&ours.nonce_open, COUNTS));
        let verdict = judge(&ours, &proof);
        assert_eq!(failed_checks(&verdict), [Check::ProbeReplay, Check::Gemm]);
    }
}

/// Two GPUs of the listing are one: both proofs are right, but the one memory answers both walks, so
/// each takes twice as long. Contents that differ per GPU make sharing one *fill* impossible, which
/// the test above shows with the GPU index.
#[test]
fn two_gpus_sharing_one_memory_are_caught_by_the_residency_timing() {
    let honest = honest_times(2);
    let shared = Timings { chain_ns: 2 * honest.chain_ns, ..honest };
    let verdict = verify(&challenge(TINY), &honest_proof(), Some(&shared), &policy());
    assert_eq!(failed_checks(&verdict), [Check::ResidencyTiming]);
}

/// A prover that keeps a part of an H100's fill and makes the rest when it is asked, by the model of
/// `SPEC.md` section 14: it recomputes 166 M lines and fetches 0.39 G lines from the host's memory each
/// second, while the honest card reads 20.9 G.
#[test]
fn regeneration_on_the_fly_is_caught_by_the_residency_timing() {
    let profile = ModelTable::embedded().by_driver_name("NVIDIA H100 80GB HBM3").unwrap();
    let baseline = profile.profile(Mode::Quick).baseline();
    let policy = Policy {
        allow_reference: false,
        baseline: Some(baseline),
        timing: TimingPolicy::for_mode(Mode::Quick, Some(500_000)),
        held: false,
    };
    let with_resident = |permille: u64| {
        let missing = (1000 - permille) * 20_900 / (166 + 390);
        let chain_ns = baseline.chain.expected_us * permille.max(missing);
        let gemm_ns = vec![baseline.gemm.expected_us * 1000; 2];
        let times = Timings { fill_ns: None, chain_ns, gemm_ns };
        verify(&challenge(TINY), &honest_proof(), Some(&times), &policy)
    };
    assert_eq!(with_resident(1000).outcome(), Outcome::Accepted);
    // The residue that the specification admits.
    assert_eq!(with_resident(975).outcome(), Outcome::Accepted);
    for permille in [950, 900, 500, 0] {
        assert_eq!(failed_checks(&with_resident(permille)), [Check::ResidencyTiming]);
    }
}

#[test]
fn slow_products_and_impossible_speed_are_caught_by_their_checks() {
    let judge_times = |times: Timings| {
        failed_checks(&verify(&challenge(TINY), &honest_proof(), Some(&times), &policy()))
    };
    let honest = honest_times(2);
    let slow = Timings { gemm_ns: vec![8_000_000, 20_000_000], ..honest.clone() };
    assert_eq!(judge_times(slow), [Check::GemmTiming]);
    let untimed = Timings { gemm_ns: vec![8_000_000], ..honest.clone() };
    assert_eq!(judge_times(untimed), [Check::GemmTiming]);
    let chain = Timings { chain_ns: 1_000_000, ..honest.clone() };
    assert_eq!(judge_times(chain), [Check::TooFast]);
    let fill = Timings { fill_ns: Some(1_000_000), ..honest.clone() };
    assert_eq!(judge_times(fill), [Check::TooFast]);
    let gemm = Timings { chain_ns: 13_000_000, gemm_ns: vec![1, 1], ..honest.clone() };
    assert_eq!(judge_times(gemm), [Check::TooFast]);
    let late = Timings { gemm_ns: vec![8_000_000, 1], ..honest };
    assert_eq!(
        judge_times(late),
        [],
        "the first product's root was late, and no device was faster"
    );
}

#[test]
fn the_reference_backend_is_refused_and_never_accepted() {
    let challenge = challenge(TINY);
    let proof = Proof { backend: Backend::Reference, ..honest_proof() };
    assert_caught_by(Check::Backend, &judge(&challenge, &proof));
    let allowed = Policy { allow_reference: true, ..policy() };
    let verdict = verify(&challenge, &proof, Some(&honest_times(2)), &allowed);
    assert_eq!(verdict.outcome(), Outcome::Unproven);
    assert_eq!(verdict.status(Check::ProbeReplay), Some(Status::Passed));
    assert_eq!(verdict.status(Check::ResidencyTiming), Some(Status::NotJudged));
    assert_eq!(verdict.evidence, None);
}

#[test]
fn without_a_baseline_or_times_a_right_proof_is_unproven() {
    let (challenge, proof) = (challenge(TINY), honest_proof());
    let verdict = verify(&challenge, &proof, None, &policy());
    assert_eq!(verdict.outcome(), Outcome::Unproven);
    let blind = Policy { baseline: None, ..policy() };
    let verdict = verify(&challenge, &proof, Some(&honest_times(2)), &blind);
    assert_eq!(verdict.outcome(), Outcome::Unproven);
}

/// A caller that loses a piece of work must not thereby accept.
#[test]
fn a_piece_left_out_is_no_acceptance() {
    let (challenge, proof) = (challenge(TINY), honest_proof());
    let verification = Verification::begin(&challenge, &proof);
    let run = |pieces: std::ops::Range<usize>| {
        let results: Vec<_> = pieces.filter_map(|piece| verification.run(piece)).collect();
        verification.conclude(results, Some(&honest_times(2)), &policy()).outcome()
    };
    let all = verification.pieces();
    assert_eq!(run(0..all), Outcome::Accepted);
    assert_eq!(run(0..all - 1), Outcome::Unproven);
    assert_eq!(run(1..all), Outcome::Unproven);
    assert_eq!(run(0..0), Outcome::Unproven);
    assert!(verification.run(all).is_none());
}

#[test]
fn truncated_and_reordered_messages_are_caught_by_their_checks() {
    let challenge = challenge(TINY);
    let honest = honest_proof();
    type Change = fn(&mut Proof);
    let changes: [(&str, Check, Change); 9] = [
        ("a record opening is missing", Check::Parameters, |p| {
            p.probe_openings.pop();
        }),
        ("a product opening is missing", Check::Parameters, |p| {
            p.gemm_openings.pop();
        }),
        ("an opening too many", Check::Parameters, |p| {
            p.gemm_openings.push(p.gemm_openings[0].clone());
        }),
        ("no openings", Check::Parameters, |p| {
            p.gemm_openings.clear();
            p.probe_openings.clear();
        }),
        ("a root is missing", Check::Parameters, |p| {
            p.commitments.gemm_roots.pop();
        }),
        ("roots in another order", Check::Openings, |p| p.commitments.gemm_roots.swap(0, 1)),
        ("openings backwards", Check::Openings, |p| p.gemm_openings.reverse()),
        ("a path without its top", Check::Openings, |p| {
            let siblings = p.probe_openings[0].path.siblings();
            p.probe_openings[0].path = Path::from(siblings[..siblings.len() - 1].to_vec());
        }),
        ("an empty path", Check::Openings, |p| {
            p.gemm_openings[0].path = Path::from(Vec::new());
        }),
    ];
    for (what, check, change) in changes {
        let mut proof = honest.clone();
        change(&mut proof);
        let verdict = judge(&challenge, &proof);
        assert_eq!(verdict.status(check), Some(Status::Failed), "{what}: {verdict:#?}");
        assert_eq!(verdict.outcome(), Outcome::Rejected);
    }
}

#[test]
fn the_transcript_hash_covers_everything() {
    let challenge = challenge(TINY);
    let proof = honest_proof();
    let times = honest_times(2);
    let hash = challenge.transcript_hash(&proof, &times);
    let mut other = proof.clone();
    other.probe_openings.swap(0, 1);
    assert_ne!(hash, challenge.transcript_hash(&other, &times));
    let later = Timings { chain_ns: times.chain_ns + 1, ..times.clone() };
    assert_ne!(hash, challenge.transcript_hash(&proof, &later));
    let again = Challenge { nonce_open: [0; 32], ..challenge };
    assert_ne!(hash, again.transcript_hash(&proof, &times));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever bit of whichever part is flipped, the proof is rejected.
    #[test]
    fn every_flipped_bit_is_caught(
        part in 0_usize..5,
        opening in 0_usize..32,
        byte in 0_usize..CHUNK_BYTES,
        bit in 0_u8..8,
    ) {
        let mut proof = honest_proof();
        let flip = 1 << bit;
        let flip_path = |path: &mut Path| {
            let mut siblings = path.siblings().to_vec();
            let last = siblings.len() - 1;
            siblings[byte / 32 % (last + 1)].0[byte % 32] ^= flip;
            *path = Path::from(siblings);
        };
        match part {
            0 => proof.probe_openings[opening].chunk.0[byte] ^= flip,
            1 => proof.gemm_openings[opening].chunk.0[byte] ^= flip,
            2 => flip_path(&mut proof.probe_openings[opening].path),
            3 => flip_path(&mut proof.gemm_openings[opening].path),
            _ => proof.commitments.probe_root.0[byte % 32] ^= flip,
        }
        let verdict = judge(&challenge(TINY), &proof);
        assert_eq!(verdict.outcome(), Outcome::Rejected);
    }
}

#[test]
fn a_challenge_of_the_wrong_sizes_is_another_context() {
    let honest = challenge(TINY);
    let smaller = Challenge { context: context(Sizes { chains: 8, ..TINY }), ..honest };
    assert_caught_by(Check::Parameters, &judge(&smaller, &honest_proof()));
    assert_eq!(TINY_PROVER.1.records.len(), 16 * CHUNK_BYTES);
}

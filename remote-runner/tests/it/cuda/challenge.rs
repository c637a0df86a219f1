//! Whole challenges.

use std::collections::BTreeMap;

use pow_kernels::reference::Prover;
use pow_kernels::timing::TimingPolicy;
use pow_kernels::{
    Backend, Challenge, Check, KernelVariant, Mode, Policy, Proof, Sizes, Status, verify,
};
use runner_protocol::{ExitCode, ProveEvent, RequestId, ToRunner, Unit, encode_frame};

use super::session::{
    FIRST, Host, SECOND, SMALL, Said, Session, artifact, challenge, fill, load, probe,
};

/// What the reference proves, in the words of a GPU.
fn reference(prover: &Prover, challenge: &Challenge) -> Proof {
    let nonce = &challenge.nonce_probe;
    let committed = prover.commit(nonce, prover.walk(nonce));
    let mut proof = committed.open(&challenge.nonce_open, challenge.counts);
    proof.backend = Backend::Cuda;
    proof
}

fn assert_right(challenge: &Challenge, proof: &Proof) {
    let timing = TimingPolicy::for_mode(Mode::Quick, None);
    let policy = Policy { allow_reference: false, baseline: None, timing, held: false };
    let verdict = verify(challenge, proof, None, &policy);
    for check in
        [Check::Backend, Check::Parameters, Check::Openings, Check::ProbeReplay, Check::Gemm]
    {
        assert_eq!(verdict.status(check), Some(Status::Passed), "{verdict:?}");
    }
}

/// One challenge from the start to the release: the reference's proof, bit for bit.
fn whole(capability: [u8; 2], variant: KernelVariant, sizes: Sizes) {
    let [major, minor] = capability;
    let host = Host::new(&[(FIRST, &format!("{major}.{minor}"))]);
    let image = artifact(major, minor);
    assert_eq!(image.variant, variant);
    let challenge = challenge(FIRST, variant, sizes);
    let mut session = host.start();
    let device = session.prepared(1, FIRST);
    assert_eq!(device.uuid, FIRST);
    assert_eq!(device.compute_capability, capability);
    assert_eq!((device.memory_bytes, device.free_bytes), (64 << 20, 64 << 20));
    assert_eq!((device.multiprocessors, device.driver_cuda_version), (2, 12_040));
    assert!(device.is_stand_in(), "{}", device.name);
    session.load(1, image.bytes);
    session.fill(1, &challenge);
    session.round(1, probe(&challenge));
    let commitments = session.roots(1, &challenge);
    let proof = session.open(1, &challenge, commitments);
    let prover = Prover::fill(&challenge.context);
    assert!(proof == reference(&prover, &challenge), "another proof than the reference's");
    assert_right(&challenge, &proof);
    session.release(1);
    assert_eq!(host.calls().last().unwrap(), "cuCtxDestroy clean", "everything was given back");
    assert_eq!(session.runner.end().0, ExitCode::StdinClosed);
}

#[test]
fn dot_products_of_volta_give_the_references_proof() {
    whole([7, 0], KernelVariant::Dp4a, Sizes { gemms: 2, ..SMALL });
}

#[test]
fn matrix_instructions_of_ampere_give_the_references_proof() {
    whole([8, 6], KernelVariant::Mma, SMALL);
}

#[test]
fn warpgroup_instructions_of_hopper_give_the_references_proof() {
    whole([9, 0], KernelVariant::Wgmma, SMALL);
}

#[test]
fn a_held_memory_is_probed_again_and_gives_another_right_proof() {
    let host = Host::new(&[(FIRST, "7.0")]);
    let first = challenge(FIRST, KernelVariant::Dp4a, SMALL);
    let mut session = host.start();
    session.prepared(1, FIRST);
    session.load(1, artifact(7, 0).bytes);
    session.fill(1, &first);
    session.round(1, probe(&first));
    let unopened = session.roots(1, &first);
    let second = Challenge { nonce_probe: [14; 32], nonce_open: [15; 32], ..first };
    session.round(1, probe(&second));
    let commitments = session.roots(1, &second);
    assert_ne!(unopened, commitments);
    let proof = session.open(1, &second, commitments);
    assert!(proof == reference(&Prover::fill(&second.context), &second));
    session.release(1);
    let fills = host.calls().iter().filter(|call| call.contains("gpow_fill")).count();
    assert_eq!(fills, 1);
    session.runner.end();
}

/// What is opened is computed again, and then right: it is not what was committed to.
#[test]
fn a_device_that_multiplies_wrong_gives_a_proof_that_is_refused() {
    let host = Host::new(&[(FIRST, "7.0")]).with("FAKE_CUDA_FAULT", "wrong@6");
    let challenge = challenge(FIRST, KernelVariant::Dp4a, SMALL);
    let mut session = host.start();
    session.prepared(1, FIRST);
    session.load(1, artifact(7, 0).bytes);
    session.fill(1, &challenge);
    session.round(1, probe(&challenge));
    let commitments = session.roots(1, &challenge);
    let calls = host.calls();
    let launches: Vec<_> =
        calls.iter().filter_map(|call| call.strip_prefix("cuLaunchKernel ")).collect();
    assert_eq!(launches[5], "gpow_gemm_dp4a");
    let proof = session.open(1, &challenge, commitments);
    assert!(proof != reference(&Prover::fill(&challenge.context), &challenge));
    let timing = TimingPolicy::for_mode(Mode::Quick, None);
    let policy = Policy { allow_reference: false, baseline: None, timing, held: false };
    let verdict = verify(&challenge, &proof, None, &policy);
    assert_eq!(verdict.first_failure().unwrap().check, Check::Openings);
    session.runner.end();
}

/// Sends rounds to several requests in one write.
fn at_once(session: &mut Session, rounds: &BTreeMap<u64, runner_protocol::Round>) {
    let frames = rounds.iter().flat_map(|(id, round)| {
        let message = ToRunner::Continue { id: RequestId(*id), round: round.clone() };
        encode_frame(&message).unwrap()
    });
    let frames: Vec<u8> = frames.collect();
    session.runner.write(&frames);
}

#[test]
fn two_gpus_and_a_watch_at_once_and_one_that_fails_is_alone() {
    // The second device finds an error in its memory in the probe.
    let host = Host::new(&[(FIRST, "7.0"), (SECOND, "7.0")])
        .with("FAKE_CUDA_FAULT", &format!("{SECOND}/launch=214@3"));
    let challenges =
        [(1, FIRST), (2, SECOND)].map(|(id, gpu)| (id, challenge(gpu, KernelVariant::Dp4a, SMALL)));
    let mut session = host.start();
    session.runner.request(9, Unit::Watch { interval_ms: 10 });
    let Said::Telemetry(sample) = session.said(9) else { panic!("no sample") };
    let gpus: Vec<_> = sample.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!(gpus, [FIRST, SECOND]);
    session.prove(1, FIRST);
    session.prove(2, SECOND);
    for (id, gpu) in [(1, FIRST), (2, SECOND)] {
        let ProveEvent::Prepared { device: Some(device) } = session.step(id) else {
            panic!("not prepared");
        };
        assert_eq!(device.uuid, gpu);
    }
    let image = artifact(7, 0).bytes;
    at_once(&mut session, &BTreeMap::from([(1, load(image)), (2, load(image))]));
    for id in [1, 2] {
        assert_eq!(session.step(id), ProveEvent::Loaded {});
    }
    let rounds = challenges.iter().map(|(id, challenge)| (*id, fill(challenge)));
    at_once(&mut session, &rounds.collect());
    for id in [1, 2] {
        assert_eq!(session.step(id), ProveEvent::Filled {});
    }
    let rounds = challenges.iter().map(|(id, challenge)| (*id, probe(challenge)));
    at_once(&mut session, &rounds.collect());
    assert_eq!(session.failure(2).0, "ecc_error");
    let (_, challenge) = &challenges[0];
    let commitments = session.roots(1, challenge);
    let proof = session.open(1, challenge, commitments);
    assert_right(challenge, &proof);
    session.release(1);
    // The watch went on beside them.
    assert!(matches!(session.said(9), Said::Telemetry(_)));
    let contexts: Vec<_> =
        host.calls().into_iter().filter(|call| call.starts_with("cuCtxCreate")).collect();
    assert_eq!(contexts.len(), 2, "each process made one context");
    assert!(contexts.iter().any(|call| call.ends_with(FIRST)), "{contexts:?}");
    assert!(contexts.iter().any(|call| call.ends_with(SECOND)), "{contexts:?}");
    session.runner.end();
}

#[test]
fn sixteen_gpus_and_a_watch_are_served_at_once() {
    let gpus: Vec<String> =
        (1..=16).map(|gpu| format!("GPU-44444444-0000-0000-0000-0000000000{gpu:02x}")).collect();
    let host = Host::new(&gpus.iter().map(|gpu| (gpu.as_str(), "9.0")).collect::<Vec<_>>());
    let mut session = host.start();
    session.runner.request(99, Unit::Watch { interval_ms: 60_000 });
    for (id, gpu) in (1..).zip(&gpus) {
        session.prove(id, gpu);
    }
    for (id, gpu) in (1..).zip(&gpus) {
        let ProveEvent::Prepared { device: Some(device) } = session.step(id) else {
            panic!("not prepared");
        };
        assert_eq!(device.uuid, *gpu);
    }
    for id in 1..=16 {
        session.release(id);
    }
    let Said::Telemetry(sample) = session.said(99) else { panic!("no sample") };
    assert_eq!(sample.gpus.len(), 16);
    session.runner.end();
}

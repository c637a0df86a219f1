//! The proof-of-work unit: the CPU reference, and what is said for want of CUDA.

use pow_kernels::proof::Commitments;
use pow_kernels::timing::TimingPolicy;
use pow_kernels::{
    Challenge, Check, Context, Digest, KernelVariant, Mode, Outcome as Judged, Parameters, Policy,
    Proof, QueryCounts, Sizes, Status, verify,
};
use runner_protocol::prove::{Image, Opened};
use runner_protocol::{
    Backend, ByteArray, ExitCode, FromRunner, Outcome, ProveEvent, ProveReply, Reply, RequestId,
    Round, ToRunner, Unit, encode_frame,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::harness::{Runner, command, with_nvml};

const ID: u64 = 4;

const SMALL: Sizes = Sizes {
    leaf_iterations: 1,
    blocks: 601,
    chains: 16,
    steps: 4,
    windows: 3,
    window_shift: 2,
    gemms: 2,
    gemm_dimension: 256,
};

fn challenge(sizes: Sizes) -> Challenge {
    Challenge {
        context: Context {
            mode: Mode::Quick,
            nonce_fill: [1; 32],
            validator_hotkey: [0; 32],
            orchestrator_hotkey: [0; 32],
            host_id: [2; 32],
            gpu_uuid: [0; 16],
            gpu_index: 0,
            gpu_count: 1,
            model_id: 0,
            variant: KernelVariant::Reference,
            parameters: Parameters::new(sizes).unwrap(),
            issued_at_ms: 1_700_000_000_000,
            challenge_id: [3; 16],
        },
        nonce_probe: [4; 32],
        nonce_open: [5; 32],
        // More than one reply of openings, and two kinds that cannot be mistaken.
        counts: QueryCounts { probe: 520, gemm: 40 },
    }
}

fn fill(context: &Context) -> Round {
    Round::Fill { context: Box::new(ByteArray(context.encode())) }
}

fn probe(nonce: u8) -> Round {
    Round::Probe { nonce: ByteArray([nonce; 32]) }
}

fn open(challenge: &Challenge) -> Round {
    Round::Open { nonce: ByteArray(challenge.nonce_open), counts: challenge.counts }
}

/// A runner that has prepared the reference.
fn prepared() -> Runner {
    let mut runner = Runner::start(&mut command(&[]));
    runner.request(ID, Unit::Prove { backend: Backend::Reference, gpu: None });
    assert_eq!(step(&mut runner), ProveEvent::Prepared { device: None });
    runner
}

fn go_on(runner: &mut Runner, round: Round) {
    runner.send(&ToRunner::Continue { id: RequestId(ID), round });
}

/// The next step, which must say what made it.
fn step(runner: &mut Runner) -> ProveEvent {
    match runner.next() {
        Some(FromRunner::Reply {
            id: RequestId(ID),
            reply: Reply::Prove(ProveReply { backend: Backend::Reference, event }),
        }) => event,
        other => panic!("no step of the reference but {other:?}"),
    }
}

fn roots(runner: &mut Runner) -> Commitments {
    let mut root = |expected: Option<u8>| match step(runner) {
        ProveEvent::Root { product, root } if product == expected => root,
        other => panic!("no root of {expected:?} but {other:?}"),
    };
    Commitments { probe_root: root(None), gemm_roots: vec![root(Some(0)), root(Some(1))] }
}

fn proof(runner: &mut Runner, challenge: &Challenge, commitments: Commitments) -> Proof {
    let (mut probe_openings, mut gemm_openings) = (Vec::new(), Vec::new());
    while gemm_openings.len() < usize::from(challenge.counts.gemm) {
        match step(runner) {
            ProveEvent::Openings { of: Opened::Records, openings } => {
                assert!(gemm_openings.is_empty(), "records come first");
                probe_openings.extend(openings);
            }
            ProveEvent::Openings { of: Opened::Products, openings } => {
                gemm_openings.extend(openings);
            }
            other => panic!("no openings but {other:?}"),
        }
    }
    let context_hash = Digest(challenge.context.hash());
    Proof { backend: Backend::Reference, context_hash, commitments, probe_openings, gemm_openings }
}

/// The prover's process, to be waited for.
fn prover(runner: &Runner) -> rustix::fd::OwnedFd {
    let children = runner.children();
    assert_eq!(children.len(), 1);
    pidfd_open(children[0], PidfdFlags::empty()).unwrap()
}

/// Blocks until the process has ended: without a limit, so that it hangs if it does not.
fn ended(process: &rustix::fd::OwnedFd) {
    let mut waiting = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut waiting, None).unwrap(), 1);
}

/// Sizes that take the reference long enough to be met in the middle: seconds, and never waited for.
fn busy() -> (Runner, rustix::fd::OwnedFd) {
    let mut runner = prepared();
    let process = prover(&runner);
    let sizes = Sizes { blocks: 4096, leaf_iterations: 8, gemms: 8, ..SMALL };
    go_on(&mut runner, fill(&challenge(sizes).context));
    (runner, process)
}

#[test]
fn a_whole_reference_challenge_passes_the_verifier_only_where_that_is_allowed() {
    let challenge = challenge(SMALL);
    let mut runner = prepared();
    assert!(runner.hello.capabilities.iter().any(|name| name == "prove.reference"));
    let process = prover(&runner);
    go_on(&mut runner, fill(&challenge.context));
    assert_eq!(step(&mut runner), ProveEvent::Filled {});
    // A probe whose commitment is never opened, then another over the same memory.
    go_on(&mut runner, probe(9));
    let unopened = roots(&mut runner);
    go_on(&mut runner, Round::Probe { nonce: ByteArray(challenge.nonce_probe) });
    let commitments = roots(&mut runner);
    assert_ne!(unopened, commitments);
    go_on(&mut runner, open(&challenge));
    let mut proof = proof(&mut runner, &challenge, commitments);
    go_on(&mut runner, Round::Release {});
    assert_eq!(runner.answer(ID), (Vec::new(), Outcome::Ok {}));
    ended(&process);
    assert_eq!(runner.children(), []);

    let judge = |proof: &Proof, allow_reference| {
        let timing = TimingPolicy::for_mode(Mode::Quick, None);
        verify(
            &challenge,
            proof,
            None,
            &Policy { allow_reference, baseline: None, timing, held: false },
        )
    };
    let verdict = judge(&proof, true);
    assert_eq!(verdict.outcome(), Judged::Unproven, "{verdict:?}");
    for check in
        [Check::Backend, Check::Parameters, Check::Openings, Check::ProbeReplay, Check::Gemm]
    {
        assert_eq!(verdict.status(check), Some(Status::Passed), "{verdict:?}");
    }
    let refused = judge(&proof, false);
    assert_eq!(refused.first_failure().unwrap().check, Check::Backend);
    proof.gemm_openings[7].chunk.0[5] ^= 1;
    assert_eq!(judge(&proof, true).first_failure().unwrap().check, Check::Openings);
    assert_eq!(runner.end().0, ExitCode::StdinClosed);
}

#[test]
fn for_want_of_a_driver_the_cpu_is_never_taken_instead() {
    let gpu = Some("GPU-11111111-0000-0000-0000-000000000001".to_owned());
    let mut runner = Runner::start(&mut with_nvml("no_module", &[]));
    runner.request(ID, Unit::Prove { backend: Backend::Cuda, gpu });
    let (replies, outcome) = runner.answer(ID);
    assert_eq!(replies, []);
    assert!(
        matches!(&outcome, Outcome::Failed { code, message }
            if code == "no_driver" && message.starts_with("No NVIDIA driver found")),
        "{outcome:?}"
    );
    runner.end();
}

#[test]
fn what_is_not_for_the_reference_is_refused_before_anything_is_allocated() {
    let with = |sizes: Sizes| fill(&challenge(sizes).context);
    let mut for_kernels = challenge(SMALL).context;
    for_kernels.variant = KernelVariant::Mma;
    for (round, code) in [
        (with(Sizes { blocks: 4097, ..SMALL }), "too_large"),
        (with(Sizes { blocks: 1 << 40, ..SMALL }), "too_large"),
        (with(Sizes { chains: 1 << 13, steps: 3, ..SMALL }), "too_large"),
        (with(Sizes { gemms: 9, ..SMALL }), "too_large"),
        (with(Sizes { leaf_iterations: 9, ..SMALL }), "too_large"),
        (fill(&for_kernels), "context"),
        (Round::Fill { context: Box::new(ByteArray([0xff; 256])) }, "context"),
        (Round::Load { image: Image(vec![0; 64]) }, "unexpected"),
        (probe(1), "unexpected"),
        (open(&challenge(SMALL)), "unexpected"),
    ] {
        let mut runner = prepared();
        go_on(&mut runner, round.clone());
        let (replies, outcome) = runner.answer(ID);
        assert_eq!(replies, [], "{round:?}");
        assert!(
            matches!(&outcome, Outcome::Failed { code: found, .. } if found == code),
            "{round:?}: {outcome:?}"
        );
        // The session goes on.
        runner.facts();
        runner.end();
    }
}

#[test]
fn an_unknown_round_is_unsupported_and_the_session_goes_on() {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Later {
        Continue { id: u64, round: std::collections::BTreeMap<&'static str, u8> },
    }
    let mut runner = prepared();
    let round = std::collections::BTreeMap::from([("attest", 1)]);
    runner.write(&encode_frame(&Later::Continue { id: ID, round }).unwrap());
    let unsupported = Outcome::Unsupported { unit: "attest".into() };
    assert_eq!(runner.answer(ID), (Vec::new(), unsupported));
    runner.facts();
    runner.end();
}

#[test]
fn a_round_before_the_last_is_answered_or_for_a_unit_without_rounds_fails() {
    let (mut runner, process) = busy();
    go_on(&mut runner, probe(1));
    let outcome = runner.answer(ID).1;
    assert!(
        matches!(&outcome, Outcome::Failed { code, .. } if code == "unexpected"),
        "{outcome:?}"
    );
    ended(&process);
    runner.end();

    let mut runner = Runner::start(&mut with_nvml("honest", &[]));
    runner.request(ID, Unit::Watch { interval_ms: 60_000 });
    go_on(&mut runner, Round::Release {});
    let outcome = runner.answer(ID).1;
    assert!(
        matches!(&outcome, Outcome::Failed { code, .. } if code == "unexpected"),
        "{outcome:?}"
    );
    // One that is gone, or never was, is left alone.
    go_on(&mut runner, Round::Release {});
    runner.facts();
    runner.end();
}

#[test]
fn cancelling_frees_everything_in_the_middle_of_a_round() {
    let (mut runner, process) = busy();
    runner.send(&ToRunner::Cancel { id: RequestId(ID) });
    assert_eq!(runner.answer(ID), (Vec::new(), Outcome::Cancelled {}));
    ended(&process);
    assert_eq!(runner.children(), []);
    runner.facts();
    runner.end();
}

#[test]
fn every_end_of_the_runner_takes_the_prover_along() {
    let (runner, process) = busy();
    assert_eq!(runner.end().0, ExitCode::StdinClosed);
    ended(&process);
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut runner, process) = busy();
        let pid = i32::try_from(runner.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        runner.child.wait().unwrap();
        ended(&process);
    }
}

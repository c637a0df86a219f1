//! A launch that never ends: every way to end takes the prover along.

use pow_kernels::KernelVariant;
use runner_protocol::{ExitCode, Outcome, RequestId, ToRunner};
use rustix::process::{Pid, Signal, kill_process};

use super::session::{FIRST, Host, SMALL, Said, Session, artifact, challenge, fill, open};
use crate::harness::{Fifo, all_gone};

/// A runner whose prover hangs in the fill, and what tells that it is gone.
fn hanging() -> (Session, Fifo, std::fs::File) {
    let fifo = Fifo::new();
    let host = Host::new(&[(FIRST, "9.0")])
        .with("FAKE_CUDA_FAULT", "hang@2")
        .with("FAKE_CUDA_FIFO", fifo.path.to_str().unwrap());
    let mut session = host.start();
    session.prepared(1, FIRST);
    session.load(1, artifact(9, 0).bytes);
    session.round(1, fill(&challenge(FIRST, KernelVariant::Wgmma, SMALL)));
    let held = fifo.hanging();
    (session, fifo, held)
}

/// The first phase hangs, so that no deadline is too short for one before it.
#[test]
fn a_phase_that_does_not_end_is_overdue_and_its_process_is_killed() {
    let fifo = Fifo::new();
    let host = Host::new(&[(FIRST, "9.0")])
        .with("FAKE_CUDA_FAULT", "init_hang")
        .with("FAKE_CUDA_FIFO", fifo.path.to_str().unwrap())
        .argument("--phase-deadline-ms")
        .argument("300");
    let mut session = host.start();
    session.prove(1, FIRST);
    let (code, message) = session.failure(1);
    assert_eq!(code, "deadline");
    assert!(message.starts_with("the phase start did not end within 300 ms"), "{message}");
    assert_eq!(session.runner.children(), []);
    session.runner.facts();
    session.runner.end();
}

#[test]
fn cancelling_kills_a_prover_that_hangs() {
    let (mut session, _fifo, held) = hanging();
    session.runner.send(&ToRunner::Cancel { id: RequestId(1) });
    assert_eq!(session.said(1), Said::Finished(Outcome::Cancelled {}));
    all_gone(held);
    session.runner.end();
}

#[test]
fn a_round_before_the_last_is_answered_fails() {
    let (mut session, _fifo, held) = hanging();
    session.round(1, open(&challenge(FIRST, KernelVariant::Wgmma, SMALL)));
    assert_eq!(session.failure(1).0, "unexpected");
    all_gone(held);
    session.runner.end();
}

#[test]
fn every_end_of_the_runner_takes_a_prover_that_hangs_along() {
    let (session, _fifo, held) = hanging();
    assert_eq!(session.runner.end().0, ExitCode::StdinClosed);
    all_gone(held);
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut session, _fifo, held) = hanging();
        let pid = i32::try_from(session.runner.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        session.runner.child.wait().unwrap();
        all_gone(held);
    }
}

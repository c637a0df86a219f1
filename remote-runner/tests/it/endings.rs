//! The dead-man's switch: every way to end takes the whole process tree along.
//!
//! The fake library hangs in the probe's child and leaves an orphan in a session of its own; both
//! hold a pipe whose end the tests wait for.

use runner_protocol::{ExitCode, FactsQuery, FromRunner, Reply, ToRunner, Unit};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Fifo, Runner, all_gone, command, with_nvml};

/// A runner whose probe hangs, and what tells that its children are gone.
fn hanging(arguments: &[&str]) -> (Runner, Fifo, std::fs::File) {
    let fifo = Fifo::new();
    let mut runner = Runner::start(with_nvml("hang", arguments).env("FAKE_NVML_FIFO", &fifo.path));
    runner.request(1, Unit::Facts(FactsQuery::default()));
    let held = fifo.hanging();
    (runner, fifo, held)
}

fn signal(runner: &Runner, signal: Signal) {
    let pid = i32::try_from(runner.child.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn stdin_eof_ends_the_runner_and_its_children() {
    let (runner, _fifo, held) = hanging(&[]);
    assert_eq!(runner.end().0, ExitCode::StdinClosed);
    all_gone(held);
}

#[test]
fn a_lapsed_lease_ends_the_runner_and_its_children() {
    let (runner, _fifo, held) = hanging(&["--lease-ms", "700"]);
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::LeaseLapsed);
    all_gone(held);
}

#[test]
fn the_deadline_ends_the_runner_and_its_children() {
    let (runner, _fifo, held) = hanging(&["--deadline-secs", "1"]);
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::Deadline);
    all_gone(held);
}

#[test]
fn signals_end_the_runner_and_its_children() {
    for number in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (runner, _fifo, held) = hanging(&[]);
        signal(&runner, number);
        assert_eq!(runner.end_with_stdin_open().0, ExitCode::Terminated);
        all_gone(held);
    }
}

#[test]
fn garbage_ends_the_runner_and_its_children() {
    let (mut runner, _fifo, held) = hanging(&[]);
    runner.write(&[0xff; 64]);
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::ProtocolError);
    all_gone(held);
}

#[test]
fn cancelling_ends_the_probe_and_not_the_session() {
    let (mut runner, _fifo, held) = hanging(&[]);
    runner.send(&ToRunner::Cancel { id: runner_protocol::RequestId(1) });
    assert_eq!(runner.answer(1), (Vec::new(), runner_protocol::Outcome::Cancelled {}));
    runner.send(&ToRunner::Shutdown {});
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::Ok);
    all_gone(held);
}

/// A killed runner cannot take its children along: the kernel kills the probe with it.
#[test]
fn a_killed_runner_takes_its_probe_along() {
    let mut runner = Runner::start(&mut with_nvml("honest", &[]));
    runner.request(1, Unit::Watch { interval_ms: 60_000 });
    assert!(matches!(runner.next(), Some(FromRunner::Reply { reply: Reply::Telemetry(_), .. })));
    let pid = runner.child.id();
    let path = format!("/proc/{pid}/task");
    let probes: Vec<i32> = std::fs::read_dir(path)
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
        .flat_map(|line| {
            line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(probes.len(), 1);
    let probe = Pid::from_raw(probes[0]).unwrap();
    let probe = rustix::process::pidfd_open(probe, rustix::process::PidfdFlags::empty()).unwrap();
    signal(&runner, Signal::KILL);
    runner.child.wait().unwrap();
    // Readable once the process has ended: no timeout, so this hangs if it does not.
    let mut waiting = [rustix::event::PollFd::new(&probe, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut waiting, None).unwrap(), 1);
}

#[test]
fn renewals_keep_the_session_alive() {
    let mut runner = Runner::start(&mut with_nvml("honest", &["--lease-ms", "2000"]));
    runner.request(1, Unit::Watch { interval_ms: 100 });
    // Each sample is at least 100 ms after the last, so these take longer than one lease.
    for _ in 0..25 {
        assert!(matches!(
            runner.next(),
            Some(FromRunner::Reply { reply: Reply::Telemetry(_), .. })
        ));
        runner.send(&ToRunner::Renew {});
    }
    runner.send(&ToRunner::Shutdown {});
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::Ok);
}

#[test]
fn other_messages_do_not_renew_the_lease() {
    let mut runner = Runner::start(&mut command(&["--lease-ms", "500"]));
    // Answered or not, each of these is a message; the lease ends all the same.
    while let (Some(stdin), Ok(frame)) = (
        runner.stdin.as_mut(),
        runner_protocol::encode_frame(&ToRunner::Cancel { id: runner_protocol::RequestId(1) }),
    ) {
        if std::io::Write::write_all(stdin, &frame).is_err() {
            break;
        }
    }
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::LeaseLapsed);
}

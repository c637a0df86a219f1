//! `demo` by the built binary: everything on this machine, and nothing of it left.

use std::fs;

use rustix::process::Signal;

use crate::cli::operator::{Operator, eventually, runner_beside};
use crate::deploy::host::{running_with_home, tree};

/// The demo's hosts run commands with the programs of this machine.
fn demo(operator: &Operator, arguments: &[&str]) -> std::process::Command {
    runner_beside();
    let mut command = operator.command([&["demo"], arguments].concat());
    command.env("PATH", "/usr/bin:/bin").env_remove("ORCHESTRATOR_RUNNER");
    command
}

#[tokio::test]
async fn the_demo_shows_a_deploy_sweeps_and_a_proof_and_leaves_nothing() {
    let operator = Operator::new();
    let running = crate::cli::operator::Running::start(demo(&operator, &["--hosts", "2"]));
    let finished = running.end().await.expect(0);
    for words in ["2 hosts, all well, runner uploaded to 2", "2 hosts, all well, nothing uploaded"]
    {
        assert!(finished.stdout.contains(words), "{finished:?}");
    }
    // A sweep of well hosts, one that finds the runner that was removed, one that puts it back.
    assert_eq!(finished.stdout.matches("2 hosts: 2 well, ").count(), 2, "{finished:?}");
    for words in [
        "embedded-1  degraded  runner_missing",
        "embedded-1: orchestrator deploy --limit embedded-1",
        "2 hosts: 1 well, 1 degraded, ",
        "embedded-1: mended: the runner was uploaded again",
    ] {
        assert!(finished.stdout.contains(words), "{words}: {finished:?}");
    }
    // A proof of the reference, which says what it is, and the check of its document.
    assert!(finished.stderr.contains("it proves nothing of a GPU"), "{finished:?}");
    let challenged = finished.stdout.matches("reference: challenge ").count();
    let examined = finished.stdout.matches("proof.json: ").count();
    assert_eq!((challenged, examined), (1, 1), "{finished:?}");
    assert!(finished.stdout.contains("the audit chain is whole"), "{finished:?}");
    assert_eq!(tree(&operator.temporary()), "");
    assert_eq!(tree(&operator.home()), "");
    assert_eq!(running_with_home(&operator.temporary()), [""; 0]);
}

#[tokio::test]
async fn ctrl_c_in_the_demo_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let operator = Operator::new();
        let running = crate::cli::operator::Running::start(demo(&operator, &["--hosts", "8"]));
        // In the middle: the first bytes of an upload are on a host's disk.
        eventually("an upload begins", || tree(&operator.temporary()).contains(".upload.")).await;
        running.signal(signal);
        let finished = running.end().await.expect(130);
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        assert_eq!(fs::read_dir(operator.temporary()).unwrap().count(), 0, "{finished:?}");
        assert_eq!(tree(&operator.home()), "");
        eventually("its processes end", || running_with_home(&operator.temporary()).is_empty())
            .await;
    }
}

//! How containers end, and who is told: by memory, by time, by Ctrl-C, by the death of the
//! orchestrator.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::engine::IMAGE;
use super::site::{Site, at, name};
use crate::cli::operator::eventually;

/// Far less than a grace time that a test does not want to be waited for.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Ends at TERM with 7, and says so.
const ENDS_AT_TERM: &str =
    "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done";

/// Does not end at TERM.
const IGNORES_TERM: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

#[tokio::test]
async fn a_container_that_needs_more_memory_than_it_may_is_said_to_have_run_out_of_it() {
    let site = Site::new().await;
    let name = name("oom");
    // A shell variable of 64 MiB.
    let script = "x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\\000' x); echo survived";
    let ran = site.run(&["--name", &name, "--memory", "16m"], &["sh", "-c", script]).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stdout.contains("survived"), "{ran:?}");
    let found = site.engine.inspect(&name).unwrap();
    assert_eq!(found["State"]["OOMKilled"], true, "{found}");
    assert_eq!(found["HostConfig"]["Memory"], 16 << 20);
    let said = ran.stderr.to_lowercase();
    assert!(said.contains("memory"), "{ran:?}");
}

#[tokio::test]
async fn a_timeout_ends_the_container_and_is_said() {
    let site = Site::new().await;
    let name = name("late");
    let options = ["--rm", "--name", &name, "--timeout", "1s"];
    let ran = site.run(&options, &["sh", "-c", ENDS_AT_TERM]).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("time"), "{ran:?}");
    site.gone(&name).await;
}

#[tokio::test]
async fn ctrl_c_asks_the_container_to_end_and_records_what_it_did() {
    let site = Site::new().await;
    let name = name("asked");
    let running = site.start(&["--name", &name], &["sh", "-c", ENDS_AT_TERM]);
    site.wrote(&name, "ready").await;
    running.signal(Signal::INT);
    let finished = running.end_within(AT_ONCE).await.expect(130);
    assert!(finished.stdout.contains("term"), "{finished:?}");
    let found = site.engine.inspect(&name).unwrap();
    assert_eq!(found["State"]["ExitCode"], 7, "{found}");
    site.operator.audit().await;
}

#[tokio::test]
async fn a_container_that_ignores_term_is_killed_after_the_grace_time() {
    let site = Site::new().await;
    let name = name("stubborn");
    let running = site.start(&["--name", &name, "--grace", "1s"], &["sh", "-c", IGNORES_TERM]);
    site.wrote(&name, "ready").await;
    running.signal(Signal::INT);
    running.end_within(AT_ONCE).await.expect(130);
    let found = site.engine.inspect(&name).unwrap();
    assert_eq!(found["State"]["Running"], false, "{found}");
    assert_eq!(found["State"]["ExitCode"], 137, "{found}");
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once_and_the_truth_is_found_later() {
    let site = Site::new().await;
    let name = name("twice");
    // What the first alone would wait for is far beyond the limit of this test.
    let options = ["--name", &name, "--grace", "1h"];
    let running = site.start(&options, &["sh", "-c", IGNORES_TERM]);
    site.wrote(&name, "ready").await;
    running.signal(Signal::INT);
    eventually("it says that it stops the container", || {
        running.written().1.contains("stopping the container")
    })
    .await;
    running.signal(Signal::INT);
    running.end_within(AT_ONCE).await.expect(130);
    eventually("the container has ended", || !site.runs(&name)).await;
    site.operator.audit().await;
    assert_eq!(running_rows(&site.ps().await), Vec::<&Value>::new());
}

fn running_rows(rows: &[Value]) -> Vec<&Value> {
    rows.iter().filter(|row| row["state"] == "running").collect()
}

#[tokio::test]
async fn a_foreground_container_does_not_survive_the_orchestrator() {
    let site = Site::new().await;
    let name = name("orphan");
    let running = site.start(&["--rm", "--name", &name], &["sh", "-c", ENDS_AT_TERM]);
    site.wrote(&name, "ready").await;
    running.signal(Signal::KILL);
    assert_eq!(running.end().await.code, None);
    site.gone(&name).await;
    eventually("the host is quiet", || site.host.left_running().is_empty()).await;
    assert_eq!(running_rows(&site.ps().await), Vec::<&Value>::new());
    site.operator.audit().await;
}

#[tokio::test]
async fn a_detached_container_survives_the_orchestrator_and_is_found_again() {
    let site = Site::with_gpus().await;
    let name = name("detached");
    let options = ["--detach", "--name", &name, "--gpus", "1"];
    site.run(&options, &["sh", "-c", ENDS_AT_TERM]).await.expect(0);
    assert!(site.runs(&name));
    let rows = site.ps().await;
    assert_eq!(running_rows(&rows).len(), 1, "{rows:?}");
    // Somebody else ends it: the next look at the host finds that and gives the GPU back.
    site.engine.docker_says(["rm", "--force", &name]);
    let rows = site.ps().await;
    assert_eq!(running_rows(&rows), Vec::<&Value>::new(), "{rows:?}");
    site.run(&["--rm", "--gpus", "2"], &["true"]).await.expect(0);
}

#[tokio::test]
async fn a_killed_orchestrator_does_not_keep_the_gpus_of_its_container() {
    let site = Site::with_gpus().await;
    let name = name("held");
    let options = ["--rm", "--name", &name, "--gpus", "2"];
    let running = site.start(&options, &["sh", "-c", ENDS_AT_TERM]);
    site.wrote(&name, "ready").await;
    running.signal(Signal::KILL);
    running.end().await;
    site.gone(&name).await;
    site.ps().await;
    site.run(&["--rm", "--gpus", "2"], &["true"]).await.expect(0);
}

#[tokio::test]
async fn stop_and_rm_do_what_they_say() {
    let site = Site::new().await;
    let name = name("stopped");
    site.run(&["--detach", "--name", &name], &["sh", "-c", ENDS_AT_TERM]).await.expect(0);
    site.wrote(&name, "ready").await;
    // What runs is not removed without being told to.
    let refused = site.operator.run(["rm", &at(&name)]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(site.runs(&name));
    site.operator.run(["stop", &at(&name)]).await.expect(0);
    assert_eq!(site.engine.inspect(&name).unwrap()["State"]["ExitCode"], 7);
    site.operator.run(["rm", &at(&name)]).await.expect(0);
    assert_eq!(site.engine.inspect(&name), None);
}

#[tokio::test]
async fn containers_of_others_are_never_touched() {
    let site = Site::new().await;
    let foreign = name("foreign");
    site.engine.docker_says(["run", "--detach", "--name", &foreign, IMAGE, "sleep", "100000"]);
    let other = Site::new().await;
    let others = name("others");
    other.run(&["--detach", "--name", &others], &["sleep", "100000"]).await.expect(0);

    let rows = site.ps().await;
    for name in [&foreign, &others] {
        assert!(rows.iter().all(|row| row["name"] != **name), "{rows:?}");
        for verb in ["stop", "rm"] {
            let refused = site.operator.run([verb, &at(name)]).await;
            assert_ne!(refused.code, Some(0), "{verb} {name}: {refused:?}");
        }
        assert!(site.runs(name), "{name}");
    }
    assert!(site.runs(&foreign) && site.runs(&others));
    site.engine.docker_says(["rm", "--force", &foreign, &others]);
}

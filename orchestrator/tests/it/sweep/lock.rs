//! Sweeps do not stack.

use std::time::Duration;

use orchestrator::store::Store;
use rustix::process::Signal;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use super::deployed;
use crate::cli::operator::{Operator, eventually};

/// Runs a statement on an operator's database, as time passing or another hand would.
pub async fn change_database(operator: &Operator, statement: &'static str) -> u64 {
    let options = SqliteConnectOptions::new().filename(operator.database());
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let changed = sqlx::query(statement).execute(&mut database).await.unwrap().rows_affected();
    database.close().await.unwrap();
    changed
}

#[tokio::test]
async fn the_lock_has_one_holder_until_it_is_given_back_or_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let lease = Duration::from_secs(3600);
    let first = store.take_sweep_lock("first", lease).await.unwrap().unwrap();
    let held = store.take_sweep_lock("second", lease).await.unwrap().unwrap_err();
    assert_eq!(held.holder, "first");
    assert!(store.renew_sweep_lock(&first, lease).await.unwrap());
    store.release_sweep_lock(&first).await.unwrap();
    // A lease of no time is over when it begins.
    let second = store.take_sweep_lock("second", Duration::ZERO).await.unwrap().unwrap();
    let third = store.take_sweep_lock("third", lease).await.unwrap().unwrap();
    assert!(!store.renew_sweep_lock(&second, lease).await.unwrap(), "it was lost");
    store.release_sweep_lock(&second).await.unwrap();
    let held = store.take_sweep_lock("fourth", lease).await.unwrap().unwrap_err();
    assert_eq!(held.holder, "third", "a lock that was lost is not given back");
    store.release_sweep_lock(&third).await.unwrap();
    store.close().await;
}

/// A host that takes the connection and says nothing keeps the first sweep at work.
#[tokio::test]
async fn a_second_sweep_ends_with_status_6_and_a_killed_one_leaves_its_lease() {
    let (host, operator) = deployed("", "").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    operator.fleet(&[host.pinned_through("silent", port)]);
    let first = operator.start(["sweep", "--hosts", "fleet.toml"]);
    // It has the lock before it connects.
    let taken = tokio::task::spawn_blocking(move || silent.accept().map(|it| (silent, it)));
    let _kept = taken.await.unwrap().unwrap();
    let second = operator.run(["sweep", "--json"]).await.expect(6);
    assert_eq!(second.json_lines()[0]["reason"], "locked");
    assert!(second.stderr.contains("another sweep holds the lock: "), "{second:?}");
    assert!(second.stderr.contains(", process ") && second.stderr.contains(" ago"), "{second:?}");

    first.signal(Signal::KILL);
    assert_eq!(first.end().await.code, None);
    let third = operator.run(["sweep"]).await.expect(6);
    assert!(third.stderr.contains("the lock ends by itself in "), "{third:?}");
    let passed = "UPDATE sweep_lock SET expires_ms = 1";
    assert_eq!(change_database(&operator, passed).await, 1);
    operator.run(["sweep", "--quiet"]).await.expect(0);
    // The one that was killed has no end.
    let history = operator.run(["sweep", "history", "--json"]).await.expect(0);
    let sweeps = history.json_lines()[0]["sweeps"].as_array().unwrap().clone();
    assert_eq!(sweeps.len(), 2);
    assert!(!sweeps[0]["ended_ms"].is_null() && sweeps[1]["ended_ms"].is_null(), "{sweeps:?}");
}

#[tokio::test]
async fn ctrl_c_ends_a_sweep_and_gives_the_lock_back() {
    let (host, operator) = deployed("", "").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    operator.fleet(&[host.pinned_through("silent", port)]);
    let first = operator.start(["sweep", "--hosts", "fleet.toml"]);
    let taken = tokio::task::spawn_blocking(move || silent.accept().map(|it| (silent, it)));
    let _kept = taken.await.unwrap().unwrap();
    first.signal(Signal::INT);
    first.end().await.expect(130);
    operator.run(["sweep", "--quiet"]).await.expect(0);
}

#[tokio::test]
async fn old_history_goes_and_what_is_open_stays() {
    let (host, operator) = deployed("history = \"1d\"", "").await;
    std::fs::remove_dir_all(host.home.join(".cache/orchestrator")).unwrap();
    operator.write("off.toml", "[executor_management]\nauto_recovery = false\n");
    operator.run(["--config", "off.toml", "sweep"]).await.expect(3);
    for statement in [
        "UPDATE sweeps SET started_ms = 1",
        "UPDATE findings SET first_ms = 1, resolved_ms = CASE WHEN resolved_ms IS NULL THEN NULL ELSE 1 END",
    ] {
        change_database(&operator, statement).await;
    }
    operator.run(["sweep", "--json"]).await.expect(0);
    let far = ["sweep", "history", "--since", "36500d", "--json"];
    let left = operator.run(far).await.expect(0).json_lines().remove(0);
    assert_eq!(left["sweeps"].as_array().unwrap().len(), 1, "{left}");
    let open = |left: &serde_json::Value, code: &str| {
        left["findings"].as_array().unwrap().iter().any(|it| it["code"] == code)
    };
    assert!(open(&left, "runner_missing"), "resolved now, so it is not old: {left}");
    let probes = operator.run(["sweep", "history", "gpu-01", "--since", "36500d", "--json"]).await;
    assert_eq!(probes.json_lines()[0]["probes"].as_array().unwrap().len(), 1);
    eventually("nothing is left running", || host.left_running().is_empty()).await;
}

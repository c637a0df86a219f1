//! The metagraph at hand, with and without a chain.

use std::sync::Arc;
use std::time::Duration;

use orchestrator::metagraph_cache::MetagraphCache;
use orchestrator::store::{MetagraphRow, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::client;
use crate::test_chain::metadata::{NEW, OLD, runtime};
use crate::test_chain::{Fault, NETUID, TestChain, hotkey};

async fn store(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("orchestrator.db")).await.unwrap()
}

async fn open(dir: &TempDir, chain: &TestChain) -> MetagraphCache {
    MetagraphCache::open(store(dir).await, client(chain), NETUID, "test").await.unwrap()
}

#[tokio::test]
async fn it_serves_through_an_outage_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = TestChain::start(runtime(300, OLD)).await;
    let cache = open(&dir, &chain).await;
    assert_eq!((cache.current(), cache.age()), (None, None));
    assert_eq!(cache.neuron(&hotkey(1)), None);
    let fresh = cache.refresh().await.unwrap();
    assert_eq!(cache.current(), Some(fresh.clone()));

    chain.stop().await;
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read the metagraph from the chain");
    let status = cache.status().borrow().clone();
    assert_eq!((status.failures, status.block), (1, Some(100)));
    assert!(status.error.unwrap().contains("cannot connect"));
    assert_eq!(cache.current(), Some(fresh.clone()), "what was served is still served");
    drop(cache);

    // Nothing is asked of the chain to begin.
    let cache = open(&dir, &chain).await;
    assert_eq!(cache.current(), Some(fresh));
    assert!(cache.age().unwrap() < Duration::from_secs(3600));
    assert_eq!(cache.neuron(&hotkey(2)).unwrap().stake_rao, 9_000_000_000);
    let top: Vec<u16> = cache.top_validators(2).iter().map(|neuron| neuron.uid).collect();
    assert_eq!(top, [1, 0]);

    chain.listen().await;
    chain.upgrade(runtime(461, NEW));
    assert_eq!(cache.refresh().await.unwrap().spec_version, 461);
    assert_eq!(cache.status().borrow().failures, 0);
}

#[tokio::test]
async fn it_refreshes_in_the_background_and_outlives_every_failure() {
    let dir = tempfile::tempdir().unwrap();
    let chain = TestChain::start(runtime(300, OLD)).await;
    let cache = open(&dir, &chain).await;
    let (cancel, mut status) = (CancellationToken::new(), cache.status());
    let running = tokio::spawn({
        let (cache, cancel) = (cache.clone(), cancel.clone());
        async move { cache.run(Duration::from_millis(10), cancel).await }
    });
    let stuck = crate::cli::operator::STUCK;
    let wait = async |block: u64| {
        let mut status = cache.status();
        let told = status.wait_for(|now| now.block == Some(block));
        tokio::time::timeout(stuck, told).await.unwrap().unwrap();
    };
    wait(100).await;
    chain.fail("Core_version", Fault::Error(-32603, "broken"), None);
    let failing = status.wait_for(|now| now.failures > 2);
    tokio::time::timeout(stuck, failing).await.unwrap().unwrap();
    chain.block();
    chain.heal();
    wait(101).await;
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(cache.current().unwrap().block, 101);
}

#[tokio::test]
async fn a_chain_that_was_started_anew_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let chain = TestChain::start(runtime(300, OLD)).await;
    open(&dir, &chain).await.refresh().await.unwrap();
    chain.world().genesis = [0x22; 32].into();
    open(&dir, &chain).await.refresh().await.unwrap();
    let events = store(&dir).await.events_after(0, None, 10).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["chain.replaced"]);
    assert!(events[0].detail.contains(&"22".repeat(32)));
}

#[tokio::test]
async fn a_kept_metagraph_of_another_release_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let chain = TestChain::start(runtime(300, OLD)).await;
    let row = MetagraphRow {
        network: "local".to_owned(),
        netuid: NETUID,
        genesis: "0x".to_owned(),
        block: 1,
        taken_ms: 1,
        json: "{\"of\":\"another release\"}".to_owned(),
    };
    store(&dir).await.keep_metagraph(&row, "test", None).await.unwrap();
    let cache = open(&dir, &chain).await;
    assert_eq!(cache.current(), None);
    cache.refresh().await.unwrap();
    let kept = store(&dir).await.metagraph("local", NETUID).await.unwrap().unwrap();
    assert_eq!(kept.block, 100);
    let other = store(&dir).await.metagraph("finney", NETUID).await.unwrap();
    assert_eq!(other, None);
}

#[tokio::test]
async fn many_readers_do_not_wait_for_a_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let chain = TestChain::start(runtime(300, OLD)).await;
    let cache = open(&dir, &chain).await;
    let first = cache.refresh().await.unwrap();
    chain.fail("SubnetInfoRuntimeApi_get_metagraph", Fault::Silence, None);
    let refreshing = tokio::spawn({
        let cache = cache.clone();
        async move { cache.refresh().await }
    });
    for _ in 0..1000 {
        assert!(Arc::ptr_eq(&cache.current().unwrap(), &first));
    }
    refreshing.abort();
}

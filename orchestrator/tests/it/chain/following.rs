//! Following the chain's blocks.

use std::time::Duration;

use orchestrator::chain::{ChainClient, ChainOptions, Head, Network};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{client, options};
use crate::test_chain::metadata::{NEW, OLD, runtime};
use crate::test_chain::{Fault, TestChain};

struct Following {
    heads: watch::Receiver<Option<Head>>,
    ended: JoinHandle<()>,
    stop: DropGuard,
}

fn follow(client: ChainClient) -> Following {
    let cancel = CancellationToken::new();
    let (sender, heads) = watch::channel(None);
    let token = cancel.clone();
    let ended = tokio::spawn(async move { client.follow(&sender, token).await });
    Following { heads, ended, stop: cancel.drop_guard() }
}

impl Following {
    async fn until(&mut self, wanted: impl Fn(&Head) -> bool) -> Head {
        let found = self.heads.wait_for(|head| head.as_ref().is_some_and(&wanted));
        let found = tokio::time::timeout(crate::cli::operator::STUCK, found).await;
        found.expect("it never came").unwrap().clone().unwrap()
    }
}

#[tokio::test]
async fn blocks_are_told_as_they_are_finalized() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let mut following = follow(client(&chain));
    assert_eq!(following.until(|head| head.block == 100).await.spec_version, 300);
    let before = chain.asked("Core_version");
    for block in 101..105 {
        chain.block();
        let head = following.until(|head| head.block == block).await;
        let hash = chain.world().blocks.last().unwrap().hash;
        assert_eq!(head.block_hash, format!("{hash:?}"));
    }
    assert_eq!(chain.asked("Core_version"), before, "a block costs no request");
    drop(following.stop);
    following.ended.await.unwrap();
}

#[tokio::test]
async fn an_upgrade_is_told_when_it_is_finalized() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let mut following = follow(client(&chain));
    following.until(|head| head.block == 100).await;
    // The node announces the new runtime with its best block, which is one ahead.
    chain.world().lag = 1;
    chain.upgrade(runtime(461, NEW));
    assert_eq!(following.until(|head| head.block == 100).await.spec_version, 300);
    chain.world().lag = 0;
    chain.block();
    assert_eq!(following.until(|head| head.block == 102).await.spec_version, 461);
    chain.block();
    assert_eq!(following.until(|head| head.block == 103).await.spec_version, 461);
}

#[tokio::test]
async fn a_lost_subscription_is_made_again() {
    let mut chain = TestChain::start(runtime(300, OLD)).await;
    let mut following = follow(client(&chain));
    following.until(|head| head.block == 100).await;
    chain.cut();
    chain.block();
    following.until(|head| head.block == 101).await;
    chain.stop().await;
    chain.block();
    chain.listen().await;
    following.until(|head| head.block == 102).await;
    assert!(!following.ended.is_finished());
}

#[tokio::test]
async fn a_chain_that_falls_silent_is_asked_elsewhere() {
    let (stuck, alive) =
        (TestChain::start(runtime(300, OLD)).await, TestChain::start(runtime(300, OLD)).await);
    alive.block();
    let hasty = ChainOptions {
        silence_timeout: Duration::from_millis(100),
        ..options(Network::Local, &[stuck.url(), alive.url()])
    };
    stuck.fail("state_subscribeRuntimeVersion", Fault::Error(-32000, "limit"), None);
    let mut following = follow(ChainClient::new(hasty));
    following.until(|head| head.endpoint == alive.url()).await;
    stuck.heal();
    // The other one makes no blocks: sooner or later the first is asked.
    following.until(|head| head.endpoint == stuck.url()).await;
}

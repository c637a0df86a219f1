//! `serve` tells the chain where its axon is, and goes on without the chain.

use serde_json::Value;
use sp_core::{Pair as _, sr25519};

use super::validators::{axon, miner};
use super::{CONFIG, Service, conforms, document, until};
use crate::cli::operator::Operator;
use crate::test_chain::metadata::{OLD, runtime};
use crate::test_chain::{TestChain, World};

/// A chain that knows the miner's hotkey.
async fn chain() -> TestChain {
    let mut world = World::new(runtime(300, OLD));
    world.register(sr25519::Pair::from_seed(&[1; 32]).public().into());
    TestChain::with(world).await
}

/// A miner of this chain, whose axon is to be announced.
fn announcing(chain: &TestChain, axon_port: u16) -> Operator {
    let operator = miner(&[], "");
    configure(&operator, chain, axon_port);
    operator
}

fn configure(operator: &Operator, chain: &TestChain, axon_port: u16) {
    let text = format!(
        "{CONFIG}[server]\nhost = \"127.0.0.1\"\nport = 0\n[bittensor]\nnetwork = \"local\"\n\
         netuid = 39\nchain_endpoint = \"{}\"\nexternal_ip = \"8.8.8.8\"\naxon_port = {axon_port}\n",
        chain.url()
    );
    operator.write("orchestrator.toml", &text);
}

/// What health says of a part, once it says so.
async fn told(service: &Service, part: &str, ok: bool, words: &str) -> Value {
    until(words, async || {
        let health = service.get("/health").await;
        let checks = health.json()["checks"].clone();
        let check = checks.as_array()?.iter().find(|check| check["name"] == part)?.clone();
        let said = check["detail"].as_str()?.contains(words);
        (said && check["ok"] == ok).then_some(check)
    })
    .await
}

fn sent(chain: &TestChain) -> usize {
    chain.asked("author_submitAndWatchExtrinsic")
}

#[tokio::test]
async fn the_axon_is_announced_once_for_all_starts() {
    let chain = chain().await;
    let operator = announcing(&chain, 0);
    let service = Service::start(&operator).await;
    told(&service, "announcement", true, "has taken the address").await;
    let port = axon(&service).port();
    let (ip, announced, _) = chain.world().neurons.last().unwrap().axon.unwrap();
    assert_eq!((ip.to_string().as_str(), announced), ("8.8.8.8", port));
    assert_eq!(sent(&chain), 1);
    service.stop().await;
    let kinds = operator.audit().await;
    assert!(kinds.contains(&"axon.announced".to_owned()), "{kinds:?}");
    configure(&operator, &chain, port);
    let service = Service::start(&operator).await;
    told(&service, "announcement", true, "has the address already").await;
    assert_eq!(sent(&chain), 1, "it was sent again");
    service.stop().await;
}

#[tokio::test]
async fn a_refused_announcement_is_in_health_by_the_chains_name_and_is_tried_again() {
    let chain = chain().await;
    chain.world().next_error = Some((12, "ServingRateLimitExceeded"));
    let operator = announcing(&chain, 0);
    let service = Service::start(&operator).await;
    told(&service, "announcement", false, "ServingRateLimitExceeded").await;
    let health = service.get("/health").await.expect(503).json();
    let document = document();
    conforms(&document, &document["components"]["schemas"]["Health"], &health, "health");
    assert_eq!(sent(&chain), 0, "validated first");
    chain.world().next_error = None;
    told(&service, "announcement", true, "has taken the address").await;
    assert_eq!(sent(&chain), 1);
    service.stop().await;
}

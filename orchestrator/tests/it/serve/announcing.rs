//! `serve` tells the chain where its axon is, and goes on without the chain.

use orchestrator::store::{Store, now_ms};
use serde_json::Value;
use sp_core::{Pair as _, sr25519};

use super::validators::{axon, miner};
use super::{CONFIG, Service, conforms, document, until};
use crate::cli::operator::Operator;
use crate::sweep::alerts::Receiver;
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

#[tokio::test]
async fn an_outage_of_the_chain_stops_nothing_and_is_told_of_once() {
    let mut chain = chain().await;
    let operator = announcing(&chain, 0);
    let receiver = Receiver::start().await;
    let url = operator.write("hook", &receiver.url());
    std::fs::set_permissions(&url, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = operator.file("orchestrator.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let alerts = format!("{text}[alerts]\nwebhook_url_file = \"{}\"\n", url.display());
    std::fs::write(config, alerts).unwrap();
    // What is known of the chain is two hours old, and the chain is gone.
    let url = chain.url();
    let which = ["--network", "local", "--netuid", "39", "--endpoint", &url];
    operator.run([&["chain", "status"], &which[..]].concat()).await.expect(0);
    let store = Store::open(&operator.database()).await.unwrap();
    let mut kept = store.metagraph("local", 39).await.unwrap().unwrap();
    let mut metagraph: Value = serde_json::from_str(&kept.json).unwrap();
    kept.taken_ms = now_ms() - 2 * 3600 * 1000;
    metagraph["taken_ms"] = kept.taken_ms.into();
    kept.json = metagraph.to_string();
    store.keep_metagraph(&kept, "test", None).await.unwrap();
    chain.stop().await;
    let service = Service::start(&operator).await;
    told(&service, "chain", false, "").await;
    let mut bodies = Vec::new();
    let mut next = async || {
        until("an alert", async || {
            bodies.extend(receiver.bodies());
            (!bodies.is_empty()).then(|| bodies.remove(0))
        })
        .await
    };
    let alert = next().await;
    assert_eq!(alert["event"], "notice");
    assert!(
        alert["subject"].as_str().unwrap().starts_with("the chain was not read for 12"),
        "{alert}"
    );
    let metrics = service.get("/metrics").await.expect(200).body;
    let age = metrics.lines().find(|line| line.starts_with("orchestrator_metagraph_age_seconds"));
    let age: u64 = age.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((7200..7200 + 600).contains(&age), "{age}");
    // It is back: that is told, and nothing was told twice.
    chain.listen().await;
    assert_eq!(next().await["subject"], "the chain is read again");
    told(&service, "chain", true, "as of block").await;
    service.stop().await;
    assert!(bodies.is_empty() && receiver.bodies().is_empty());
}

//! Connections: the right network, several endpoints, outages, upgrades, politeness.

use std::time::Duration;

use orchestrator::chain::{ChainClient, ChainOptions, Error, Network, Pacing};
use orchestrator::reason::Reason;
use orchestrator::retry::RetryPolicy;

use super::{client, options};
use crate::test_chain::metadata::{NEW, OLD, Shape, runtime};
use crate::test_chain::{FINNEY_GENESIS, Fault, NETUID, TestChain, World};

async fn finney() -> TestChain {
    TestChain::with(World::new(runtime(300, OLD)).finney()).await
}

/// The address of a port at which nothing listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("ws://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_node_of_another_network_is_refused() {
    let (main, other) = (finney().await, TestChain::start(runtime(300, OLD)).await);
    for (network, chain, fits) in [
        (Network::Finney, &main, true),
        (Network::Finney, &other, false),
        (Network::Test, &main, false),
        (Network::Local, &main, false),
        (Network::Test, &other, true),
    ] {
        let head = ChainClient::new(options(network, &[chain.url()])).head().await;
        match head {
            Ok(head) => assert_eq!((fits, head.endpoint), (true, chain.url())),
            Err(error) => {
                assert!(!fits, "{network}: {error}");
                assert!(matches!(error, Error::WrongNetwork { .. }), "{error}");
                assert_eq!(error.reason(), Reason::ChainMismatch);
            }
        }
    }
    let genesis = ChainClient::new(options(Network::Finney, &[main.url()])).head().await.unwrap();
    assert_eq!(genesis.genesis, format!("0x{FINNEY_GENESIS}"));
    // Nothing but the genesis block was asked of the wrong one.
    assert_eq!(other.asked("state_queryStorageAt"), 0);
}

#[tokio::test]
async fn the_first_endpoint_that_serves_the_network_is_used() {
    let (wrong, right) = (TestChain::start(runtime(300, OLD)).await, finney().await);
    let endpoints = [nobody().await, wrong.url(), right.url()];
    let client = ChainClient::new(options(Network::Finney, &endpoints));
    assert_eq!(client.head().await.unwrap().endpoint, right.url());
}

#[tokio::test]
async fn endpoints_that_all_fail_are_all_named() {
    let endpoints = [nobody().await, nobody().await];
    let error = ChainClient::new(options(Network::Local, &endpoints)).head().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Chain);
    let text = error.to_string();
    assert!(endpoints.iter().all(|endpoint| text.contains(endpoint.as_str())), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn endpoints_of_different_chains_are_not_mixed() {
    let mut first = TestChain::start(runtime(300, OLD)).await;
    let second = TestChain::start(runtime(300, OLD)).await;
    second.world().genesis = [0x22; 32].into();
    let client = ChainClient::new(options(Network::Local, &[first.url(), second.url()]));
    client.head().await.unwrap();
    first.stop().await;
    let error = client.head().await.unwrap_err();
    assert!(matches!(error, Error::AnotherChain { .. }), "{error}");
    first.listen().await;
    assert_eq!(client.head().await.unwrap().endpoint, first.url());
}

#[tokio::test]
async fn a_cut_connection_is_made_again() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let client = client(&chain);
    client.head().await.unwrap();
    for method in ["chain_getFinalizedHead", "Core_version", "SubnetInfoRuntimeApi_get_metagraph"] {
        chain.fail(method, Fault::Drop, Some(1));
        assert_eq!(client.metagraph(NETUID).await.unwrap().neurons.len(), 3, "{method}");
    }
    chain.cut();
    assert_eq!(client.metagraph(NETUID).await.unwrap().neurons.len(), 3);
}

#[tokio::test]
async fn a_node_that_fails_is_left_for_the_next() {
    let (bad, good) =
        (TestChain::start(runtime(300, OLD)).await, TestChain::start(runtime(300, NEW)).await);
    let client = ChainClient::new(options(Network::Local, &[bad.url(), good.url()]));
    assert_eq!(client.head().await.unwrap().endpoint, bad.url());
    bad.fail("state_queryStorageAt", Fault::Error(-32603, "internal"), None);
    assert_eq!(client.subnet(NETUID).await.unwrap().neurons, 3);
    assert_eq!(client.head().await.unwrap().endpoint, good.url(), "and it is stayed with");
}

#[tokio::test]
async fn an_outage_is_an_error_and_its_end_is_the_end_of_it() {
    let mut chain = TestChain::start(runtime(300, OLD)).await;
    let client = client(&chain);
    client.head().await.unwrap();
    chain.stop().await;
    let error = client.metagraph(NETUID).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Chain);
    chain.listen().await;
    assert_eq!(client.metagraph(NETUID).await.unwrap().neurons.len(), 3);
}

#[tokio::test]
async fn a_client_stays_connected_through_an_upgrade_of_the_runtime() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let client = client(&chain);
    let before = client.metagraph(NETUID).await.unwrap();
    chain.upgrade(runtime(461, NEW));
    let after = client.metagraph(NETUID).await.unwrap();
    assert_eq!((before.spec_version, after.spec_version), (300, 461));
    assert_eq!(before.neurons, after.neurons);
    chain.upgrade(runtime(462, Shape { version: 14, ..NEW }));
    assert_eq!(client.metagraph(NETUID).await.unwrap().neurons, before.neurons);
    // One connection: the genesis block is asked for once on each.
    assert_eq!(chain.asked("chain_getBlockHash"), 1);
    // Metadata is asked for once for each runtime.
    client.metagraph(NETUID).await.unwrap();
    assert_eq!(chain.asked("Metadata_metadata_at_version"), 2);
    assert_eq!(chain.asked("Metadata_metadata"), 1);
}

#[tokio::test]
async fn a_node_that_answers_nothing_is_given_up() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let slow = TestChain::start(runtime(300, OLD)).await;
    slow.fail("Core_version", Fault::Silence, None);
    let hasty = ChainOptions {
        request_timeout: Duration::from_millis(50),
        ..options(Network::Local, &[slow.url(), chain.url()])
    };
    let client = ChainClient::new(hasty);
    // However loaded this machine is, the silent node never answers.
    let head = client.with_patience().await;
    assert_eq!(head, chain.url());
    assert!(slow.asked("Core_version") >= 1);
}

#[tokio::test]
async fn an_operation_has_a_deadline() {
    let slow = TestChain::start(runtime(300, OLD)).await;
    slow.fail("Core_version", Fault::Silence, None);
    let hasty = ChainOptions {
        operation_timeout: Duration::from_millis(200),
        ..options(Network::Local, &[slow.url()])
    };
    let error = ChainClient::new(hasty).head().await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_node_that_accepts_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["ws", "wss"] {
        let hasty = ChainOptions {
            connect_timeout: Duration::from_millis(100),
            retry: RetryPolicy { attempts: 1, pause: Duration::ZERO, pause_max: Duration::ZERO },
            ..options(Network::Local, &[format!("{scheme}://{address}")])
        };
        let error = ChainClient::new(hasty).head().await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{scheme}: {error}");
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    // A node that speaks no TLS at all: the client's side of TLS must be there to find that out.
    let chain = TestChain::start(runtime(300, OLD)).await;
    let url = chain.url().replace("ws://", "wss://");
    let error = ChainClient::new(options(Network::Local, &[url])).head().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Chain);
}

#[tokio::test]
async fn requests_are_paced() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let interval = Duration::from_millis(20);
    let polite = ChainOptions {
        pacing: Some(Pacing { interval, burst: 2 }),
        ..options(Network::Local, &[chain.url()])
    };
    let client = ChainClient::new(polite);
    let start = std::time::Instant::now();
    client.metagraph(NETUID).await.unwrap();
    client.metagraph(NETUID).await.unwrap();
    let requests = u32::try_from(chain.requests()).unwrap();
    // A lower bound, which no load of the machine can break.
    assert!(requests > 8);
    assert!(start.elapsed() >= interval * (requests - 2), "{requests} requests");
    // Two operations: the second asks for head, header, version and metagraph alone.
    assert_eq!(requests, 11);
}

/// What a test with a short request timeout needs on a loaded machine.
trait Patient {
    /// The endpoint of the head, tried until an answer comes in time.
    async fn with_patience(&self) -> String;
}

impl Patient for ChainClient {
    async fn with_patience(&self) -> String {
        loop {
            if let Ok(head) = self.head().await {
                return head.endpoint;
            }
        }
    }
}

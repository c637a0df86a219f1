//! What is read, by every way there is, from both generations of the runtime.

use orchestrator::chain::{Error, MetagraphSource};
use orchestrator::reason::Reason;

use super::client;
use crate::test_chain::metadata::{NEW, OLD, Shape, runtime};
use crate::test_chain::{NETUID, TestChain, hotkey};

/// Every shape that must read the same, and the way in which its metagraph is read.
const SHAPES: [(Shape, MetagraphSource); 8] = [
    (OLD, MetagraphSource::MetagraphApi),
    (NEW, MetagraphSource::MetagraphApi),
    (Shape { metagraph_api: false, ..OLD }, MetagraphSource::NeuronsApi),
    (Shape { metagraph_api: false, ..NEW }, MetagraphSource::NeuronsApi),
    (Shape { version: 14, ..OLD }, MetagraphSource::Storage),
    (Shape { version: 14, ..NEW }, MetagraphSource::Storage),
    (Shape { without: Some("Axons"), ..OLD }, MetagraphSource::MetagraphApi),
    (Shape { without: Some("TotalHotkeyAlpha"), ..NEW }, MetagraphSource::MetagraphApi),
];

#[tokio::test]
async fn a_metagraph_reads_the_same_from_every_runtime() {
    for (shape, source) in SHAPES {
        let chain = TestChain::start(runtime(300, shape)).await;
        let metagraph = client(&chain).metagraph(NETUID).await.unwrap();
        assert_eq!((metagraph.source, metagraph.spec_version), (source, 300), "{shape:?}");
        assert_eq!((metagraph.netuid, metagraph.block), (NETUID, 100));
        let neurons = &metagraph.neurons;
        let rows: Vec<_> = neurons
            .iter()
            .map(|n| (n.uid, n.stake_rao, n.validator_permit, n.active, n.last_update_block))
            .collect();
        assert_eq!(
            rows,
            [
                (0, 5_000_000_000, true, true, 10),
                (1, 9_000_000_000, true, true, 20),
                (2, 20_000_000_000, false, false, 30),
            ],
            "{shape:?}"
        );
        assert_eq!(neurons[0].axon, None);
        let axon = neurons[1].axon.as_ref().unwrap();
        assert_eq!((axon.ip.to_string(), axon.port), ("203.0.113.5".to_owned(), 8091));
        assert_eq!((axon.protocol, axon.version, axon.block), (4, 1000, 7));
        assert_eq!(metagraph.neuron(&hotkey(3)).unwrap().uid, 2);
        assert_eq!(metagraph.neuron(&hotkey(9)), None);
        let top: Vec<u16> = metagraph.top_validators(9).iter().map(|n| n.uid).collect();
        assert_eq!(top, [1, 0], "who has no permit is no validator, whatever its stake");
        assert_eq!(metagraph.top_validators(1).len(), 1);
    }
}

#[tokio::test]
async fn a_registration_reads_the_same_from_every_runtime() {
    for shape in [OLD, NEW, Shape { version: 14, ..OLD }, Shape { version: 14, ..NEW }] {
        let chain = TestChain::start(runtime(300, shape)).await;
        chain.world().neurons[1].certificate = Some([vec![1], vec![7; 32]].concat());
        let client = client(&chain);
        let before = chain.requests();
        let registered = client.registration(NETUID, &hotkey(2)).await.unwrap();
        assert_eq!(registered.uid, Some(1));
        assert_eq!(registered.axon.as_ref().unwrap().port, 8091);
        assert_eq!(registered.certificate, Some([vec![1], vec![7; 32]].concat()));
        let subnet = &registered.subnet;
        assert_eq!((subnet.neurons, subnet.tempo, subnet.serving_rate_limit_blocks), (3, 360, 50));
        assert!(subnet.block_time_ms.unwrap() > 1_700_000_000_000);
        // Announced at block 7, and it is 100 now.
        assert_eq!(registered.blocks_until_served(), 0);
        assert_eq!(chain.asked("state_queryStorageAt"), 1, "all of it in one request");
        assert!(chain.requests() - before < 12);

        let stranger = client.registration(NETUID, &hotkey(9)).await.unwrap();
        assert_eq!((stranger.uid, stranger.axon, stranger.certificate), (None, None, None));
    }
}

#[tokio::test]
async fn a_subnet_that_is_not_there_is_said_to_be_not_there() {
    for shape in [OLD, Shape { metagraph_api: false, ..NEW }, Shape { version: 14, ..OLD }] {
        let chain = TestChain::start(runtime(300, shape)).await;
        let client = client(&chain);
        for error in [
            client.metagraph(7).await.unwrap_err(),
            client.subnet(7).await.unwrap_err(),
            client.registration(7, &hotkey(1)).await.unwrap_err(),
        ] {
            assert_eq!(error, Error::NoSubnet { netuid: 7 }, "{shape:?}");
            assert_eq!(error.reason(), Reason::NotRegistered);
        }
    }
}

#[tokio::test]
async fn what_the_runtime_lacks_is_named_with_its_version() {
    let shape = Shape { without: Some("Uids"), ..NEW };
    let chain = TestChain::start(runtime(461, shape)).await;
    let client = client(&chain);
    let error = client.registration(NETUID, &hotkey(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the chain's runtime 461 has no storage SubtensorModule.Uids");
    assert_eq!(error.reason(), Reason::ChainMismatch);
    let missing = client.missing_items().await.unwrap();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].to_string(), error.to_string());
    // What does not need it goes on working.
    assert_eq!(client.metagraph(NETUID).await.unwrap().neurons.len(), 3);

    let whole = TestChain::start(runtime(461, NEW)).await;
    assert_eq!(super::client(&whole).missing_items().await.unwrap(), []);
}

#[tokio::test]
async fn neurons_without_an_address_that_is_one_are_kept() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    chain.world().neurons[0].axon = Some(("2606:4700::1111".parse().unwrap(), 9, 3));
    let metagraph = client(&chain).metagraph(NETUID).await.unwrap();
    let axon = metagraph.neurons[0].axon.as_ref().unwrap();
    assert_eq!(axon.ip.to_string(), "2606:4700::1111");
}

#[tokio::test]
async fn the_head_says_where_the_chain_is() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    chain.world().lag = 3;
    let (head, lag) = client(&chain).head_and_lag().await.unwrap();
    assert_eq!((head.block, lag, head.spec_version), (97, 3, 300));
    assert_eq!(head.endpoint, chain.url());
    assert_eq!(head.genesis, format!("0x{}", "11".repeat(32)));
    let hash = chain.world().blocks[96].hash;
    assert_eq!(head.block_hash, format!("{hash:?}"));
}

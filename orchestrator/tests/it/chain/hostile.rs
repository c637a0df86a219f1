//! Nodes that lie: about types, about lengths, about everything.

use std::time::Duration;

use orchestrator::chain::{ChainClient, ChainOptions, Error, MetagraphSource, Network};
use orchestrator::reason::Reason;
use proptest::prelude::*;
use subxt::ext::codec::{Compact, Encode as _};

use super::{client, options};
use crate::test_chain::metadata::{NEW, OLD, encode, runtime};
use crate::test_chain::{Fault, NETUID, TestChain, hotkey};

const METAGRAPH: &str = "SubnetInfoRuntimeApi_get_metagraph";

/// More than the machine has, as the length of a list.
fn endless() -> Vec<u8> {
    // Some, then what the old metagraph begins with: number, name of no bytes, hotkeys.
    let mut bytes = vec![1, 0, 0];
    Compact(u32::MAX).encode_to(&mut bytes);
    bytes
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let client = client(&chain);
    let good = {
        let world = chain.world();
        world.metagraph(&world.runtime(), NETUID).unwrap()
    };
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("no option", vec![7]),
        ("an endless list", endless()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("more than it", [good.clone(), vec![0]].concat()),
        ("a megabyte", vec![0; 2 << 20]),
    ] {
        chain.fail(METAGRAPH, Fault::Bytes(bytes.clone()), None);
        chain.fail("NeuronInfoRuntimeApi_get_neurons_lite", Fault::Bytes(bytes), None);
        // What storage says is right, and is what is left.
        let read = client.metagraph(NETUID).await.unwrap();
        assert_eq!(read.neurons.len(), 3, "{what}");
        assert_eq!(read.source, MetagraphSource::Storage, "{what}");
    }
}

#[tokio::test]
async fn what_is_no_json_rpc_is_an_error() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let hasty = ChainClient::new(ChainOptions {
        request_timeout: Duration::from_millis(100),
        ..options(Network::Local, &[chain.url()])
    });
    for text in ["", "garbage", "{}", "[]", "null", "{\"jsonrpc\":\"2.0\",\"id\":null}"] {
        for method in ["chain_getFinalizedHead", "Core_version", METAGRAPH] {
            chain.fail(method, Fault::Text(text.to_owned()), Some(1));
            // The node may be asked again, or not be heard of again; both end.
            if let Err(error) = hasty.metagraph(NETUID).await {
                assert_eq!(error.reason(), Reason::Chain, "{text} for {method}");
            }
            chain.heal();
        }
    }
    let read = client(&chain).metagraph(NETUID).await.unwrap();
    assert_eq!(read.neurons.len(), 3, "and then it is over");
}

#[tokio::test]
async fn an_answer_longer_than_any_is_not_read() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let client = client(&chain);
    client.head().await.unwrap();
    chain.fail("chain_getFinalizedHead", Fault::Huge(32 << 20), None);
    let error = client.head().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Chain);
    chain.heal();
    client.head().await.unwrap();
}

#[tokio::test]
async fn a_nodes_words_cannot_reach_the_terminal_as_they_are() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    let evil = "\x1b[2Jcleared\x1b]0;owned\x07";
    chain.fail("chain_getFinalizedHead", Fault::Error(-32000, evil), None);
    let error = client(&chain).head().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("cleared"), "{source}");
    assert!(!source.contains('\x1b') && !source.contains('\x07'));
}

#[tokio::test]
async fn a_metagraph_that_contradicts_itself_is_read_in_another_way() {
    let chain = TestChain::start(runtime(300, OLD)).await;
    chain.world().contradicts_itself = true;
    let read = client(&chain).metagraph(NETUID).await.unwrap();
    assert_eq!(read.source, MetagraphSource::NeuronsApi);
    // And where there is no other way, it is an error that says what and where.
    for method in ["NeuronInfoRuntimeApi_get_neurons_lite", "state_queryStorageAt"] {
        chain.fail(method, Fault::Error(-32000, "not this one"), None);
    }
    let error = client(&chain).metagraph(NETUID).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer for get_metagraph.active cannot be used (runtime 300): \
         it has 2 elements for 3 hotkeys"
    );
}

/// A runtime to run properties in: they are not async themselves.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// How a good answer is spoilt.
#[derive(Debug, Clone)]
enum Spoil {
    Change(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Spoil::Change(at, to)),
        any::<prop::sample::Index>().prop_map(Spoil::Cut),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, what)| Spoil::Insert(at, what)),
    ]
}

fn spoilt(mut bytes: Vec<u8>, spoils: &[Spoil]) -> Vec<u8> {
    for spoil in spoils {
        match spoil {
            Spoil::Change(at, to) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Spoil::Cut(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            Spoil::Insert(at, what) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, what.iter().copied());
            }
            _ => {}
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever a node answers, the client ends with a metagraph that is bounded, or with an error.
    #[test]
    fn any_answer_ends(modern: bool, spoils in prop::collection::vec(spoil(), 1..6)) {
        block_on(async {
            let shape = if modern { NEW } else { OLD };
            let chain = TestChain::start(runtime(300, shape)).await;
            let (metagraph, neurons) = {
                let world = chain.world();
                let runtime = world.runtime();
                (
                    world.metagraph(&runtime, NETUID).unwrap(),
                    world.neurons_lite(&runtime, NETUID).unwrap(),
                )
            };
            chain.fail(METAGRAPH, Fault::Bytes(spoilt(metagraph, &spoils)), None);
            let neurons = Fault::Bytes(spoilt(neurons, &spoils));
            chain.fail("NeuronInfoRuntimeApi_get_neurons_lite", neurons, None);
            match client(&chain).metagraph(NETUID).await {
                Ok(read) => assert!(read.neurons.len() <= 4096),
                Err(error) => assert!(
                    matches!(error, Error::Unexpected { .. } | Error::NoSubnet { .. }),
                    "{error}"
                ),
            }
        });
    }

    /// Whatever metadata a node has, the client ends with what can be read or with an error: no
    /// panic gets out, and nothing is allocated that is not there.
    #[test]
    fn any_metadata_ends(modern: bool, spoils in prop::collection::vec(spoil(), 1..4)) {
        block_on(async {
            let chain = TestChain::start(runtime(300, OLD)).await;
            let shape = if modern { NEW } else { OLD };
            let bytes = spoilt(encode(shape), &spoils);
            let mut answer = vec![1];
            bytes.encode_to(&mut answer);
            chain.fail("Metadata_metadata_at_version", Fault::Bytes(answer), None);
            let client = client(&chain);
            let read = client.registration(NETUID, &hotkey(1)).await;
            let whole = client.metagraph(NETUID).await;
            for error in [read.err(), whole.err()].into_iter().flatten() {
                assert_ne!(error.reason(), Reason::Bug, "{error}");
            }
        });
    }
}

//! Announcing an axon.

use std::net::IpAddr;

use orchestrator::chain::{
    AccountId32, Announced, AnnouncementOptions, AxonAddress, ChainClient, CheckName, Error,
    Network, RejectionStage, Signer,
};
use orchestrator::reason::Reason;
use sp_core::{Pair as _, sr25519};

use super::{client, options};
use crate::test_chain::metadata::{NEW, OLD, Shape, runtime};
use crate::test_chain::{Fault, NETUID, TestChain, World};

fn key() -> sr25519::Pair {
    sr25519::Pair::from_seed(&[42; 32])
}

fn at(ip: &str, port: u16) -> AnnouncementOptions {
    let address = AxonAddress::new(ip.parse::<IpAddr>().unwrap(), port).unwrap();
    AnnouncementOptions { netuid: NETUID, address, allow_private: false }
}

fn with_certificate(options: AnnouncementOptions, certificate: &[u8]) -> AnnouncementOptions {
    let address = options.address.with_certificate(certificate.to_vec()).unwrap();
    AnnouncementOptions { address, ..options }
}

async fn registered(shape: Shape) -> TestChain {
    let mut world = World::new(runtime(300, shape));
    world.register(key().public().into());
    TestChain::with(world).await
}

/// The checks that failed.
async fn against(chain: &ChainClient, options: &AnnouncementOptions) -> Vec<CheckName> {
    let plan = chain.plan_announcement(&key().hotkey(), options).await.unwrap();
    plan.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[tokio::test]
async fn an_axon_is_announced_once_and_not_again() {
    for shape in [OLD, NEW, Shape { version: 14, ..OLD }, Shape { version: 14, ..NEW }] {
        let chain = registered(shape).await;
        let client = client(&chain);
        for (options, address) in
            [(at("8.8.8.8", 8091), "8.8.8.8"), (at("2606:4700::1111", 9), "2606:4700::1111")]
        {
            let Announced::Finalized { axon, block_hash, .. } =
                client.announce(&key(), &options).await.unwrap()
            else {
                panic!("{shape:?}: it was not sent")
            };
            assert_eq!(axon.ip.to_string(), address);
            let block = chain.world().blocks.last().unwrap().hash;
            assert_eq!(block_hash, format!("{block:?}"));
            let again = client.announce(&key(), &options).await.unwrap();
            assert_eq!(again, Announced::Already);
            for _ in 0..50 {
                chain.block();
            }
        }
        assert_eq!(chain.world().calls, 2);
        assert_eq!(chain.asked("author_submitAndWatchExtrinsic"), 2);
    }
}

#[tokio::test]
async fn a_certificate_is_announced_and_another_one_again() {
    for shape in [OLD, NEW] {
        let chain = registered(shape).await;
        chain.world().serving_rate_limit = 0;
        let client = client(&chain);
        let sent = async |options: &AnnouncementOptions| {
            client.announce(&key(), options).await.unwrap() != Announced::Already
        };
        let plain = at("8.8.8.8", 8091);
        let first = with_certificate(plain.clone(), &[1; 33]);
        let second = with_certificate(plain.clone(), &[2; 33]);
        assert!(sent(&first).await);
        assert!(!sent(&first).await);
        assert!(sent(&second).await, "another certificate");
        assert!(!sent(&plain).await, "who asks for none has nothing against one");
        let neuron = chain.world().neurons.last().unwrap().clone();
        assert_eq!(neuron.certificate, Some(vec![2; 33]));
    }
}

#[tokio::test]
async fn what_speaks_against_it_is_found_before_anything_is_sent() {
    let chain = registered(OLD).await;
    let client = client(&chain);
    client.announce(&key(), &at("8.8.8.8", 8091)).await.unwrap();
    let submitted = chain.asked("author_submitAndWatchExtrinsic");
    // The limit of 50 blocks counts from that announcement.
    let error = client.announce(&key(), &at("8.8.4.4", 8091)).await.unwrap_err();
    assert_eq!(error, Error::RateLimited { blocks: 50 });
    assert_eq!(against(&client, &at("8.8.4.4", 8091)).await, [CheckName::RateLimit]);
    assert_eq!(against(&client, &at("8.8.8.8", 8091)).await, [], "the same again is no call");

    let stranger = sr25519::Pair::from_seed(&[1; 32]);
    let error = client.announce(&stranger, &at("8.8.8.8", 8091)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NotRegistered);
    assert!(error.to_string().contains("subnet 39"), "{error}");
    assert_eq!(chain.asked("author_submitAndWatchExtrinsic"), submitted);
    assert_eq!(chain.asked("AccountNonceApi_account_nonce"), 1, "nothing was signed either");
}

#[tokio::test]
async fn a_private_address_is_not_announced_on_a_public_network_unless_asked_for() {
    let mut world = World::new(runtime(300, OLD)).finney();
    world.register(key().public().into());
    let chain = TestChain::with(world).await;
    let public = ChainClient::new(options(Network::Finney, &[chain.url()]));
    let private = at("10.0.0.7", 8091);
    let error = public.announce(&key(), &private).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Input);
    assert_eq!(against(&public, &private).await, [CheckName::Address]);
    let allowed = AnnouncementOptions { allow_private: true, ..private.clone() };
    assert!(public.announce(&key(), &allowed).await.is_ok());

    let chain = registered(OLD).await;
    assert!(client(&chain).announce(&key(), &private).await.is_ok(), "a network of one's own");
}

#[tokio::test]
async fn a_refusal_of_the_pool_has_the_runtimes_name() {
    let chain = registered(NEW).await;
    let client = client(&chain);
    for (code, name) in [
        (10, "HotKeyNotRegisteredInNetwork"),
        (12, "ServingRateLimitExceeded"),
        (255, "BadRequest"),
        (77, "Custom(77)"),
    ] {
        chain.world().next_error = Some((code, ""));
        let error = client.announce(&key(), &at("8.8.8.8", 8091)).await.unwrap_err();
        let Error::Rejected(rejection) = &error else { panic!("{error}") };
        assert_eq!((rejection.stage, rejection.name.as_str()), (RejectionStage::Pool, name));
        assert_eq!(error.reason(), Reason::ChainRejected);
    }
    assert_eq!(chain.asked("author_submitAndWatchExtrinsic"), 0, "validated first");
}

#[tokio::test]
async fn a_refusal_in_a_block_has_the_name_that_the_live_metadata_gives_it() {
    for shape in [OLD, NEW, Shape { version: 14, ..NEW }] {
        let chain = registered(shape).await;
        chain.world().refuses_in_block = true;
        let client = client(&chain);
        for name in ["HotKeyNotRegisteredInNetwork", "ServingRateLimitExceeded"] {
            chain.world().next_error = Some((0, name));
            let error = client.announce(&key(), &at("8.8.8.8", 8091)).await.unwrap_err();
            let Error::Rejected(rejection) = &error else { panic!("{shape:?}: {error}") };
            let found = (rejection.stage, rejection.name.as_str());
            assert_eq!(found, (RejectionStage::Block, name));
        }
        assert_eq!(chain.world().calls, 0);
    }
}

#[tokio::test]
async fn a_call_is_made_at_most_once_whatever_happens_to_the_connection() {
    let chain = registered(OLD).await;
    let client = client(&chain);
    let options = at("8.8.8.8", 8091);
    chain.fail("author_submitAndWatchExtrinsic", Fault::Drop, Some(1));
    let error = client.announce(&key(), &options).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert_eq!(chain.asked("author_submitAndWatchExtrinsic"), 1);
    // It is in a block, and afterwards the connection is lost.
    chain.fail("chain_getBlock", Fault::Drop, Some(1));
    let error = client.announce(&key(), &options).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert_eq!(client.announce(&key(), &options).await.unwrap(), Announced::Already);
    assert_eq!(chain.world().calls, 1);
}

#[tokio::test]
async fn a_call_that_the_metadata_puts_in_another_place_is_not_signed() {
    /// A signer that must not be asked.
    struct Never;
    impl Signer for Never {
        fn hotkey(&self) -> AccountId32 {
            key().hotkey()
        }
        fn sign(&self, _: &[u8]) -> [u8; 64] {
            panic!("it was asked to sign")
        }
    }
    let chain = registered(Shape { pallet_index: 5, ..OLD }).await;
    let client = client(&chain);
    let error = client.announce(&Never, &at("8.8.8.8", 8091)).await.unwrap_err();
    assert!(matches!(error, Error::CallChanged { call: "serve_axon", .. }), "{error}");
    assert_eq!(error.reason(), Reason::ChainMismatch);
    assert_eq!(against(&client, &at("8.8.8.8", 8091)).await, [CheckName::Call]);
}

#[tokio::test]
async fn a_wrong_signature_is_refused_by_the_chain() {
    /// Signs something else.
    struct Wrong;
    impl Signer for Wrong {
        fn hotkey(&self) -> AccountId32 {
            key().hotkey()
        }
        fn sign(&self, _: &[u8]) -> [u8; 64] {
            Signer::sign(&key(), b"something else")
        }
    }
    let chain = registered(OLD).await;
    let error = client(&chain).announce(&Wrong, &at("8.8.8.8", 8091)).await.unwrap_err();
    let Error::Rejected(rejection) = &error else { panic!("{error}") };
    assert_eq!(rejection.name, "BadProof");
    assert_eq!(chain.world().calls, 0);
}

#[tokio::test]
async fn a_runtime_upgrade_between_two_announcements_is_nothing_special() {
    let chain = registered(OLD).await;
    chain.world().serving_rate_limit = 0;
    let client = client(&chain);
    client.announce(&key(), &at("8.8.8.8", 1)).await.unwrap();
    chain.upgrade(runtime(461, NEW));
    client.announce(&key(), &at("8.8.8.8", 2)).await.unwrap();
    assert_eq!(chain.world().neurons.last().unwrap().axon.unwrap().1, 2);
}

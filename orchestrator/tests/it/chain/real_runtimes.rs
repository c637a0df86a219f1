//! The same client and the same chain, with the metadata of real runtimes: files `*.scale` in the
//! folder that the environment variable `CHAIN_METADATA_DIR` names, as nodes send them, with the
//! spec version in the name. Without the variable these tests say so, and the synthetic metadata
//! of the other tests, which are the same, is all that was tested.

use orchestrator::chain::{Announced, AnnouncementOptions, AxonAddress, Signer as _};
use sp_core::{Pair as _, sr25519};

use super::client;
use crate::test_chain::metadata::{NEW, OLD, Shape, encode};
use crate::test_chain::{NETUID, Runtime, TestChain, World, hotkey};

const FOLDER: &str = "CHAIN_METADATA_DIR";

/// The runtimes of the folder, and two synthetic ones, so that everybody runs this.
fn runtimes() -> Vec<Runtime> {
    let mut runtimes =
        vec![Runtime::new(1, encode(OLD)), Runtime::new(2, encode(Shape { version: 14, ..NEW }))];
    let Some(folder) = std::env::var_os(FOLDER) else {
        eprintln!("{FOLDER} is not set: no real runtime was tested, the synthetic ones alone");
        return runtimes;
    };
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "scale"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no *.scale", folder.display());
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let digits: String = name
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        runtimes.push(Runtime::new(digits.parse().unwrap(), std::fs::read(&path).unwrap()));
    }
    runtimes
}

#[tokio::test]
async fn everything_that_is_used_is_in_every_runtime() {
    for runtime in runtimes() {
        let missing = orchestrator::chain::missing_items(&runtime.metadata, runtime.spec_version);
        assert_eq!(missing, []);
    }
}

#[tokio::test]
async fn every_runtime_is_read() {
    for runtime in runtimes() {
        let (spec_version, version) = (runtime.spec_version, runtime.metadata_version());
        let chain = TestChain::start(runtime).await;
        let client = client(&chain);
        let metagraph = client.metagraph(NETUID).await.unwrap();
        let stakes: Vec<u64> = metagraph.neurons.iter().map(|neuron| neuron.stake_rao).collect();
        assert_eq!(stakes, [5_000_000_000, 9_000_000_000, 20_000_000_000], "{spec_version}");
        let axon = metagraph.neurons[1].axon.as_ref().unwrap();
        assert_eq!((axon.ip.to_string(), axon.port), ("203.0.113.5".to_owned(), 8091));
        let registration = client.registration(NETUID, &hotkey(2)).await.unwrap();
        assert_eq!((registration.uid, registration.axon.as_ref()), (Some(1), Some(axon)));
        assert!(registration.subnet.block_time_ms.is_some());
        eprintln!("runtime {spec_version}, metadata {version}: read by {:?}", metagraph.source);
    }
}

#[tokio::test]
async fn an_axon_is_announced_on_every_runtime() {
    let key = sr25519::Pair::from_seed(&[42; 32]);
    for runtime in runtimes() {
        let spec_version = runtime.spec_version;
        let mut world = World::new(runtime);
        world.register(key.public().into());
        world.serving_rate_limit = 0;
        let chain = TestChain::with(world).await;
        let client = client(&chain);
        let address = AxonAddress::new("8.8.8.8".parse().unwrap(), 8091).unwrap();
        let plain = AnnouncementOptions { netuid: NETUID, address, allow_private: false };
        let address = plain.address.clone().with_certificate(vec![1; 33]).unwrap();
        let secured = AnnouncementOptions { address, ..plain.clone() };
        for options in [plain, secured] {
            let announced = client.announce(&key, &options).await;
            let announced = announced.unwrap_or_else(|error| panic!("{spec_version}: {error}"));
            assert_ne!(announced, Announced::Already, "{spec_version}");
        }
        // And the names of its errors, which have other numbers in each.
        chain.world().refuses_in_block = true;
        chain.world().next_error = Some((0, "ServingRateLimitExceeded"));
        let address = AxonAddress::new("8.8.4.4".parse().unwrap(), 8091).unwrap();
        let other = AnnouncementOptions { netuid: NETUID, address, allow_private: false };
        let error = client.announce(&key, &other).await.unwrap_err();
        assert!(error.to_string().contains("ServingRateLimitExceeded"), "{spec_version}: {error}");
        assert_eq!(client.registration(NETUID, &key.hotkey()).await.unwrap().uid, Some(3));
    }
}

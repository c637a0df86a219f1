//! The chain client against the test chain.

mod announcing;
mod cache;
mod command;
mod following;
mod hostile;
mod links;
mod reads;
mod real_runtimes;

use std::time::Duration;

use orchestrator::chain::{ChainClient, ChainOptions, Network};
use orchestrator::retry::RetryPolicy;

use crate::test_chain::TestChain;

/// Options for these endpoints that do not wait between attempts.
pub fn options(network: Network, endpoints: &[String]) -> ChainOptions {
    let retry = RetryPolicy { attempts: 3, pause: Duration::ZERO, pause_max: Duration::ZERO };
    ChainOptions { retry, ..ChainOptions::new(network, endpoints, false).unwrap() }
}

/// A client of a local network with this one node.
pub fn client(chain: &TestChain) -> ChainClient {
    ChainClient::new(options(Network::Local, &[chain.url()]))
}

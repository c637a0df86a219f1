//! What goes wrong with the chain, in words.

use std::error::Error as StdError;
use std::time::Duration;

use super::account::{AccountId32, ss58};
use super::options::Network;
use super::rejection::Rejection;
use super::runtime::MissingItem;
use super::serving::UnusableAddress;
use crate::printable::printable;
use crate::reason::Reason;

/// What a node, or the way to it, said: bounded in length and fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

impl NodeError {
    /// The text of an error and of its causes that the text does not already have.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut text = error.to_string();
        for cause in crate::error_chain::causes(error) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        Self(printable(&text))
    }

    /// Words of our own.
    pub(super) fn words(text: impl AsRef<str>) -> Self {
        Self(printable(text.as_ref()))
    }
}

/// Why the chain could not be read or an axon not be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint could not be reached.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: NodeError,
    },
    /// No endpoint could be reached; each with its error.
    #[error("none of the {} chain endpoints can be reached: {}", tried.len(), tried.join("; "))]
    NoEndpoint {
        /// One text for each endpoint.
        tried: Vec<String>,
    },
    /// The endpoint serves another network.
    #[error("{endpoint} is not a node of the network {network}: its genesis block is {genesis}")]
    WrongNetwork {
        /// The endpoint.
        endpoint: String,
        /// The network that was meant.
        network: Network,
        /// The genesis block that it has.
        genesis: String,
    },
    /// The endpoint serves another chain than the ones before it.
    #[error(
        "{endpoint} serves another chain than the endpoint before it: its genesis block is {genesis}"
    )]
    AnotherChain {
        /// The endpoint.
        endpoint: String,
        /// The genesis block that it has.
        genesis: String,
    },
    /// A request failed.
    #[error("cannot {operation} from {endpoint}")]
    Request {
        /// What was being done.
        operation: &'static str,
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: NodeError,
    },
    /// The whole operation took too long.
    #[error("cannot {operation}: it took longer than {} s", limit.as_secs())]
    Deadline {
        /// What was being done.
        operation: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The runtime lacks what is needed.
    #[error(transparent)]
    Missing(#[from] MissingItem),
    /// The node answered what the metadata does not allow, or what makes no sense.
    #[error("the answer for {item} cannot be used (runtime {spec_version}): {problem}")]
    Unexpected {
        /// The item, as `pallet.item`.
        item: String,
        /// The runtime's version.
        spec_version: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such subnet.
    #[error("there is no subnet {netuid} on this chain")]
    NoSubnet {
        /// The number.
        netuid: u16,
    },
    /// The hotkey has no place in the subnet.
    #[error("the hotkey {} is not registered in subnet {netuid}", ss58(hotkey))]
    NotRegistered {
        /// The hotkey.
        hotkey: AccountId32,
        /// The subnet.
        netuid: u16,
    },
    /// The last announcement is too recent.
    #[error("the subnet takes another axon address of this hotkey in {blocks} blocks")]
    RateLimited {
        /// How many blocks are left.
        blocks: u64,
    },
    /// The address cannot be announced.
    #[error("the axon address cannot be announced")]
    Address(#[from] UnusableAddress),
    /// The metadata encodes the call to other bytes than we know it to have.
    #[error(
        "the metadata of {endpoint} gives {call} another form than this release knows: it is not signed"
    )]
    CallChanged {
        /// The call.
        call: &'static str,
        /// The endpoint.
        endpoint: String,
    },
    /// The chain refused the call.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The call was submitted, and what became of it is not known.
    #[error("the call {call} was submitted to {endpoint}, and what became of it is not known")]
    OutcomeUnknown {
        /// The call.
        call: &'static str,
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: NodeError,
    },
}

impl Error {
    /// Whether trying again, at another endpoint, may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::NoEndpoint { .. }
            | Self::Request { .. }
            // Another node may answer what makes sense.
            | Self::Unexpected { .. } => true,
            Self::WrongNetwork { .. }
            | Self::AnotherChain { .. }
            | Self::Deadline { .. }
            | Self::Missing(_)
            | Self::NoSubnet { .. }
            | Self::NotRegistered { .. }
            | Self::RateLimited { .. }
            | Self::Address(_)
            | Self::CallChanged { .. }
            | Self::Rejected(_)
            | Self::OutcomeUnknown { .. } => false,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { .. }
            | Self::NoEndpoint { .. }
            | Self::Request { .. }
            | Self::Deadline { .. }
            | Self::Unexpected { .. }
            | Self::OutcomeUnknown { .. } => Reason::Chain,
            Self::WrongNetwork { .. }
            | Self::AnotherChain { .. }
            | Self::Missing(_)
            | Self::CallChanged { .. } => Reason::ChainMismatch,
            Self::NoSubnet { .. } | Self::NotRegistered { .. } => Reason::NotRegistered,
            Self::RateLimited { .. } | Self::Rejected(_) => Reason::ChainRejected,
            Self::Address(_) => Reason::Input,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::NoEndpoint { .. } | Self::Request { .. } => {
                "check the way out of this machine, or name other nodes with --endpoint"
            }
            Self::Deadline { .. } => "the node is slow or shuts us out: try later, or another one",
            Self::Unexpected { .. } => {
                "the node is broken or lies: name another one with --endpoint"
            }
            Self::WrongNetwork { .. } | Self::AnotherChain { .. } => {
                "name the network that is meant with --network, or one of its nodes with --endpoint"
            }
            Self::Missing(_) | Self::CallChanged { .. } => {
                "the runtime is newer or older than this release knows: look for another release"
            }
            Self::NoSubnet { .. } => "see the number after --netuid, and --network",
            Self::NotRegistered { .. } => {
                "register the hotkey with btcli, with the coldkey; this program never uses one"
            }
            Self::RateLimited { .. } => "wait; a block takes 12 s",
            Self::Address(_) => "give the address at which validators reach the axon",
            Self::Rejected(rejection) => rejection.hint(),
            Self::OutcomeUnknown { .. } => {
                "run it again: an address that is on the chain already is not sent twice"
            }
        }
    }
}

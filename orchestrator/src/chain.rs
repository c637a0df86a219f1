//! The chain: reads a Bittensor subnet from a subtensor node, and tells it where our axon listens.
//!
//! A [`ChainClient`] holds at most one connection and makes it when it is needed: to the first of
//! its endpoints that answers and serves the right network. Every read is made at one finalized
//! block, with the metadata of the runtime at that block, so a runtime upgrade in between two reads
//! is nothing special. Items are found by their names; nothing is generated from a runtime, and
//! nothing is decoded by position.
//!
//! A node is somebody else's machine. Its answers are bounded before they are decoded (`walk`), its
//! texts are made printable, its requests have deadlines and are paced (`pace`). What it cannot be
//! held to is the truth: the endpoint is trusted to tell what is on the chain. It is not trusted to
//! say what we sign: a call is signed only if its bytes are those that we would have written.
//!
//! One background task exists, [`ChainClient::follow`], and its caller owns it. What must *not* be
//! here: anything signed by a coldkey, any call but serving an axon, any database.

mod account;
mod announce;
mod client;
mod error;
mod follow;
mod link;
mod metagraph;
mod options;
mod pace;
mod registration;
mod rejection;
mod runtime;
mod serving;
mod value;
mod view;
mod walk;

pub use account::{AccountId32, InvalidAddress, account};
pub use announce::{Announced, Announcement, AnnouncementOptions, Check, CheckName, Signer};
pub use client::{ChainClient, Head};
pub use error::{Error, NodeError};
pub use metagraph::{AxonInfo, Metagraph, MetagraphSource, Neuron};
pub use options::{ChainOptions, Endpoint, InvalidOptions, Network, Pacing};
pub use registration::{Registration, Subnet};
pub use rejection::{Rejection, RejectionStage};
pub use runtime::{MissingItem, missing_items};
pub use serving::{AxonAddress, UnusableAddress};

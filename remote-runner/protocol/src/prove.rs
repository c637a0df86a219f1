//! The messages of a proof-of-work, GPOW/1 (`kernels/SPEC.md` section 10), of one GPU.
//!
//! ```text
//! orchestrator                                      runner
//!      | Request { unit: prove { backend } } -------->|   Prepare
//!      | <---------------------------------- Prepared |
//!      | Continue { fill { context } } -------------->|
//!      | <------------------------------------ Filled |
//!      | Continue { probe { nonce } } --------------->|   the clock starts
//!      | <----------- Root of the records, at once ---|
//!      | <----------- Root of each product, at once --|
//!      | Continue { open { nonce, counts } } -------->|
//!      | <---------- Openings, in replies of at most MAX_OPENINGS
//!      | Continue { probe } again, or release {} ---->|
//!      | <---------------------------------- Finished |
//! ```
//!
//! A round begins when the one before it is answered. Every reply names the backend: what the CPU
//! reference computed says so in each message, and is never taken for a GPU's.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::byte_array::ByteArray;
use crate::relay::StreamBytes;

pub use pow_kernels::{Backend, CONTEXT_BYTES, Digest, Opening, QueryCounts};

/// The most openings in one reply: of the longest paths they take 0.9 MB.
pub const MAX_OPENINGS: usize = 512;

/// What the orchestrator asks for next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// Fill the memory: one [`ProveEvent::Filled`].
    Fill {
        /// The encoded context. It has every size and the filling nonce.
        context: Box<ByteArray<CONTEXT_BYTES>>,
    },
    /// Walk the memory and multiply: one [`ProveEvent::Root`] for the records, then one for each
    /// product, each as soon as it is known.
    Probe {
        /// The probing nonce.
        nonce: ByteArray<32>,
    },
    /// Show what was committed to: [`ProveEvent::Openings`], records first, until all are sent.
    Open {
        /// The opening nonce.
        nonce: ByteArray<32>,
        /// How many of each kind.
        counts: QueryCounts,
    },
    /// Give everything back and end the request well.
    Release {},
    /// Bytes for a dialled socket, see [`relay`](crate::relay).
    Send {
        /// The bytes.
        bytes: StreamBytes,
    },
    /// So many more bytes of a dialled socket were taken.
    Grant {
        /// How many.
        bytes: u32,
    },
    /// Nothing more will be sent to a dialled socket.
    End {},
    /// A round of a later version. It is answered with
    /// [`Outcome::Unsupported`](crate::Outcome::Unsupported), never sent.
    #[serde(skip_serializing)]
    Unknown {
        /// The round's name as the peer sent it.
        name: String,
    },
}

/// As for [`Unit`](crate::Unit): a round that is not known must not end the whole session.
impl<'de> Deserialize<'de> for Round {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoundVisitor;

        #[derive(Deserialize)]
        struct Fill {
            context: Box<ByteArray<CONTEXT_BYTES>>,
        }

        #[derive(Deserialize)]
        struct Probe {
            nonce: ByteArray<32>,
        }

        #[derive(Deserialize)]
        struct Open {
            nonce: ByteArray<32>,
            counts: QueryCounts,
        }

        #[derive(Deserialize)]
        struct Send {
            bytes: StreamBytes,
        }

        #[derive(Deserialize)]
        struct Grant {
            bytes: u32,
        }

        impl<'de> Visitor<'de> for RoundVisitor {
            type Value = Round;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a round: a map of one entry from its name to its parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Round, A::Error> {
                let Some(name) = map.next_key::<String>()? else {
                    return Err(A::Error::invalid_length(0, &self));
                };
                let round = match name.as_str() {
                    "fill" => {
                        let Fill { context } = map.next_value()?;
                        Round::Fill { context }
                    }
                    "probe" => {
                        let Probe { nonce } = map.next_value()?;
                        Round::Probe { nonce }
                    }
                    "open" => {
                        let Open { nonce, counts } = map.next_value()?;
                        Round::Open { nonce, counts }
                    }
                    "release" => {
                        map.next_value::<IgnoredAny>()?;
                        Round::Release {}
                    }
                    "send" => {
                        let Send { bytes } = map.next_value()?;
                        Round::Send { bytes }
                    }
                    "grant" => {
                        let Grant { bytes } = map.next_value()?;
                        Round::Grant { bytes }
                    }
                    "end" => {
                        map.next_value::<IgnoredAny>()?;
                        Round::End {}
                    }
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                        Round::Unknown { name }
                    }
                };
                match map.next_key::<String>()? {
                    None => Ok(round),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }

        deserializer.deserialize_map(RoundVisitor)
    }
}

/// A step of a proof-of-work, and what made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveReply {
    /// What computed it. A claim of the host, as everything here.
    pub backend: Backend,
    /// The step.
    pub event: ProveEvent,
}

/// A step of a proof-of-work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProveEvent {
    /// The backend is there and waits for the first round.
    Prepared {},
    /// The memory is filled.
    Filled {},
    /// A commitment.
    Root {
        /// Number of the product; `None` for the records.
        product: Option<u8>,
        /// The root.
        root: Digest,
    },
    /// Some of the openings, in the order of the queries.
    Openings {
        /// What is opened.
        of: Opened,
        /// The openings.
        #[serde(deserialize_with = "bounded::list::<MAX_OPENINGS, _, _>")]
        openings: Vec<Opening>,
    },
}

/// What an opening is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opened {
    /// Records of chains.
    Records,
    /// Chunks of products.
    Products,
}

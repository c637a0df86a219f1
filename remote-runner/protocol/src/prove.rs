//! The messages of a proof-of-work, GPOW/1 (`kernels/SPEC.md` section 10), of one GPU.
//!
//! ```text
//! orchestrator                                      runner
//!      | Request { unit: prove { backend, gpu } } --->|   driver, device, context
//!      | <----------------------- Prepared { device } |
//!      | Continue { load { image } } ---------------->|   CUDA alone: module, self-test
//!      | <------------------------------------ Loaded |
//!      | Continue { fill { context } } -------------->|   allocation, then the fill
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
//!
//! Several GPUs of a host are several requests of one session, each in a process of its own. They
//! share no state and wait for nothing of each other: the orchestrator is the barrier. It sends the
//! Probe rounds of all GPUs in one write when each has said Filled, and each round is handed on as it
//! is read, before any of them is waited for.
//!
//! The runner carries no kernels. The orchestrator picks the image by the compute capability that
//! [`Prepared`](ProveEvent::Prepared) names and sends it with [`Load`](Round::Load). The reference has
//! no such round.
//!
//! # Codes
//!
//! How a proof-of-work fails, as the `code` of [`Outcome::Failed`](crate::Outcome::Failed):
//!
//! | code | what happened |
//! |---|---|
//! | `no_driver` | there is no NVIDIA driver, or it does not start |
//! | `driver_too_old` | the driver cannot run the kernels; the message has its version and the needed one |
//! | `gpu_required` | the request names no GPU |
//! | `gpu_not_found` | no device has this UUID |
//! | `gpu_busy` | another process computes on this GPU; nothing was done on it |
//! | `mig_enabled` | the GPU is divided into instances |
//! | `no_kernels` | the image does not fit the device, or lacks a kernel |
//! | `selftest_failed` | the kernels compute something wrong on this device |
//! | `context` | the context cannot be used here |
//! | `too_large` | the sizes, or the queries, are more than this backend or this device takes |
//! | `out_of_memory` | the device has too little free memory; the message says who holds it |
//! | `ecc_error` | the device found an error of its memory that it cannot correct |
//! | `gpu_lost` | the device failed: it must be reset, or has fallen off the bus |
//! | `cuda` | any other error of the driver |
//! | `deadline` | a phase did not end in time; its process was killed |
//! | `crashed` | the prover's process ended by itself |
//! | `unexpected` | a round out of order |

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::byte_array::ByteArray;
use crate::relay::StreamBytes;

pub use pow_kernels::{Backend, CONTEXT_BYTES, Digest, Opening, QueryCounts};

/// The most openings in one reply: of the longest paths they take 0.9 MB.
pub const MAX_OPENINGS: usize = 512;

/// The largest kernel image, in bytes (1 MiB): three times the largest that there is.
pub const MAX_IMAGE_BYTES: usize = 1024 * 1024;

/// A module for the device: a cubin, or PTX as text, of at most [`MAX_IMAGE_BYTES`]. A byte string on
/// the wire; a longer one is refused before it is copied.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(pub Vec<u8>);

impl fmt::Debug for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Image({} bytes)", self.0.len())
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ImageVisitor;

        impl Visitor<'_> for ImageVisitor {
            type Value = Image;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {MAX_IMAGE_BYTES} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Image, E> {
                if bytes.len() > MAX_IMAGE_BYTES {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(Image(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(ImageVisitor)
    }
}

/// What the orchestrator asks for next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// Load the kernels and test them on the device: one [`ProveEvent::Loaded`].
    Load {
        /// The kernels, for the device's compute capability.
        image: Image,
    },
    /// Allocate all that the proof needs, then fill the memory: one [`ProveEvent::Filled`].
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

impl Round {
    /// Its name on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Load { .. } => "load",
            Self::Fill { .. } => "fill",
            Self::Probe { .. } => "probe",
            Self::Open { .. } => "open",
            Self::Release {} => "release",
            Self::Send { .. } => "send",
            Self::Grant { .. } => "grant",
            Self::End {} => "end",
            Self::Unknown { name } => name,
        }
    }
}

/// As for [`Unit`](crate::Unit): a round that is not known must not end the whole session.
impl<'de> Deserialize<'de> for Round {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoundVisitor;

        #[derive(Deserialize)]
        struct Load {
            image: Image,
        }

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
                    "load" => {
                        let Load { image } = map.next_value()?;
                        Round::Load { image }
                    }
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
    Prepared {
        /// The device; `None` for the reference.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<Device>,
    },
    /// The kernels are on the device and passed its self-test.
    Loaded {},
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

/// The device that is to prove, by the CUDA driver's account: claims, as everything here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its UUID, such as `GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10`.
    pub uuid: String,
    /// Its model.
    pub name: String,
    /// Its compute capability, such as `[9, 0]`: the kernels are chosen by it.
    pub compute_capability: [u8; 2],
    /// All its memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it is free, the driver's context for the proof being there already, in bytes.
    pub free_bytes: u64,
    /// Its streaming multiprocessors.
    pub multiprocessors: u32,
    /// The newest CUDA version of the driver, as 1000 times the major and 10 times the minor one:
    /// 12040 (`cuDriverGetVersion`).
    pub driver_cuda_version: u32,
}

impl Device {
    /// How the name of a stand-in for tests begins, which runs the kernels' source on a processor.
    pub const STAND_IN: &str = "FAKE GPU";

    /// Whether it says itself that it is no GPU. What it proves is then worth what the reference's
    /// proofs are.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        self.name.starts_with(Self::STAND_IN)
    }
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

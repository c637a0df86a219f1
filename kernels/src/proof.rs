//! What a prover sends: roots, then openings. All of it is untrusted.
//!
//! Every length is bounded while decoding: a digest is 32 bytes, a chunk 1024, a path at most
//! [`MAX_PATH`] digests, a list at most [`MAX_QUERIES`] openings. Whether a proof has the lengths of
//! *its* challenge is the verifier's question.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::bytes::{self, Hex};
use crate::parameters::MAX_GEMMS;
use crate::queries::MAX_QUERIES;

/// Bytes of a chunk: one record, or 256 entries of a product.
pub const CHUNK_BYTES: usize = 1024;
/// Most siblings on a path that any challenge can have: 2^20 chunks.
pub const MAX_PATH: usize = 20;

/// A 32-byte hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::deserialize(deserializer, 32, 32)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("a digest has 32 bytes"))
    }
}

/// The 1024 bytes of an opened chunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk(pub Box<[u8; CHUNK_BYTES]>);

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({})", blake3::hash(self.0.as_slice()).to_hex())
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(self.0.as_slice(), serializer)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::deserialize(deserializer, CHUNK_BYTES, CHUNK_BYTES)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("a chunk has 1024 bytes"))
    }
}

/// Sibling hashes from the bottom to below the root; one byte string on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Digest>);

impl Path {
    /// The siblings, lowest first.
    #[must_use]
    pub fn siblings(&self) -> &[Digest] {
        &self.0
    }
}

impl From<Vec<Digest>> for Path {
    fn from(siblings: Vec<Digest>) -> Self {
        Self(siblings)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let joined: Vec<u8> = self.0.iter().flat_map(|digest| digest.0).collect();
        bytes::serialize(&joined, serializer)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::deserialize(deserializer, 32, 32 * MAX_PATH)?;
        Ok(Self(bytes.as_chunks::<32>().0.iter().copied().map(Digest).collect()))
    }
}

/// A chunk and its way to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The chunk.
    pub chunk: Chunk,
    /// Its siblings.
    pub path: Path,
}

/// What the prover binds itself to before it knows the queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitments {
    /// Root over the records.
    pub probe_root: Digest,
    /// Roots over the products, in order.
    #[serde(deserialize_with = "roots")]
    pub gemm_roots: Vec<Digest>,
}

/// What computed a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Kernels on an NVIDIA GPU. A claim, which the timing tests.
    Cuda,
    /// The CPU reference, or a stand-in of the CUDA driver: shows that the protocol works and
    /// proves nothing about a GPU.
    Reference,
}

/// A complete answer to one challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What computed it.
    pub backend: Backend,
    /// Hash of the context it answers, so that a mix-up is told from a cheat.
    pub context_hash: Digest,
    /// The roots.
    pub commitments: Commitments,
    /// Opened records, in the order of the probe queries.
    #[serde(deserialize_with = "openings")]
    pub probe_openings: Vec<Opening>,
    /// Opened chunks of products, in the order of the product queries.
    #[serde(deserialize_with = "openings")]
    pub gemm_openings: Vec<Opening>,
}

impl Proof {
    /// BLAKE3 over all openings, probe first, each as chunk then path. Part of the transcript.
    #[must_use]
    pub fn openings_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for opening in self.probe_openings.iter().chain(&self.gemm_openings) {
            hasher.update(opening.chunk.0.as_slice());
            for sibling in opening.path.siblings() {
                hasher.update(&sibling.0);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

fn roots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Digest>, D::Error> {
    bytes::bounded_list(deserializer, MAX_GEMMS.into())
}

fn openings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Opening>, D::Error> {
    bytes::bounded_list(deserializer, MAX_QUERIES.into())
}

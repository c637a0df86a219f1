//! The messages of the units `dial` and `hold`: a socket of the host through the session, and a
//! container that does not outlive it.
//!
//! ```text
//! orchestrator                                      runner
//!      | Request { unit: dial { socket } } ---------->|
//!      | <--------------------------------- Connected |
//!      | Continue { send { bytes } } ---------------->|   at most WINDOW_BYTES not yet granted
//!      | <--------------------------- Grant { bytes } |   the socket has taken them
//!      | <---------------------------- Data { bytes } |   at most WINDOW_BYTES not yet granted
//!      | Continue { grant { bytes } } --------------->|   the reader has taken them
//!      | <------------------------------------- End {}|   the socket's peer is done
//!      | Continue { release {} } -------------------->|
//!      | <---------------------------------- Finished |
//! ```
//!
//! Each direction has a window of its own, because an SSH channel has none that a client could
//! hold back with: a reader that pauses pauses the socket, costs [`WINDOW_BYTES`] of memory and
//! delays nothing else on the connection.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Bytes in one direction that the other end has not yet granted again: 4 MiB are 40 MB/s at a
/// round trip of 100 ms.
pub const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The most bytes in one message: an SSH packet's worth.
pub const MAX_CHUNK_BYTES: usize = 32 * 1024;

/// Bytes of a stream: at most [`MAX_CHUNK_BYTES`], a byte string in CBOR.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamBytes(pub Vec<u8>);

impl fmt::Debug for StreamBytes {
    /// Their number alone: they may be anything.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StreamBytes({} bytes)", self.0.len())
    }
}

impl Serialize for StreamBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = StreamBytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {MAX_CHUNK_BYTES} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<StreamBytes, E> {
                if bytes.len() > MAX_CHUNK_BYTES {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(StreamBytes(bytes.to_vec()))
            }

            /// A text format has no byte strings, only lists of numbers.
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<StreamBytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    if bytes.len() == MAX_CHUNK_BYTES {
                        return Err(A::Error::invalid_length(bytes.len(), &self));
                    }
                    bytes.push(byte);
                }
                Ok(StreamBytes(bytes))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// What happens to a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayEvent {
    /// It is open.
    Connected {},
    /// It sent these bytes.
    Data {
        /// The bytes.
        bytes: StreamBytes,
    },
    /// It has taken so many more of the bytes that were sent to it.
    Grant {
        /// How many.
        bytes: u32,
    },
    /// It will send nothing more.
    End {},
}

/// A container that ends with the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The socket of its engine (Docker Engine API), an absolute path.
    pub socket: String,
    /// Its id, hexadecimal.
    pub container: String,
    /// Whether it is also removed.
    #[serde(default)]
    pub remove: bool,
    /// Seconds between TERM and KILL. The runner takes no more than 20.
    #[serde(default)]
    pub grace_secs: u32,
    /// Seconds from now after which it is stopped in any case.
    #[serde(default)]
    pub timeout_secs: Option<u64>,
}

/// What happens to a held container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldEvent {
    /// From now on it ends with the session, unless [`Round::Release`](crate::Round::Release) is
    /// said before.
    Holding {},
    /// Its time was over, and it was stopped. The unit ends by this.
    Expired {},
}

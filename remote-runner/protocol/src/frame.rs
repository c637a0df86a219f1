//! Framing: a length of four bytes, little-endian, then one CBOR map (RFC 8949).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_FRAME_BYTES;

/// How many bytes of a body are reserved before any of it has arrived.
const FIRST_RESERVATION: usize = 64 * 1024;

/// Why bytes are not a frame, or a value does not become one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced or produced body is larger than [`MAX_FRAME_BYTES`].
    #[error("frame of {length} bytes is larger than the limit of {MAX_FRAME_BYTES} bytes")]
    TooLarge {
        /// The body's length in bytes.
        length: usize,
    },
    /// The announced body has no bytes: there is no empty map of no bytes.
    #[error("frame announces an empty body")]
    Empty,
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame, {missing} bytes short")]
    Truncated {
        /// How many bytes of the length or of the body are missing.
        missing: usize,
    },
    /// The body is not one CBOR map.
    #[error("frame body is not a CBOR map (first byte {first_byte:#04x})")]
    NotAMap {
        /// The body's first byte.
        first_byte: u8,
    },
    /// The body is a map, and not a message that this version knows.
    #[error("cannot decode the frame body")]
    Decode(#[source] minicbor_serde::error::DecodeError),
    /// Bytes follow the message in its frame.
    #[error("{length} bytes follow the message in its frame")]
    TrailingBytes {
        /// How many bytes follow.
        length: usize,
    },
    /// The value cannot be written as CBOR, such as a unit that this version does not know.
    #[error("cannot encode the message")]
    Encode(#[source] minicbor_serde::error::EncodeError<std::convert::Infallible>),
}

/// Writes a message as one frame.
///
/// # Errors
///
/// [`FrameError::TooLarge`] if the body is over the limit, [`FrameError::NotAMap`] or
/// [`FrameError::Encode`] if the value is not a message.
pub fn encode_frame<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = minicbor_serde::to_vec(message).map_err(FrameError::Encode)?;
    check_map(&body)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_FRAME_BYTES)
        .ok_or(FrameError::TooLarge { length: body.len() })?;
    let mut frame = Vec::with_capacity(body.len().saturating_add(4));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Reads the message in a frame's body. Unknown fields are ignored.
///
/// # Errors
///
/// [`FrameError::NotAMap`], [`FrameError::Decode`] or [`FrameError::TrailingBytes`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    check_map(body)?;
    let mut deserializer = minicbor_serde::Deserializer::new(body);
    let message = T::deserialize(&mut deserializer).map_err(FrameError::Decode)?;
    match body.len().saturating_sub(deserializer.decoder().position()) {
        0 => Ok(message),
        length => Err(FrameError::TrailingBytes { length }),
    }
}

/// Refuses a body that is not a map (major type 5) before the decoder sees it.
fn check_map(body: &[u8]) -> Result<(), FrameError> {
    match body.first() {
        None => Err(FrameError::Empty),
        Some(first) if first >> 5 == 5 => Ok(()),
        Some(&first_byte) => Err(FrameError::NotAMap { first_byte }),
    }
}

/// Cuts a byte stream into frames' bodies. It holds at most one body, whatever the stream says.
///
/// ```
/// use runner_protocol::{FrameDecoder, ToRunner, decode, encode_frame};
///
/// let stream = encode_frame(&ToRunner::Renew {})?;
/// let mut decoder = FrameDecoder::new();
/// let mut chunk = stream.as_slice();
/// while let Some(body) = decoder.push(&mut chunk)? {
///     assert_eq!(decode::<ToRunner>(&body)?, ToRunner::Renew {});
/// }
/// decoder.finish()?;
/// # Ok::<_, runner_protocol::FrameError>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; 4],
    header_filled: usize,
    /// The body's length, once the header is complete and was accepted.
    length: Option<usize>,
    body: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream of frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input`, up to the end of one frame, and returns that frame's
    /// body. `Ok(None)` means that `input` is used up and more is needed. Call it until then.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] or [`FrameError::Empty`] as soon as the length is known, before
    /// anything is allocated for the body. The stream has no frame boundary to go on from: after
    /// an error every call gives that error again, and the session ends.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.take_header(input)? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        let wanted = length.saturating_sub(self.body.len());
        let (now, rest) = input.split_at(wanted.min(input.len()));
        self.body.extend_from_slice(now);
        *input = rest;
        if self.body.len() < length {
            return Ok(None);
        }
        self.length = None;
        self.header_filled = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        let missing = match self.length {
            Some(length) => length.saturating_sub(self.body.len()),
            None if self.header_filled == 0 => return Ok(()),
            None => self.header.len().saturating_sub(self.header_filled),
        };
        Err(FrameError::Truncated { missing })
    }

    /// Fills the header and checks the length it announces.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<usize>, FrameError> {
        while let Some(slot) = self.header.get_mut(self.header_filled) {
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            *slot = byte;
            self.header_filled = self.header_filled.saturating_add(1);
            *input = rest;
        }
        // A length that does not fit `usize` is over the limit in any case.
        let length = usize::try_from(u32::from_le_bytes(self.header)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { length });
        }
        if length == 0 {
            return Err(FrameError::Empty);
        }
        self.length = Some(length);
        self.body.reserve_exact(length.min(FIRST_RESERVATION));
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ToRunner;

    #[test]
    fn an_oversized_length_is_refused_before_allocation_and_stays_refused() {
        let mut decoder = FrameDecoder::new();
        let mut input: &[u8] = &u32::MAX.to_le_bytes();
        assert!(matches!(decoder.push(&mut input), Err(FrameError::TooLarge { .. })));
        assert_eq!(decoder.body.capacity(), 0);
        let mut more: &[u8] = &[0xa0; 64];
        assert!(matches!(decoder.push(&mut more), Err(FrameError::TooLarge { .. })));
        assert_eq!(decoder.body.capacity(), 0);
    }

    #[test]
    fn a_large_announced_length_reserves_little_until_bytes_arrive() {
        let mut decoder = FrameDecoder::new();
        let length = u32::try_from(MAX_FRAME_BYTES).unwrap();
        let mut input: &[u8] = &length.to_le_bytes();
        assert!(decoder.push(&mut input).unwrap().is_none());
        assert!(decoder.body.capacity() <= FIRST_RESERVATION);
        assert!(
            matches!(decoder.finish(), Err(FrameError::Truncated { missing }) if missing == MAX_FRAME_BYTES)
        );
    }

    #[test]
    fn a_zero_length_is_refused() {
        let mut input: &[u8] = &[0; 4];
        assert!(matches!(FrameDecoder::new().push(&mut input), Err(FrameError::Empty)));
    }

    #[test]
    fn a_body_that_is_no_map_is_refused() {
        assert!(matches!(
            decode::<ToRunner>(b"\x65renew"),
            Err(FrameError::NotAMap { first_byte: 0x65 })
        ));
        assert!(matches!(encode_frame(&"renew"), Err(FrameError::NotAMap { .. })));
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut body = encode_frame(&ToRunner::Renew {}).unwrap().split_off(4);
        body.push(0);
        assert!(matches!(decode::<ToRunner>(&body), Err(FrameError::TrailingBytes { length: 1 })));
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let long = std::collections::BTreeMap::from([("text", "x".repeat(MAX_FRAME_BYTES))]);
        assert!(matches!(encode_frame(&long), Err(FrameError::TooLarge { .. })));
    }
}

//! A byte string of a fixed length: bytes in CBOR, lower-case hexadecimal in a text format.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// `N` bytes. Another length is refused before anything is copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteArray<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for ByteArray<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for ByteArray<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ByteArray({self})")
    }
}

impl<const N: usize> Serialize for ByteArray<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de, const N: usize> Deserialize<'de> for ByteArray<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Bytes)
        } else {
            deserializer.deserialize_bytes(Bytes)
        }
    }
}

struct Bytes<const N: usize>;

impl<const N: usize> Visitor<'_> for Bytes<N> {
    type Value = ByteArray<N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{N} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<ByteArray<N>, E> {
        bytes.try_into().map(ByteArray).map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteArray<N>, E> {
        let mut bytes = [0; N];
        if text.len() != N.saturating_mul(2) {
            return Err(E::invalid_length(text.len() / 2, &self));
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let [high, low] = pair.map(digit);
            *byte = high
                .zip(low)
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| E::custom("not lower-case hexadecimal"))?;
        }
        Ok(ByteArray(bytes))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(character.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_lower_case_hexadecimal_and_nothing_else() {
        let array = ByteArray([0x00, 0x9f, 0xa0, 0xff]);
        assert_eq!(serde_json::to_string(&array).unwrap(), "\"009fa0ff\"");
        assert_eq!(serde_json::from_str::<ByteArray<4>>("\"009fa0ff\"").unwrap(), array);
        for other in ["\"009FA0FF\"", "\"009fa0f\"", "\"009fa0ff00\"", "\"009fa0fg\"", "\"\""] {
            assert!(serde_json::from_str::<ByteArray<4>>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn another_length_is_refused() {
        let bytes = minicbor_serde::to_vec(ByteArray([1; 31])).unwrap();
        assert!(minicbor_serde::from_slice::<ByteArray<32>>(&bytes).is_err());
        assert_eq!(minicbor_serde::from_slice::<ByteArray<31>>(&bytes).unwrap().0, [1; 31]);
    }
}

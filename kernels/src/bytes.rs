//! Byte strings of a known or bounded length: bytes in a binary format, lower-case hex in a text
//! format. The length is checked before anything is copied or reserved.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;

/// Writes `bytes`.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&Hex(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

/// Reads at most `max` bytes, a multiple of `unit`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
    unit: usize,
    max: usize,
) -> Result<Vec<u8>, D::Error> {
    let visitor = Bounded { unit, max };
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(visitor)
    } else {
        deserializer.deserialize_bytes(visitor)
    }
}

/// Reads a list of at most `max` items; a length that is announced reserves nothing.
pub(crate) fn bounded_list<'de, T, D>(deserializer: D, max: usize) -> Result<Vec<T>, D::Error>
where
    T: de::Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<T>(usize, std::marker::PhantomData<T>);
    impl<'de, T: de::Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {} items", self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == self.0 {
                    return Err(de::Error::invalid_length(self.0 + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List(max, std::marker::PhantomData))
}

/// Shows bytes as lower-case hex.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Bounded {
    unit: usize,
    max: usize,
}

impl Bounded {
    fn check<E: de::Error>(&self, len: usize) -> Result<(), E> {
        if len <= self.max && len.is_multiple_of(self.unit) {
            Ok(())
        } else {
            Err(E::invalid_length(len, self))
        }
    }
}

impl Visitor<'_> for Bounded {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unit == self.max {
            write!(f, "{} bytes", self.max)
        } else {
            write!(f, "at most {} bytes, a multiple of {}", self.max, self.unit)
        }
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        self.check(bytes.len())?;
        Ok(bytes.to_vec())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        if !text.len().is_multiple_of(2) {
            return Err(E::invalid_length(text.len(), &"an even number of hex digits"));
        }
        self.check(text.len() / 2)?;
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(E::custom("not lower-case hex")),
        };
        text.as_bytes()
            .chunks_exact(2)
            .map(|pair| match pair {
                [high, low] => Ok(digit(*high)? << 4 | digit(*low)?),
                _ => Err(E::custom("not lower-case hex")),
            })
            .collect()
    }
}

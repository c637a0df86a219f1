//! Lists with a largest length.
//!
//! An element whose fields all have defaults is one byte on the wire and hundreds of bytes in
//! memory: without a largest length, 4 MiB from a hostile host become gigabytes here.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Reads a list of at most `MAX` elements; a longer one is an error, since cutting it would be a
/// silent lie. For `#[serde(deserialize_with)]`.
pub(crate) fn list<'de, const MAX: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a list of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            // No reservation by the announced length: it is the peer's word.
            let mut list = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX.saturating_add(1), &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

//! Reads decoded values by name. Runtimes wrap numbers into newtypes, and unwrap them again, so a
//! wrapper of one field is seen through.

use subxt::ext::scale_value::{At as _, Composite, Primitive, Value, ValueDef};

use super::account::AccountId32;

/// The deepest newtype that is seen through.
const MAX_WRAPPERS: usize = 8;

/// What a newtype wraps, or the value itself.
fn unwrapped(value: &Value) -> &Value {
    let mut value = value;
    for _ in 0..MAX_WRAPPERS {
        match &value.value {
            ValueDef::Composite(parts) if parts.len() == 1 => match parts.values().next() {
                Some(inner) => value = inner,
                None => break,
            },
            _ => break,
        }
    }
    value
}

/// A number of any width, compact or not.
pub(super) fn number<T: TryFrom<u128>>(value: &Value) -> Option<T> {
    match &unwrapped(value).value {
        ValueDef::Primitive(Primitive::U128(number)) => T::try_from(*number).ok(),
        _ => None,
    }
}

/// A yes or no.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    unwrapped(value).as_bool()
}

/// The elements of a list, which itself is in no newtype.
pub(super) fn list(value: &Value) -> Option<&[Value]> {
    match &value.value {
        ValueDef::Composite(Composite::Unnamed(values)) => Some(values),
        // An empty composite is decoded as unnamed, so a named one is a structure.
        _ => None,
    }
}

/// An account: 32 bytes, in a newtype or not.
pub(super) fn account(value: &Value) -> Option<AccountId32> {
    let bytes: Vec<u8> = list(unwrapped(value))?.iter().map(number).collect::<Option<_>>()?;
    <[u8; 32]>::try_from(bytes).ok().map(AccountId32::new)
}

/// Bytes, in a newtype or not; a single byte in a list reads the same in both.
pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    let mut value = value;
    for _ in 0..MAX_WRAPPERS {
        match list(value)? {
            [inner] if list(inner).is_some() => value = inner,
            elements => return elements.iter().map(number).collect(),
        }
    }
    None
}

/// What an `Option` holds: the outer `None` is no `Option` at all.
pub(super) fn option(value: &Value) -> Option<Option<&Value>> {
    let ValueDef::Variant(variant) = &value.value else { return None };
    match variant.name.as_str() {
        "None" => Some(None),
        "Some" => variant.values.values().next().map(Some),
        _ => None,
    }
}

/// A part of a structure by its name.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.at(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(value: Value, times: usize) -> Value {
        (0..times).fold(value, |inner, _| Value::unnamed_composite([inner]))
    }

    #[test]
    fn newtypes_are_seen_through() {
        for times in 0..MAX_WRAPPERS {
            assert_eq!(number::<u16>(&wrapped(Value::u128(39), times)), Some(39));
            assert_eq!(boolean(&wrapped(Value::bool(true), times)), Some(true));
            let key = wrapped(Value::from_bytes([7; 32]), times);
            assert_eq!(account(&key), Some(AccountId32::new([7; 32])));
        }
        let named = Value::named_composite([("netuid", Value::u128(39))]);
        assert_eq!(number::<u16>(&named), Some(39));
    }

    #[test]
    fn what_does_not_fit_is_nothing() {
        assert_eq!(number::<u16>(&Value::u128(65_536)), None);
        assert_eq!(number::<u16>(&Value::i128(1)), None);
        assert_eq!(number::<u16>(&Value::unnamed_composite([])), None);
        assert_eq!(account(&Value::from_bytes([7; 31])), None);
        let large = Value::unnamed_composite((0..32).map(|_| Value::u128(256)));
        assert_eq!(account(&large), None);
        assert_eq!(boolean(&Value::u128(1)), None);
    }

    #[test]
    fn bytes_are_read_through_a_bounded_vector() {
        for length in [0, 1, 2, 33] {
            let value = Value::from_bytes(vec![5; length]);
            assert_eq!(bytes(&value), Some(vec![5; length]));
            assert_eq!(bytes(&wrapped(value, 1)), Some(vec![5; length]), "{length}");
        }
    }

    #[test]
    fn options_are_told_from_other_choices() {
        let some = Value::unnamed_variant("Some", [Value::u128(1)]);
        assert_eq!(option(&some).unwrap().and_then(number::<u8>), Some(1));
        assert_eq!(option(&Value::unnamed_variant("None", [])), Some(None));
        assert_eq!(option(&Value::unnamed_variant("Maybe", [])), None);
        assert_eq!(option(&Value::u128(1)), None);
    }
}

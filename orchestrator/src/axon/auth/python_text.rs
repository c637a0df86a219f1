//! JSON values as Python's `str()` writes them: what the body hash of a synapse is made of.
//!
//! The SDK hashes `str(value)` of each field after it was read from JSON. Numbers keep their digits,
//! texts stand as they are, and inside of lists and dictionaries everything is as `repr()` has it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use sha3::{Digest as _, Sha3_256};

/// Levels of lists and dictionaries in a field that is signed. Each level reads its text again.
const MAX_DEPTH: usize = 32;

/// Digits of an integer: Python refuses to write longer ones.
const MAX_DIGITS: usize = 4300;

/// Why a body has no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// No JSON object.
    #[error("the body is no JSON object")]
    NoObject,
    /// A field that must be signed is missing.
    #[error("a field that must be signed is missing")]
    Missing,
    /// A value that the SDK could not have sent.
    #[error("a field that must be signed has a value that cannot be")]
    Value,
}

/// The body hash of a synapse: SHA3-256 over the digests of `fields`, in their order; of nothing
/// where no field is required. Lower hexadecimal. `name` is the name of the synapse's class, whatever
/// the body says: so the SDK has it, and so a request for one synapse is none for another.
///
/// # Errors
/// [`BodyFault`].
pub fn body_hash(name: &str, body: &[u8], fields: &[&str]) -> Result<String, BodyFault> {
    let mut all = Sha3_256::new();
    if !fields.is_empty() {
        // Of a key that is there twice the last one counts, as in Python.
        let values: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_slice(body).map_err(|_| BodyFault::NoObject)?;
        for field in fields {
            let text = if *field == "name" {
                Cow::Borrowed(name)
            } else {
                let value = values.get(*field).ok_or(BodyFault::Missing)?;
                python_str(value.get()).ok_or(BodyFault::Value)?
            };
            all.update(crate::hex::encode(&Sha3_256::digest(text.as_bytes())));
        }
    }
    Ok(crate::hex::encode(&all.finalize()))
}

/// `str()` of a JSON value.
fn python_str(json: &str) -> Option<Cow<'_, str>> {
    let json = json.trim();
    if json.starts_with('"') {
        return serde_json::from_str::<String>(json).ok().map(Cow::Owned);
    }
    let mut text = String::new();
    repr(json, &mut text, 0)?;
    Some(Cow::Owned(text))
}

/// `repr()` of a JSON value.
fn repr(json: &str, out: &mut String, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let json = json.trim();
    match json.bytes().next()? {
        b'n' => out.push_str("None"),
        b't' => out.push_str("True"),
        b'f' => out.push_str("False"),
        b'"' => repr_text(&serde_json::from_str::<String>(json).ok()?, out),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(item.get(), out, depth + 1)?;
            }
            out.push(']');
        }
        b'{' => {
            let entries: Entries<'_> = serde_json::from_str(json).ok()?;
            out.push('{');
            for (index, (key, value)) in entries.0.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr_text(key, out);
                out.push_str(": ");
                repr(value.get(), out, depth + 1)?;
            }
            out.push('}');
        }
        _ => repr_number(json, out)?,
    }
    Some(())
}

/// Integers keep their digits; everything with a point or an exponent is a double.
fn repr_number(json: &str, out: &mut String) -> Option<()> {
    if !json.contains(['.', 'e', 'E']) {
        if json.len() > MAX_DIGITS {
            return None;
        }
        out.push_str(if json == "-0" { "0" } else { json });
        return Some(());
    }
    let number: f64 = json.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    repr_float(number, out);
    Some(())
}

/// The shortest digits that read back the same, of those the nearest, of two as near the even one;
/// with an exponent when that is below -4 or at least 16.
fn repr_float(number: f64, out: &mut String) {
    let shortest = format!("{:e}", number.abs());
    let (mantissa, _) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let count = mantissa.bytes().filter(u8::is_ascii_digit).count();
    // Of two that are as near Rust's shortest form takes the upper one; its exact form takes the even.
    let nearest = format!("{:.*e}", count - 1, number.abs());
    let same = nearest.parse() == Ok(number.abs());
    let chosen = if same { nearest } else { shortest };
    let (mantissa, exponent) = chosen.split_once('e').unwrap_or((&chosen, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = mantissa.replace('.', "");
    if number.is_sign_negative() {
        out.push('-');
    }
    let places = usize::try_from(exponent.unsigned_abs()).unwrap_or(usize::MAX);
    match exponent {
        -4..0 => {
            out.push_str("0.");
            out.push_str(&"0".repeat(places - 1));
            out.push_str(&digits);
        }
        0..16 => {
            let padded = format!("{digits:0<width$}", width = places + 2);
            let (whole, fraction) = padded.split_at(places + 1);
            let _infallible = write!(out, "{whole}.{fraction}");
        }
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            let _infallible = write!(out, "{mantissa}e{sign}{places:02}");
        }
    }
}

/// Single quotes, unless the text has those and no double ones.
fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _infallible = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`: not of the categories Other and Separator, but for the space. Rust's
/// `escape_debug` has the same rule; behind another character it leaves combining marks alone.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut behind = String::from("a");
    behind.push(c);
    !behind.escape_debug().skip(1).any(|escaped| escaped == '\\')
}

/// The entries of an object in Python's order: a repeated key keeps its first place and takes the
/// last value.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, &'de RawValue)> = Vec::new();
                let mut places: HashMap<String, usize> = HashMap::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    let known = places.get(&key).and_then(|place| entries.get_mut(*place));
                    match known {
                        Some(entry) => entry.1 = value,
                        None => {
                            places.insert(key.clone(), entries.len());
                            entries.push((key, value));
                        }
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_python_writes_them() {
        // Left JSON, right what `str(json.loads(...))` of CPython gives.
        for (json, python) in [
            (r#""plain 'text'""#, "plain 'text'"),
            ("12", "12"),
            ("-0", "0"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("12.0", "12.0"),
            ("1e3", "1000.0"),
            ("1e16", "1e+16"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("-0.0", "-0.0"),
            ("5e-324", "5e-324"),
            ("0.1", "0.1"),
            // Halfway between two: the even digit.
            ("1843648482346871.25", "1843648482346871.2"),
            ("1843648482346871.75", "1843648482346871.8"),
            ("-250.0", "-250.0"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("0.00012345", "0.00012345"),
            ("true", "True"),
            ("null", "None"),
            ("[]", "[]"),
            (r#"[1, "a", null, [2.50]]"#, "[1, 'a', None, [2.5]]"),
            (r#"{"b": 1, "a": {"c": false}, "b": 2}"#, "{'b': 2, 'a': {'c': False}}"),
            (r#"["it's"]"#, "[\"it's\"]"),
            (r#"["it's \"so\""]"#, r#"['it\'s "so"']"#),
            (
                r#"["\n\t\\\u0000\u007f\u00ad\u200b\ud83d\ude00é"]"#,
                "['\\n\\t\\\\\\x00\\x7f\\xad\\u200b😀é']",
            ),
        ] {
            assert_eq!(python_str(json).as_deref(), Some(python), "{json}");
        }
    }

    #[test]
    fn the_hash_of_no_fields_is_that_of_nothing() {
        let nothing = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a";
        assert_eq!(body_hash("S", b"not even JSON", &[]).unwrap(), nothing);
    }

    #[test]
    fn what_has_no_hash_is_refused() {
        assert_eq!(body_hash("S", b"[]", &["a"]), Err(BodyFault::NoObject));
        assert_eq!(body_hash("S", b"{}", &["a"]), Err(BodyFault::Missing));
        assert_eq!(body_hash("S", br#"{"a": 1e999}"#, &["a"]), Err(BodyFault::Value));
        let deep = format!(r#"{{"a": {}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(body_hash("S", deep.as_bytes(), &["a"]), Err(BodyFault::Value));
    }
}

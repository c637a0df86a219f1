//! What our scripts print: `key=value` lines between two lines with a random mark, so that
//! whatever a login shell prints around them is no answer.

use std::collections::BTreeMap;

use crate::printable::printable;

/// The longest answer that is kept. An answer is some ten short lines.
pub const MAX_BYTES: usize = 64 * 1024;

/// A random mark for one command: 64 bits in hexadecimal, unguessable by an rc file.
///
/// # Errors
/// The system's random number generator failed.
pub fn new_mark() -> Result<String, ring::error::Unspecified> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes)?;
    Ok(format!("orch-{}", crate::hex::encode(&bytes)))
}

/// The key-value lines of one answer. Every value is text of the host: cleaned, not trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer(BTreeMap<String, String>);

impl Answer {
    /// Reads the answer between the mark's lines in `output`, and where it ends: the bytes after
    /// it belong to whatever runs next. `None` while the end mark has not come.
    #[must_use]
    pub fn find(output: &[u8], mark: &str) -> Option<(Self, usize)> {
        let begin = format!("\n{mark} begin\n");
        let end = format!("\n{mark} end\n");
        let from = position(output, begin.as_bytes())? + begin.len() - 1;
        let body = output.get(from..)?;
        let length = position(body, end.as_bytes())?;
        let lines = String::from_utf8_lossy(body.get(..length)?).into_owned();
        let values = lines
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), printable(value)))
            .collect();
        Some((Self(values), from + length + end.len()))
    }

    /// The value of a key; empty when the host did not say.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_around_the_answer_is_ignored() {
        let output = b"Welcome!\nstate=lie\n\nM begin\nstate=ready\nM end\nremote-runner 1\n";
        let (answer, end) = Answer::find(output, "M").unwrap();
        assert_eq!(answer.get("state"), "ready");
        assert_eq!(answer.get("missing"), "");
        assert_eq!(&output[end..], b"remote-runner 1\n");
    }

    #[test]
    fn an_unfinished_answer_is_none() {
        assert_eq!(Answer::find(b"\nM begin\nstate=ready\nM en", "M"), None);
        assert_eq!(Answer::find(b"", "M"), None);
    }

    #[test]
    fn an_answer_may_be_empty() {
        let (answer, _) = Answer::find(b"\nM begin\nM end\n", "M").unwrap();
        assert_eq!(answer, Answer::default());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Answer::find(&bytes, "M");
        }
    }
}

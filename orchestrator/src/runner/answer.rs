//! What our scripts print: `key=value` lines and then the line `end`. The transport has already
//! taken away what a login shell prints before them.

use std::collections::BTreeMap;

use crate::printable::printable;

/// The longest answer that is kept. An answer is some ten short lines.
pub const MAX_BYTES: usize = 64 * 1024;

const END: &[u8] = b"end\n";

/// The key-value lines of one answer. Every value is text of the host: cleaned, not trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer(BTreeMap<String, String>);

impl Answer {
    /// Reads the answer at the start of `output`, and where it ends: the bytes after it belong to
    /// whatever runs next. `None` while its last line has not come.
    #[must_use]
    pub fn find(output: &[u8]) -> Option<(Self, usize)> {
        let length = if output.starts_with(END) {
            0
        } else {
            output.windows(END.len() + 1).position(|window| window == b"\nend\n")? + 1
        };
        let values = String::from_utf8_lossy(output.get(..length)?)
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), printable(value)))
            .collect();
        Some((Self(values), length + END.len()))
    }

    /// The value of a key; empty when the host did not say.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_the_runner_begins() {
        let output = b"state=ready\nodd line\nempty=\nend\nremote-runner 1\n";
        let (answer, end) = Answer::find(output).unwrap();
        assert_eq!((answer.get("state"), answer.get("empty")), ("ready", ""));
        assert_eq!(answer.get("missing"), "");
        assert_eq!(&output[end..], b"remote-runner 1\n");
    }

    #[test]
    fn an_unfinished_answer_is_none() {
        assert_eq!(Answer::find(b"state=ready\nen"), None);
        assert_eq!(Answer::find(b"state=legend\n"), None);
        assert_eq!(Answer::find(b""), None);
    }

    #[test]
    fn an_answer_may_be_empty() {
        assert_eq!(Answer::find(b"end\n"), Some((Answer::default(), 4)));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Answer::find(&bytes);
        }
    }
}

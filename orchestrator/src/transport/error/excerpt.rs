//! A host's own words in our errors.

use std::fmt;

use crate::printable::printable;

/// Bytes of a host's words that an error shows.
const EXCERPT_BYTES: usize = 200;

/// A few of a host's words, made safe to print: one line, no control characters, capped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excerpt(String);

impl Excerpt {
    /// The printable start of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let start = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
        let text = printable(&String::from_utf8_lossy(start));
        Self(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The text, possibly empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a host said, as the end of a sentence; nothing if it said nothing.
pub(super) fn said(excerpt: &Excerpt) -> String {
    if excerpt.0.is_empty() { String::new() } else { format!("; it said: {excerpt}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_holds_nothing_a_terminal_acts_on() {
        let hostile = b"\x1b]0;owned\x07\x1b[31mred\xff\xfe\r\nnext\x00\xe2\x80\xae".repeat(40);
        let text = Excerpt::of(&hostile);
        assert!(text.as_str().chars().all(|c| !c.is_control() && c != '\u{202e}'));
        assert!(text.as_str().len() <= 3 * EXCERPT_BYTES);
        assert!(text.as_str().starts_with("]0;owned [31mred"));
    }
}

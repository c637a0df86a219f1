//! Text of a host made fit to be shown: everything a host says is untrusted.

/// The longest text of a host that is shown in one place.
const MAX_CHARS: usize = 1_000;

/// The text on one line, without control characters (so without terminal escape sequences) and
/// without the characters that change the direction of writing, cut at a bounded length.
#[must_use]
pub fn printable(text: &str) -> String {
    let plain: String = text
        .trim()
        .chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() || is_format(c) { ' ' } else { c })
        .collect();
    plain.trim().to_owned()
}

/// The last line of bytes that says something, made printable: where programs put the cause.
#[must_use]
pub fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    printable(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

/// Invisible characters and the marks that change the direction of writing (of Unicode's category
/// Cf, the ranges that a terminal acts on): they can make a line read as another.
#[must_use]
pub fn is_format(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_marks_do_not_survive() {
        assert_eq!(printable("\x1b[2J\x1b]0;owned\x07text"), "[2J ]0;owned text");
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a b c");
    }

    #[test]
    fn the_last_words_are_kept() {
        assert_eq!(last_line(b"one\r\ntwo\n\n"), "two");
        assert_eq!(last_line(b"\xff\n"), "\u{fffd}");
        assert_eq!(last_line(b""), "");
    }

    #[test]
    fn length_is_bounded() {
        assert_eq!(printable(&"x".repeat(5_000)).len(), 1_000);
    }
}

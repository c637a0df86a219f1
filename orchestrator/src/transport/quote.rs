//! Shell quoting: the only place where text becomes part of a command line.
//!
//! `sshd` hands the command line to the user's login shell, which may be any of `sh`, `dash`,
//! `bash`, `zsh`, `fish` or busybox `sh`. They agree on single quotes except for one character:
//! inside single quotes fish treats `\\` and `\'` as escapes and the others do not. So a
//! backslash is never put inside quotes; outside of them `\\` means one backslash in all of
//! them, as `\'` means one quote.

/// Appends `word` to `line` such that every supported shell reads back exactly `word`.
///
/// `word` must hold no NUL, which no command line can carry; callers check.
pub(super) fn push_word(line: &mut String, word: &str) {
    if word.is_empty() {
        line.push_str("''");
        return;
    }
    if word.bytes().all(is_plain) {
        line.push_str(word);
        return;
    }
    let mut quoted = false;
    for c in word.chars() {
        let escape = matches!(c, '\'' | '\\');
        // Quotes open and close only around something: `''` inside a word would be a literal
        // quote under zsh's `rc_quotes`.
        if escape == quoted {
            line.push('\'');
            quoted = !escape;
        }
        if escape {
            line.push('\\');
        }
        line.push(c);
    }
    if quoted {
        line.push('\'');
    }
}

/// Bytes that no supported shell gives a meaning anywhere in a word. `=`, `~`, `%`, `^` and
/// `#` are left out: zsh's `=cmd`, home directories, job names, old fish and comments.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':' | b',' | b'+')
}

#[cfg(test)]
mod tests {
    use super::push_word;

    fn quoted(word: &str) -> String {
        let mut line = String::new();
        push_word(&mut line, word);
        line
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(quoted("/usr/bin/env"), "/usr/bin/env");
        assert_eq!(quoted("--level=3"), "'--level=3'");
    }

    #[test]
    fn backslashes_and_quotes_are_never_inside_quotes() {
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("'"), "\\'");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("\\n"), "\\\\'n'");
        assert_eq!(quoted("a\\'b"), "'a'\\\\\\''b'");
        assert_eq!(quoted("$(x)\n"), "'$(x)\n'");
    }
}

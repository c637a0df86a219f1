//! The host field of a `known_hosts` line: comma-separated patterns, or one hashed name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// OpenSSH's buffer for one pattern is 1024 bytes; nothing longer matches there or here.
const MAX_PATTERN_BYTES: usize = 1023;

#[derive(Debug, Clone)]
pub(super) enum Hosts {
    Patterns(Vec<Pattern>),
    /// `|1|salt|HMAC-SHA1(salt, name)|`.
    Hashed {
        salt: Vec<u8>,
        digest: Vec<u8>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    negated: bool,
    text: Vec<u8>,
}

impl Hosts {
    pub(super) fn parse(field: &str) -> Option<Self> {
        if let Some(hashed) = field.strip_prefix("|1|") {
            let (salt, digest) = hashed.split_once('|')?;
            let (salt, digest) = (STANDARD.decode(salt).ok()?, STANDARD.decode(digest).ok()?);
            // Both are SHA-1 long; OpenSSH refuses others.
            return (salt.len() == 20 && digest.len() == 20)
                .then_some(Self::Hashed { salt, digest });
        }
        if field.starts_with('|') {
            return None;
        }
        let patterns = field.split(',').map(|text| {
            let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
            Pattern { negated, text: text.to_ascii_lowercase().into_bytes() }
        });
        Some(Self::Patterns(patterns.collect()))
    }

    /// Whether `name`, in lower case, is meant. A negated pattern that matches rules the whole
    /// line out, wherever it stands.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, digest } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::sign(&key, name.as_bytes()).as_ref() == digest
            }
            Self::Patterns(patterns) => {
                let hit = |pattern: &&Pattern| pattern.matches(name.as_bytes());
                let mut hits = patterns.iter().filter(hit).peekable();
                hits.peek().is_some() && hits.all(|pattern| !pattern.negated)
            }
        }
    }
}

impl Pattern {
    fn matches(&self, name: &[u8]) -> bool {
        self.text.len() <= MAX_PATTERN_BYTES && glob(&self.text, name)
    }
}

/// `*` is any text, `?` any one byte. Remembers only the last `*`, so it takes at most
/// `pattern * name` steps whatever the pattern.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&b| b == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, hit) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("?", "", false),
            ("a?c", "abc", true),
            ("*.lan", "gpu.lan", true),
            ("*a*b*", "xxaxxbxx", true),
            ("abc", "ab", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), hit, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_glob_is_quick() {
        let pattern = "*a".repeat(500);
        assert!(!glob(pattern.as_bytes(), "a".repeat(499).as_bytes()));
    }

    #[test]
    fn a_negation_anywhere_rules_the_line_out() {
        let matches = |field, name| Hosts::parse(field).unwrap().matches(name);
        assert!(matches("*.lan,!bad.lan", "good.lan"));
        assert!(!matches("*.lan,!bad.lan", "bad.lan"));
        assert!(!matches("!bad.lan,*.lan", "bad.lan"));
        assert!(!matches("!bad.lan", "good.lan"));
    }
}

//! Picks hosts: `gpu-[01-04],rack=a,!gpu-03`.
//!
//! Terms are separated by commas. A term is a name, with ranges as in the fleet file and the
//! wildcards `*` and `?`, or a label, `key=value`, whose value may have them too. `!` before a term
//! takes its hosts away.
//!
//! The result is the union of the plain terms without the hosts of the `!` terms, whatever the
//! order; with `!` terms alone, it is the whole fleet without them. Every term must match some
//! host: a misspelt `!gpu-3` would otherwise silently keep `gpu-03`.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use super::MAX_HOSTS;
use super::range::Pattern;
use super::ssh_config::glob;
use crate::host_spec::HostSpec;
use crate::toml_text::nearest;

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad selector {text:?}: {message}")]
pub struct InvalidSelector {
    /// The whole text.
    pub text: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a selector picks no host of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingSelected {
    /// A term matches nothing.
    #[error("no host matches `{term}`{}", nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?")))]
    Term {
        /// The term.
        term: String,
        /// The name or label most like it, if any is.
        nearest: Option<String>,
    },
    /// The terms take away all that they pick.
    #[error("`{selector}` takes away every host that it picks")]
    AllExcluded {
        /// The selector.
        selector: String,
    },
}

/// A selector that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    text: String,
    negative: bool,
    subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Name(Words),
    Label(String, Words),
}

/// What a pattern stands for: plain words, looked up, and words with wildcards, tried.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    plain: HashSet<String>,
    globs: Vec<String>,
}

impl Words {
    fn parse(text: &str) -> Result<Self, String> {
        let pattern = Pattern::parse(text).map_err(|error| error.kind.to_string())?;
        if pattern.count() > MAX_HOSTS {
            return Err(format!("{text} is more than {MAX_HOSTS} names"));
        }
        let (globs, plain): (Vec<String>, Vec<String>) =
            pattern.expand().partition(|word| word.contains(['*', '?']));
        // Each is tried against each host.
        if globs.len() > 256 {
            return Err(format!("{text} is too many names with wildcards"));
        }
        Ok(Self { plain: plain.into_iter().collect(), globs })
    }

    fn matches(&self, text: &str) -> bool {
        self.plain.contains(text) || self.globs.iter().any(|pattern| glob(pattern, text))
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        let (negative, body) = match text.strip_prefix('!') {
            Some(body) => (true, body.trim()),
            None => (false, text),
        };
        let subject = match body.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Subject::Label(key.to_owned(), Words::parse(value)?)
            }
            Some(_) => return Err(format!("`{body}` names no label")),
            None if body.is_empty() => return Err("a term is empty".to_owned()),
            None => Subject::Name(Words::parse(body)?),
        };
        Ok(Self { text: body.to_owned(), negative, subject })
    }

    fn matches(&self, host: &HostSpec) -> bool {
        match &self.subject {
            Subject::Name(words) => words.matches(host.name.as_str()),
            Subject::Label(key, words) => {
                host.labels.get(key).is_some_and(|value| words.matches(value))
            }
        }
    }

    fn nothing(&self, hosts: &[HostSpec]) -> NothingSelected {
        let candidates: BTreeSet<String> = match &self.subject {
            Subject::Name(_) => hosts.iter().map(|host| host.name.to_string()).collect(),
            Subject::Label(..) => {
                let labels = hosts.iter().flat_map(|host| &host.labels);
                labels.map(|(key, value)| format!("{key}={value}")).collect()
            }
        };
        // For a range, its first name stands for it: that shows a missing zero best.
        let first = Pattern::parse(&self.text).ok().and_then(|pattern| pattern.expand().next());
        let written = first.as_deref().unwrap_or(&self.text);
        NothingSelected::Term {
            term: self.text.clone(),
            nearest: nearest(written, candidates.iter().map(String::as_str)).map(str::to_owned),
        }
    }
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`InvalidSelector`]: an empty term, a bad range, a range of more than [`MAX_HOSTS`] names.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        let invalid = |message| InvalidSelector { text: text.to_owned(), message };
        let terms = split_terms(text).map(|term| Term::parse(term.trim()));
        let terms = terms.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
        Ok(Self { text: text.to_owned(), terms })
    }

    /// The picked hosts, in the order given.
    ///
    /// # Errors
    /// [`NothingSelected`] when a term matches no host, or nothing is left.
    pub fn select<'h>(&self, hosts: &'h [HostSpec]) -> Result<Vec<&'h HostSpec>, NothingSelected> {
        if let Some(term) = self.terms.iter().find(|term| !hosts.iter().any(|h| term.matches(h))) {
            return Err(term.nothing(hosts));
        }
        let only_negative = self.terms.iter().all(|term| term.negative);
        let picks = |host: &HostSpec, negative: bool| {
            self.terms.iter().any(|term| term.negative == negative && term.matches(host))
        };
        let picked: Vec<&HostSpec> = hosts
            .iter()
            .filter(|host| (only_negative || picks(host, false)) && !picks(host, true))
            .collect();
        if picked.is_empty() {
            return Err(NothingSelected::AllExcluded { selector: self.text.clone() });
        }
        Ok(picked)
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits at the commas outside brackets.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut open = false;
    text.split(move |c| {
        match c {
            '[' => open = true,
            ']' => open = false,
            _ => {}
        }
        c == ',' && !open
    })
}

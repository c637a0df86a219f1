//! Identifiers as types, so that a host name is never mistaken for an address.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a [`HostName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host name: 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
)]
pub struct InvalidHostName(pub String);

/// The operator's name of a host in the fleet file: 1 to 64 bytes of `[A-Za-z0-9._-]`, the
/// first alphanumeric.
///
/// The alphabet is what is safe, unquoted, in a file name, a metric label, a container label
/// and a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`InvalidHostName`] when the text is empty, too long, or has another character.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidHostName> {
        let text = text.into();
        let first_is_plain = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let all_are_safe =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first_is_plain && all_are_safe && text.len() <= 64 {
            Ok(Self(text))
        } else {
            Err(InvalidHostName(text))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for HostName {
    type Error = InvalidHostName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

//! Keys in our errors: those that servers present and those that we offer.

use std::fmt;

/// Why a host key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyProblem {
    /// No source knows the server.
    #[error("the host key is not known: {0}")]
    Unknown(PresentedKey),
    /// A source knows the server by another key.
    #[error("the host key has changed: it is {presented}, expected {}", keys(expected))]
    Changed {
        /// What the server presented.
        presented: PresentedKey,
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// A source knows the server by keys of other types only.
    #[error("the host key is of another type: it is {presented}, expected {}", keys(expected))]
    OtherType {
        /// What the server presented.
        presented: PresentedKey,
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// The server has no key of a type that is pinned.
    #[error("the server has no host key of a pinned type ({}); it has {}", keys(expected), theirs.join(", "))]
    NoPinnedType {
        /// What was expected.
        expected: Vec<KeyLabel>,
        /// The types it offers, made printable.
        theirs: Vec<String>,
    },
    /// Only keys of types that cannot be checked are pinned.
    #[error("the pinned host key cannot be checked: {}", keys(expected))]
    PinUnsupported {
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// The server has keys of types only that cannot be checked.
    #[error("the server has no host key of a supported type; it has {}", theirs.join(", "))]
    Unsupported {
        /// The types it offers, made printable.
        theirs: Vec<String>,
    },
    /// The key is marked `@revoked`.
    #[error("the host key is revoked by {by}: {presented}")]
    Revoked {
        /// What the server presented.
        presented: PresentedKey,
        /// The file and line.
        by: String,
    },
    /// The host certificate is not good.
    #[error("the host certificate is refused: {why}")]
    Certificate {
        /// Why not.
        why: String,
    },
    /// The pin in the fleet file is not a fingerprint.
    #[error("the pinned host key {pin:?} is not a fingerprint of the form SHA256:...")]
    InvalidPin {
        /// What stands there.
        pin: String,
    },
}

/// A host key as a server presented it, proved by the key exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedKey {
    /// Key type, for example `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The key in the form of an OpenSSH public key line, without comment.
    pub key_line: String,
}

impl fmt::Display for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// An expected key and who expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLabel {
    /// Key type, if it is known.
    pub algorithm: Option<String>,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// Where it is written: `the fleet file`, `the store`, or a file and line.
    pub from: String,
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(algorithm) = &self.algorithm {
            write!(f, "{algorithm} ")?;
        }
        write!(f, "{} ({})", self.fingerprint, self.from)
    }
}

/// Why a private key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityProblem {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable,
    /// Others can read it.
    #[error("its permissions {mode:03o} let others read it")]
    Permissions {
        /// The permission bits.
        mode: u32,
    },
    /// It is not a private key in a known form.
    #[error("it is not a private key in a supported format")]
    Malformed,
    /// Its type is not supported from a file.
    #[error("{0} keys are not supported in files")]
    UnsupportedType(String),
    /// It is encrypted and there is no passphrase.
    #[error("it is encrypted and no passphrase is known")]
    PassphraseMissing,
    /// The passphrase is wrong.
    #[error("the passphrase is wrong")]
    PassphraseWrong,
    /// The passphrase could not be asked for.
    #[error("the passphrase cannot be had")]
    PassphraseUnavailable,
    /// A certificate file does not hold a user certificate.
    #[error("it is not an OpenSSH user certificate")]
    NotACertificate,
    /// A certificate has no private key among the identities and the agent's keys.
    #[error("there is no private key for this certificate")]
    CertificateWithoutKey,
    /// A certificate is outside its validity.
    #[error("the certificate is not valid now")]
    CertificateExpired,
}

/// A key that was offered to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedKey {
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The file it came from, or `agent` with the agent's comment.
    pub from: String,
    /// What became of the offer when it was not simply refused.
    pub note: Option<String>,
}

impl fmt::Display for OfferedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.fingerprint, self.from)?;
        if let Some(note) = &self.note {
            write!(f, ": {note}")?;
        }
        f.write_str(")")
    }
}

fn keys(labels: &[KeyLabel]) -> String {
    labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

pub(super) fn offered_list(offered: &[OfferedKey]) -> String {
    offered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn after_offers(offered: &[OfferedKey]) -> String {
    if offered.is_empty() {
        String::new()
    } else {
        format!(" after it was offered {}", offered_list(offered))
    }
}

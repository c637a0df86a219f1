//! The one place where the secret of a hotkey lives.

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Serialize;
use sp_core::{Pair as _, sr25519};
use zeroize::Zeroizing;

use crate::hotkey::Hotkey;

/// The kind of signature. The numbers are those of the keyfiles and of Substrate's `MultiSignature`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Crypto {
    /// EdDSA (RFC 8032): 0.
    Ed25519 = 0,
    /// Schnorr over Ristretto with the context `substrate`: 1.
    Sr25519 = 1,
}

impl Crypto {
    /// The name in keyfiles, headers and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Sr25519 => "sr25519",
        }
    }

    /// Whether `signature` is that of `message` by the private half of `hotkey`.
    #[must_use]
    pub fn is_signed(self, hotkey: &Hotkey, message: &[u8], signature: &[u8; 64]) -> bool {
        match self {
            Self::Ed25519 => crate::signing_key::is_signed(hotkey.public_key(), message, signature),
            Self::Sr25519 => sr25519::Pair::verify(
                &sr25519::Signature::from_raw(*signature),
                message,
                &sr25519::Public::from_raw(*hotkey.public_key()),
            ),
        }
    }
}

impl fmt::Display for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A hotkey that can sign. Debug shows the address alone; the secret is wiped when it is dropped.
pub struct HotkeyPair {
    hotkey: Hotkey,
    secret: Secret,
}

enum Secret {
    /// The seed: the expanded key of *ring* would stay in memory when dropped, so it is made anew
    /// for each signature (about 20 microseconds).
    Ed25519(Zeroizing<[u8; 32]>),
    /// schnorrkel wipes its keys when they are dropped.
    Sr25519(Box<sr25519::Pair>),
}

impl HotkeyPair {
    /// The pair of a 32-byte seed, of either kind.
    ///
    /// # Errors
    /// The bytes are no seed of this kind.
    pub fn from_seed(crypto: Crypto, seed: &[u8; 32]) -> Result<Self, NoKey> {
        match crypto {
            Crypto::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoKey)?;
                let mut key = [0; 32];
                key.copy_from_slice(pair.public_key().as_ref());
                let secret = Secret::Ed25519(Zeroizing::new(*seed));
                Ok(Self { hotkey: Hotkey::from_public_key(key), secret })
            }
            Crypto::Sr25519 => Ok(Self::sr25519(sr25519::Pair::from_seed(seed))),
        }
    }

    /// The pair of an expanded sr25519 key: 32 bytes of scalar, 32 bytes for nonces.
    ///
    /// # Errors
    /// The bytes are no such key.
    pub fn from_sr25519_key(key: &[u8; 64]) -> Result<Self, NoKey> {
        sr25519::Pair::from_seed_slice(key).map(Self::sr25519).map_err(|_| NoKey)
    }

    /// The pair of an English BIP-39 phrase without a password, as `btcli` makes it.
    ///
    /// # Errors
    /// The words are no such phrase, or its checksum does not fit.
    pub fn from_phrase(crypto: Crypto, phrase: &str) -> Result<Self, NoKey> {
        let (_, seed) = sr25519::Pair::from_phrase(phrase, None).map_err(|_| NoKey)?;
        // The seed of a phrase is the same for both kinds.
        Self::from_seed(crypto, &Zeroizing::new(seed))
    }

    fn sr25519(pair: sr25519::Pair) -> Self {
        let hotkey = Hotkey::from_public_key(pair.public().0);
        Self { hotkey, secret: Secret::Sr25519(Box::new(pair)) }
    }

    /// The address.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// The kind of signature it makes.
    #[must_use]
    pub fn crypto(&self) -> Crypto {
        match self.secret {
            Secret::Ed25519(_) => Crypto::Ed25519,
            Secret::Sr25519(_) => Crypto::Sr25519,
        }
    }

    /// The signature of a message.
    ///
    /// # Panics
    /// Never: the seed was accepted when the pair was made.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &self.secret {
            Secret::Sr25519(pair) => pair.sign(message).0,
            Secret::Ed25519(seed) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice());
                let mut signature = [0; 64];
                let pair = pair.expect("from_seed accepted this very seed");
                signature.copy_from_slice(pair.sign(message).as_ref());
                signature
            }
        }
    }
}

impl fmt::Debug for HotkeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotkeyPair({})", self.hotkey)
    }
}

/// The bytes or words are no key of their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no such key")]
pub struct NoKey;

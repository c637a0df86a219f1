//! Who sent a request: pure checks of the two signature schemes, without a clock, a store or a socket.
//!
//! A request is judged in two steps, so that the cheap refusals come before the body is read:
//! [`Claim::read`] checks the shape of the headers, the receiver and the time, [`Claim::verify`] the
//! body and the signature. Whether the nonce is new is the business of [`super::replay`], and whether
//! the sender may call at all that of [`super::Admission`]. What the SDK lets through and this does
//! not: a missing signature, a nonce from the future, an old client version that skips freshness.

mod btauth;
mod legacy;
mod python_text;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;

use crate::hotkey::Hotkey;

pub use legacy::{LEGACY_AGE, LEGACY_AHEAD, LEGACY_TIMEOUT_CAP};
pub use python_text::{BodyFault, body_hash};

/// The oldest nonce that any scheme takes as fresh, in nanoseconds before now.
pub const OLDEST: i64 = nanoseconds(LEGACY_AGE) + nanoseconds(LEGACY_TIMEOUT_CAP);

/// The furthest in the future that any scheme takes a nonce, in nanoseconds.
pub const AHEAD: i64 = nanoseconds(LEGACY_AHEAD);

/// A duration of this module (seconds, so no overflow) in nanoseconds.
const fn nanoseconds(duration: Duration) -> i64 {
    duration.as_secs() as i64 * 1_000_000_000
}

/// Which of the two schemes a request is signed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The synapse headers of SDK 9 and 10.
    Legacy,
    /// `btauth/1` of SDK 11.
    Btauth,
}

/// Why a request is not authenticated. The text never repeats a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header is missing, there twice, or unreadable.
    #[error("{0}")]
    Malformed(&'static str),
    /// It was signed for another axon, or for none.
    #[error("{0}")]
    WrongReceiver(&'static str),
    /// The nonce is too old or too far in the future.
    #[error("{0}")]
    Stale(&'static str),
    /// The body is not the one that was signed.
    #[error("the body is not the one that was signed")]
    Body,
    /// The signature is not the sender's.
    #[error("signature does not verify against the claimed hotkey")]
    BadSignature,
    /// The nonce was accepted before.
    #[error("this nonce was already accepted from this hotkey")]
    Replayed,
}

impl AuthError {
    /// The name that the SDK has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "MalformedAuth",
            Self::WrongReceiver(_) => "WrongReceiver",
            Self::Stale(_) => "StaleRequest",
            Self::Body | Self::BadSignature => "BadSignature",
            Self::Replayed => "ReplayedRequest",
        }
    }
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The axon's own address.
    pub receiver: Hotkey,
    /// Now, in nanoseconds since the Unix epoch.
    pub now: i64,
    /// Nothing up to this nonce is accepted.
    pub floor: i64,
}

/// What the headers of a request claim, with the cheap checks done. Proven by [`Claim::verify`].
#[derive(Debug)]
pub enum Claim {
    /// Of a legacy synapse.
    Legacy(legacy::Claim),
    /// Of `btauth/1`.
    Btauth(btauth::Claim),
}

/// The bytes of a request that its signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `POST`.
    pub method: &'a str,
    /// Path and query as they were sent.
    pub target: &'a str,
    /// The raw body.
    pub body: &'a [u8],
    /// The name of the synapse's class.
    pub synapse: &'a str,
    /// The fields of the body that a legacy request must have signed.
    pub hash_fields: &'a [&'a str],
}

impl Claim {
    /// Which scheme the headers are of; `None` where there is no word of either.
    #[must_use]
    pub fn scheme(headers: &HeaderMap) -> Option<Scheme> {
        let named = |part| headers.keys().any(|name: &HeaderName| name.as_str().starts_with(part));
        if named("x-bittensor-") {
            Some(Scheme::Btauth)
        } else if named("bt_header_") {
            Some(Scheme::Legacy)
        } else {
            None
        }
    }

    /// Reads the headers and checks shape, receiver and freshness, in this order.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn read(scheme: Scheme, headers: &HeaderMap, bounds: &Bounds) -> Result<Self, AuthError> {
        match scheme {
            Scheme::Legacy => legacy::Claim::read(headers, bounds).map(Self::Legacy),
            Scheme::Btauth => btauth::Claim::read(headers, bounds).map(Self::Btauth),
        }
    }

    /// Checks body and signature, and returns the sender.
    ///
    /// # Errors
    /// [`AuthError::Body`], [`AuthError::BadSignature`].
    pub fn verify(&self, signed: &Signed<'_>) -> Result<Hotkey, AuthError> {
        match self {
            Self::Legacy(claim) => claim.verify(signed),
            Self::Btauth(claim) => claim.verify(signed),
        }
    }

    /// The scheme.
    #[must_use]
    pub fn is_of(&self) -> Scheme {
        match self {
            Self::Legacy(_) => Scheme::Legacy,
            Self::Btauth(_) => Scheme::Btauth,
        }
    }

    /// The nonce: nanoseconds since the Unix epoch on the sender's clock.
    #[must_use]
    pub fn nonce(&self) -> i64 {
        match self {
            Self::Legacy(claim) => claim.nonce,
            Self::Btauth(claim) => claim.nonce,
        }
    }

    /// What the nonce must be new for: sender and endpoint of a legacy request, the sender of others.
    #[must_use]
    pub fn replay_key(&self) -> String {
        match self {
            Self::Legacy(claim) => claim.replay_key(),
            Self::Btauth(claim) => claim.replay_key(),
        }
    }

    /// How long a legacy caller says that it waits, at most [`LEGACY_TIMEOUT_CAP`].
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Self::Legacy(claim) => Some(claim.timeout),
            Self::Btauth(_) => None,
        }
    }
}

/// The one value of a header; a header that is there twice is refused, since two readers may take
/// different ones.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &str,
    missing: &'static str,
) -> Result<&'h str, AuthError> {
    optional(headers, name)?.filter(|text| !text.is_empty()).ok_or(AuthError::Malformed(missing))
}

fn optional<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, AuthError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Malformed("a header of the signature is there twice"));
    }
    let text = value.to_str().map_err(|_| AuthError::Malformed("a header is not plain text"))?;
    Ok(Some(text))
}

/// A nonce: decimal digits alone, of a time that 64 bits hold.
fn nonce(text: &str) -> Result<i64, AuthError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // One text for one number: what is signed is the text.
    let canonical = digits && (text == "0" || !text.starts_with('0'));
    let parsed = canonical.then(|| text.parse().ok()).flatten();
    parsed.ok_or(AuthError::Malformed("the nonce is not a decimal integer"))
}

/// A signature: 64 bytes in hexadecimal, with or without `0x`.
fn signature(text: &str) -> Result<[u8; 64], AuthError> {
    let bytes = crate::hex::decode(text.strip_prefix("0x").unwrap_or(text));
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(AuthError::Malformed("the signature is not 64 bytes in hexadecimal"))
}

/// A digest of texts, each with its length: 128 bits are plenty against accidents, and a chosen
/// collision needs 2^64 signed requests within a minute.
fn digest(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let digest = context.finish();
    crate::hex::encode(digest.as_ref().first_chunk::<16>().map_or(&[], |half| half))
}

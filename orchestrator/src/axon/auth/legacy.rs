//! The signed headers of a synapse, as `Dendrite` of SDK 9 and 10 sends them.

use std::time::Duration;

use hyper::HeaderMap;

use super::{
    AuthError, Bounds, Signed, body_hash, digest, nanoseconds, nonce, optional, signature, single,
};
use crate::hotkey::Hotkey;
use crate::wallet::Crypto;

/// How old a nonce may be, besides the timeout that the request states.
pub const LEGACY_AGE: Duration = Duration::from_secs(4);

/// The longest timeout that counts. It is not signed: without a bound, whoever has an old request
/// could make it fresh.
pub const LEGACY_TIMEOUT_CAP: Duration = Duration::from_secs(60);

/// How far in the future a nonce may be: the drift of two clocks. The SDK has no bound.
pub const LEGACY_AHEAD: Duration = Duration::from_secs(4);

/// What the headers claim.
#[derive(Debug)]
pub struct Claim {
    sender: Hotkey,
    receiver: Hotkey,
    uuid: String,
    body_hash: String,
    signature: [u8; 64],
    pub(super) nonce: i64,
    pub(super) timeout: Duration,
}

impl Claim {
    /// Shape, receiver, freshness.
    pub(super) fn read(headers: &HeaderMap, bounds: &Bounds) -> Result<Self, AuthError> {
        let sender = single(headers, "bt_header_dendrite_hotkey", "Missing Hotkey")?;
        let sender =
            Hotkey::parse(sender).map_err(|_| AuthError::Malformed("Hotkey is no address"))?;
        let nonce = nonce(single(headers, "bt_header_dendrite_nonce", "Missing Nonce")?)?;
        let uuid = single(headers, "bt_header_dendrite_uuid", "Missing UUID")?;
        // It is part of what is signed, between dots: a dot in it could shift the others.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if uuid.len() > 64 || !uuid.bytes().all(plain) {
            return Err(AuthError::Malformed("UUID is no such value"));
        }
        let hash = single(headers, "computed_body_hash", "Missing computed_body_hash")?;
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AuthError::Malformed("computed_body_hash is no such value"));
        }
        let signature = single(headers, "bt_header_dendrite_signature", "Missing Signature")
            .and_then(signature)?;
        let timeout = match optional(headers, "timeout")? {
            None => Duration::ZERO,
            Some(text) => text
                .parse()
                .ok()
                .and_then(|seconds: f64| {
                    Duration::try_from_secs_f64(seconds.min(LEGACY_TIMEOUT_CAP.as_secs_f64())).ok()
                })
                .ok_or(AuthError::Malformed("timeout is no number of seconds"))?,
        };
        let receiver = bounds.receiver;
        let named = single(headers, "bt_header_axon_hotkey", "Missing axon hotkey")?;
        if Hotkey::parse(named) != Ok(receiver) {
            return Err(AuthError::WrongReceiver("the request is for another axon"));
        }
        let Bounds { now, floor, .. } = *bounds;
        let age = nanoseconds(LEGACY_AGE) + i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        if nonce <= now.saturating_sub(age) {
            return Err(AuthError::Stale("Nonce is too old"));
        }
        if nonce.saturating_sub(now) > nanoseconds(LEGACY_AHEAD) {
            return Err(AuthError::Stale("Nonce is in the future"));
        }
        if nonce <= floor {
            return Err(AuthError::Stale("Nonce is from before this axon began"));
        }
        let (uuid, body_hash) = (uuid.to_owned(), hash.to_owned());
        Ok(Self { sender, receiver, uuid, body_hash, signature, nonce, timeout })
    }

    /// The body first: its hash is cheaper than the signature over it.
    pub(super) fn verify(&self, signed: &Signed<'_>) -> Result<Hotkey, AuthError> {
        let hash = body_hash(signed.synapse, signed.body, signed.hash_fields)
            .map_err(|_| AuthError::Body)?;
        if hash != self.body_hash {
            return Err(AuthError::Body);
        }
        let Self { sender, receiver, uuid, nonce, .. } = self;
        let message = format!("{nonce}.{sender}.{receiver}.{uuid}.{hash}");
        // The scheme does not say which cryptography it is; the SDK takes sr25519, and so do we.
        if Crypto::Sr25519.is_signed(sender, message.as_bytes(), &self.signature) {
            Ok(*sender)
        } else {
            Err(AuthError::BadSignature)
        }
    }

    pub(super) fn replay_key(&self) -> String {
        let (receiver, sender) = (self.receiver.public_key(), self.sender.public_key());
        digest(&[b"legacy", receiver, sender, self.uuid.as_bytes()])
    }
}

//! `btauth/1`, the request signatures of SDK 11 (`bittensor.http_auth`).

use std::time::Duration;

use hyper::HeaderMap;

use super::{AuthError, Bounds, Signed, digest, nanoseconds, nonce, optional, signature, single};
use crate::hotkey::Hotkey;
use crate::wallet::Crypto;

/// How old a nonce may be.
const AGE: Duration = Duration::from_secs(10);

/// How far in the future a nonce may be: the drift of two clocks.
const AHEAD: Duration = Duration::from_secs(2);

/// What the headers claim.
#[derive(Debug)]
pub struct Claim {
    sender: Hotkey,
    receiver: Hotkey,
    crypto: Crypto,
    signature: [u8; 64],
    pub(super) nonce: i64,
}

impl Claim {
    /// Shape, receiver, freshness.
    pub(super) fn read(headers: &HeaderMap, bounds: &Bounds) -> Result<Self, AuthError> {
        if optional(headers, "x-bittensor-version")? != Some("1") {
            return Err(AuthError::Malformed(
                "missing or unsupported X-Bittensor-Version (expected '1')",
            ));
        }
        let sender = single(headers, "x-bittensor-hotkey", "missing X-Bittensor-Hotkey")?;
        let sender = Hotkey::parse(sender);
        let sender = sender
            .map_err(|_| AuthError::Malformed("invalid hotkey address or signature encoding"))?;
        let nonce = nonce(single(headers, "x-bittensor-nonce", "missing X-Bittensor-Nonce")?)?;
        let crypto = match optional(headers, "x-bittensor-crypto")? {
            None => Crypto::Sr25519,
            Some(text) => match text.trim().to_ascii_lowercase().as_str() {
                "sr25519" | "1" => Crypto::Sr25519,
                "ed25519" | "0" => Crypto::Ed25519,
                _ => return Err(AuthError::Malformed("unsupported X-Bittensor-Crypto")),
            },
        };
        let signature = single(headers, "x-bittensor-signature", "missing X-Bittensor-Signature")
            .and_then(signature)?;
        let receiver = bounds.receiver;
        match optional(headers, "x-bittensor-receiver")? {
            None => {
                return Err(AuthError::WrongReceiver(
                    "missing X-Bittensor-Receiver: this server requires receiver-bound requests",
                ));
            }
            Some(text) if Hotkey::parse(text) != Ok(receiver) => {
                return Err(AuthError::WrongReceiver(
                    "request was signed for a different receiving hotkey",
                ));
            }
            Some(_) => {}
        }
        let Bounds { now, floor, .. } = *bounds;
        if now.saturating_sub(nonce) > nanoseconds(AGE) {
            return Err(AuthError::Stale("nonce is older than the 10s freshness window"));
        }
        if nonce.saturating_sub(now) > nanoseconds(AHEAD) {
            return Err(AuthError::Stale("nonce is more than 2s in the future"));
        }
        if nonce <= floor {
            return Err(AuthError::Stale("nonce is from before this server began"));
        }
        Ok(Self { sender, receiver, crypto, signature, nonce })
    }

    pub(super) fn verify(&self, signed: &Signed<'_>) -> Result<Hotkey, AuthError> {
        let body = crate::hex::sha256(signed.body);
        let message = format!(
            "btauth/1\n{}\n{}\n{}\n{body}\n{}\n{}\n{}",
            self.crypto, signed.method, signed.target, self.nonce, self.sender, self.receiver,
        );
        if self.crypto.is_signed(&self.sender, message.as_bytes(), &self.signature) {
            Ok(self.sender)
        } else {
            Err(AuthError::BadSignature)
        }
    }

    pub(super) fn replay_key(&self) -> String {
        digest(&[b"btauth", self.receiver.public_key(), self.sender.public_key()])
    }
}

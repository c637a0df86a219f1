//! Tokens: JWT (RFC 7519) signed with HMAC-SHA-256, made and checked here alone. The header is a
//! constant, so there is no algorithm to choose for whoever presents one. Here are those of the operator
//! API; those of validators' sessions are in [`session`], under a key and an audience of their own.

pub mod session;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const AUDIENCE: &str = "orchestrator-operator-api";
/// A longer text is no token of ours.
const MAX_BYTES: usize = 2048;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it was made.
    pub sub: String,
    /// What it is good for.
    pub aud: String,
    /// When it was made, seconds since the Unix epoch.
    pub iat: i64,
    /// When it ends.
    pub exp: i64,
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is no token of ours, or was signed with another secret.
    #[error("the token is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// Makes a token.
#[must_use]
pub fn issue(secret: &[u8], subject: &str, now_secs: i64, lifetime_secs: i64) -> String {
    let claims = Claims {
        sub: subject.to_owned(),
        aud: AUDIENCE.to_owned(),
        iat: now_secs,
        exp: now_secs.saturating_add(lifetime_secs),
    };
    seal(&key(secret), &claims)
}

/// Checks a token, in constant time as far as the secret goes.
///
/// # Errors
/// [`InvalidToken`].
pub fn check(secret: &[u8], token: &str, now_secs: i64) -> Result<Claims, InvalidToken> {
    let claims: Claims = unseal(&key(secret), token)?;
    if claims.aud != AUDIENCE {
        return Err(InvalidToken::Invalid);
    }
    if claims.exp <= now_secs { Err(InvalidToken::Expired) } else { Ok(claims) }
}

/// Signs claims. A struct of strings and numbers always has a JSON form.
fn seal(key: &hmac::Key, claims: &impl Serialize) -> String {
    let body = serde_json::to_string(claims).unwrap_or_default();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body));
    let tag = hmac::sign(key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The claims of a token that was signed with this key; times and audience are not looked at.
fn unseal<C: DeserializeOwned>(key: &hmac::Key, token: &str) -> Result<C, InvalidToken> {
    if token.len() > MAX_BYTES {
        return Err(InvalidToken::Invalid);
    }
    let parts = token.rsplit_once('.').and_then(|(signed, tag)| {
        let (header, body) = signed.split_once('.')?;
        Some((signed, header, body, URL_SAFE_NO_PAD.decode(tag).ok()?))
    });
    let (signed, header, body, tag) = parts.ok_or(InvalidToken::Invalid)?;
    let verified = hmac::verify(key, signed.as_bytes(), &tag);
    if verified.is_err() || header != URL_SAFE_NO_PAD.encode(HEADER) {
        return Err(InvalidToken::Invalid);
    }
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidToken::Invalid)?;
    serde_json::from_slice(&body).map_err(|_| InvalidToken::Invalid)
}

fn key(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"b1c0e47fa92d5583641e0a7cc8d3f29b";

    #[test]
    fn a_token_is_good_for_its_time_and_secret() {
        let token = issue(SECRET, "grafana", 1_000, 60);
        assert_eq!(check(SECRET, &token, 1_059).unwrap().sub, "grafana");
        assert_eq!(check(SECRET, &token, 1_060), Err(InvalidToken::Expired));
        assert_eq!(check(b"another", &token, 1_001), Err(InvalidToken::Invalid));
    }

    #[test]
    fn what_is_no_token_of_ours_is_refused() {
        let token = issue(SECRET, "x", 1_000, 60);
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let signed = |header: &str, body: &str| {
            let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(body));
            let tag = hmac::sign(&key(SECRET), signed.as_bytes());
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let other = r#"{"sub":"x","aud":"else","iat":1,"exp":9999}"#;
        for wrong in [
            String::new(),
            "..".to_owned(),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], parts[1]),
            signed(&none, r#"{"sub":"x","aud":"orchestrator-operator-api","iat":1,"exp":9999}"#),
            signed(parts[0], other),
            signed(parts[0], "{}"),
            "x".repeat(10_000),
        ] {
            assert_eq!(check(SECRET, &wrong, 1_001), Err(InvalidToken::Invalid), "{wrong}");
        }
    }
}

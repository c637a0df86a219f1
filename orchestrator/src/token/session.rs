//! Tokens of validators' sessions with the axon. Their key is derived from the secret, and they are for
//! one axon's hotkey: neither they nor the operator API's are good at the other door.

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{InvalidToken, seal, unseal};

const ISSUER: &str = "orchestrator-axon";

/// What the key is derived for.
const PURPOSE: &[u8] = b"orchestrator: sessions of validators, 1";

/// How far the clock of another machine that shares the secret may be ahead of ours, in seconds.
/// Expiry has no leeway: what is over is over.
const LEEWAY_SECS: i64 = 5;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClaims {
    /// Always the same.
    iss: String,
    /// The axon's hotkey.
    aud: String,
    /// The validator's hotkey.
    pub sub: String,
    /// The session's id, which can be ended before its time.
    pub jti: String,
    /// When it was made, seconds since the Unix epoch.
    iat: i64,
    /// When it ends.
    exp: i64,
}

/// What sessions are signed with.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(hidden)")
    }
}

impl SessionKey {
    /// The key that belongs to a secret.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// Makes the token of a session; times are seconds since the Unix epoch.
    #[must_use]
    pub fn issue(&self, axon: &str, validator: &str, id: &str, now: i64, expires: i64) -> String {
        let claims = SessionClaims {
            iss: ISSUER.to_owned(),
            aud: axon.to_owned(),
            sub: validator.to_owned(),
            jti: id.to_owned(),
            iat: now,
            exp: expires,
        };
        seal(&self.0, &claims)
    }

    /// Checks a token for this axon, in constant time as far as the key goes. Whether the session was
    /// ended is not known here.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn check(&self, axon: &str, token: &str, now: i64) -> Result<SessionClaims, InvalidToken> {
        let claims: SessionClaims = unseal(&self.0, token)?;
        let ours = claims.iss == ISSUER && claims.aud == axon;
        if !ours || claims.iat > now.saturating_add(LEEWAY_SECS) {
            return Err(InvalidToken::Invalid);
        }
        if claims.exp <= now { Err(InvalidToken::Expired) } else { Ok(claims) }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::token;

    const SECRET: &[u8] = b"b1c0e47fa92d5583641e0a7cc8d3f29b";

    #[test]
    fn a_token_is_good_for_its_axon_and_time() {
        let key = SessionKey::derive(SECRET);
        let token = key.issue("5Axon", "5Validator", "ab", 1_000, 1_060);
        let claims = key.check("5Axon", &token, 1_059).unwrap();
        assert_eq!((claims.sub.as_str(), claims.jti.as_str()), ("5Validator", "ab"));
        assert_eq!(key.check("5Axon", &token, 1_060), Err(InvalidToken::Expired));
        assert_eq!(key.check("5Other", &token, 1_001), Err(InvalidToken::Invalid));
        assert!(key.check("5Axon", &token, 995).is_ok(), "another clock may be a little ahead");
        assert_eq!(key.check("5Axon", &token, 994), Err(InvalidToken::Invalid));
        let other = SessionKey::derive(b"another secret, as long as the first is");
        assert_eq!(other.check("5Axon", &token, 1_001), Err(InvalidToken::Invalid));
        assert_eq!(format!("{key:?}"), "SessionKey(hidden)");
    }

    #[test]
    fn neither_token_is_good_at_the_other_door() {
        let key = SessionKey::derive(SECRET);
        let session = key.issue("5Axon", "5Validator", "ab", 1_000, 1_060);
        assert_eq!(token::check(SECRET, &session, 1_001), Err(InvalidToken::Invalid));
        let operator = token::issue(SECRET, "5Validator", 1_000, 60);
        assert_eq!(key.check("5Axon", &operator, 1_001), Err(InvalidToken::Invalid));
    }

    #[test]
    fn what_is_no_session_of_ours_is_refused() {
        let key = SessionKey::derive(SECRET);
        let good = key.issue("5Axon", "5Validator", "ab", 1_000, 1_060);
        let parts: Vec<&str> = good.split('.').collect();
        let signed = |header: &str, body: &str| {
            let (header, body) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(body));
            let text = format!("{header}.{body}");
            let tag = hmac::sign(&key.0, text.as_bytes());
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let body = |more: &str| {
            let fixed = r#""aud":"5Axon","sub":"5V","jti":"ab","iat":1000,"exp":1060"#;
            format!("{{{more}{fixed}}}")
        };
        let ours = r#""iss":"orchestrator-axon","#;
        const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
        assert!(key.check("5Axon", &signed(HS256, &body(ours)), 1_001).is_ok());
        for wrong in [
            String::new(),
            "..".to_owned(),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}.{}", parts[0], parts[1], parts[0]),
            format!(" {good}"),
            format!("{good}="),
            format!("{good}.{good}"),
            signed(r#"{"alg":"none","typ":"JWT"}"#, &body(ours)),
            signed(r#"{"alg":"HS512","typ":"JWT"}"#, &body(ours)),
            signed(r#"{"typ":"JWT","alg":"HS256"}"#, &body(ours)),
            // Of nobody, of somebody else, with more than is known, with one claim twice.
            signed(HS256, &body("")),
            signed(HS256, &body(r#""iss":"orchestrator-operator-api","#)),
            signed(HS256, &body(&format!("{ours}\"admin\":true,"))),
            signed(HS256, &body(&format!("{ours}\"exp\":9999,"))),
            "x".repeat(10_000),
        ] {
            assert_eq!(key.check("5Axon", &wrong, 1_001), Err(InvalidToken::Invalid), "{wrong}");
        }
    }
}

//! Sessions: a signed request opens one, and its token then stands in for a signature.
//!
//! A token is replayable by nature: whoever reads it can use it until it ends. So the caller hands
//! [`Sessions`] in only where nobody on the way can read along. Each request by a token is admitted as
//! any other, and its session is looked up in the store, so that one that was ended is over at once for
//! every process. A token opens no further session: it cannot outlive the signature that it came from.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::auth::AuthError;
use super::routes::{Answer, Call, Route, RouteDoc, handler};
use super::schema;
use crate::hotkey::Hotkey;
use crate::store::{self, NewSession, SessionFilter, Store, now_ms};
use crate::token::InvalidToken;
use crate::token::session::SessionKey;

/// Where a session is opened. By a signature alone.
pub const OPEN_PATH: &str = "/v1/session";

/// Live sessions of one validator: a few processes of it, each with one to spare.
const MOST: u32 = 16;

/// The shortest session.
const SHORTEST_SECS: u64 = 60;

/// The sessions of one axon.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    key: SessionKey,
    store: Store,
    axon: Hotkey,
    lifetime: Duration,
}

/// Who a token says it is for.
pub struct Bearer {
    pub validator: Hotkey,
    pub session: String,
}

impl Sessions {
    /// Sessions with the axon of this hotkey, of `lifetime` at most.
    #[must_use]
    pub fn new(key: SessionKey, store: Store, axon: Hotkey, lifetime: Duration) -> Self {
        Self(Arc::new(Shared { key, store, axon, lifetime }))
    }

    /// What the headers claim, with everything checked that needs no database. `None` without a
    /// token.
    pub(super) fn claimed(&self, headers: &HeaderMap) -> Result<Option<Bearer>, Refusal> {
        let Some(token) = bearer(headers)? else { return Ok(None) };
        let now = now_ms() / 1000;
        let claims = self.0.key.check(&self.0.axon.to_string(), token, now);
        let claims = claims.map_err(|error| match error {
            InvalidToken::Invalid => refused("invalid_token", error.to_string()),
            InvalidToken::Expired => refused("expired_token", error.to_string()),
        })?;
        let validator = Hotkey::parse(&claims.sub);
        let validator = validator.map_err(|_| refused("invalid_token", "of no hotkey"))?;
        Ok(Some(Bearer { validator, session: claims.jti }))
    }

    /// Whether the session goes on.
    pub(super) async fn check(&self, bearer: &Bearer) -> Result<(), Refusal> {
        let Shared { store, axon, .. } = &*self.0;
        let (axon, validator) = (axon.to_string(), bearer.validator.to_string());
        match store.session_is_live(&bearer.session, &axon, &validator).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("ended_session", "this session has ended")),
            Err(error) => Err(failed(&error)),
        }
    }

    /// `OpenSession` and `CloseSession`.
    pub(super) fn routes(&self) -> [Route; 2] {
        let (open, close) = (self.clone(), self.clone());
        let id = || schema::text("the session's id");
        let lifetimes = SHORTEST_SECS..=self.0.lifetime.as_secs();
        let duration = "how long it shall hold, in seconds; as long as it may if absent";
        let duration = schema::nullable(schema::between(&lifetimes, duration));
        [
            Route {
                synapse: "OpenSession",
                hash_fields: &["name", "duration_secs"],
                method: Method::POST,
                path: OPEN_PATH,
                doc: RouteDoc {
                    summary: "Opens a session; its token stands in for a signature until it ends",
                    request: schema::request(&[], &[("duration_secs", duration)]),
                    answer: schema::answer(&[
                        ("token", schema::text("send it as `Authorization: Bearer TOKEN`")),
                        ("session", id()),
                        ("expires_ms", schema::number("when it ends, ms since the Unix epoch")),
                    ]),
                },
                handler: handler(move |call| {
                    let this = open.clone();
                    async move { this.open(&call).await }
                }),
            },
            Route {
                synapse: "CloseSession",
                hash_fields: &["name", "session"],
                method: Method::POST,
                path: "/v1/session/close",
                doc: RouteDoc {
                    summary: "Ends sessions of the caller: the one that is named, else the one that \
                              the token is of, else all",
                    request: schema::request(&[], &[("session", schema::nullable(id()))]),
                    answer: schema::answer(&[("closed", schema::number("how many have ended"))]),
                },
                handler: handler(move |call| {
                    let this = close.clone();
                    async move { this.close(&call).await }
                }),
            },
        ]
    }

    async fn open(&self, call: &Call) -> Answer {
        let longest = self.0.lifetime.as_secs();
        let secs = match call.body.get("duration_secs") {
            None | Some(Value::Null) => longest,
            Some(value) => value
                .as_u64()
                .filter(|secs| (SHORTEST_SECS..=longest).contains(secs))
                .ok_or_else(|| {
                let bounds = format!("{SHORTEST_SECS} to {longest}");
                Refusal::bad_request(format!("`duration_secs` is a whole number, {bounds}"))
            })?,
        };
        let session = NewSession {
            axon: self.0.axon.to_string(),
            validator: call.hotkey.to_string(),
            address: call.address.to_canonical().to_string(),
            lifetime_ms: i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000),
        };
        let opened = self.0.store.open_session(&session, MOST).await;
        let opened = opened.map_err(|error| failed(&error))?.ok_or_else(|| {
            let detail = format!("this hotkey has {MOST} live sessions already");
            Refusal::new(StatusCode::CONFLICT, "too_many_sessions", detail)
        })?;
        let (from, until) = (opened.issued_ms / 1000, opened.expires_ms / 1000);
        let token = self.0.key.issue(&opened.axon, &opened.validator, &opened.id, from, until);
        Ok(Map::from_iter([
            ("token".to_owned(), Value::from(token)),
            ("session".to_owned(), Value::from(opened.id)),
            ("expires_ms".to_owned(), Value::from(until * 1000)),
        ]))
    }

    async fn close(&self, call: &Call) -> Answer {
        let id = match call.body.get("session") {
            None | Some(Value::Null) => call.session.clone(),
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Refusal::bad_request("`session` is text")),
        };
        let hotkey = call.hotkey.to_string();
        // Another's session is as unknown as none.
        let filter = SessionFilter { id, validator: Some(hotkey.clone()), live: true };
        let ended = self.0.store.end_sessions(&hotkey, &filter).await;
        let ended = ended.map_err(|error| failed(&error))?;
        Ok(Map::from_iter([("closed".to_owned(), Value::from(ended.len()))]))
    }
}

/// The token of `Authorization: Bearer TOKEN`; `None` where there is no such header.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthError::Malformed("the header Authorization is there twice"));
    }
    let unreadable = AuthError::Malformed("the header Authorization is `Bearer TOKEN`");
    let text = value.to_str().map_err(|_| unreadable)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token)),
        _ => Err(unreadable),
    }
}

fn refused(code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, code, detail)
}

/// The database does not answer; the caller gets no SQL.
fn failed(error: &store::Error) -> Refusal {
    let causes = crate::error_chain::causes(error);
    tracing::error!(%error, ?causes, "sessions cannot be looked up");
    Refusal::journal()
}

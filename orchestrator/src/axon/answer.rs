//! Answers in the three dialects: headers and `message` for a legacy synapse, `error` and `detail` for
//! `btauth`, problem documents (RFC 9457) for everything else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Denied;
use super::auth::{AuthError, Scheme};
use super::replay::now_ns;
use crate::hotkey::Hotkey;
use crate::wallet::HotkeyPair;

/// Why a request has no answer: for the caller, without paths, hosts, or SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable code.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its status, stable code and words.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// The request itself is wrong: 400.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(super) fn unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_route", "there is no such route or synapse")
    }

    pub(super) fn method() -> Self {
        let detail = "this route has another method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn too_large() -> Self {
        let detail = "the body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn too_slow() -> Self {
        let detail = "the request was not done in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    }

    pub(super) fn rate(of: &'static str) -> Self {
        let detail = format!("too many requests of this {of}");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
    }

    /// There is too much to do at the moment: 503.
    #[must_use]
    pub fn busy() -> Self {
        let detail = "too many requests are being worked on";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    pub(super) fn journal() -> Self {
        let detail = "the request cannot be recorded";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable", detail)
    }

    /// As an answer to whoever speaks none of the two schemes.
    pub(super) fn as_problem(&self) -> Built {
        let mut response = self.problem();
        self.try_again(&mut response);
        response
    }

    fn problem(&self) -> Built {
        let Self { status, code, detail } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({
            "type": "about:blank",
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
        });
        json_response(*status, "application/problem+json", &body.to_string())
    }

    /// Says when, where it is worth trying again.
    fn try_again(&self, response: &mut Built) {
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }

    pub(super) fn denied(denied: Denied) -> Self {
        Self::new(StatusCode::FORBIDDEN, denied.code(), denied.to_string())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.name(), error.to_string())
    }
}

/// What an answer is made with.
pub struct Answering<'a> {
    pub pair: &'a HotkeyPair,
    /// The axon's uuid, of this run of the process.
    pub uuid: &'a str,
    pub scheme: Option<Scheme>,
    /// The sender, once it is proven. Nothing is signed for anybody else: what is signed contains the
    /// sender's address, and signing whatever stands in a header would lend our hotkey to strangers.
    pub sender: Option<Hotkey>,
    /// Whether tokens of sessions are taken.
    pub sessions: bool,
    pub elapsed: Duration,
    /// `Ping` of `/Ping`.
    pub name: &'a str,
    /// `timeout` and `computed_body_hash`, as they came.
    pub headers: &'a HeaderMap,
}

impl Answering<'_> {
    /// `request` is the body, a JSON object or nothing.
    pub fn success(&self, request: &[u8], answer: &Map<String, Value>) -> Built {
        if self.scheme != Some(Scheme::Legacy) {
            return json_response(StatusCode::OK, "application/json", &json!(answer).to_string());
        }
        // The caller builds its synapse anew from the answer: what it sent, and what was filled in.
        let synapse = filled_in(request, answer);
        let mut response = json_response(StatusCode::OK, "application/json", &synapse);
        self.sign(response.headers_mut(), StatusCode::OK, "Success");
        response
    }

    pub fn refusal(&self, refusal: &Refusal) -> Built {
        let Refusal { status, code, detail } = refusal;
        let mut response = match self.scheme {
            Some(Scheme::Legacy) => {
                let message = self.legacy_message(refusal);
                let body = json!({ "message": message });
                let mut response = json_response(*status, "application/json", &body.to_string());
                self.sign(response.headers_mut(), *status, &message);
                response
            }
            Some(Scheme::Btauth) if *status == StatusCode::UNAUTHORIZED => json_response(
                *status,
                "application/json",
                &json!({ "error": code, "detail": detail }).to_string(),
            ),
            _ => refusal.problem(),
        };
        if *status == StatusCode::UNAUTHORIZED && self.scheme != Some(Scheme::Legacy) {
            // RFC 9110 wants to be told how; of the two only Bearer has a name in its registry.
            let how = HeaderValue::from_static(match (self.sessions, *code) {
                (true, "invalid_token" | "expired_token" | "ended_session") => {
                    "Bearer error=\"invalid_token\""
                }
                (true, _) => "btauth, Bearer",
                (false, _) => "btauth",
            });
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
        }
        refusal.try_again(&mut response);
        response
    }

    /// In the words of the SDK where it has words for it.
    fn legacy_message(&self, refusal: &Refusal) -> String {
        let detail = &refusal.detail;
        match refusal.status {
            StatusCode::UNAUTHORIZED => format!("Not Verified with error: {detail}"),
            StatusCode::FORBIDDEN => format!("Forbidden. Key is blacklisted: {detail}."),
            StatusCode::NOT_FOUND => {
                let name: String = self.name.chars().filter(char::is_ascii_alphanumeric).collect();
                format!("Synapse name '{name}' not found.")
            }
            _ => detail.clone(),
        }
    }

    /// The headers of `Synapse.to_headers` that are about this end.
    fn sign(&self, headers: &mut HeaderMap, status: StatusCode, message: &str) {
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("name", self.name);
        set("bt_header_axon_status_code", status.as_str());
        set("bt_header_axon_status_message", message);
        set("bt_header_axon_process_time", &format!("{:.6}", self.elapsed.as_secs_f64()));
        if let Some(sender) = self.sender {
            let (nonce, hotkey, uuid) = (now_ns(), self.pair.hotkey(), self.uuid);
            let signed = format!("{nonce}.{sender}.{hotkey}.{uuid}");
            let signature = crate::hex::encode(&self.pair.sign(signed.as_bytes()));
            set("bt_header_axon_hotkey", &hotkey.to_string());
            set("bt_header_axon_nonce", &nonce.to_string());
            set("bt_header_axon_uuid", uuid);
            set("bt_header_axon_signature", &format!("0x{signature}"));
        }
        for name in ["timeout", "computed_body_hash"] {
            if let Some(value) = self.headers.get(name) {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
    }
}

/// What a response is made of: bytes that are there, or that come.
pub type Content = UnsyncBoxBody<Bytes, Infallible>;

/// A response, or the beginning of one.
pub type Built = Response<Content>;

/// A JSON document that is there already.
pub fn document_response(document: Bytes) -> Built {
    let mut response = Response::new(Full::new(document).boxed_unsync());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn json_response(status: StatusCode, kind: &'static str, body: &str) -> Built {
    let content = Full::new(Bytes::copy_from_slice(body.as_bytes())).boxed_unsync();
    let mut response = Response::new(content);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The request's fields as they were sent, byte for byte (a number may be larger than any that Rust
/// has), with those of the answer in their place.
fn filled_in(request: &[u8], answer: &Map<String, Value>) -> String {
    let sent: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(request).unwrap_or_default();
    let sent = sent.iter().filter(|(name, _)| !answer.contains_key(name.as_ref()));
    let sent = sent.map(|(name, value)| format!("{}:{}", json!(name), value.get()));
    let filled = answer.iter().map(|(name, value)| format!("{}:{value}", json!(name)));
    format!("{{{}}}", sent.chain(filled).collect::<Vec<_>>().join(","))
}

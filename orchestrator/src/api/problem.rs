//! Errors as problem documents (RFC 9457).

use std::fmt;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::store;

/// The stable code of a problem: the last part of its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemCode {
    /// A parameter is wrong.
    InvalidParameter,
    /// A token is needed, or the one presented is not good.
    Unauthorized,
    /// The request names a host that this listener does not answer for.
    ForbiddenHost,
    /// There is nothing of that name.
    NotFound,
    /// The path is there, and not for this method.
    MethodNotAllowed,
    /// There are as many event streams as may be.
    TooManyStreams,
    /// Something of the service does not work; the log has it under the request's id.
    Internal,
    /// It took too long.
    Timeout,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::InvalidParameter,
        Self::Unauthorized,
        Self::ForbiddenHost,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooManyStreams,
        Self::Internal,
        Self::Timeout,
    ];

    /// Its word, status and title.
    #[must_use]
    pub fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidParameter => {
                ("invalid_parameter", StatusCode::BAD_REQUEST, "A parameter is wrong")
            }
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "A token is needed"),
            Self::ForbiddenHost => {
                ("forbidden_host", StatusCode::FORBIDDEN, "Not asked for by this name")
            }
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "Another method is needed")
            }
            Self::TooManyStreams => {
                ("too_many_streams", StatusCode::TOO_MANY_REQUESTS, "Too many event streams")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed"),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, "It took too long"),
        }
    }
}

/// An error of the API.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
}

/// As it is sent.
#[derive(Debug, Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    request_id: &'a str,
}

impl Problem {
    /// A problem; `detail` goes to the client.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// A parameter is wrong.
    #[must_use]
    pub fn parameter(name: &str, detail: impl fmt::Display) -> Self {
        Self::new(ProblemCode::InvalidParameter, format!("`{name}`: {detail}"))
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        // The client gets no paths and no SQL.
        let causes = crate::error_chain::causes(&error);
        let request = RequestId::current();
        tracing::error!(%request, %error, ?causes, "the operator API cannot answer");
        Self::new(ProblemCode::Internal, "the log says more under this request's id")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status, title) = self.code.parts();
        let id = RequestId::current();
        let document = Document {
            r#type: format!("urn:orchestrator:problem:{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            request_id: id.as_str(),
        };
        let json = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, json, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if self.code == ProblemCode::Unauthorized {
            // A browser asks for it: any name, and the token as password.
            let value = "Bearer realm=\"orchestrator\", Basic realm=\"orchestrator\"";
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(value));
        }
        response
    }
}

/// The id of a request: the client's, if it is harmless, else a new one.
#[derive(Debug, Clone)]
pub struct RequestId(String);

tokio::task_local! {
    static CURRENT: RequestId;
}

impl RequestId {
    /// The id for a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
        let plain = |text: &&str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        match given.filter(plain) {
            Some(text) => Self(text.to_owned()),
            None => Self(new_id()),
        }
    }

    pub(super) async fn scope<T>(id: Self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(id, work).await
    }

    /// The id of the request that is being answered.
    pub(super) fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_else(|_| Self(String::new()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn new_id() -> String {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 12];
    // An id that repeats harms nobody.
    let _zeros = ring::rand::SystemRandom::new().fill(&mut bytes);
    crate::hex::encode(&bytes)
}

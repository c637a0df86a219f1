//! Who may ask.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ApiState, Problem, ProblemCode};
use crate::config::Secret;
use crate::store::now_ms;
use crate::token;

/// The rule of one listener.
#[derive(Debug, Clone)]
pub struct Access {
    /// What tokens are signed with.
    pub(super) secret: Option<Secret>,
    /// Whether a token is needed.
    pub(super) require_token: bool,
}

/// Lets a request through or answers it.
pub(super) async fn check(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let access = &state.0.access;
    if access.require_token {
        let open = matches!(request.uri().path(), "/health" | "/health/live");
        if !open && let Err(problem) = token_of(access, request.headers()) {
            return problem.into_response();
        }
    } else if !is_local(request.headers()) {
        // A web page whose name was pointed at this machine sends that name.
        let detail = "without a token this is asked as localhost or by a loopback address";
        return Problem::new(ProblemCode::ForbiddenHost, detail).into_response();
    }
    next.run(request).await
}

fn token_of(access: &Access, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Problem::new(ProblemCode::Unauthorized, detail);
    let needed = || refused("send `Authorization: Bearer TOKEN`: `orchestrator token` makes one");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(needed)?;
    let value = value.to_str().map_err(|_| needed())?;
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
        Some((scheme, basic)) if scheme.eq_ignore_ascii_case("basic") => {
            let pair = STANDARD.decode(basic.trim()).map_err(|_| needed())?;
            let pair = String::from_utf8(pair).map_err(|_| needed())?;
            pair.split_once(':').map(|(_, password)| password.to_owned()).ok_or_else(needed)?
        }
        _ => return Err(needed()),
    };
    let secret = access.secret.as_ref().ok_or_else(needed)?;
    match token::check(secret.expose(), &token, now_ms() / 1000) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// Whether the request names this machine by a loopback address or as localhost. HTTP/1.1 requires
/// the header; one without is a program's.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

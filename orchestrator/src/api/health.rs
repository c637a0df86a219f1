//! Whether the service lives, and whether it does its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::{ApiState, Problem};
use crate::store::now_ms;

/// One part of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name: `database`, `grants`, ...
    pub name: &'static str,
    /// Whether it does its work.
    pub ok: bool,
    /// What it does, or why not.
    pub detail: String,
}

/// What the loops of the service publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Their states.
    pub checks: Vec<Check>,
}

impl Health {
    /// Notes the state of one part.
    pub fn set(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        let check = Check { name, ok, detail: detail.into() };
        match self.checks.iter_mut().find(|check| check.name == name) {
            Some(known) => *known = check,
            None => self.checks.push(check),
        }
    }
}

/// As it is sent.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    status: &'static str,
    version: &'static str,
    uptime_secs: i64,
    checks: Vec<Check>,
}

/// `GET /health`: 200 when every part does its work, else 503.
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Report>) {
    let mut checks = state.0.health.borrow().checks.clone();
    let database = state.store().last_event().await;
    checks.insert(
        0,
        Check {
            name: "database",
            ok: database.is_ok(),
            detail: match database {
                Ok(_) => "it answers".to_owned(),
                Err(error) => {
                    // The path and the cause stay here.
                    let _logged = Problem::from(error);
                    "it does not answer".to_owned()
                }
            },
        },
    );
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let report = Report {
        status: if ok { "ok" } else { "degraded" },
        version: env!("CARGO_PKG_VERSION"),
        uptime_secs: (now_ms() - state.0.started_ms).max(0) / 1000,
        checks,
    };
    (status, Json(report))
}

/// `GET /health/live`: the process answers.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

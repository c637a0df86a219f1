//! The dashboard: one page without scripts, rendered here.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::hosts::HostView;
use super::{ApiState, Problem, ProblemCode};
use crate::render::{DASHBOARD, render};
use crate::store::{GrantFilter, GrantRow, ProofRow, now_ms};

/// Hosts on the page; more are in the API.
const MOST_HOSTS: usize = 500;
/// Rows of the other tables.
const MOST_ROWS: u32 = 20;

#[derive(Serialize)]
struct Context {
    version: &'static str,
    now: String,
    hosts: Vec<HostRow>,
    hosts_left_out: usize,
    states: Vec<(String, usize)>,
    proofs: Vec<Row<ProofRow>>,
    grants: Vec<Row<GrantRow>>,
}

#[derive(Serialize)]
struct HostRow {
    view: HostView,
    seen: String,
}

/// A row with its time in words.
#[derive(Serialize)]
struct Row<T> {
    item: T,
    at: String,
}

/// `GET /`.
pub(super) async fn page(State(state): State<ApiState>) -> Result<Response, Problem> {
    let store = state.store();
    let mut records = store.hosts().await?;
    let hosts_left_out = records.len().saturating_sub(MOST_HOSTS);
    records.truncate(MOST_HOSTS);
    let mut hosts = Vec::with_capacity(records.len());
    for record in records {
        let seen = record.last_seen_ms.map_or_else(|| "never".to_owned(), time);
        hosts.push(HostRow { view: HostView::of(store, record).await?, seen });
    }
    let mut states: Vec<(String, usize)> = Vec::new();
    for host in &hosts {
        let name = host.view.state().name();
        match states.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => states.push((name.to_owned(), 1)),
        }
    }
    let open = GrantFilter { open: true, ..GrantFilter::default() };
    let proofs = store.proofs(None, MOST_ROWS, 0).await?.into_iter();
    let grants = store.grants(&open, MOST_ROWS, 0).await?.into_iter();
    let context = Context {
        version: env!("CARGO_PKG_VERSION"),
        now: time(now_ms()),
        hosts,
        hosts_left_out,
        states,
        proofs: proofs.map(|item| Row { at: time(item.issued_ms), item }).collect(),
        grants: grants.map(|item| Row { at: time(item.expires_ms), item }).collect(),
    };
    let page = render(DASHBOARD, context).map_err(|error| {
        tracing::error!(%error, source = ?error.source, "the dashboard cannot be rendered");
        Problem::new(ProblemCode::Internal, "the log says more under this request's id")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response())
}

/// `GET /dashboard.css`.
pub(super) async fn style() -> Response {
    let style = include_str!("../../../templates/api/dashboard.css");
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], style).into_response()
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| "-".to_owned(), |at| at.strftime("%F %R UTC").to_string())
}

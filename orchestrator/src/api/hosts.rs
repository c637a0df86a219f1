//! Hosts, which the guide calls executors, and their facts.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::paging::{Named, Page, Parameters};
use super::{ApiState, Problem, ProblemCode};
use crate::fleet::{driver_version, gpu_summary};
use crate::host_state::HostState;
use crate::ids::HostName;
use crate::store::{FactsRecord, HostRecord, Store};

/// A host as the API shows it: nothing of how it is logged in to.
#[derive(Debug, Serialize)]
pub(super) struct HostView {
    name: HostName,
    address: String,
    port: u16,
    state: HostState,
    state_since_ms: i64,
    first_seen_ms: i64,
    last_seen_ms: Option<i64>,
    gpus: Option<String>,
    driver: Option<String>,
    runner: Option<String>,
    runner_version: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    drain_note: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
}

impl HostView {
    pub(super) async fn of(store: &Store, record: HostRecord) -> Result<Self, Problem> {
        let facts = store.facts_history(&record.spec.name, 1).await?;
        let facts = facts.first().map(|record| &record.facts);
        Ok(Self {
            gpus: facts.map(gpu_summary),
            driver: facts.and_then(driver_version),
            address: record.spec.endpoint.address,
            port: record.spec.endpoint.port,
            name: record.spec.name,
            labels: record.spec.labels,
            state: record.state,
            state_since_ms: record.state_since_ms,
            first_seen_ms: record.first_seen_ms,
            last_seen_ms: record.last_seen_ms,
            runner: record.runner_sha256,
            runner_version: record.runner_version,
            reason: record.last_reason,
            message: record.last_message,
            drain_note: record.drain_note,
        })
    }

    pub(super) fn state(&self) -> HostState {
        self.state
    }
}

/// `GET /api/v1/hosts` and `/api/v1/executors`.
pub(super) async fn list(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<HostView>>, Problem> {
    let named = Named::read(parameters, &["limit", "cursor", "state"])?;
    let limit = usize::try_from(named.limit()?).unwrap_or(usize::MAX);
    let wanted: Option<HostState> = named
        .get("state")
        .map(|text| text.parse().map_err(|error| Problem::parameter("state", error)))
        .transpose()?;
    let after = named
        .get("cursor")
        .map(|text| HostName::new(text).map_err(|error| Problem::parameter("cursor", error)))
        .transpose()?;
    let mut hosts = state.store().hosts().await?;
    hosts.retain(|host| {
        wanted.is_none_or(|wanted| host.state == wanted)
            && after.as_ref().is_none_or(|after| host.spec.name > *after)
    });
    let more = hosts.len() > limit;
    hosts.truncate(limit);
    let last = hosts.last().map(|host| host.spec.name.to_string());
    let mut items = Vec::with_capacity(hosts.len());
    for host in hosts {
        items.push(HostView::of(state.store(), host).await?);
    }
    Ok(Json(Page { items, next: last.filter(|_| more) }))
}

/// `GET /api/v1/hosts/{name}`.
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<HostView>, Problem> {
    let record = known(&state, &name).await?;
    Ok(Json(HostView::of(state.store(), record).await?))
}

/// `GET /api/v1/hosts/{name}/facts`: the newest first.
pub(super) async fn facts(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json<Page<FactsRecord>>, Problem> {
    let named = Named::read(parameters, &["limit"])?;
    let limit = named.get("limit").map_or(Ok(1), |_| named.limit())?;
    let record = known(&state, &name).await?;
    let items = state.store().facts_history(&record.spec.name, limit).await?;
    Ok(Json(Page { items, next: None }))
}

/// The host of that name, or the problem that there is none.
pub(super) async fn known(state: &ApiState, name: &str) -> Result<HostRecord, Problem> {
    let missing = || Problem::new(ProblemCode::NotFound, "there is no host of that name");
    let name = HostName::new(name).map_err(|_| missing())?;
    state.store().host(&name).await?.ok_or_else(missing)
}

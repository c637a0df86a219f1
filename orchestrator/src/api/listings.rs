//! Proofs, grants, sweeps and leases.

use axum::Json;
use axum::extract::{Path, State};

use super::paging::{Named, Page, Parameters};
use super::{ApiState, Problem, ProblemCode, hosts};
use crate::store::{GrantFilter, GrantRow, Lease, LeaseKind, ProofRow, SweepRow};

/// `GET /api/v1/proofs`: the newest first.
pub(super) async fn proofs(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<ProofRow>>, Problem> {
    let named = Named::read(parameters, &["limit", "cursor", "host"])?;
    let (limit, offset) = (named.limit()?, named.offset()?);
    let host = named.host()?;
    let items = state.store().proofs(host.as_ref(), limit + 1, offset).await?;
    Ok(Json(Page::counted(items, limit, offset)))
}

/// `GET /api/v1/hosts/{name}/proofs`.
pub(super) async fn proofs_of(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json<Page<ProofRow>>, Problem> {
    let named = Named::read(parameters, &["limit", "cursor"])?;
    let (limit, offset) = (named.limit()?, named.offset()?);
    let host = hosts::known(&state, &name).await?.spec.name;
    let items = state.store().proofs(Some(&host), limit + 1, offset).await?;
    Ok(Json(Page::counted(items, limit, offset)))
}

/// `GET /api/v1/grants`: the newest first; those that are over only with `all=true`.
pub(super) async fn grants(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<GrantRow>>, Problem> {
    let named = Named::read(parameters, &["limit", "cursor", "host", "validator", "all"])?;
    let (limit, offset) = (named.limit()?, named.offset()?);
    let all = match named.get("all") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::parameter("all", "must be true or false")),
    };
    let validator = named.get("validator").map(str::to_owned);
    let filter = GrantFilter { host: named.host()?, validator, open: !all };
    let items = state.store().grants(&filter, limit + 1, offset).await?;
    Ok(Json(Page::counted(items, limit, offset)))
}

/// `GET /api/v1/grants/{id}`.
pub(super) async fn grant(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<GrantRow>, Problem> {
    let missing = || Problem::new(ProblemCode::NotFound, "there is no grant of that id");
    state.store().grant(&id).await?.map(Json).ok_or_else(missing)
}

/// `GET /api/v1/sweeps`: the newest first.
pub(super) async fn sweeps(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<SweepRow>>, Problem> {
    let named = Named::read(parameters, &["limit"])?;
    let items = state.store().sweeps_since(0, named.limit()?).await?;
    Ok(Json(Page { items, next: None }))
}

/// `GET /api/v1/leases`: the live ones.
pub(super) async fn leases(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<Lease>>, Problem> {
    let named = Named::read(parameters, &["host"])?;
    let items = state.store().live_leases(named.host()?.as_ref()).await?;
    Ok(Json(Page { items, next: None }))
}

/// `GET /api/v1/containers`: the leases that containers hold. No host is asked.
pub(super) async fn containers(
    State(state): State<ApiState>,
    parameters: Parameters,
) -> Result<Json<Page<Lease>>, Problem> {
    let named = Named::read(parameters, &["host"])?;
    let mut items = state.store().live_leases(named.host()?.as_ref()).await?;
    items.retain(|lease| lease.kind == LeaseKind::Container);
    Ok(Json(Page { items, next: None }))
}

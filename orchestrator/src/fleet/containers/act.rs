//! Stop, remove, look at and read one container.

use std::time::Duration;

use serde_json::{Value, json};

use super::address::{Found, find};
use super::error::ContainerError;
use super::host::HostEngine;
use super::reconcile::reconcile;
use crate::docker::{LogQuery, Output, labels};
use crate::fleet::link::Fleet;
use crate::metrics;
use crate::store::NewEvent;

/// TERM, `grace`, KILL. The lease of a detached container ends with it; one in the foreground is
/// its holder's to end.
///
/// # Errors
/// There is no such container of ours, or the engine or the database failed.
pub async fn stop_container(
    fleet: &Fleet,
    host: &HostEngine,
    what: &str,
    grace: Duration,
) -> Result<Found, ContainerError> {
    let found = look_up(fleet, host, what).await?;
    host.engine.stop(&found.container.id, grace).await?;
    metrics::CONTAINERS_STOPPED.increment();
    record(fleet, host, "container.stopped", &found).await?;
    // Releases the lease, as any later contact would.
    reconcile(fleet, host).await?;
    Ok(found)
}

/// Removes a container that has ended; with `force` also one that runs.
///
/// # Errors
/// There is no such container of ours, it runs, or the engine or the database failed.
pub async fn remove_container(
    fleet: &Fleet,
    host: &HostEngine,
    what: &str,
    force: bool,
) -> Result<Found, ContainerError> {
    let found = look_up(fleet, host, what).await?;
    host.engine.remove(&found.container.id, force).await?;
    record(fleet, host, "container.removed", &found).await?;
    reconcile(fleet, host).await?;
    Ok(found)
}

/// All that the engine knows of a container. It may say anything.
///
/// # Errors
/// There is no such container of ours, or the engine failed.
pub async fn inspect_container(
    fleet: &Fleet,
    host: &HostEngine,
    what: &str,
) -> Result<(Found, Value), ContainerError> {
    let found = look_up(fleet, host, what).await?;
    let whole = host.engine.inspect_whole(&found.container.id).await?;
    Ok((found, whole))
}

/// What a container has written, and with `follow` what it will.
///
/// # Errors
/// There is no such container of ours, or the engine failed.
pub async fn logs(
    fleet: &Fleet,
    host: &HostEngine,
    what: &str,
    query: &LogQuery,
) -> Result<(Found, Output), ContainerError> {
    let found = look_up(fleet, host, what).await?;
    let output = host.engine.logs(&found.container.id, query).await?;
    Ok((found, output))
}

async fn look_up(
    fleet: &Fleet,
    host: &HostEngine,
    what: &str,
) -> Result<Found, ContainerError> {
    let owner = fleet.store.identity().await?;
    find(host.engine.list(&owner).await?, what, &host.spec.name)
}

async fn record(
    fleet: &Fleet,
    host: &HostEngine,
    kind: &'static str,
    found: &Found,
) -> Result<(), ContainerError> {
    let detail = json!({
        "container": found.container.id,
        "lease": found.id,
        "image": found.container.image,
        "mode": found.container.labels.get(labels::MODE),
        "why": "it was asked for",
    });
    let event = NewEvent { kind, host: Some(host.spec.name.clone()), detail };
    Ok(fleet.store.append_events(&fleet.actor, &[event]).await?)
}

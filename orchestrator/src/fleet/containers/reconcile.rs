//! One look at a host that brings its leases and its containers together.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::error::ContainerError;
use super::host::HostEngine;
use crate::docker::{ContainerSummary, labels};
use crate::fleet::link::Fleet;
use crate::host_spec::HostSpec;
use crate::metrics;
use crate::runner::Artifact;
use crate::store::{Lease, LeaseKind, NewEvent, now_ms};
use crate::sweep::{ContainerFault, ContainerLife, Holder};

/// Between TERM and KILL for a container that should not be running any more.
const GRACE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Our containers on the host, as they are now.
    pub containers: Vec<ContainerSummary>,
    /// The live leases of containers there, as they are now.
    pub leases: Vec<Lease>,
    /// The ids of containers that were stopped because their time was over or their holder gone.
    pub expired: Vec<String>,
}

/// Stops what should not run, removes what was left behind, and releases leases under which
/// nothing runs.
///
/// # Errors
/// The host, the engine or the database failed.
///
/// # Cancel safety
/// Each step is whole by itself; the next call goes on where this one stopped.
pub async fn reconcile(fleet: &Fleet, host: &HostEngine) -> Result<Reconciled, ContainerError> {
    let store = &fleet.store;
    let name = &host.spec.name;
    let owner = store.identity().await?;
    // The leases first: what is bound to one of them by now is in the list that comes after.
    let leases = store.live_leases(Some(name)).await?;
    let mut leases: Vec<Lease> =
        leases.into_iter().filter(|lease| lease.kind == LeaseKind::Container).collect();
    let mut containers = host.engine.list(&owner).await?;
    for container in &containers {
        if let Some(id) = container.labels.get(labels::LEASE)
            && !leases.iter().any(|lease| lease.id == *id)
        {
            // Taken after the leases were read, or over.
            let found = store.leases_by_prefix(id, 1).await?;
            leases.extend(found.into_iter().filter(|lease| lease.released_ms.is_none()));
        }
    }
    let mut result = Reconciled::default();
    let mut kept = Vec::with_capacity(containers.len());
    for mut container in containers.drain(..) {
        let lease = leases.iter().find(|lease| is_of(&container, lease)).cloned();
        let Some(fault) = judge(&container, lease.as_ref(), now_ms()) else {
            kept.push(container);
            continue;
        };
        let why = fault.words();
        match fault {
            ContainerFault::Overdue | ContainerFault::Abandoned => {
                host.engine.stop(&container.id, GRACE).await?;
                metrics::CONTAINERS_EXPIRED.increment();
                record(fleet, host, "container.expired", &container, why).await?;
                result.expired.push(container.id.clone());
                container.state = "exited".to_owned();
                container.status = format!("stopped: {why}");
                end(fleet, &mut leases, lease.as_ref(), why).await?;
                if !is_left_behind(&container) {
                    kept.push(container);
                } else {
                    host.engine.remove(&container.id, true).await?;
                }
            }
            ContainerFault::NeverStarted | ContainerFault::Ended | ContainerFault::Kept => {
                host.engine.remove(&container.id, true).await?;
                record(fleet, host, "container.removed", &container, why).await?;
                end(fleet, &mut leases, lease.as_ref(), why).await?;
            }
            ContainerFault::LeaseOutlived => {
                end(fleet, &mut leases, lease.as_ref(), why).await?;
                kept.push(container);
            }
        }
    }
    let now = now_ms();
    for lease in leases.clone() {
        let has_one = kept.iter().any(|container| is_of(container, &lease));
        let why = match &lease.subject {
            _ if has_one => continue,
            Some(_) => "the container is gone",
            None if lease.is_overdue(now) => "its holder did not renew it",
            None => continue,
        };
        end(fleet, &mut leases, Some(&lease), why).await?;
    }
    result.containers = kept;
    result.leases = leases;
    Ok(result)
}

/// As [`reconcile`] for a host that has live leases of containers; others are not contacted.
///
/// # Errors
/// As [`reconcile`].
pub async fn reconcile_if_held(
    fleet: &Arc<Fleet>,
    spec: &HostSpec,
    artifact: Option<Arc<Artifact>>,
) -> Result<(), ContainerError> {
    let leases = fleet.store.live_leases(Some(&spec.name)).await?;
    if !leases.iter().any(|lease| lease.kind == LeaseKind::Container) {
        return Ok(());
    }
    let host = HostEngine::open(fleet, spec, artifact).await?;
    let reconciled = reconcile(fleet, &host).await;
    host.close().await;
    reconciled.map(|_| ())
}

/// What is wrong with a container, by its labels, the lease and the clock alone.
fn judge(container: &ContainerSummary, lease: Option<&Lease>, now: i64) -> Option<ContainerFault> {
    let time = |label| container.labels.get(label).and_then(|text| text.parse().ok());
    let life = ContainerLife {
        state: &container.state,
        foreground: is(container, labels::MODE, labels::FOREGROUND),
        remove: is_left_behind(container),
        deadline_ms: time(labels::DEADLINE),
        keep_until_ms: time(labels::KEEP),
    };
    let holder = match lease {
        None => Holder::None,
        Some(lease) if lease.is_overdue(now) => Holder::Overdue,
        Some(_) => Holder::Live,
    };
    life.fault(holder, now)
}

/// Whether it was to be removed by a holder that is gone; the engine removes detached ones itself.
fn is_left_behind(container: &ContainerSummary) -> bool {
    is(container, labels::REMOVE, "true")
}

fn is(container: &ContainerSummary, label: &str, value: &str) -> bool {
    container.labels.get(label).is_some_and(|found| found == value)
}

fn is_of(container: &ContainerSummary, lease: &Lease) -> bool {
    is(container, labels::LEASE, &lease.id)
}

async fn end(
    fleet: &Fleet,
    leases: &mut Vec<Lease>,
    lease: Option<&Lease>,
    why: &str,
) -> Result<(), ContainerError> {
    if let Some(lease) = lease {
        fleet.store.release_lease(&fleet.actor, &lease.id, why).await?;
        leases.retain(|other| other.id != lease.id);
    }
    Ok(())
}

async fn record(
    fleet: &Fleet,
    host: &HostEngine,
    kind: &'static str,
    container: &ContainerSummary,
    why: &str,
) -> Result<(), ContainerError> {
    let detail = json!({
        "container": container.id,
        "lease": container.labels.get(labels::LEASE),
        "image": container.image,
        "why": why,
    });
    let event = NewEvent { kind, host: Some(host.spec.name.clone()), detail };
    Ok(fleet.store.append_events(&fleet.actor, &[event]).await?)
}

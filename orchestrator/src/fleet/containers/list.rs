//! What runs on a host, asked of the host.

use std::sync::Arc;

use serde::Serialize;

use super::error::ContainerError;
use super::host::HostEngine;
use super::reconcile::reconcile;
use crate::docker::{ContainerSummary, Port, labels};
use crate::fleet::link::Fleet;
use crate::host_spec::HostSpec;
use crate::ids::HostName;
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner::Artifact;

/// A container of ours, as its host knows it. Everything but the labels we wrote is the host's
/// word, cleaned.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerRow {
    /// The host.
    pub host: HostName,
    /// Our id: that of its lease.
    pub id: String,
    /// The engine's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `running`, `exited`, ...
    pub state: String,
    /// The same in the engine's words, with a time.
    pub status: String,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it must have ended.
    pub deadline_ms: Option<i64>,
    /// The UUIDs of its GPUs.
    pub gpus: Vec<String>,
    /// `foreground` or `detached`.
    pub mode: String,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Whether a live lease is behind it.
    pub leased: bool,
}

/// What runs on one host, or why that is not known.
#[derive(Debug)]
pub struct HostContainers {
    /// The host.
    pub host: HostName,
    /// Its containers; a host without an engine has none.
    pub outcome: Result<Vec<ContainerRow>, ContainerError>,
}

/// Reconciles a host and lists our containers there, the youngest first.
pub async fn list(
    fleet: &Arc<Fleet>,
    spec: &HostSpec,
    artifact: Option<Arc<Artifact>>,
) -> HostContainers {
    let outcome = async {
        let host = HostEngine::open(fleet, spec, artifact).await?;
        let reconciled = reconcile(fleet, &host).await;
        host.close().await;
        let reconciled = reconciled?;
        let is_leased = |id: &str| reconciled.leases.iter().any(|lease| lease.id == id);
        let mut rows: Vec<ContainerRow> = reconciled
            .containers
            .iter()
            .map(|container| row(&spec.name, container))
            .map(|row| ContainerRow { leased: is_leased(&row.id), ..row })
            .collect();
        rows.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then_with(|| a.name.cmp(&b.name)));
        Ok::<_, ContainerError>(rows)
    };
    let outcome = match outcome.await {
        // Nothing of ours can run there, unless something is held there still.
        Err(error) if error.reason() == Reason::NoEngine => {
            match fleet.store.live_leases(Some(&spec.name)).await {
                Ok(leases) if leases.is_empty() => Ok(Vec::new()),
                _ => Err(error),
            }
        }
        outcome => outcome,
    };
    HostContainers { host: spec.name.clone(), outcome }
}

/// A container as a row; whether it is leased is not known here.
pub(super) fn row(host: &HostName, container: &ContainerSummary) -> ContainerRow {
    let label = |name: &str| container.labels.get(name).map(|text| printable(text));
    let gpus = label(labels::GPUS).unwrap_or_default();
    ContainerRow {
        host: host.clone(),
        id: label(labels::LEASE).unwrap_or_default(),
        container: container.id.clone(),
        name: printable(container.name()),
        image: printable(&container.image),
        state: printable(&container.state),
        status: printable(&container.status),
        created_ms: container.created.saturating_mul(1000),
        deadline_ms: label(labels::DEADLINE).and_then(|text| text.parse().ok()),
        gpus: gpus.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect(),
        mode: label(labels::MODE).unwrap_or_default(),
        ports: container.ports.clone().unwrap_or_default(),
        leased: false,
    }
}

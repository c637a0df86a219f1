//! Purge: the host is left as it was before us, and forgotten.

use serde_json::json;

use super::link::{Fleet, LinkError};
use crate::host_spec::HostSpec;
use crate::runner::install::{self, Purged};
use crate::store::NewEvent;

/// Removes what we put on the host and forgets it. With `forget`, a host that cannot be reached
/// is forgotten all the same, and the result is `None`.
///
/// # Errors
/// The host cannot be reached or does not answer, or the database cannot be written.
pub async fn purge(
    fleet: &Fleet,
    spec: &HostSpec,
    forget: bool,
) -> Result<Option<Purged>, LinkError> {
    let purged = match fleet.connect(spec, false).await {
        Ok(link) => {
            let purged = install::purge(link.transport(), spec.work_dir.as_deref()).await;
            link.close().await;
            Some(purged.map_err(LinkError::Runner)?)
        }
        Err(LinkError::Connect(_)) if forget => None,
        Err(error) => return Err(error),
    };
    let event = NewEvent {
        kind: "host.purged",
        host: Some(spec.name.clone()),
        detail: json!({ "reached": purged.is_some(), "purged": purged }),
    };
    fleet.store.record_purge(&fleet.actor, &spec.name, event).await.map_err(LinkError::Store)?;
    Ok(purged)
}

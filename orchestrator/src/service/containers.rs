//! Looking after containers: those whose time is over, or whose holder is gone, are ended.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use crate::fleet::Fleet;
use crate::fleet::containers::reconcile_if_held;
use crate::host_spec::HostSpec;
use crate::runner::Artifact;

/// Hosts that are looked after at a time.
const PARALLEL: usize = 32;

/// Ends what is over on these hosts; one without live leases of containers is not contacted.
/// Returns the hosts where it could not be done.
///
/// # Cancel safety
/// Safe: what was begun is done by the next call.
pub async fn reconcile_containers(
    fleet: &Arc<Fleet>,
    specs: &[HostSpec],
    artifact: &Arc<Artifact>,
) -> Vec<String> {
    let one = |spec: &HostSpec| {
        let (spec, artifact) = (spec.clone(), artifact.clone());
        async move {
            let done = reconcile_if_held(fleet, &spec, Some(artifact)).await;
            done.err().map(|error| {
                tracing::warn!(host = %spec.name, %error, "containers are not looked after");
                spec.name.to_string()
            })
        }
    };
    // Built before it is polled: the closure's borrow does not outlive this call.
    let tasks: Vec<_> = specs.iter().map(one).collect();
    stream::iter(tasks).buffer_unordered(PARALLEL).filter_map(std::future::ready).collect().await
}

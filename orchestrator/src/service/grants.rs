//! Looking after grants: what is over is taken out of hosts, and its sessions end.

use futures_util::stream::{self, StreamExt as _};

use crate::fleet::Fleet;
use crate::fleet::grants::{is_due, reconcile};
use crate::host_spec::HostSpec;

/// Hosts that are looked after at a time.
const PARALLEL: usize = 32;

/// Does what is due on these hosts. Returns how many had something due, and the hosts where it
/// could not be done.
///
/// # Cancel safety
/// Safe: what was begun is done by the next call.
pub async fn reconcile_all(fleet: &Fleet, specs: &[HostSpec]) -> (usize, Vec<String>) {
    let one = |spec: &HostSpec| {
        let spec = spec.clone();
        async move {
            match is_due(fleet, &spec.name).await {
                Ok(false) => return None,
                Ok(true) => {}
                Err(error) => {
                    tracing::error!(host = %spec.name, %error, "grants are not looked after");
                    return Some(Err(spec.name.to_string()));
                }
            }
            match reconcile(fleet, &spec).await {
                Ok(done) => {
                    let (removed, ended) = (done.removed.len(), done.processes_ended);
                    tracing::info!(host = %spec.name, removed, ended, "grants have ended");
                    Some(Ok(()))
                }
                Err(error) => {
                    let causes = error.causes();
                    tracing::warn!(host = %spec.name, %error, ?causes, "grants are not taken out");
                    Some(Err(spec.name.to_string()))
                }
            }
        }
    };
    // Built before it is polled: the closure's borrow does not outlive this call.
    let tasks: Vec<_> = specs.iter().map(one).collect();
    let done: Vec<_> = stream::iter(tasks).buffer_unordered(PARALLEL).collect().await;
    let done: Vec<Result<(), String>> = done.into_iter().flatten().collect();
    let due = done.len();
    (due, done.into_iter().filter_map(Result::err).collect())
}

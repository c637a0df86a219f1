//! The one writer of a pass: many hosts in one transaction, since each costs an fsync.

use tokio::sync::mpsc;

use super::host::Found;
use super::report::HostReport;
use crate::host_state::HostState;
use crate::store::{Error, HostSweep, Store};

/// Hosts in one transaction at most, and findings that wait for the writer.
pub(super) const BATCH: usize = 256;

/// Records what comes until nobody sends any more. Returns the hosts with the states they have now.
pub(super) async fn record(
    store: &Store,
    actor: &str,
    sweep: &str,
    mut finds: mpsc::Receiver<Found>,
) -> Result<Vec<HostReport>, Error> {
    let mut reports = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    while finds.recv_many(&mut batch, BATCH).await > 0 {
        let (records, mut found): (Vec<HostSweep>, Vec<HostReport>) =
            batch.drain(..).map(|found| (found.record, found.report)).unzip();
        let states = store.record_probes(actor, sweep, &records).await?;
        for (report, (before, after)) in found.iter_mut().zip(states) {
            report.before = before;
            report.state = after;
            report.ok = !matches!(
                after,
                HostState::Degraded | HostState::Unreachable | HostState::Quarantined
            );
        }
        reports.append(&mut found);
    }
    Ok(reports)
}

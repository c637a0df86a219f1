//! Holding the lock of the sweeps: renewed while the pass runs, given back at its end, and left to
//! its lease when this program is killed.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::SweepError;
use crate::store::{Store, SweepLock};

/// How long the lock outlives its holder: long enough for a database that is busy for its whole
/// timeout, short enough that the next run of cron gets it.
const LEASE: Duration = Duration::from_secs(60);

/// How often it is renewed: two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(20);

/// The lock while it is held.
pub(super) struct HeldLock {
    store: Store,
    lock: SweepLock,
    lost: CancellationToken,
    _renewing: DropGuard,
}

/// Takes the lock.
pub(super) async fn take(store: &Store, actor: &str) -> Result<HeldLock, SweepError> {
    let holder = format!("{actor}, process {}", std::process::id());
    let lock = match store.take_sweep_lock(&holder, LEASE).await? {
        Ok(lock) => lock,
        Err(held) => return Err(SweepError::Locked(held)),
    };
    let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
    // Ends with the guard: at the latest when the pass is dropped.
    tokio::spawn(renew(store.clone(), lock.clone(), lost.clone(), stop.clone()));
    Ok(HeldLock { store: store.clone(), lock, lost, _renewing: stop.drop_guard() })
}

async fn renew(store: Store, lock: SweepLock, lost: CancellationToken, stop: CancellationToken) {
    loop {
        // Cancel safety: a tick that is lost is no matter.
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = stop.cancelled() => return,
        }
        match store.renew_sweep_lock(&lock, LEASE).await {
            Ok(true) => {}
            Ok(false) => {
                lost.cancel();
                return;
            }
            // The lease still runs; the next renewal may do better.
            Err(error) => tracing::warn!(%error, "cannot renew the lock of the sweep"),
        }
    }
}

impl HeldLock {
    /// Waits until someone else has the lock.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives it back.
    pub(super) async fn release(self) {
        if let Err(error) = self.store.release_sweep_lock(&self.lock).await {
            tracing::warn!(%error, "cannot release the lock of the sweep; it ends with its lease");
        }
    }
}

//! No request is accepted twice: not by this process, not by another one with the same database, not
//! after a kill at any moment.
//!
//! A request is answered only when its nonce is committed to the journal in the database, where a
//! unique key decides. One task writes, and takes everything that waits into one transaction, so the
//! cost of a commit is shared by all requests of a moment. The commits are not synced to the disk: the
//! system keeps them when the process dies. When the machine dies the last ones may be gone; so the
//! first start on another boot refuses every nonce up to its own beginning plus the drift that is
//! allowed, which covers all that can have been accepted. Nonces are forgotten once they are too old
//! for any scheme, and from then on everything up to there is refused whatever the clock says: a clock
//! that is set back does not make old requests fresh.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::auth::{AHEAD, OLDEST, Scheme};
use crate::store::{self, ReplayJournal, Spend, Store};

/// Nonces in one transaction.
const BATCH: usize = 512;

/// Requests that wait for the journal. More than there are sessions, so nobody waits to wait.
const QUEUE: usize = 4096;

/// From the beginning of one transaction to the next. A transaction costs more than checking a
/// signature; without this pause a server at half its load makes one for each request and has no
/// time left. The first request after a quiet moment does not wait.
const GATHER: Duration = Duration::from_millis(1);

/// Requests that are worth a transaction without that pause.
const ENOUGH: usize = 8;

/// How often old nonces are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Nonces that are forgotten at once: about a millisecond, for which requests wait.
const FORGET_AT_ONCE: u32 = 500;

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// The journal does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal of nonces cannot be written")]
pub struct Unavailable;

struct Waiting {
    scheme: Scheme,
    spend: Spend,
    answer: oneshot::Sender<Result<bool, Unavailable>>,
}

/// The way to the journal. The task behind it ends with the last clone.
#[derive(Clone)]
pub struct Replay {
    queue: mpsc::Sender<Waiting>,
    floor: Arc<AtomicI64>,
}

impl Replay {
    /// Opens the journal of a database and starts its task.
    ///
    /// # Errors
    /// The database cannot be opened or written.
    pub async fn start(store: &Store) -> Result<(Self, JoinHandle<()>), store::Error> {
        let journal = store.replay_journal().await?;
        let (boot, now) = (boot_id(), now_ns());
        let floor = journal.begin(&boot, now, AHEAD).await?;
        if floor > now.saturating_add(AHEAD) {
            tracing::warn!(
                "the clock is behind what it was: requests are refused for {} s",
                floor.saturating_sub(now) / 1_000_000_000
            );
        }
        let floor = Arc::new(AtomicI64::new(floor));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let task = tokio::spawn(write(journal, waiting, floor.clone()));
        Ok((Self { queue, floor }, task))
    }

    /// Nothing up to this nonce is accepted.
    #[must_use]
    pub fn floor(&self) -> i64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// Whether the nonce is new for its key; from now on it is not.
    ///
    /// # Errors
    /// [`Unavailable`]: then the request must not be served.
    pub async fn spend(
        &self,
        scheme: Scheme,
        key: String,
        nonce: i64,
    ) -> Result<bool, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { scheme, spend: (key, nonce), answer };
        self.queue.send(waiting).await.map_err(|_| Unavailable)?;
        answered.await.map_err(|_| Unavailable)?
    }
}

/// Writes what waits, until nobody can send any more.
async fn write(journal: ReplayJournal, mut queue: mpsc::Receiver<Waiting>, floor: Arc<AtomicI64>) {
    let mut forget = tokio::time::interval(FORGET_EVERY);
    forget.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::with_capacity(BATCH);
    let mut behind = false;
    let mut next_at = Instant::now();
    loop {
        if waiting.is_empty() && behind {
            // What came meanwhile goes before the rest of what is to be forgotten.
            behind = forget_some(&journal, &floor).await;
            while let Ok(next) = queue.try_recv() {
                waiting.push_back(next);
            }
        } else if waiting.is_empty() {
            // Cancel safety: recv_many takes nothing unless it completes; a tick is not lost.
            tokio::select! {
                count = queue.recv_many(&mut arrived, BATCH) => {
                    if count == 0 {
                        break;
                    }
                }
                _ = forget.tick() => behind = true,
            }
            waiting.extend(arrived.drain(..));
        }
        if waiting.is_empty() {
            continue;
        }
        while waiting.len() < ENOUGH {
            // Cancel safety: recv_many takes nothing unless it completes.
            match timeout_at(next_at, queue.recv_many(&mut arrived, BATCH)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => waiting.extend(arrived.drain(..)),
            }
        }
        next_at = Instant::now() + GATHER;
        settle(&journal, take_batch(&mut waiting)).await;
    }
    journal.close().await;
}

/// As many as fit into one transaction. The second request of an endpoint waits for the next one: it
/// is judged by the first.
fn take_batch(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut batch, mut later) = (Vec::new(), VecDeque::new());
    let mut endpoints = HashSet::new();
    while let Some(next) = waiting.pop_front() {
        let again = next.scheme == Scheme::Legacy && !endpoints.insert(next.spend.0.clone());
        if again || batch.len() == BATCH {
            later.push_back(next);
        } else {
            batch.push(next);
        }
    }
    *waiting = later;
    batch
}

async fn settle(journal: &ReplayJournal, batch: Vec<Waiting>) {
    let of = |scheme| -> Vec<Spend> {
        let mut seen = HashSet::new();
        let spends = batch.iter().filter(|one| one.scheme == scheme).map(|one| &one.spend);
        spends.filter(|spend| seen.insert(*spend)).cloned().collect()
    };
    let written = journal.spend(&of(Scheme::Legacy), &of(Scheme::Btauth)).await;
    if let Err(error) = &written {
        tracing::error!("{error}: {}", crate::error_chain::causes(error).join(": "));
    }
    let mut written = written.ok();
    for Waiting { scheme, spend, answer } in batch {
        // The first of two that are the same takes the entry away.
        let fresh = written.as_mut().map(|(raised, added)| match scheme {
            Scheme::Legacy => raised.remove(&spend),
            Scheme::Btauth => added.remove(&spend),
        });
        let _caller_gone = answer.send(fresh.ok_or(Unavailable));
    }
}

/// Forgets some of the old nonces, and says whether there may be more.
async fn forget_some(journal: &ReplayJournal, floor: &AtomicI64) -> bool {
    // A second more than any scheme takes, so that what is still fresh is never forgotten.
    let before = now_ns().saturating_sub(OLDEST + 1_000_000_000);
    if before <= floor.load(Ordering::Relaxed) {
        return false;
    }
    // First nothing old is accepted any more, then it is forgotten.
    floor.store(before, Ordering::Relaxed);
    match journal.forget(before, FORGET_AT_ONCE).await {
        Ok(gone) => gone >= u64::from(FORGET_AT_ONCE),
        Err(error) => {
            tracing::warn!("{error}: {}", crate::error_chain::causes(&error).join(": "));
            false
        }
    }
}

/// What this boot of the machine is called; elsewhere than on Linux every start counts as one.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| format!("start-{}", now_ns()), |id| id.trim().to_owned())
}

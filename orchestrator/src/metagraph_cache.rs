//! The metagraph of one subnet, at hand at all times.
//!
//! Validators are judged by it at every request, and the chain is somebody else's: so it is read now
//! and then in the background, kept in the database, and served from memory. An outage of the chain,
//! at start-up or later, changes nothing but its age, which is there for all to see; who finds it too
//! old decides so himself. What must *not* be here: any judgement about a validator.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chain::{self, AccountId32, ChainClient, Metagraph, Neuron};
use crate::retry::RetryPolicy;
use crate::store::{self, MetagraphRow, NewEvent, Store, now_ms};

/// Why the metagraph could not be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The chain could not be read.
    #[error("cannot read the metagraph from the chain")]
    Chain(#[from] chain::Error),
    /// The chain was read and the database could not be written: memory has the new metagraph.
    #[error("cannot keep the metagraph")]
    Store(#[from] store::Error),
}

/// How the cache is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheStatus {
    /// When the metagraph that is served was read; nothing where there is none.
    pub taken_ms: Option<i64>,
    /// The block that it is of.
    pub block: Option<u64>,
    /// Refreshes in a row that failed.
    pub failures: u32,
    /// Why the last refresh failed; nothing where it did not.
    pub error: Option<String>,
}

/// The metagraph of one subnet. Clones share it.
#[derive(Debug, Clone)]
pub struct MetagraphCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    chain: ChainClient,
    store: Store,
    netuid: u16,
    actor: String,
    current: watch::Sender<Option<Arc<Metagraph>>>,
    status: watch::Sender<CacheStatus>,
}

impl MetagraphCache {
    /// A cache with what the database has. The chain is not asked. A kept metagraph that this version
    /// cannot read is as good as none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn open(
        store: Store,
        chain: ChainClient,
        netuid: u16,
        actor: &str,
    ) -> Result<Self, store::Error> {
        let row = store.metagraph(chain.options().network.name(), netuid).await?;
        let kept = row.and_then(|row| match serde_json::from_str::<Metagraph>(&row.json) {
            Ok(metagraph) => Some(Arc::new(metagraph)),
            Err(error) => {
                tracing::warn!(%error, "the kept metagraph cannot be read");
                None
            }
        });
        if let Some(kept) = &kept {
            crate::metrics::METAGRAPH_READ.set(kept.taken_ms);
        }
        let status = CacheStatus {
            taken_ms: kept.as_ref().map(|kept| kept.taken_ms),
            block: kept.as_ref().map(|kept| kept.block),
            ..CacheStatus::default()
        };
        let inner = Inner {
            chain,
            store,
            netuid,
            actor: actor.to_owned(),
            current: watch::Sender::new(kept),
            status: watch::Sender::new(status),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The metagraph; nothing until one was read for the first time ever.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Metagraph>> {
        self.inner.current.borrow().clone()
    }

    /// Tells of every new metagraph.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Metagraph>>> {
        self.inner.current.subscribe()
    }

    /// How the cache is doing, and every change of that.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<CacheStatus> {
        self.inner.status.subscribe()
    }

    /// How old the metagraph is, by our clock. A clock that was set back makes it new, not older than
    /// it is.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let taken_ms = self.inner.current.borrow().as_ref()?.taken_ms;
        Some(Duration::from_millis(u64::try_from(now_ms() - taken_ms).unwrap_or(0)))
    }

    /// The neuron of a hotkey.
    #[must_use]
    pub fn neuron(&self, hotkey: &AccountId32) -> Option<Neuron> {
        self.inner.current.borrow().as_ref()?.neuron(hotkey).cloned()
    }

    /// The validators with the most stake, the first of them first.
    #[must_use]
    pub fn top_validators(&self, count: usize) -> Vec<Neuron> {
        let current = self.inner.current.borrow();
        let top = current.iter().flat_map(|metagraph| metagraph.top_validators(count));
        top.cloned().collect()
    }

    /// Reads the metagraph from the chain, now.
    ///
    /// # Errors
    /// [`RefreshError`]. What was served before is still served.
    ///
    /// # Cancel safety
    /// Dropped, it has changed everything or nothing in memory, and so in the database.
    pub async fn refresh(&self) -> Result<Arc<Metagraph>, RefreshError> {
        let refreshed = self.read_and_keep().await;
        self.inner.status.send_modify(|status| match &refreshed {
            Ok(metagraph) => {
                crate::metrics::METAGRAPH_READ.set(metagraph.taken_ms);
                *status = CacheStatus {
                    taken_ms: Some(metagraph.taken_ms),
                    block: Some(metagraph.block),
                    failures: 0,
                    error: None,
                };
            }
            Err(error) => {
                let causes = crate::error_chain::causes(error);
                let text = std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>();
                status.failures = status.failures.saturating_add(1);
                status.error = Some(crate::printable::printable(&text.join(": ")));
            }
        });
        refreshed
    }

    async fn read_and_keep(&self) -> Result<Arc<Metagraph>, RefreshError> {
        let Inner { chain, store, netuid, actor, current, .. } = &*self.inner;
        let metagraph = Arc::new(chain.metagraph(*netuid).await?);
        let before = current.send_replace(Some(metagraph.clone()));
        let network = chain.options().network.name();
        let another = before.filter(|before| before.genesis != metagraph.genesis);
        let event = another.map(|before| NewEvent {
            kind: "chain.replaced",
            host: None,
            detail: json!({
                "network": network,
                "genesis_before": before.genesis,
                "genesis": metagraph.genesis,
            }),
        });
        let json = serde_json::to_string(&*metagraph)
            .map_err(|source| store::Error::Document { operation: "keep the metagraph", source })?;
        let row = MetagraphRow {
            network: network.to_owned(),
            netuid: *netuid,
            genesis: metagraph.genesis.clone(),
            block: i64::try_from(metagraph.block).unwrap_or(i64::MAX),
            taken_ms: metagraph.taken_ms,
            json,
        };
        store.keep_metagraph(&row, actor, event).await?;
        Ok(metagraph)
    }

    /// Refreshes every `interval` until `cancel` fires; after a failure sooner, and then ever later up
    /// to the interval.
    pub async fn run(&self, interval: Duration, cancel: CancellationToken) {
        let retry = RetryPolicy {
            attempts: usize::MAX,
            pause: Duration::from_secs(5).min(interval),
            pause_max: interval,
        };
        let mut pauses = retry.pauses();
        loop {
            // Cancel safety: see `refresh`.
            let refreshed = tokio::select! {
                refreshed = self.refresh() => refreshed,
                () = cancel.cancelled() => return,
            };
            let pause = match refreshed {
                Ok(_) => {
                    pauses = retry.pauses();
                    interval
                }
                Err(error) => {
                    let age_secs = self.age().map(|age| age.as_secs());
                    tracing::warn!(%error, age_secs, "the metagraph is not refreshed");
                    pauses.next().unwrap_or(interval)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
        }
    }
}

//! The client: one connection at a time, made when it is needed, to the first endpoint that serves.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::Mutex;

use super::account::AccountId32;
use super::error::{Error, NodeError};
use super::link::Link;
use super::metagraph::{self, Metagraph};
use super::options::ChainOptions;
use super::pace::Pace;
use super::registration::{self, Registration, Subnet};
use super::runtime::{MissingItem, missing_items};
use super::view::View;
use crate::retry::retry;

/// Where a chain is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// The node that says so.
    pub endpoint: String,
    /// The chain's genesis block, `0x` and 64 digits.
    pub genesis: String,
    /// The number of the newest finalized block.
    pub block: u64,
    /// Its hash, `0x` and 64 digits.
    pub block_hash: String,
    /// The version of the runtime at it.
    pub spec_version: u32,
}

/// Reads a chain and announces axons on it. Clones share one connection.
#[derive(Debug, Clone)]
pub struct ChainClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ChainOptions,
    pace: Arc<Pace>,
    /// The endpoint to try next; counts on, and is taken modulo their number.
    next: AtomicUsize,
    /// Held while connecting: who comes second uses the connection of the first.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<Link>>,
    /// The genesis block of the first connection; all others must have it too.
    genesis: Option<[u8; 32]>,
}

impl ChainClient {
    /// A client that connects when it is used.
    #[must_use]
    pub fn new(options: ChainOptions) -> Self {
        let pace = Arc::new(Pace::new(options.pacing));
        let (next, slot) = (AtomicUsize::new(0), Mutex::default());
        Self { inner: Arc::new(Inner { options, pace, next, slot }) }
    }

    /// The options that it was made with.
    #[must_use]
    pub fn options(&self) -> &ChainOptions {
        &self.inner.options
    }

    /// The newest finalized block.
    ///
    /// # Errors
    /// No endpoint serves the network.
    pub async fn head(&self) -> Result<Head, Error> {
        self.with("read the chain's head", |view| async move { Ok(view.head()) }).await
    }

    /// The head, and how many blocks the node's newest block is ahead of it.
    ///
    /// # Errors
    /// As [`ChainClient::head`].
    pub async fn head_and_lag(&self) -> Result<(Head, u64), Error> {
        self.with("read the chain's head", |view| async move {
            let best = view.best_block().await?;
            let head = view.head();
            let lag = best.saturating_sub(head.block);
            Ok((head, lag))
        })
        .await
    }

    /// What the runtime at the newest finalized block lacks of what may be needed.
    ///
    /// # Errors
    /// As [`ChainClient::head`].
    pub async fn missing_items(&self) -> Result<Vec<MissingItem>, Error> {
        self.with("read the metadata", |view| async move {
            Ok(missing_items(view.at.metadata_ref(), view.at.spec_version()))
        })
        .await
    }

    /// The whole subnet.
    ///
    /// # Errors
    /// No endpoint serves the network, there is no such subnet, or the runtime lacks what is read.
    pub async fn metagraph(&self, netuid: u16) -> Result<Metagraph, Error> {
        self.with("read the metagraph", |view| async move { metagraph::read(&view, netuid).await })
            .await
    }

    /// The subnet's own numbers.
    ///
    /// # Errors
    /// As [`ChainClient::metagraph`].
    pub async fn subnet(&self, netuid: u16) -> Result<Subnet, Error> {
        self.with(
            "read the subnet",
            |view| async move { registration::subnet(&view, netuid).await },
        )
        .await
    }

    /// What the chain has of a hotkey in a subnet.
    ///
    /// # Errors
    /// As [`ChainClient::metagraph`].
    pub async fn registration(
        &self,
        netuid: u16,
        hotkey: &AccountId32,
    ) -> Result<Registration, Error> {
        self.with("read the registration", |view| async move {
            registration::registration(&view, netuid, hotkey).await
        })
        .await
    }

    /// Runs `work` at the newest finalized block; where that fails for a reason that may pass, again
    /// at the next endpoint.
    pub(super) async fn with<T, F: Future<Output = Result<T, Error>>>(
        &self,
        operation: &'static str,
        work: impl Fn(View) -> F,
    ) -> Result<T, Error> {
        let options = &self.inner.options;
        let attempts = retry(&options.retry, Error::is_transient, || self.once(operation, &work));
        let limit = options.operation_timeout;
        let ended = tokio::time::timeout(limit, attempts).await;
        ended.unwrap_or(Err(Error::Deadline { operation, limit }))
    }

    async fn once<T, F: Future<Output = Result<T, Error>>>(
        &self,
        operation: &'static str,
        work: &impl Fn(View) -> F,
    ) -> Result<T, Error> {
        let link = self.link().await?;
        // Metadata is read by code that is not ours and that trusts it here and there: what it does
        // not expect is the node's failure, and must not be ours.
        let guarded = AssertUnwindSafe(async { work(link.view().await?).await }).catch_unwind();
        let ended = guarded.await.unwrap_or_else(|_panic| {
            let endpoint = link.endpoint.to_string();
            let source = NodeError::words("its metadata or its answer contradicts itself");
            Err(Error::Request { operation, endpoint, source })
        });
        if let Err(error) = &ended
            && error.is_transient()
        {
            tracing::debug!(endpoint = %link.endpoint, %error, "a chain endpoint failed");
            self.give_up(&link).await;
        }
        ended
    }

    /// The connection; a new one if there is none.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`], or why the only endpoint cannot be used.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut slot = self.inner.slot.lock().await;
        if let Some(link) = slot.link.as_ref().filter(|link| link.is_up()) {
            return Ok(link.clone());
        }
        let mut failed: Vec<Error> = Vec::new();
        for _ in &self.inner.options.endpoints {
            match self.open_next(slot.genesis).await {
                Ok(link) => {
                    tracing::info!(endpoint = %link.endpoint, "connected to the chain");
                    let link = Arc::new(link);
                    *slot = Slot { genesis: Some(link.genesis), link: Some(link.clone()) };
                    return Ok(link);
                }
                Err(error) => {
                    tracing::warn!(%error, "a chain endpoint cannot be used");
                    failed.push(error);
                    self.inner.next.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Err(worst(failed))
    }

    async fn open_next(&self, genesis: Option<[u8; 32]>) -> Result<Link, Error> {
        let Inner { options, pace, next, .. } = &*self.inner;
        let turn = next.load(Ordering::Relaxed) % options.endpoints.len().max(1);
        let Some(endpoint) = options.endpoints.get(turn) else {
            return Err(Error::NoEndpoint { tried: Vec::new() });
        };
        let link = Link::open(endpoint, options, pace.clone()).await?;
        match genesis {
            Some(known) if known != link.genesis => Err(Error::AnotherChain {
                endpoint: endpoint.to_string(),
                genesis: format!("0x{}", crate::hex::encode(&link.genesis)),
            }),
            _ => Ok(link),
        }
    }

    /// Drops a connection that failed and lets the next endpoint come first.
    pub(super) async fn give_up(&self, failed: &Arc<Link>) {
        let mut slot = self.inner.slot.lock().await;
        if slot.link.as_ref().is_some_and(|link| Arc::ptr_eq(link, failed)) {
            slot.link = None;
            self.inner.next.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl View {
    /// Where this view is.
    pub(super) fn head(&self) -> Head {
        let genesis = self.at.genesis_hash().unwrap_or_default().0;
        Head {
            endpoint: self.endpoint.clone(),
            genesis: format!("0x{}", crate::hex::encode(&genesis)),
            block: self.at.block_number(),
            block_hash: format!("0x{}", crate::hex::encode(&self.at.block_hash().0)),
            spec_version: self.at.spec_version(),
        }
    }
}

/// The error of them all: that of the only one, else one that will not pass, else a list.
fn worst(mut failed: Vec<Error>) -> Error {
    if let Some(index) = failed.iter().position(|error| !error.is_transient()) {
        return failed.swap_remove(index);
    }
    if failed.len() == 1
        && let Some(only) = failed.pop()
    {
        return only;
    }
    let text = |error: &Error| {
        let causes = crate::error_chain::causes(error);
        std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ")
    };
    Error::NoEndpoint { tried: failed.iter().map(text).collect() }
}

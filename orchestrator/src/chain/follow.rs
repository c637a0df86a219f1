//! Following the chain: one subscription to finalized blocks, made again when it ends.

use std::time::Duration;

use subxt::config::Hasher as _;
use subxt::config::substrate::BlakeTwo256;
use subxt::ext::codec::Encode as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::{ChainClient, Head};
use super::error::{Error, NodeError};
use super::link::Link;
use crate::retry::RetryPolicy;

/// From a lost subscription to the next. An outage may last days, so the pauses are long, and
/// there is no last attempt.
const RESUBSCRIBE: RetryPolicy = RetryPolicy {
    attempts: usize::MAX,
    pause: Duration::from_secs(1),
    pause_max: Duration::from_secs(60),
};

impl ChainClient {
    /// Follows the chain until `cancel` fires, and puts every newest finalized block into `heads`.
    /// A runtime upgrade shows as another `spec_version`; its metadata is read before the block is
    /// told. Lost connections are made again, at the next endpoint, for as long as it takes.
    pub async fn follow(&self, heads: &watch::Sender<Option<Head>>, cancel: CancellationToken) {
        let mut pauses = RESUBSCRIBE.pauses();
        loop {
            let before = heads.borrow().as_ref().map(|head| head.block);
            // Cancel safety: a subscription that is dropped is ended by its connection.
            let ended = tokio::select! {
                ended = self.follow_once(heads) => ended,
                () = cancel.cancelled() => return,
            };
            tracing::warn!(error = %ended, "the subscription to the chain ended");
            if heads.borrow().as_ref().map(|head| head.block) != before {
                pauses = RESUBSCRIBE.pauses();
            }
            let pause = pauses.next().unwrap_or(RESUBSCRIBE.pause_max);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn follow_once(&self, heads: &watch::Sender<Option<Head>>) -> Error {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return error,
        };
        let ended = match self.read_heads(&link, heads).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        self.give_up(&link).await;
        ended
    }

    async fn read_heads(
        &self,
        link: &Link,
        heads: &watch::Sender<Option<Head>>,
    ) -> Result<std::convert::Infallible, Error> {
        let operation = "subscribe to finalized blocks";
        let failed =
            |source| Error::Request { operation, endpoint: link.endpoint.to_string(), source };
        let of = |error: subxt::rpcs::Error| failed(NodeError::of(&error));
        let ended = || failed(NodeError::words("the node ended it"));
        let mut versions = link.methods.state_subscribe_runtime_version().await.map_err(of)?;
        let mut blocks = link.methods.chain_subscribe_finalized_heads().await.map_err(of)?;
        let mut head = link.view().await?.head();
        heads.send_replace(Some(head.clone()));
        let mut announced = head.spec_version;
        let silence = self.options().silence_timeout;
        loop {
            let silent =
                || failed(NodeError::words(format!("no block for {} s", silence.as_secs())));
            // Cancel safety: both are streams, which keep what they have not given.
            tokio::select! {
                block = tokio::time::timeout(silence, blocks.next()) => {
                    let block = block.map_err(|_elapsed| silent())?.ok_or_else(ended)?.map_err(of)?;
                    // A new runtime is announced when it is in a block, and is true for us when that
                    // block is finalized: until then every block is looked at.
                    if announced == head.spec_version {
                        head.block = block.number;
                        let hash = BlakeTwo256.hash(&block.encode());
                        head.block_hash = format!("0x{}", crate::hex::encode(&hash.0));
                    } else {
                        head = link.view().await?.head();
                    }
                    heads.send_replace(Some(head.clone()));
                }
                version = versions.next() => {
                    let version = version.ok_or_else(ended)?.map_err(of)?;
                    if version.spec_version != announced {
                        tracing::info!(spec_version = version.spec_version, "another runtime comes");
                        announced = version.spec_version;
                        head = link.view().await?.head();
                        heads.send_replace(Some(head.clone()));
                    }
                }
            }
        }
    }
}

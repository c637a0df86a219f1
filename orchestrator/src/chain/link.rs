//! One connection to one node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subxt::backend::LegacyBackend;
use subxt::config::substrate::{BlakeTwo256, SubstrateHeader};
use subxt::config::{DefaultTransactionExtensions, RpcConfigFor};
use subxt::ext::jsonrpsee::client_transport::ws::WsTransportClientBuilder;
use subxt::ext::jsonrpsee::core::client::Client;
use subxt::ext::jsonrpsee::core::client::async_client::PingConfig;
use subxt::metadata::ArcMetadata;
use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT};
use subxt::rpcs::{LegacyRpcMethods, RpcClient};
use subxt::utils::{AccountId32, H256, MultiAddress, MultiSignature};
use subxt::{Config, OnlineClient};

use super::error::{Error, NodeError};
use super::options::{ChainOptions, Endpoint};
use super::pace::Pace;
use super::view::View;

/// The longest answer. Metadata, as hexadecimal digits, is the longest that is asked for and
/// takes 800 KB now.
const MAX_ANSWER_BYTES: u32 = 8 << 20;

/// Notifications of one subscription that wait to be read. Only the last matters.
const MAX_NOTIFICATIONS: usize = 64;

/// Silence of the line after which a ping is sent, and after which it counts as dead: middleboxes
/// forget a connection in a minute or so without telling either end.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(45);

/// Bittensor's flavour of a Substrate chain. It keeps the metadata of one runtime, the last that was
/// met: a chain has one at a time, and a node could invent new ones for ever.
#[derive(Debug, Clone, Default)]
pub(super) struct SubtensorConfig {
    metadata: Arc<Mutex<Option<(u32, ArcMetadata)>>>,
}

impl Config for SubtensorConfig {
    type AccountId = AccountId32;
    type Address = MultiAddress<AccountId32, ()>;
    type Signature = MultiSignature;
    type Header = SubstrateHeader<H256>;
    type TransactionExtensions = DefaultTransactionExtensions<Self>;
    type AssetId = u32;
    type Hasher = BlakeTwo256;

    fn metadata_for_spec_version(&self, spec_version: u32) -> Option<ArcMetadata> {
        let kept = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(version, _)| *version == spec_version).map(|(_, kept)| kept.clone())
    }

    fn set_metadata_for_spec_version(&self, spec_version: u32, metadata: ArcMetadata) {
        let mut kept = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((spec_version, metadata));
    }
}

/// The JSON-RPC methods of a node.
pub(super) type Methods = LegacyRpcMethods<RpcConfigFor<SubtensorConfig>>;

/// A connection that was found to lead to the right network.
pub(super) struct Link {
    /// The node.
    pub endpoint: Endpoint,
    /// The genesis block of its chain.
    pub genesis: [u8; 32],
    /// Its methods.
    pub methods: Methods,
    chain: OnlineClient<SubtensorConfig>,
    connection: Arc<Client>,
}

impl Link {
    /// Connects, and sees that it is the network that is meant.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::WrongNetwork`].
    pub async fn open(
        endpoint: &Endpoint,
        options: &ChainOptions,
        pace: Arc<Pace>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Connect { endpoint: endpoint.to_string(), source };
        let connection = connect(endpoint, options).await.map_err(failed)?;
        let connection = Arc::new(connection);
        let rpc = RpcClient::new(Paced { connection: connection.clone(), pace });
        // The legacy methods: the new ones mask the pool's errors, and old nodes lack them.
        let backend = LegacyBackend::builder().storage_page_size(512).build(rpc.clone());
        let chain =
            OnlineClient::from_backend_with_config(SubtensorConfig::default(), Arc::new(backend))
                .await
                .map_err(|error| failed(NodeError::of(&error)))?;
        let genesis = chain.genesis_hash().0;
        if !options.network.may_have_genesis(&genesis) {
            return Err(Error::WrongNetwork {
                endpoint: endpoint.to_string(),
                network: options.network,
                genesis: format!("0x{}", crate::hex::encode(&genesis)),
            });
        }
        let methods = LegacyRpcMethods::new(rpc);
        Ok(Self { endpoint: endpoint.clone(), genesis, methods, chain, connection })
    }

    /// Whether the connection still stands, as far as is known.
    pub fn is_up(&self) -> bool {
        self.connection.is_connected()
    }

    /// The chain at its newest finalized block.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn view(&self) -> Result<View, Error> {
        let at = self.chain.at_current_block().await.map_err(|error| Error::Request {
            operation: "read the newest finalized block",
            endpoint: self.endpoint.to_string(),
            source: NodeError::of(&error),
        })?;
        Ok(View::new(at, self.methods.clone(), self.endpoint.to_string()))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.endpoint)
    }
}

/// Makes the WebSocket connection.
async fn connect(endpoint: &Endpoint, options: &ChainOptions) -> Result<Client, NodeError> {
    let (url, limit) = (endpoint.url().clone(), options.connect_timeout);
    let runtime = tokio::runtime::Handle::current();
    // On a thread of its own: the transport resolves the name with a call that blocks. The limit
    // stands inside, too: the transport sets none for TLS, and a thread cannot be cancelled.
    let connecting = tokio::task::spawn_blocking(move || {
        let transport = WsTransportClientBuilder::default()
            .connection_timeout(limit)
            .max_request_size(MAX_ANSWER_BYTES)
            .max_response_size(MAX_ANSWER_BYTES)
            // One is the connection itself. A redirection is not followed: it could lead off TLS.
            .max_redirections(1)
            .build(url);
        runtime.block_on(async { tokio::time::timeout(limit, transport).await })
    });
    let too_long = || NodeError::words(format!("no connection within {} s", limit.as_secs()));
    let (sender, receiver) = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|_elapsed| too_long())?
        .map_err(|panicked| NodeError::of(&panicked))?
        .map_err(|_elapsed| too_long())?
        .map_err(|error| NodeError::of(&error))?;
    let ping = PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(DEAD_AFTER);
    Ok(Client::builder()
        .request_timeout(options.request_timeout)
        .max_buffer_capacity_per_subscription(MAX_NOTIFICATIONS)
        .enable_ws_ping(ping)
        .build_with_tokio(sender, receiver))
}

/// A connection whose requests wait for their turns.
struct Paced {
    connection: Arc<Client>,
    pace: Arc<Pace>,
}

impl RpcClientT for Paced {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move {
            self.pace.turn().await;
            RpcClientT::request_raw(&*self.connection, method, params).await
        })
    }

    fn subscribe_raw<'a>(
        &'a self,
        subscribe: &'a str,
        params: Option<Box<RawValue>>,
        unsubscribe: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(async move {
            self.pace.turn().await;
            RpcClientT::subscribe_raw(&*self.connection, subscribe, params, unsubscribe).await
        })
    }
}

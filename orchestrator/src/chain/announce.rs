//! Announcing an axon: the only call that this program makes.
//!
//! It is looked at before it is made: whether the chain has the address already, would refuse it, or
//! would be asked too soon. It is signed by the hotkey, costs nothing, and moves nothing.

use std::time::Duration;

use sp_core::{Pair as _, sr25519};
use subxt::config::substrate::BlakeTwo256;
use subxt::config::{DefaultExtrinsicParamsBuilder, Hasher as _};
use subxt::error::{TransactionEventsError, TransactionProgressError};
use subxt::ext::scale_value::{Composite, Value};
use subxt::tx::{DynamicPayload, TransactionInBlock, TransactionProgress, TransactionStatus};
use subxt::utils::MultiSignature;

use super::account::{AccountId32, as_ss58};
use super::client::{ChainClient, Head};
use super::error::{Error, NodeError};
use super::link::SubtensorConfig;
use super::metagraph::AxonInfo;
use super::registration::{self, Registration};
use super::rejection::Rejection;
use super::runtime::SUBTENSOR;
use super::serving::{AxonAddress, UnusableAddress};
use super::view::View;

/// The places of the pallet and of its two calls in the runtime. The runtime's source fixes them, and
/// they were the same in every runtime that was looked at, from 300 to 461.
const PALLET_INDEX: u8 = 7;
const SERVE_AXON_INDEX: u8 = 4;
const SERVE_AXON_TLS_INDEX: u8 = 40;

/// What is claimed as the software's version: this program's, three digits for each number.
const VERSION: u32 = 1_000;

/// How long a submitted call may take until it is in a finalized block: it is valid for 64 blocks,
/// and blocks of 12 s are finalized two or three blocks later.
const INCLUSION_TIMEOUT: Duration = Duration::from_secs(300);

/// A signature, with its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// Of a usual hotkey, in the context `substrate`.
    Sr25519([u8; 64]),
    /// Of a hotkey that was made so.
    Ed25519([u8; 64]),
}

/// Who signs: the hotkey. A seam, since keys come from wallets and these from elsewhere.
pub trait Signer: Send + Sync {
    /// The hotkey's address.
    fn hotkey(&self) -> AccountId32;

    /// The signature of the bytes.
    fn sign(&self, payload: &[u8]) -> Signature;
}

impl Signer for sr25519::Pair {
    fn hotkey(&self) -> AccountId32 {
        self.public().into()
    }

    fn sign(&self, payload: &[u8]) -> Signature {
        Signature::Sr25519(sp_core::Pair::sign(self, payload).0)
    }
}

/// What to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncementOptions {
    /// The subnet.
    pub netuid: u16,
    /// The address.
    pub address: AxonAddress,
    /// Announces an address on a public network that strangers cannot reach.
    pub allow_private: bool,
}

/// What is looked at before a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// Validators can reach the address.
    Address,
    /// The hotkey is registered in the subnet.
    Registered,
    /// The chain has another address, or none.
    Changed,
    /// The last announcement is long enough ago.
    RateLimit,
    /// The metadata encodes the call to the bytes that we mean.
    Call,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What.
    pub name: CheckName,
    /// Whether nothing is against the call.
    pub passed: bool,
    /// In words.
    pub message: String,
}

/// What would be sent, and what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Announcement {
    /// Where the chain is.
    pub head: Head,
    /// The hotkey that signs.
    #[serde(with = "as_ss58")]
    pub hotkey: AccountId32,
    /// What the chain has of it.
    pub registration: Registration,
    /// `ip:port`.
    pub address: String,
    /// The call.
    pub call: &'static str,
    /// The call's bytes, `0x` and digits.
    pub call_data: String,
    /// The BLAKE2b-256 hash of the call's bytes, as wallets show it, `0x` and 64 digits.
    pub call_hash: String,
    /// What was looked at, all of it.
    pub checks: Vec<Check>,
    /// The first error among the checks.
    #[serde(skip)]
    refused: Option<Error>,
    /// Whether the chain has the address already.
    pub already_announced: bool,
}

impl Announcement {
    /// Whether the call would be sent.
    ///
    /// # Errors
    /// The first thing that speaks against it. That the address is on the chain already is none.
    pub fn sendable(&self) -> Result<bool, Error> {
        match &self.refused {
            Some(error) => Err(error.clone()),
            None => Ok(!self.already_announced),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Announced {
    /// The chain had the address already; nothing was sent.
    Already,
    /// The call is in a finalized block.
    Finalized {
        /// That block's hash, `0x` and 64 digits.
        block_hash: String,
        /// The call's hash in it, `0x` and 64 digits.
        extrinsic_hash: String,
        /// What the chain has now.
        axon: AxonInfo,
    },
}

impl ChainClient {
    /// Looks at what an announcement would be. Nothing is signed or sent.
    ///
    /// # Errors
    /// The chain cannot be read. What speaks against the call is no error here but a failed check.
    pub async fn plan_announcement(
        &self,
        hotkey: &AccountId32,
        options: &AnnouncementOptions,
    ) -> Result<Announcement, Error> {
        let public = self.options().network.is_public();
        self.with("look at the axon on the chain", |view| async move {
            plan(&view, hotkey, options, public).await
        })
        .await
    }

    /// Announces an axon, unless the chain has the same address already. Returns when the call is in
    /// a finalized block and the chain was seen to have the address.
    ///
    /// The call is made once: where its outcome is not known, run it again, and what is on the chain
    /// already is not sent twice.
    ///
    /// # Errors
    /// What speaks against it, what the chain refused it for, or [`Error::OutcomeUnknown`].
    pub async fn announce(
        &self,
        signer: &dyn Signer,
        options: &AnnouncementOptions,
    ) -> Result<Announced, Error> {
        let plan = self.plan_announcement(&signer.hotkey(), options).await?;
        if !plan.sendable()? {
            return Ok(Announced::Already);
        }
        let operation = "announce the axon";
        let link = self.link().await?;
        let view = link.view().await?;
        let payload = payload(options);
        check_call(&view, options, &payload)?;
        let mortal = DefaultExtrinsicParamsBuilder::new().mortal(self.options().mortality_blocks);
        let key = Hotkey(signer);
        let signed = view.at.tx().create_signed(&payload, &key, mortal.build()).await;
        let signed = signed.map_err(|error| view.failed(operation, &error))?;
        let valid = signed.validate().await.map_err(|error| view.failed(operation, &error))?;
        if let Some(rejection) = Rejection::of_validation(&valid) {
            return Err(rejection.into());
        }
        let extrinsic_hash = format!("0x{}", crate::hex::encode(&signed.hash().0));
        let progress = signed.submit_and_watch().await.map_err(|error| {
            match Rejection::of_submission(&error) {
                Some(rejection) => rejection.into(),
                // The request may have arrived and its answer not.
                None => unknown(&view, options, NodeError::of(&error)),
            }
        })?;
        let within = tokio::time::timeout(INCLUSION_TIMEOUT, finalized(progress)).await;
        let too_long = NodeError::words(format!(
            "it was in no finalized block after {} s",
            INCLUSION_TIMEOUT.as_secs()
        ));
        let block =
            within.unwrap_or(Err(too_long)).map_err(|source| unknown(&view, options, source))?;
        self.succeeded(&view, &block, &signer.hotkey(), options, extrinsic_hash).await
    }

    /// Looks at what became of a call that is in a block.
    async fn succeeded(
        &self,
        view: &View,
        block: &InBlock,
        hotkey: &AccountId32,
        options: &AnnouncementOptions,
        extrinsic_hash: String,
    ) -> Result<Announced, Error> {
        match block.wait_for_success().await {
            Ok(_events) => {}
            Err(TransactionEventsError::ExtrinsicFailed(error)) => {
                return Err(Rejection::of_dispatch(&error).into());
            }
            Err(error) => return Err(unknown(view, options, NodeError::of(&error))),
        }
        let now = self.registration(options.netuid, hotkey).await?;
        match now.axon {
            Some(axon) if is_announced(Some(&axon), &options.address) => Ok(Announced::Finalized {
                block_hash: format!("0x{}", crate::hex::encode(&block.block_hash().0)),
                extrinsic_hash,
                axon,
            }),
            _ => {
                let source = NodeError::words("the chain does not have the address afterwards");
                Err(unknown(view, options, source))
            }
        }
    }
}

type InBlock =
    TransactionInBlock<SubtensorConfig, subxt::client::OnlineClientAtBlockImpl<SubtensorConfig>>;

type Progress =
    TransactionProgress<SubtensorConfig, subxt::client::OnlineClientAtBlockImpl<SubtensorConfig>>;

/// Waits until a submitted call is in a finalized block.
async fn finalized(mut progress: Progress) -> Result<InBlock, NodeError> {
    loop {
        let status = progress.next().await.ok_or_else(|| {
            NodeError::of(&TransactionProgressError::UnexpectedEndOfTransactionStatusStream)
        })?;
        match status.map_err(|error| NodeError::of(&error))? {
            TransactionStatus::InFinalizedBlock(block) => return Ok(block),
            TransactionStatus::Error { message }
            | TransactionStatus::Invalid { message }
            | TransactionStatus::Dropped { message } => return Err(NodeError::words(message)),
            TransactionStatus::Validated
            | TransactionStatus::Broadcasted
            | TransactionStatus::NoLongerInBestBlock
            | TransactionStatus::InBestBlock(_) => {}
        }
    }
}

fn unknown(view: &View, options: &AnnouncementOptions, source: NodeError) -> Error {
    Error::OutcomeUnknown {
        call: call_name(&options.address),
        endpoint: view.endpoint.clone(),
        source,
    }
}

/// Our signer as subxt wants it.
struct Hotkey<'a>(&'a dyn Signer);

impl subxt::tx::Signer<SubtensorConfig> for Hotkey<'_> {
    fn account_id(&self) -> subxt::utils::AccountId32 {
        subxt::utils::AccountId32(self.0.hotkey().into())
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        match self.0.sign(payload) {
            Signature::Sr25519(signature) => MultiSignature::Sr25519(signature),
            Signature::Ed25519(signature) => MultiSignature::Ed25519(signature),
        }
    }
}

async fn plan(
    view: &View,
    hotkey: &AccountId32,
    options: &AnnouncementOptions,
    public: bool,
) -> Result<Announcement, Error> {
    let AnnouncementOptions { netuid, address, .. } = options;
    let registration = registration::registration(view, *netuid, hotkey).await?;
    let payload = payload(options);
    let encoded = check_call(view, options, &payload);
    let mut checks = Vec::new();
    let mut refused = None;
    let mut check = |name, outcome: Result<String, Error>| {
        let (passed, message) = match outcome {
            Ok(message) => (true, message),
            Err(error) => {
                let message = error_text(&error);
                refused.get_or_insert(error);
                (false, message)
            }
        };
        checks.push(Check { name, passed, message });
    };
    check(CheckName::Address, reachable(options, public).map_err(Error::from));
    check(
        CheckName::Registered,
        match registration.uid {
            Some(uid) => Ok(format!("the hotkey has the slot {uid} of subnet {netuid}")),
            None => Err(Error::NotRegistered { hotkey: hotkey.clone(), netuid: *netuid }),
        },
    );
    let same_certificate = match address.certificate() {
        Some(certificate) => registration.certificate.as_deref() == Some(certificate),
        None => true,
    };
    let already = is_announced(registration.axon.as_ref(), address) && same_certificate;
    check(
        CheckName::Changed,
        Ok(match &registration.axon {
            _ if already => "the chain has this address already: nothing to send".to_owned(),
            Some(axon) => {
                format!("the chain has {}", std::net::SocketAddr::new(axon.ip, axon.port))
            }
            None => "the chain has no address".to_owned(),
        }),
    );
    check(
        CheckName::RateLimit,
        match registration.blocks_until_served() {
            0 => Ok("the chain takes another address now".to_owned()),
            _ if already => Ok("not asked for: nothing is sent".to_owned()),
            blocks => Err(Error::RateLimited { blocks }),
        },
    );
    let call_data = encoded.as_ref().ok().cloned().unwrap_or_default();
    check(CheckName::Call, encoded.map(|bytes| format!("{} bytes, as known", bytes.len())));
    Ok(Announcement {
        head: view.head(),
        hotkey: hotkey.clone(),
        registration,
        address: address.to_string(),
        call: call_name(address),
        call_hash: format!("0x{}", crate::hex::encode(&BlakeTwo256.hash(&call_data).0)),
        call_data: format!("0x{}", crate::hex::encode(&call_data)),
        checks,
        refused,
        already_announced: already,
    })
}

fn error_text(error: &Error) -> String {
    let causes = crate::error_chain::causes(error);
    std::iter::once(error.to_string()).chain(causes).collect::<Vec<_>>().join(": ")
}

fn reachable(options: &AnnouncementOptions, public: bool) -> Result<String, UnusableAddress> {
    match options.address.check_public() {
        Ok(()) => Ok("it is a public address".to_owned()),
        Err(error) if public && !options.allow_private => Err(error),
        Err(UnusableAddress::Private { kind, .. }) => Ok(format!("it is {kind}, as asked for")),
        Err(error) => Err(error),
    }
}

/// Whether the chain has this address. The claimed version is left out: an upgrade of our software
/// is no reason for a call.
fn is_announced(axon: Option<&AxonInfo>, address: &AxonAddress) -> bool {
    axon.is_some_and(|axon| {
        axon.ip == address.ip()
            && axon.port == address.port()
            && axon.protocol == address.protocol()
    })
}

fn call_name(address: &AxonAddress) -> &'static str {
    match address.certificate() {
        Some(_) => "serve_axon_tls",
        None => "serve_axon",
    }
}

/// The call, its arguments by name.
fn payload(options: &AnnouncementOptions) -> DynamicPayload<Composite<()>> {
    let AnnouncementOptions { netuid, address, .. } = options;
    let number = |number: u128| Value::u128(number);
    let mut arguments = vec![
        ("netuid", number((*netuid).into())),
        ("version", number(VERSION.into())),
        ("ip", number(address.ip_number())),
        ("port", number(address.port().into())),
        ("ip_type", number(address.ip_type().into())),
        ("protocol", number(address.protocol().into())),
        ("placeholder1", number(0)),
        ("placeholder2", number(0)),
    ];
    if let Some(certificate) = address.certificate() {
        arguments.push(("certificate", Value::from_bytes(certificate)));
    }
    subxt::dynamic::tx(SUBTENSOR, call_name(address), Composite::named(arguments))
}

/// The call's bytes as the metadata encodes it, if they are those that we know it to have.
///
/// The metadata is the node's word. A node could give the name `serve_axon` to the place of another
/// call, and have the hotkey sign that: so what is signed is compared with bytes of our own.
fn check_call(
    view: &View,
    options: &AnnouncementOptions,
    payload: &DynamicPayload<Composite<()>>,
) -> Result<Vec<u8>, Error> {
    let call = call_name(&options.address);
    let pallet = view.at.metadata_ref().pallet_by_name(SUBTENSOR);
    if pallet.and_then(|pallet| pallet.call_variant_by_name(call)).is_none() {
        return Err(Error::Missing(super::runtime::MissingItem {
            pallet: SUBTENSOR.to_owned(),
            kind: "call",
            item: call.to_owned(),
            spec_version: view.at.spec_version(),
        }));
    }
    let changed = || Error::CallChanged { call, endpoint: view.endpoint.clone() };
    let encoded = view.at.tx().call_data(payload).map_err(|error| {
        tracing::warn!(error = %NodeError::of(&error), call, "the call cannot be encoded");
        changed()
    })?;
    if encoded == known_bytes(options) { Ok(encoded) } else { Err(changed()) }
}

/// The call's bytes as every runtime that was looked at takes them.
fn known_bytes(options: &AnnouncementOptions) -> Vec<u8> {
    let AnnouncementOptions { netuid, address, .. } = options;
    let index = match address.certificate() {
        Some(_) => SERVE_AXON_TLS_INDEX,
        None => SERVE_AXON_INDEX,
    };
    let mut bytes = vec![PALLET_INDEX, index];
    bytes.extend(netuid.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(address.ip_number().to_le_bytes());
    bytes.extend(address.port().to_le_bytes());
    bytes.extend([address.ip_type(), address.protocol(), 0, 0]);
    if let Some(certificate) = address.certificate() {
        subxt::ext::codec::Encode::encode_to(certificate, &mut bytes);
    }
    bytes
}

//! The axon: the public listener that validators call.
//!
//! [`serve`] owns one task that accepts, one task for each connection, one that writes nonces
//! ([`replay`]), one for each answer that is a stream, and, with TLS, one that looks for new
//! certificates. All end by the token, connections after a bounded drain. A request goes through `front` in a fixed order, the cheap checks first:
//! address limit, route, headers, body, signature, [`Admission`], hotkey limit, session limit, nonce,
//! handler. State is spent only on senders that are admitted. What must *not* be here: what a handler
//! does, the chain, the configuration; the caller hands those in with an [`AxonContext`].

mod answer;
pub mod auth;
mod front;
mod limits;
mod listener;
mod openapi;
mod ping;
pub mod replay;
mod routes;
pub mod schema;
mod sessions;
mod stream;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::hotkey::Hotkey;
use crate::store::Store;
use crate::wallet::HotkeyPair;

pub use answer::Refusal;
pub use limits::{Rate, Rates};
pub use listener::{ServeError, serve};
pub use openapi::PATH as OPENAPI_PATH;
pub use routes::{Answer, Call, Handler, Route, RouteDoc, Routes, handler, streaming};
pub use sessions::Sessions;
pub use stream::{Gone, Lines};
pub use tls::{TlsError, TlsFiles};

/// Whether a sender, whose signature was checked, may call at all.
pub trait Admission: Send + Sync + 'static {
    /// Decides from what is in memory: it is asked for every request.
    ///
    /// # Errors
    /// [`Denied`].
    fn admit(&self, hotkey: &Hotkey) -> Result<(), Denied>;
}

/// Why a sender may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// The operator's list does not have it.
    #[error("this hotkey is not on the list of allowed validators")]
    NotAllowed,
    /// It is not registered on the subnet.
    #[error("this hotkey is not registered on the subnet")]
    NotRegistered,
    /// It has no validator permit.
    #[error("this hotkey has no validator permit")]
    NoPermit,
    /// Its stake is below the threshold.
    #[error("the stake of this hotkey is below the threshold")]
    LowStake,
    /// The metagraph is not known yet, or too old to judge by.
    #[error("the metagraph is not known at the moment")]
    Unknown,
}

impl Denied {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::NotRegistered => "not_registered",
            Self::NoPermit => "no_permit",
            Self::LowStake => "low_stake",
            Self::Unknown => "metagraph_unknown",
        }
    }
}

/// Everything that an axon needs.
#[derive(Clone)]
pub struct AxonContext {
    /// Signs the answers; its address is what requests must be for.
    pub pair: Arc<HotkeyPair>,
    /// Where nonces are kept.
    pub store: Store,
    /// Who may call.
    pub admission: Arc<dyn Admission>,
    /// What can be called; `Ping` is always there.
    pub routes: Routes,
    /// How much of it.
    pub limits: AxonLimits,
    /// How often: shared by listeners, and changed while they run.
    pub rates: Rates,
    /// Sessions, where tokens may stand in for signatures.
    pub sessions: Option<Sessions>,
    /// TLS, and whose client certificates count. Plain HTTP without, as `Dendrite` speaks.
    pub tls: Option<TlsFiles>,
}

/// Bounds of what callers can make the axon spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxonLimits {
    /// Bytes of a request's head: line and headers. A synapse has about 1.5 KiB.
    pub head_bytes: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address (of IPv6: from one /64).
    pub connections_per_address: usize,
    /// Requests of admitted hotkeys that are worked on, at a time.
    pub sessions: usize,
    /// Bodies over 16 KiB, or of no stated length, that are being read, at a time.
    pub large_bodies: usize,
    /// From the first byte of a head (or the end of the request before) to its last. Also the time
    /// that an idle connection is kept; the SDK's server gives 5 s.
    pub head_timeout: Duration,
    /// For the body to arrive.
    pub body_timeout: Duration,
    /// For the handler to answer. A legacy caller may wait for less.
    pub request_timeout: Duration,
    /// For an answer that is a stream, from its first byte to its last.
    pub stream_timeout: Duration,
    /// For the caller to take what is left of a stream when its time is over; it is cut off then.
    pub stream_rest: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For running requests to end when the axon stops.
    pub drain_timeout: Duration,
}

impl Default for AxonLimits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            body_bytes: 1024 * 1024,
            connections: 12_000,
            connections_per_address: 256,
            sessions: 512,
            large_bodies: 64,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(300),
            stream_rest: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The part of an address that one party holds: all of IPv4, of IPv6 the first 64 bits.
fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

//! SSH to hosts: who is trusted, how one gets in, and what may run over the connection.
//!
//! # Shape
//! - [`connect`] goes from an [`Endpoint`] (through jumps, each pinned and authenticated on its
//!   own) to a [`Connection`], which is a
//!   [`Transport`](crate::transport::Transport). [`HostConnections`] keeps at most two of
//!   them per host.
//! - [`trust`](TrustPolicy) decides about host keys inside the key exchange, before the first
//!   byte of authentication; [`known_hosts`] is our own reader of OpenSSH's files.
//! - Each connection has one protocol task (the library's) and one task per open channel (ours).
//!   The channel tasks always read, so that the protocol task never waits for a slow reader.
//!
//! # Who ends what
//! Dropping a [`Connection`] cuts its stream; the protocol task and all channel tasks end by
//! that, and so does the connection to the jump below. [`Transport::close`](crate::transport::Transport::close) does the same after
//! a goodbye and waits for it. Dropping a process or an exec closes its channel.
//!
//! # What must not be here
//! No password, no agent forwarding, no channel that a server opens, no host key that is
//! believed without a source, no knowledge of what is run, no environment variable, no `$HOME`.

mod auth;
mod certificate;
mod channel;
mod circuit;
mod connect;
mod connection;
mod frame;
mod gate;
mod handler;
pub mod known_hosts;
mod limits;
mod link;
mod pool;
mod slots;
mod stream;
mod trust;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use self::auth::{Identities, NoPassphrase, PassphraseFile, PassphraseProvider, Secret};
pub use self::circuit::{Circuit, Clock, SystemClock};
pub use self::connection::{Connection, SocketStream};
pub use self::gate::Gate;
pub use self::limits::Limits;
pub use self::pool::{HostConnections, Lane};
pub use self::trust::{HostKeyDecision, HostKeySource, InvalidStoredKey, StoredPins, TrustPolicy};

use self::connect::Step;
use self::link::Link;
use crate::host_spec::Endpoint;
use crate::transport::{Error, Hop, HostKeyProblem, PresentedKey};

/// What connecting needs to know besides the endpoint. One for a whole operation: its gate and
/// its identities are shared by all hosts.
pub struct SshContext {
    /// Deadlines, caps and counts.
    pub limits: Arc<Limits>,
    /// Who is trusted.
    pub trust: TrustPolicy,
    /// Private keys, read and decrypted once.
    pub identities: Identities,
    /// The agent for endpoints that take it from the environment: the value of
    /// `SSH_AUTH_SOCK`, which the caller reads.
    pub agent_socket: Option<PathBuf>,
    /// Unauthenticated connects per server.
    pub gate: Gate,
}

impl SshContext {
    /// A context without passphrases and agent.
    #[must_use]
    pub fn new(limits: Limits, trust: TrustPolicy) -> Self {
        let gate = Gate::new(limits.gate);
        let limits = Arc::new(limits);
        Self { limits, trust, identities: Identities::default(), agent_socket: None, gate }
    }

    /// Reads the keys of these servers now, so that a person is asked for passphrases before an
    /// operation begins and not in its middle. Keys that cannot be used are reported by the
    /// connects that need them.
    ///
    /// # Cancel safety
    /// Safe: keys that were read stay read.
    pub async fn unlock(&self, endpoints: impl IntoIterator<Item = &Endpoint>) {
        let mut seen = HashSet::new();
        for endpoint in endpoints {
            let keys = (&endpoint.identity_files, &endpoint.certificate_files, &endpoint.agent);
            if seen.insert(keys) {
                let socket = self.agent_socket.as_deref();
                let patience = self.limits.auth;
                let prepared = auth::prepare(endpoint, &self.identities, socket, patience).await;
                drop(prepared);
            }
        }
    }
}

/// Connects to `endpoint`, through `jumps` if there are any, first hop first.
///
/// Each server's host key is judged before anything of authentication is sent to it. Failures
/// that pass by themselves are tried again as [`Limits`] say.
///
/// # Errors
/// [`Error::reason`] says at which stage, [`Error::server`] and [`Error::hop`] at which server.
///
/// # Cancel safety
/// Dropping the future ends everything that it started.
pub async fn connect(
    endpoint: &Endpoint,
    jumps: &[Endpoint],
    context: &SshContext,
) -> Result<Connection, Error> {
    let started = Instant::now();
    let (through, mut decisions) = approach(jumps, context, started).await?;
    let step = Step::new(context, endpoint, Hop::Host, started, false)?;
    let (link, decision) = step.take(through).await?;
    decisions.push(decision);
    Ok(Connection::new(link, decisions))
}

/// Looks at the host key of `endpoint` without trusting it or logging in there. Jumps are
/// trusted and logged in to as in [`connect`].
///
/// # Errors
/// As [`connect`], and when the key is revoked.
pub async fn look_at_host_key(
    endpoint: &Endpoint,
    jumps: &[Endpoint],
    context: &SshContext,
) -> Result<PresentedKey, Error> {
    let started = Instant::now();
    let (through, _) = approach(jumps, context, started).await?;
    let step = Step::new(context, endpoint, Hop::Host, started, true)?;
    let looked = step.look(through).await;
    match looked {
        Ok(never) => match never {},
        Err(error) => match error.host_key() {
            Some(HostKeyProblem::Unknown(presented)) => Ok(presented.clone()),
            _ => Err(error),
        },
    }
}

/// Connects to the jumps, each through the one before.
async fn approach(
    jumps: &[Endpoint],
    context: &SshContext,
    started: Instant,
) -> Result<(Option<Box<Link>>, Vec<HostKeyDecision>), Error> {
    let mut through = None;
    let mut decisions = Vec::new();
    for (index, jump) in jumps.iter().enumerate() {
        let hop = Hop::Jump { number: index + 1, of: jumps.len() };
        let step = Step::new(context, jump, hop, started, false)?;
        let (link, decision) = step.take(through).await?;
        decisions.push(decision);
        through = Some(Box::new(link));
    }
    Ok((through, decisions))
}

//! From an address to an authenticated connection, one server at a time.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{Config, Handle};
use russh::{AlgorithmKind, Preferred, SshId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SshContext;
use super::auth;
use super::gate::Pass;
use super::handler::{ClientHandler, Decided, HandlerError};
use super::limits::Limits;
use super::link::{Ending, Link, within};
use super::slots::Slots;
use super::stream::{CutStream, Greeting};
use super::trust::{HostKeyCheck, HostKeyDecision, Offer};
use crate::host_spec::Endpoint;
use crate::retry::RetryPolicy;
use crate::transport::{Error, Excerpt, Failure, Hop, HostKeyProblem, Place};

/// Our name on the wire (RFC 4253, 4.2).
const CLIENT_ID: &str = concat!("SSH-2.0-orchestrator_", env!("CARGO_PKG_VERSION"));

/// sshd counts a login as unauthenticated until its listener has heard otherwise, which takes a
/// moment. Where its room is known to be scarce, the next connect waits for that.
const SETTLE: Duration = Duration::from_millis(100);

/// A byte stream below a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One step on the way to a host.
pub(super) struct Step<'a> {
    pub(super) context: &'a SshContext,
    pub(super) endpoint: &'a Endpoint,
    pub(super) place: Place,
    pub(super) started: Instant,
    pub(super) check: HostKeyCheck,
}

/// The outcome of a key exchange.
struct Greeted {
    handle: Handle<ClientHandler>,
    cut: CancellationToken,
    ended: CancellationToken,
    ending: Ending,
    decision: HostKeyDecision,
}

impl<'a> Step<'a> {
    pub(super) fn new(
        context: &'a SshContext,
        endpoint: &'a Endpoint,
        hop: Hop,
        started: Instant,
        look_only: bool,
    ) -> Result<Self, Error> {
        let place = Place { server: server(endpoint), hop };
        let check = HostKeyCheck::new(endpoint, &context.trust).map_err(|problem| {
            Error::new(place.clone(), started.elapsed(), Failure::HostKey(problem))
        })?;
        let check = if look_only { check.look_only() } else { check };
        Ok(Self { context, endpoint, place, started, check })
    }

    fn limits(&self) -> &Limits {
        &self.context.limits
    }

    /// Connects and logs in, trying again after failures that pass. `through` is the connection
    /// to the jump before, which then belongs to the result.
    pub(super) async fn take(
        &self,
        through: Option<Box<Link>>,
    ) -> Result<(Link, HostKeyDecision), Error> {
        self.take_steps(through.as_deref())
            .await
            .map(|(mut link, decision)| {
                link.through = through;
                (link, decision)
            })
            .map_err(|failure| Error::new(self.place.clone(), self.started.elapsed(), failure))
    }

    /// Exchanges keys for the look of the host key, which the check then refuses.
    pub(super) async fn look(
        &self,
        through: Option<Box<Link>>,
    ) -> Result<std::convert::Infallible, Error> {
        let error = |failure| Error::new(self.place.clone(), self.started.elapsed(), failure);
        let Endpoint { address, port, .. } = self.endpoint;
        let pass = self.context.gate.enter(address, *port).await;
        let greeted = self.greet(through.as_deref(), &pass).await.map_err(error)?;
        greeted.cut.cancel();
        Err(error(Failure::Closed))
    }

    async fn take_steps(&self, through: Option<&Link>) -> Result<(Link, HostKeyDecision), Failure> {
        let limits = self.limits();
        let policy = |attempts| RetryPolicy {
            attempts,
            pause: limits.retry_pause,
            pause_max: limits.retry_pause_max,
        };
        let mut failed = policy(limits.connect_attempts).pauses();
        let mut dropped = policy(limits.dropped_attempts).pauses();
        loop {
            let failure = match self.attempt(through, &mut dropped).await {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => continue,
                Err(failure) => failure,
            };
            let pause = if failure.is_transient() { failed.next() } else { None };
            let Some(pause) = pause else { return Err(failure) };
            tracing::debug!(server = %self.place.server, %failure, ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes one attempt. `None` says that the server had no room and that a pause for it is
    /// over.
    async fn attempt(
        &self,
        through: Option<&Link>,
        dropped: &mut impl Iterator<Item = Duration>,
    ) -> Result<Option<(Link, HostKeyDecision)>, Failure> {
        let Endpoint { address, port, user, .. } = self.endpoint;
        let limits = self.limits();
        let context = self.context;
        let environment = context.agent_socket.as_deref();
        let keyring =
            auth::prepare(self.endpoint, &context.identities, environment, limits.auth).await?;
        let pass = context.gate.enter(address, *port).await;
        let greeted = match self.greet(through, &pass).await {
            Ok(greeted) => greeted,
            Err(failure @ Failure::BannerClosed(_)) => {
                let Some(pause) = dropped.next() else { return Err(failure) };
                tracing::debug!(server = %self.place.server, %failure, ?pause, "no room");
                // The place is kept meanwhile, so that no one else runs into the same.
                tokio::time::sleep(pause).await;
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let Greeted { mut handle, cut, ended, ending, decision } = greeted;
        // Until the link exists, leaving in any way must end the protocol task.
        let guard = cut.clone().drop_guard();
        let login = auth::authenticate(&mut handle, user, keyring, limits.offered_keys);
        within(limits.auth, Failure::AuthTimeout(limits.auth), login).await?;
        pass.succeeded();
        if pass.is_narrow() {
            tokio::time::sleep(SETTLE).await;
        }
        let link = Link {
            handle,
            cut: guard.disarm(),
            ended,
            ending,
            pumps: TaskTracker::new(),
            slots: Slots::new(limits.sessions),
            limits: Arc::clone(&context.limits),
            place: self.place.clone(),
            through: None,
        };
        Ok(Some((link, decision)))
    }

    /// Connects and exchanges keys. With a pin that is a fingerprint alone, a server that shows
    /// another key is asked for its keys of the other types before it counts as changed.
    async fn greet(&self, through: Option<&Link>, pass: &Pass) -> Result<Greeted, Failure> {
        let mut offer = self.check.offer().map_err(Failure::HostKey)?;
        let mut first_mismatch = None;
        loop {
            let stream = self.stream(through).await?;
            let failure = match self.handshake(stream, &offer).await {
                Ok(greeted) => return Ok(greeted),
                Err(failure) => failure,
            };
            if matches!(failure, Failure::BannerClosed(_)) {
                pass.was_dropped();
            }
            match &failure {
                Failure::HostKey(HostKeyProblem::Changed { presented, .. })
                    if self.check.has_untyped_pin() =>
                {
                    offer.keys.retain(|key| key.as_str() != presented.algorithm);
                    let nothing_left = offer.keys.is_empty();
                    let first = first_mismatch.get_or_insert(failure);
                    if nothing_left {
                        return Err(std::mem::replace(first, Failure::Closed));
                    }
                }
                // It has no more types.
                Failure::HostKey(HostKeyProblem::NoPinnedType { .. }) => {
                    return Err(first_mismatch.unwrap_or(failure));
                }
                _ => return Err(failure),
            }
        }
    }

    async fn stream(&self, through: Option<&Link>) -> Result<Box<dyn Stream>, Failure> {
        let Endpoint { address, port, .. } = self.endpoint;
        let limits = self.limits();
        let Some(link) = through else {
            return Ok(Box::new(tcp(address, *port, limits).await?));
        };
        let target = server(self.endpoint);
        let opening = async {
            // The originator is only for the jump's log (RFC 4254, 7.2).
            let opened = link
                .handle
                .channel_open_direct_tcpip(address.as_str(), u32::from(*port), "127.0.0.1", 0)
                .await;
            opened.map_err(|error| match error {
                russh::Error::ChannelOpenFailure(why) => Failure::JumpRefused {
                    target: target.clone(),
                    prohibited: !matches!(why, russh::ChannelOpenFailure::ConnectFailed),
                    answer: why.description().to_lowercase(),
                },
                _ => link.ending.failure(),
            })
        };
        let late = Failure::Tcp { tried: 1, source: io::ErrorKind::TimedOut.into() };
        // The jump's own connect attempt may take its time; ours to the jump is not at stake.
        let channel = within(limits.tcp + limits.handshake, late, opening).await?;
        Ok(Box::new(channel.into_stream()))
    }

    async fn handshake(&self, stream: Box<dyn Stream>, offer: &Offer) -> Result<Greeted, Failure> {
        let limits = self.limits();
        let cut = CancellationToken::new();
        let guard = cut.clone().drop_guard();
        let ended = CancellationToken::new();
        let (greeting, decided, ending) =
            (Greeting::default(), Decided::default(), Ending::default());
        let handler = ClientHandler::new(
            self.check.clone(),
            Arc::clone(&decided),
            ending.clone(),
            ended.clone().drop_guard(),
        );
        let stream = CutStream::new(stream, &cut, greeting.clone());
        let exchange = async {
            russh::client::connect_stream(config(limits, offer), stream, handler)
                .await
                .map_err(|error| self.explain(error, &greeting))
        };
        let limit = limits.handshake;
        // When time is up, the guard ends the task that the library may have started.
        let handle = tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(if greeting.is_complete() {
                Failure::KexTimeout(limit)
            } else {
                Failure::BannerTimeout(limit)
            })
        })?;
        let decision = decided.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The key exchange ends only after the check; a library that skipped it is not trusted.
        let decision = decision.ok_or_else(|| {
            let why = "the server proved no host key".to_owned();
            Failure::HostKey(HostKeyProblem::Certificate { why })
        })?;
        Ok(Greeted { handle, cut: guard.disarm(), ended, ending, decision })
    }

    /// Turns a failed key exchange into what it means.
    fn explain(&self, error: HandlerError, greeting: &Greeting) -> Failure {
        let error = match error {
            HandlerError::HostKey(problem) => return Failure::HostKey(problem),
            HandlerError::Protocol(error) => error,
        };
        if let russh::Error::NoCommonAlgo { kind, theirs, .. } = &error {
            let theirs: Vec<_> =
                theirs.iter().map(|name| Excerpt::of(name.as_bytes()).to_string()).collect();
            let kind = match kind {
                AlgorithmKind::Key => {
                    let expected = self.check.expected();
                    return Failure::HostKey(if expected.is_empty() {
                        HostKeyProblem::Unsupported { theirs }
                    } else {
                        HostKeyProblem::NoPinnedType { expected, theirs }
                    });
                }
                AlgorithmKind::Kex => "key exchange",
                AlgorithmKind::Cipher => "cipher",
                AlgorithmKind::Compression => "compression",
                AlgorithmKind::Mac => "MAC",
            };
            return Failure::NoCommonAlgorithm { kind, theirs };
        }
        if greeting.is_complete() {
            return Failure::Kex(error.into());
        }
        let said = greeting.bytes();
        let excerpt = Excerpt::of(&said);
        // What sshd itself says when it has no room (sshd.c, "Exceeded MaxStartups").
        let from_sshd = [&b"Exceeded MaxStartups"[..], b"Not allowed at this time"];
        if said.is_empty() || from_sshd.iter().any(|words| said.starts_with(words)) {
            Failure::BannerClosed(excerpt)
        } else {
            Failure::NotSsh(excerpt)
        }
    }
}

/// `address:port`, with brackets around an IPv6 address.
pub(super) fn server(endpoint: &Endpoint) -> String {
    let Endpoint { address, port, .. } = endpoint;
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Connects to the first address that answers.
async fn tcp(address: &str, port: u16, limits: &Limits) -> Result<TcpStream, Failure> {
    let lookup = async {
        let found = tokio::net::lookup_host((address, port)).await.map_err(Failure::Resolve)?;
        Ok(found.collect::<Vec<SocketAddr>>())
    };
    let late = Failure::ResolveTimeout(limits.resolve);
    let addresses = within(limits.resolve, late, lookup).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let tried = addresses.len();
    for socket in addresses {
        match tokio::time::timeout(limits.tcp, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => {
                // Requests are small and wait for answers; delaying them saves nothing.
                stream.set_nodelay(true).map_err(|source| Failure::Tcp { tried, source })?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(Failure::Tcp { tried, source: last })
}

fn config(limits: &Limits, offer: &Offer) -> Arc<Config> {
    Arc::new(Config {
        client_id: SshId::Standard(Cow::Borrowed(CLIENT_ID)),
        preferred: Preferred {
            key: Cow::Owned(offer.keys.clone()),
            host_key_certificates: Cow::Owned(offer.certificates.clone()),
            // Uploads are compressed already, and a decompressor less is a decompressor less.
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            ..Preferred::DEFAULT
        },
        inactivity_timeout: Some(limits.inactivity),
        keepalive_interval: Some(limits.keepalive_interval),
        keepalive_max: limits.keepalive_max,
        nodelay: true,
        ..Config::default()
    })
}

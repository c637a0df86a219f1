//! Streams to a host's engine over its SSH connections: straight to the socket where sshd allows
//! that, else through the runner.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::docker::{Dial, DialError, Lane, Stream};
use crate::error_chain::causes;
use crate::fleet::deploy::not_placed;
use crate::fleet::link::{Fleet, Link, LinkError};
use crate::host_spec::{HostMode, HostSpec};
use crate::reason::Reason;
use crate::runner::{self, Artifact, Relay, Session, Started};

/// The longest that a runner passes a stream on or holds a container: a month. Its lease ends it
/// much sooner when nobody is there.
const LIFETIME: Duration = Duration::from_secs(31 * 86_400);

/// How control streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// sshd connects to the socket.
    Forwarded,
    /// sshd does not; the runner connects.
    Relayed,
}

/// A host's connections, for streams and sessions.
pub(super) struct Connections {
    pub(super) fleet: Arc<Fleet>,
    pub(super) spec: HostSpec,
    pub(super) artifact: Option<Arc<Artifact>>,
    pub(super) control: Link,
    /// A connection of its own, so that a container's output delays no answer.
    pub(super) bulk: OnceCell<Link>,
}

impl Connections {
    /// The connection for output, opened when it is first needed.
    pub(super) async fn bulk(&self) -> Result<&Link, LinkError> {
        self.bulk.get_or_try_init(|| self.fleet.connect(&self.spec, false)).await
    }

    /// Starts a runner for a stream or a hold, uploading it where it is missing.
    pub(super) async fn session(&self, link: &Link) -> Result<Box<Session>, SessionError> {
        let artifact = self.artifact.as_ref().ok_or(SessionError::NoArtifact)?;
        let mut quietly = |_, _| ();
        let by_hand = self.spec.mode == HostMode::Manual;
        let upload: Option<&mut runner::session::UploadProgress<'_>> =
            if by_hand { None } else { Some(&mut quietly) };
        let work_dir = self.spec.work_dir.as_deref();
        let started =
            Session::start_for(link.transport(), work_dir, artifact, LIFETIME, upload).await;
        match started.map_err(SessionError::Runner)? {
            Started::Running { session, .. } => Ok(session),
            Started::NotThere(host) => Err(SessionError::Runner(not_placed(artifact, &host))),
        }
    }

    pub(super) async fn close(&self) {
        if let Some(bulk) = self.bulk.get() {
            bulk.close().await;
        }
        self.control.close().await;
    }
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum SessionError {
    /// There is no runner here to upload.
    NoArtifact,
    /// It did not start.
    Runner(runner::Error),
}

/// Streams to one socket.
pub(super) struct SocketDial {
    pub(super) connections: Arc<Connections>,
    pub(super) socket: String,
    pub(super) way: Way,
}

impl SocketDial {
    async fn open(&self, lane: Lane) -> Result<Stream, DialError> {
        let connections = &self.connections;
        let link = match lane {
            Lane::Control => &connections.control,
            Lane::Output => {
                let linked = connections.bulk().await;
                linked.map_err(|error| told(error.reason(), error.hint(), error))?
            }
        };
        // Output goes through the runner where that is possible: the relay has a window of its
        // own, and an SSH channel has none that a slow reader could use.
        let relayed =
            self.way == Way::Relayed || (lane == Lane::Output && connections.artifact.is_some());
        if !relayed {
            let opened = link.open_socket(&self.socket).await;
            let stream = opened.map_err(|error| told(error.reason(), error.hint(), error))?;
            return Ok(Box::new(stream));
        }
        let session = match connections.session(link).await {
            Ok(session) => session,
            Err(SessionError::Runner(error)) => {
                return Err(told(error.reason(), error.hint(), error));
            }
            Err(SessionError::NoArtifact) => {
                return Err(DialError {
                    what: format!("sshd forbids connections to {}", self.socket),
                    reason: Reason::SocketDenied,
                    hint: Some(
                        "allow it in the host's sshd_config: `AllowStreamLocalForwarding yes` (or \
                         `local`) and no `DisableForwarding yes`; or give the runner, which can \
                         connect instead: --runner FILE"
                            .to_owned(),
                    ),
                    source: None,
                });
            }
        };
        let relay = Relay::open(session, &self.socket).await;
        let relay = relay.map_err(|error| told(error.reason(), error.hint(), error))?;
        Ok(Box::new(relay))
    }
}

impl Dial for SocketDial {
    fn dial(&self, lane: Lane) -> BoxFuture<'_, Result<Stream, DialError>> {
        self.open(lane).boxed()
    }
}

fn told(
    reason: Reason,
    hint: Option<String>,
    error: impl std::error::Error + Send + Sync + 'static,
) -> DialError {
    let mut chain = vec![error.to_string()];
    chain.extend(causes(&error));
    tracing::debug!(error = %chain.join(": "), "no stream to the engine");
    DialError {
        what: "cannot reach the container engine".to_owned(),
        reason,
        hint,
        source: Some(Box::new(error)),
    }
}

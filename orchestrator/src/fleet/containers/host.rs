//! The engine of one host: connected, found, and ready to be asked.

use std::sync::Arc;
use std::time::Duration;

use runner_protocol::Held;
use tokio::sync::OnceCell;

use super::dial::{Connections, SessionError, SocketDial, Way};
use super::error::ContainerError;
use crate::docker::{self, Candidate, DialError, Engine};
use crate::fleet::link::{Fleet, LinkError};
use crate::host_spec::HostSpec;
use crate::reason::Reason;
use crate::runner::{Artifact, Hold};
use crate::transport::ExecRequest;

/// For the command that looks for sockets.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);

/// The engine of one host.
pub struct HostEngine {
    /// What is asked.
    pub engine: Engine,
    /// The host.
    pub spec: HostSpec,
    /// Where the engine listens.
    pub socket: String,
    connections: Arc<Connections>,
}

impl HostEngine {
    /// Connects to the host and finds its engine.
    ///
    /// `artifact` is the runner for hosts whose sshd does not connect to sockets, for output with
    /// backpressure, and for holds; without it these are not to be had.
    ///
    /// # Errors
    /// The host is not reached, has no engine (`no_engine`), or the login user may not use it
    /// (`socket_denied`).
    ///
    /// # Cancel safety
    /// Dropping the future ends the connection.
    pub async fn open(
        fleet: &Arc<Fleet>,
        spec: &HostSpec,
        artifact: Option<Arc<Artifact>>,
    ) -> Result<Self, ContainerError> {
        let control = fleet.connect(spec, false).await?;
        let connections = Arc::new(Connections {
            fleet: Arc::clone(fleet),
            spec: spec.clone(),
            artifact,
            control,
            bulk: OnceCell::new(),
        });
        let (socket, way) = match locate(&connections).await {
            Ok(located) => located,
            Err(error) => {
                connections.close().await;
                return Err(error);
            }
        };
        let dial =
            SocketDial { connections: Arc::clone(&connections), socket: socket.clone(), way };
        match Engine::connect(Arc::new(dial)).await {
            Ok(engine) => Ok(Self { engine, spec: spec.clone(), socket, connections }),
            Err(error) => {
                connections.close().await;
                Err(error.into())
            }
        }
    }

    /// Has a runner hold a container, so that it ends with us.
    pub(super) async fn hold(
        &self,
        container: &str,
        remove: bool,
        grace: Duration,
        timeout: Option<Duration>,
    ) -> Result<Hold, ContainerError> {
        let session = match self.connections.session(&self.connections.control).await {
            Ok(session) => session,
            Err(SessionError::NoArtifact) => return Err(ContainerError::NoRunner),
            Err(SessionError::Runner(error)) => return Err(error.into()),
        };
        let held = Held {
            socket: self.socket.clone(),
            container: container.to_owned(),
            remove,
            grace_secs: u32::try_from(grace.as_secs()).unwrap_or(u32::MAX),
            timeout_secs: timeout.map(|timeout| timeout.as_secs().max(1)),
        };
        Ok(Hold::take(session, held).await?)
    }

    /// Whether there is a runner, which holds need.
    pub(super) fn has_runner(&self) -> bool {
        self.connections.artifact.is_some()
    }

    /// Makes the connection for output. A failure is told to whoever needs it then.
    pub(super) async fn prepare_output(&self) {
        if let Err(error) = self.connections.bulk().await {
            tracing::debug!(%error, "no connection for output yet");
        }
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.connections.close().await;
    }
}

/// Finds the socket and the way to it. Where the likely place answers at once, nothing is run on
/// the host.
async fn locate(connections: &Connections) -> Result<(String, Way), ContainerError> {
    let named = connections.spec.containers.socket.as_deref();
    let store = &connections.fleet.store;
    let facts = store.facts_history(&connections.spec.name, 1).await?;
    let found: Vec<(String, bool)> = facts
        .iter()
        .flat_map(|record| &record.facts.container_runtimes)
        .filter(|runtime| matches!(runtime.name.as_str(), "docker" | "podman"))
        .map(|runtime| (runtime.socket.clone(), runtime.answers))
        .collect();
    for socket in docker::candidates(named, &found) {
        match connections.control.open_socket(&socket).await {
            Ok(_works) => return Ok((socket, Way::Forwarded)),
            Err(error) if error.reason() == Reason::Channel && !connections.control.is_gone() => {
                tracing::debug!(%socket, %error, "no connection to this socket");
            }
            Err(error) => return Err(LinkError::Connect(error).into()),
        }
    }
    // sshd says the same of a socket that is not there, one that may not be used, and one that it
    // forbids: the login user looks.
    let places = look(connections, named).await?;
    let Some(usable) = places.iter().find(|place| place.usable) else {
        return Err(docker::Error::Dial(unusable(&connections.spec, &places)).into());
    };
    let socket = usable.path.clone();
    let way = match connections.control.open_socket(&socket).await {
        Ok(_works) => Way::Forwarded,
        Err(_) => {
            tracing::debug!(
                host = %connections.spec.name, %socket,
                "sshd does not connect to the socket: going through the runner"
            );
            Way::Relayed
        }
    };
    Ok((socket, way))
}

async fn look(
    connections: &Connections,
    named: Option<&str>,
) -> Result<Vec<Candidate>, ContainerError> {
    let failed = |source| {
        let operation = "look for a container engine";
        ContainerError::from(crate::runner::Error::Transport { operation, source })
    };
    let command = docker::probe(named).map_err(crate::runner::Error::Command)?;
    let request = ExecRequest::new(command).deadline(PROBE_DEADLINE).caps(16 * 1024, 4 * 1024);
    let output = connections.control.transport().exec(request).await.map_err(failed)?;
    Ok(docker::parse_probe(&output.stdout))
}

fn unusable(spec: &HostSpec, places: &[Candidate]) -> DialError {
    let user = &spec.endpoint.user;
    match places.iter().find(|place| place.exists) {
        Some(denied) => {
            let hint = if matches!(denied.group.as_str(), "root" | "?") {
                format!(
                    "`{}` belongs to root alone: log in as a user that may use it, or run a rootless engine for {user}",
                    denied.path
                )
            } else {
                format!(
                    "on the host: sudo usermod --append --groups {} {user}; it counts from the next login",
                    denied.group
                )
            };
            DialError {
                what: format!("{user} may not use {}", denied.path),
                reason: Reason::SocketDenied,
                hint: Some(hint),
                source: None,
            }
        }
        None => {
            let looked: Vec<&str> = places.iter().map(|place| place.path.as_str()).collect();
            DialError {
                what: format!("no container engine listens on {}", looked.join(", ")),
                reason: Reason::NoEngine,
                hint: Some(
                    "install Docker Engine or Podman (with its socket), or set docker_socket in the \
                     fleet file and deploy"
                        .to_owned(),
                ),
                source: None,
            }
        }
    }
}

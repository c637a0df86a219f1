//! A connection to one host of the fleet, with every host-key decision recorded.

use std::sync::Arc;

use serde_json::json;

use crate::error_chain::causes;
use crate::host_spec::HostSpec;
use crate::reason::Reason;
use crate::runner;
use crate::ssh::{self, Connection, HostKeyDecision, HostKeySource, SocketStream, SshContext};
use crate::store::{self, NewEvent, Store, TrustedKey, now_ms};
use crate::transport::local::Local;
use crate::transport::{self, Transport};

/// What operations over hosts share.
pub struct Fleet {
    /// The database.
    pub store: Store,
    /// How hosts are reached and which keys are trusted.
    pub ssh: Arc<SshContext>,
    /// Who does this: `user@machine`, for the audit chain.
    pub actor: String,
}

impl Fleet {
    /// The same fleet, for somebody else's doings.
    #[must_use]
    pub fn acting_for(&self, actor: String) -> Self {
        Self { store: self.store.clone(), ssh: Arc::clone(&self.ssh), actor }
    }
}

/// Why a host could not be reached or did not do its part.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error(transparent)]
    Connect(transport::Error),
    /// The runner's part failed.
    #[error(transparent)]
    Runner(#[from] runner::Error),
    /// What is known or decided of the host could not be read or recorded, so it is not used.
    #[error("cannot read or record what the host is")]
    Store(#[source] store::Error),
}

impl LinkError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Runner(error) => error.reason(),
            Self::Store(_) => Reason::Store,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Runner(error) => error.hint(),
            Self::Store(_) => None,
        }
    }

    /// The messages behind this one.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        causes(self)
    }
}

/// An open connection to a host.
pub struct Link {
    way: Way,
}

enum Way {
    Ssh(Box<Connection>),
    /// This machine itself.
    Local(Box<Local>),
}

impl Link {
    /// This machine, without a connection.
    #[must_use]
    pub fn local() -> Self {
        Self { way: Way::Local(Box::default()) }
    }

    /// What runs commands there.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        match &self.way {
            Way::Ssh(connection) => connection.as_ref(),
            Way::Local(local) => local.as_ref(),
        }
    }

    fn decision(&self) -> Option<&HostKeyDecision> {
        match &self.way {
            Way::Ssh(connection) => connection.decisions().last(),
            Way::Local(_) => None,
        }
    }

    /// Connects to a Unix socket on the host.
    ///
    /// # Errors
    /// sshd forbids it, nothing that may be used listens there, or this is the local machine, which
    /// no SSH server stands before.
    pub async fn open_socket(&self, path: &str) -> Result<SocketStream, transport::Error> {
        match &self.way {
            Way::Ssh(connection) => connection.open_socket(path).await,
            Way::Local(_) => {
                let server = "this machine".to_owned();
                let place = transport::Place { server, hop: transport::Hop::Host };
                let what = "connection to a socket";
                let answer = "there is no SSH server in between".to_owned();
                let failure = transport::Failure::ChannelRefused { what, answer };
                Err(transport::Error::new(place, std::time::Duration::ZERO, failure))
            }
        }
    }

    /// The host's own key and who vouched for it, in words.
    #[must_use]
    pub fn host_key_words(&self) -> String {
        self.decision().map(words).unwrap_or_default()
    }

    /// What challenges are bound to: SHA-256 of the host's public key blob, which its fingerprint is in
    /// base64 (`SHA256:...`). This machine has none towards itself, and is told by
    /// [`local_host_id`].
    #[must_use]
    pub fn host_id(&self) -> Option<[u8; 32]> {
        use base64::Engine as _;
        if let Way::Local(_) = self.way {
            return local_host_id();
        }
        let fingerprint = &self.decision()?.fingerprint;
        let digest = fingerprint.strip_prefix("SHA256:")?;
        base64::engine::general_purpose::STANDARD_NO_PAD.decode(digest).ok()?.try_into().ok()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(&self.way, Way::Ssh(connection) if connection.is_gone())
    }

    /// Ends the connection.
    pub async fn close(&self) {
        self.transport().close().await;
    }
}

/// The id of this machine: SHA-256 of a fixed label and the machine id of systemd, or where there is
/// none, as in many containers, the kernel's boot id.
fn local_host_id() -> Option<[u8; 32]> {
    const LABEL: &str = "orchestrator local host 1\n";
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"];
    let text = files.iter().find_map(|file| {
        std::fs::read_to_string(file).ok().filter(|text| !text.trim().is_empty())
    })?;
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("{LABEL}{}", text.trim()).as_bytes());
    digest.as_ref().try_into().ok()
}

impl Fleet {
    /// Connects to a host. Keys that were accepted as new are in the store before anything is
    /// done over the connection; with `dry_run` nothing is recorded.
    ///
    /// # Errors
    /// The host cannot be reached or is not trusted, or the decision cannot be recorded.
    ///
    /// # Cancel safety
    /// Dropping the future ends the connection. A key is recorded in one transaction.
    pub async fn connect(&self, spec: &HostSpec, dry_run: bool) -> Result<Link, LinkError> {
        let connected = ssh::connect(&spec.endpoint, &spec.proxy_jump, &self.ssh).await;
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                if !dry_run && error.host_key().is_some() {
                    self.record_refusal(spec, &error).await.map_err(LinkError::Store)?;
                }
                return Err(LinkError::Connect(error));
            }
        };
        if !dry_run {
            for decision in connection.decisions() {
                if decision.source == HostKeySource::AcceptedNew
                    && let Err(error) = self.record_accepted(spec, decision).await
                {
                    connection.close().await;
                    return Err(LinkError::Store(error));
                }
            }
        }
        Ok(Link { way: Way::Ssh(Box::new(connection)) })
    }

    async fn record_accepted(
        &self,
        spec: &HostSpec,
        decision: &HostKeyDecision,
    ) -> Result<(), store::Error> {
        let key = TrustedKey {
            address: decision.address.clone(),
            port: decision.port,
            algorithm: decision.algorithm.clone(),
            fingerprint: decision.fingerprint.clone(),
            public_key: decision.key_line.clone(),
            trusted_ms: now_ms(),
            trusted_by: self.actor.clone(),
        };
        let event = NewEvent {
            kind: "hostkey.accepted",
            host: Some(spec.name.clone()),
            detail: key_detail(&key),
        };
        self.store.trust_new_key(&key, event).await
    }

    async fn record_refusal(
        &self,
        spec: &HostSpec,
        error: &transport::Error,
    ) -> Result<(), store::Error> {
        let event = NewEvent {
            kind: "hostkey.refused",
            host: Some(spec.name.clone()),
            detail: json!({ "server": error.server(), "problem": error.to_string() }),
        };
        self.store.append_events(&self.actor, &[event]).await
    }
}

/// What the audit chain says of a key.
pub(super) fn key_detail(key: &TrustedKey) -> serde_json::Value {
    json!({
        "address": key.address,
        "port": key.port,
        "algorithm": key.algorithm,
        "fingerprint": key.fingerprint,
    })
}

fn words(decision: &HostKeyDecision) -> String {
    let source = match decision.source {
        HostKeySource::Pinned => "pinned in the fleet file",
        HostKeySource::Stored => "trusted before",
        HostKeySource::KnownHosts => "in known_hosts",
        HostKeySource::AcceptedNew => "accepted on first use",
        HostKeySource::Certificate => "signed by a trusted authority",
    };
    format!("{} ({source})", decision.fingerprint)
}

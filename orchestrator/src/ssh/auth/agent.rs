//! Keys that an SSH agent holds. It is asked to sign, and never forwarded.

use std::path::Path;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{Certificate, PublicKey};
use tokio::net::UnixStream;

use super::Offer;
use crate::transport::Excerpt;

/// A connection to an agent.
pub(super) struct Agent {
    client: AgentClient<UnixStream>,
    keys: Held,
}

/// What the agent holds.
#[derive(Default)]
pub(super) struct Held {
    keys: Vec<(PublicKey, String)>,
    certificates: Vec<(Certificate, String)>,
}

impl Agent {
    /// Connects and asks which keys there are.
    pub(super) async fn connect(path: &Path, patience: Duration) -> Result<Self, String> {
        let ask = async {
            let mut client = AgentClient::connect_uds(path).await?;
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>((client, identities))
        };
        let (client, identities) = tokio::time::timeout(patience, ask)
            .await
            .map_err(|_| "the agent does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let mut keys = Held::default();
        for identity in identities {
            let from = |comment: &str| format!("agent: {}", Excerpt::of(comment.as_bytes()));
            match identity {
                AgentIdentity::PublicKey { key, comment } => keys.keys.push((key, from(&comment))),
                AgentIdentity::Certificate { certificate, comment } => {
                    keys.certificates.push((certificate, from(&comment)));
                }
            }
        }
        Ok(Self { client, keys })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.keys.is_empty() && self.keys.certificates.is_empty()
    }

    pub(super) fn take_keys(&mut self) -> Held {
        std::mem::take(&mut self.keys)
    }

    /// Tells the agent which server this is for, so that keys limited to some destinations
    /// work (`ssh-add -h`). Agents that do not know the request refuse it, which is fine.
    pub(super) async fn bind(&mut self, binding: &AgentSessionBinding) {
        if let Err(error) = self.client.bind_session(binding, false).await {
            tracing::debug!(%error, "the agent does not bind sessions");
        }
    }

    pub(super) fn signer(&mut self) -> &mut AgentClient<UnixStream> {
        &mut self.client
    }
}

impl Held {
    pub(super) fn holds(&self, key: &PublicKey) -> bool {
        self.keys.iter().any(|(held, _)| held.key_data() == key.key_data())
    }

    pub(super) fn into_offers(self) -> impl Iterator<Item = Offer> {
        let certificates = self
            .certificates
            .into_iter()
            .map(|(certificate, from)| Offer::AgentCertificate { certificate, from });
        let keys = self.keys.into_iter().map(|(key, from)| Offer::AgentKey { key, from });
        certificates.chain(keys)
    }
}

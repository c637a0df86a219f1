//! Trusting the key that a re-imaged machine presents now.

use serde::Serialize;

use super::link::{Fleet, LinkError, key_detail};
use crate::host_spec::HostSpec;
use crate::ssh;
use crate::store::{self, NewEvent, TrustedKey, now_ms};

/// What a server presents now beside what is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustChange {
    /// The server's address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Type of the key that it presents.
    pub algorithm: String,
    /// Fingerprint of the key that it presents.
    pub fingerprint: String,
    /// That key as an OpenSSH line.
    pub public_key: String,
    /// The keys in our store, each as type, fingerprint, when and by whom.
    pub trusted: Vec<String>,
    /// Fingerprints of the keys in our store.
    pub trusted_fingerprints: Vec<String>,
}

impl TrustChange {
    /// Whether there is nothing to decide.
    #[must_use]
    pub fn is_trusted_already(&self) -> bool {
        self.trusted_fingerprints.contains(&self.fingerprint)
    }
}

/// Reads the key that the host presents, without logging in there. Jumps on the way are logged in
/// to, each under its own trusted key.
///
/// # Errors
/// The host cannot be reached, or its key exchange fails.
pub async fn inspect(fleet: &Fleet, spec: &HostSpec) -> Result<TrustChange, LinkError> {
    let presented = ssh::look_at_host_key(&spec.endpoint, &spec.proxy_jump, &fleet.ssh)
        .await
        .map_err(LinkError::Connect)?;
    let (address, port) = (&spec.endpoint.address, spec.endpoint.port);
    let mut keys = fleet.store.trusted_keys().await.map_err(LinkError::Store)?;
    keys.retain(|key| key.address == *address && key.port == port);
    Ok(TrustChange {
        address: address.clone(),
        port,
        algorithm: presented.algorithm,
        fingerprint: presented.fingerprint,
        public_key: presented.key_line,
        trusted: keys.iter().map(words).collect(),
        trusted_fingerprints: keys.into_iter().map(|key| key.fingerprint).collect(),
    })
}

/// Trusts the presented key instead of every key of that server that was trusted so far.
///
/// # Errors
/// The database cannot be written.
pub async fn replace(
    fleet: &Fleet,
    spec: &HostSpec,
    change: &TrustChange,
) -> Result<(), store::Error> {
    let key = TrustedKey {
        address: change.address.clone(),
        port: change.port,
        algorithm: change.algorithm.clone(),
        fingerprint: change.fingerprint.clone(),
        public_key: change.public_key.clone(),
        trusted_ms: now_ms(),
        trusted_by: fleet.actor.clone(),
    };
    let mut detail = key_detail(&key);
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("replaces".to_owned(), change.trusted_fingerprints.clone().into());
    }
    let event = NewEvent { kind: "hostkey.replaced", host: Some(spec.name.clone()), detail };
    fleet.store.replace_keys(&key, event).await
}

fn words(key: &TrustedKey) -> String {
    let when = jiff::Timestamp::from_millisecond(key.trusted_ms)
        .map_or_else(|_| "an unknown time".to_owned(), |at| at.strftime("%F %R UTC").to_string());
    format!("{} {} since {when} by {}", key.algorithm, key.fingerprint, key.trusted_by)
}

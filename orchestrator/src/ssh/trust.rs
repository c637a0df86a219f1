//! Which host key is believed.
//!
//! Sources are asked in order: the fleet file's pin, our store, the user's `known_hosts`. The
//! first that knows the server decides; what it does not confirm is refused, whatever a later
//! one says. A revocation in `known_hosts` outweighs all of them. A server that none of them
//! knows is refused too, unless the caller accepts new keys, and then the decision says so.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};

use super::certificate;
use super::known_hosts::{Answer, KeyBlob, KnownHosts, Origin, lookup_name};
use crate::host_spec::Endpoint;
use crate::transport::{HostKeyProblem, KeyLabel, PresentedKey};

/// What a user trusts, as it stood when the operation began.
#[derive(Debug, Clone, Default)]
pub struct TrustPolicy {
    /// The keys in our store.
    pub stored: StoredPins,
    /// The user's `known_hosts` files.
    pub known_hosts: Arc<KnownHosts>,
    /// What stands in the files that an endpoint names for itself, by those files; a set that is
    /// missing here counts as empty, so that its servers are unknown.
    pub named_known_hosts: HashMap<Vec<PathBuf>, Arc<KnownHosts>>,
    /// Whether the key of a server that no source knows is accepted (trust on first use).
    pub accept_new: bool,
}

impl TrustPolicy {
    fn known_hosts_of(&self, endpoint: &Endpoint) -> Arc<KnownHosts> {
        if endpoint.known_hosts_files.is_empty() {
            return Arc::clone(&self.known_hosts);
        }
        self.named_known_hosts.get(&endpoint.known_hosts_files).cloned().unwrap_or_default()
    }
}

/// A snapshot of the host keys in our store.
#[derive(Debug, Clone, Default)]
pub struct StoredPins(HashMap<(String, u16), Vec<KeyBlob>>);

/// A line in our store that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored host key of {address}:{port} is not a public key line")]
pub struct InvalidStoredKey {
    /// The server's address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

impl StoredPins {
    /// Adds a key, as [`HostKeyDecision::key_line`] has it. A server may have several.
    ///
    /// # Errors
    /// The line is not a public key: the store is damaged, and nothing should be trusted.
    pub fn insert(
        &mut self,
        address: &str,
        port: u16,
        key_line: &str,
    ) -> Result<(), InvalidStoredKey> {
        let key = KeyBlob::from_line(key_line)
            .ok_or_else(|| InvalidStoredKey { address: address.to_owned(), port })?;
        self.0.entry((address.to_owned(), port)).or_default().push(key);
        Ok(())
    }

    fn of(&self, endpoint: &Endpoint) -> &[KeyBlob] {
        self.0.get(&(endpoint.address.clone(), endpoint.port)).map_or(&[], Vec::as_slice)
    }
}

/// Who vouched for a host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeySource {
    /// The fleet file pins it.
    Pinned,
    /// Our store has it.
    Stored,
    /// A `known_hosts` file has it.
    KnownHosts,
    /// Nobody: it was new, and new keys were accepted. To be recorded.
    AcceptedNew,
    /// An authority in `known_hosts` signed it.
    Certificate,
}

/// A host key that was believed, and why. The caller records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKeyDecision {
    /// The server's address, as in the fleet file.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Key type, for example `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The key as an OpenSSH public key line without comment.
    pub key_line: String,
    /// Who vouched for it.
    pub source: HostKeySource,
}

/// The host key types that can be checked, in the order of preference.
pub(super) fn supported() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
    ]
}

/// Everything that is needed to judge the key of one server, prepared before connecting.
#[derive(Debug, Clone)]
pub(super) struct HostKeyCheck {
    address: String,
    port: u16,
    /// The name in certificates, which carry no ports.
    principal: String,
    lookup: String,
    pin: Option<String>,
    stored: Vec<KeyBlob>,
    known_hosts: Arc<KnownHosts>,
    accept_new: bool,
    /// Only look: every key is refused as unknown.
    look_only: bool,
}

/// Which algorithms to offer, so that a server with several keys presents one that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) keys: Vec<Algorithm>,
    pub(super) certificates: Vec<Algorithm>,
}

impl HostKeyCheck {
    pub(super) fn new(endpoint: &Endpoint, trust: &TrustPolicy) -> Result<Self, HostKeyProblem> {
        let pin = endpoint.host_key.as_deref().map(fingerprint).transpose()?;
        let name = endpoint.host_key_alias.as_ref().unwrap_or(&endpoint.address);
        let lookup = match &endpoint.host_key_alias {
            // As in OpenSSH, an alias is looked up as it is, without the port.
            Some(alias) => alias.to_ascii_lowercase(),
            None => lookup_name(&endpoint.address, endpoint.port),
        };
        Ok(Self {
            address: endpoint.address.clone(),
            port: endpoint.port,
            principal: name.to_ascii_lowercase(),
            lookup,
            pin,
            stored: trust.stored.of(endpoint).to_vec(),
            known_hosts: trust.known_hosts_of(endpoint),
            accept_new: trust.accept_new,
            look_only: false,
        })
    }

    /// A check that only looks at the key and refuses it.
    pub(super) fn look_only(mut self) -> Self {
        self.look_only = true;
        self
    }

    /// The algorithms to offer.
    pub(super) fn offer(&self) -> Result<Offer, HostKeyProblem> {
        let all = Offer { keys: supported(), certificates: Vec::new() };
        // A fingerprint does not tell its type; see `has_untyped_pin`.
        if self.look_only || self.pin.is_some() {
            return Ok(all);
        }
        let certificates = if self.stored.is_empty() && !self.authorities().is_empty() {
            supported()
        } else {
            Vec::new()
        };
        let expected = self.expected();
        if expected.is_empty() {
            return Ok(Offer { certificates, ..all });
        }
        let pinned = |algorithm: &Algorithm| {
            expected.iter().any(|label| label.algorithm.as_deref() == Some(algorithm.as_str()))
        };
        let keys: Vec<_> = supported().into_iter().filter(pinned).collect();
        if keys.is_empty() && certificates.is_empty() {
            return Err(HostKeyProblem::PinUnsupported { expected });
        }
        Ok(Offer { keys, certificates })
    }

    /// Whether the pin is a fingerprint alone: then a server whose first key does not match is
    /// asked for its other keys.
    pub(super) fn has_untyped_pin(&self) -> bool {
        self.pin.is_some() && !self.look_only
    }

    /// What the deciding source expects, for error messages.
    pub(super) fn expected(&self) -> Vec<KeyLabel> {
        if let Some(pin) = &self.pin {
            let from = "the fleet file".to_owned();
            return vec![KeyLabel { algorithm: None, fingerprint: pin.clone(), from }];
        }
        if !self.stored.is_empty() {
            return self.stored.iter().map(|key| label(key, "the store".to_owned())).collect();
        }
        origins(&self.known_hosts.pins(&self.lookup))
    }

    fn authorities(&self) -> Vec<Origin> {
        self.known_hosts.authorities(&self.lookup)
    }

    /// Judges what a server presented, after it has proved possession.
    pub(super) fn decide(
        &self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<HostKeyDecision, HostKeyProblem> {
        let key = blob(presented)?;
        if let Some(at) = self.known_hosts.revocation(&self.lookup, &key) {
            return Err(HostKeyProblem::Revoked { presented: shown(&key), by: place(&at) });
        }
        if self.look_only {
            return Err(HostKeyProblem::Unknown(shown(&key)));
        }
        if let Some(pin) = &self.pin {
            return if key.fingerprint() == *pin {
                Ok(self.accept(&key, HostKeySource::Pinned))
            } else {
                Err(self.changed(&key))
            };
        }
        if !self.stored.is_empty() {
            if self.stored.iter().any(|stored| stored.bytes == key.bytes) {
                return Ok(self.accept(&key, HostKeySource::Stored));
            }
            let same = self.stored.iter().any(|stored| stored.algorithm == key.algorithm);
            return Err(if same { self.changed(&key) } else { self.other_type(&key) });
        }
        if let PublicKeyOrCertificate::Certificate(certificate) = presented {
            let (name, now) = (&self.principal, SystemTime::now());
            let known = &self.known_hosts;
            match certificate::check(certificate, name, now, &self.authorities(), |authority| {
                known.revocation(&self.lookup, authority)
            }) {
                Ok(()) => return Ok(self.accept(&key, HostKeySource::Certificate)),
                // As OpenSSH does: a certificate of a stranger is worth its plain key.
                Err(certificate::Refusal::UnknownAuthority) => {}
                Err(refusal) => {
                    return Err(HostKeyProblem::Certificate { why: refusal.to_string() });
                }
            }
        }
        match self.known_hosts.check(&self.lookup, &key) {
            Answer::Known(_) => Ok(self.accept(&key, HostKeySource::KnownHosts)),
            Answer::Changed(_) => Err(self.changed(&key)),
            Answer::OtherType(_) => Err(self.other_type(&key)),
            Answer::Revoked(at) => {
                Err(HostKeyProblem::Revoked { presented: shown(&key), by: place(&at) })
            }
            // A name that has an authority is not new: a bare key in its place is a downgrade.
            Answer::CertAuthority(authorities) => Err(HostKeyProblem::Certificate {
                why: format!(
                    "the server presented {} instead of a certificate of {}",
                    shown(&key),
                    authorities.iter().map(place).collect::<Vec<_>>().join(" or ")
                ),
            }),
            Answer::Unknown if self.accept_new => Ok(self.accept(&key, HostKeySource::AcceptedNew)),
            Answer::Unknown => Err(HostKeyProblem::Unknown(shown(&key))),
        }
    }

    fn accept(&self, key: &KeyBlob, source: HostKeySource) -> HostKeyDecision {
        let PresentedKey { algorithm, fingerprint, key_line } = shown(key);
        let (address, port) = (self.address.clone(), self.port);
        HostKeyDecision { address, port, algorithm, fingerprint, key_line, source }
    }

    fn changed(&self, key: &KeyBlob) -> HostKeyProblem {
        HostKeyProblem::Changed { presented: shown(key), expected: self.expected() }
    }

    fn other_type(&self, key: &KeyBlob) -> HostKeyProblem {
        HostKeyProblem::OtherType { presented: shown(key), expected: self.expected() }
    }
}

/// The fingerprint that a pin names, in the form that [`KeyBlob::fingerprint`] has.
fn fingerprint(pin: &str) -> Result<String, HostKeyProblem> {
    let invalid = || HostKeyProblem::InvalidPin { pin: pin.to_owned() };
    let digest = pin.trim().strip_prefix("SHA256:").ok_or_else(invalid)?.trim_end_matches('=');
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    if digest.len() != 43 || !digest.bytes().all(known) {
        return Err(invalid());
    }
    Ok(format!("SHA256:{digest}"))
}

/// The plain key that a server presented or that its certificate holds.
fn blob(presented: &PublicKeyOrCertificate) -> Result<KeyBlob, HostKeyProblem> {
    let bytes = presented.public_key().to_bytes().ok();
    bytes
        .and_then(KeyBlob::from_bytes)
        .ok_or_else(|| HostKeyProblem::Certificate { why: "its key cannot be encoded".to_owned() })
}

fn shown(key: &KeyBlob) -> PresentedKey {
    PresentedKey {
        algorithm: key.algorithm.clone(),
        fingerprint: key.fingerprint(),
        key_line: key.to_line(),
    }
}

fn label(key: &KeyBlob, from: String) -> KeyLabel {
    KeyLabel { algorithm: Some(key.algorithm.clone()), fingerprint: key.fingerprint(), from }
}

fn origins(origins: &[Origin]) -> Vec<KeyLabel> {
    origins.iter().map(|origin| label(&origin.key, place(origin))).collect()
}

fn place(origin: &Origin) -> String {
    format!("{} line {}", origin.file.display(), origin.line)
}

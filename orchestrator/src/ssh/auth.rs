//! Logging in: which keys are offered, in which order, and what is said when none is taken.
//!
//! Everything that may ask a person or an agent happens in [`prepare`], before a connection
//! exists and no server's clock is running. Only public keys are used: no passwords, no
//! keyboard-interactive, and the agent is never forwarded.

mod agent;
mod identity;
mod passphrase;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::MethodKind;
use russh::client::{AuthResult, Handle};
use russh::keys::key::PrivateKeyWithHashAlg;
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKey};

use self::agent::Agent;
pub use self::identity::Identities;
use self::identity::Loaded;
pub use self::passphrase::{NoPassphrase, PassphraseFile, PassphraseProvider, Secret};
use super::handler::ClientHandler;
use super::known_hosts::KeyBlob;
use crate::host_spec::{AgentSocket, Endpoint};
use crate::transport::{Excerpt, Failure, IdentityProblem, OfferedKey};

/// One thing to offer.
enum Offer {
    Key { key: Arc<PrivateKey>, from: String },
    Certificate { key: Arc<PrivateKey>, certificate: Certificate, from: String },
    AgentKey { key: PublicKey, from: String },
    AgentCertificate { certificate: Certificate, from: String },
}

/// What can be offered to one server.
pub(super) struct Keyring {
    offers: Vec<Offer>,
    /// Keys that are configured and cannot be used, for the error that may follow.
    unusable: Vec<OfferedKey>,
    agent: Option<Agent>,
}

/// Reads the keys for a server and asks the agent for its own.
///
/// A configured key that cannot be used is passed over if there is another; when there is none,
/// the first such key is the error.
pub(super) async fn prepare(
    endpoint: &Endpoint,
    identities: &Identities,
    environment: Option<&Path>,
    patience: Duration,
) -> Result<Keyring, Failure> {
    let socket = match &endpoint.agent {
        AgentSocket::Environment => environment,
        AgentSocket::Path(path) => Some(path.as_path()),
        AgentSocket::Disabled => None,
    };
    let (mut agent, agent_state) = match socket {
        None => (None, "none is configured".to_owned()),
        Some(path) => match Agent::connect(path, patience).await {
            Ok(agent) if agent.is_empty() => (None, "it holds no keys".to_owned()),
            Ok(agent) => (Some(agent), "it holds keys".to_owned()),
            Err(why) => {
                tracing::debug!(socket = %path.display(), %why, "no agent");
                (None, format!("{}: {why}", path.display()))
            }
        },
    };
    let held = agent.as_mut().map(Agent::take_keys).unwrap_or_default();
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in &endpoint.identity_files {
        match identities.load(path, |public| held.holds(public)).await {
            Ok(loaded) => files.push((path, loaded)),
            Err(failure) => problems.push((path, failure)),
        }
    }
    let mut offers = Vec::new();
    for path in &endpoint.certificate_files {
        match certificate_offer(path, &files, &held).await {
            Ok(offer) => offers.push(offer),
            Err(failure) => problems.push((path, failure)),
        }
    }
    for (path, loaded) in files {
        let from = path.display().to_string();
        let beside = PathBuf::from(format!("{from}-cert.pub"));
        let named = endpoint.certificate_files.contains(&beside);
        if !named && let Ok(certificate) = identity::certificate(&beside).await {
            let held = loaded.public();
            if certificate.public_key() == held.key_data() {
                let from = beside.display().to_string();
                offers.push(loaded.clone().with_certificate(certificate, from));
            }
        }
        offers.push(match loaded {
            Loaded::Key(key) => Offer::Key { key, from },
            Loaded::InAgent(key) => Offer::AgentKey { key, from: format!("{from} by the agent") },
        });
    }
    offers.extend(held.into_offers());
    remove_repetitions(&mut offers);
    if offers.is_empty() {
        let user = endpoint.user.clone();
        let none = Failure::NoIdentity { user, agent: agent_state };
        return Err(problems.into_iter().next().map_or(none, |(_, failure)| failure));
    }
    let unusable = problems.into_iter().map(|(path, failure)| {
        tracing::warn!(key = %path.display(), %failure, "passing over a key");
        OfferedKey {
            fingerprint: "not offered".to_owned(),
            from: path.display().to_string(),
            note: Some(failure.to_string()),
        }
    });
    Ok(Keyring { unusable: unusable.collect(), offers, agent })
}

async fn certificate_offer(
    path: &Path,
    files: &[(&PathBuf, Loaded)],
    held: &agent::Held,
) -> Result<Offer, Failure> {
    let certificate = identity::certificate(path).await?;
    let from = path.display().to_string();
    let matching =
        files.iter().find(|(_, loaded)| loaded.public().key_data() == certificate.public_key());
    if let Some((_, loaded)) = matching {
        return Ok(loaded.clone().with_certificate(certificate, from));
    }
    if held.holds(&PublicKey::new(certificate.public_key().clone(), "")) {
        return Ok(Offer::AgentCertificate { certificate, from });
    }
    Err(identity::failure(path, IdentityProblem::CertificateWithoutKey, None))
}

impl Loaded {
    fn with_certificate(self, certificate: Certificate, from: String) -> Offer {
        match self {
            Self::Key(key) => Offer::Certificate { key, certificate, from },
            Self::InAgent(_) => Offer::AgentCertificate { certificate, from },
        }
    }
}

/// The same key from a file and from the agent is offered once: servers count offers.
fn remove_repetitions(offers: &mut Vec<Offer>) {
    let mut seen = Vec::new();
    offers.retain(|offer| {
        let what = offer.encoded();
        let new = !seen.contains(&what);
        seen.push(what);
        new
    });
}

impl Offer {
    fn encoded(&self) -> Vec<u8> {
        let encoded = match self {
            Self::Key { key, .. } => key.public_key().to_bytes(),
            Self::AgentKey { key, .. } => key.to_bytes(),
            Self::Certificate { certificate, .. } | Self::AgentCertificate { certificate, .. } => {
                certificate.to_bytes()
            }
        };
        // Only what was decoded gets here, and that can be encoded again.
        encoded.unwrap_or_default()
    }

    fn described(&self) -> OfferedKey {
        let (key, from) = match self {
            Self::Key { key, from } => (key.public_key().key_data(), from),
            Self::AgentKey { key, from } => (key.key_data(), from),
            Self::Certificate { certificate, from, .. }
            | Self::AgentCertificate { certificate, from } => (certificate.public_key(), from),
        };
        let blob = PublicKey::new(key.clone(), "").to_bytes().ok().and_then(KeyBlob::from_bytes);
        let fingerprint = blob.map(|blob| blob.fingerprint()).unwrap_or_default();
        OfferedKey { fingerprint, from: from.clone(), note: None }
    }
}

/// Logs in, offering one key after the other.
pub(super) async fn authenticate(
    handle: &mut Handle<ClientHandler>,
    user: &str,
    keyring: Keyring,
    most: usize,
) -> Result<(), Failure> {
    let Keyring { offers, unusable, mut agent } = keyring;
    if let (Some(agent), Some(binding)) = (&mut agent, handle.agent_session_binding()) {
        agent.bind(binding).await;
    }
    let mut offered = Vec::new();
    let mut methods = Vec::new();
    for offer in offers.into_iter().take(most) {
        let mut described = offer.described();
        let answer = attempt(handle, user, offer, agent.as_mut()).await;
        match answer {
            Ok(AuthResult::Success) => return Ok(()),
            Ok(AuthResult::Failure { .. }) | Err(Refused::Session(_)) if handle.is_closed() => {
                offered.push(described);
                let source = match answer {
                    Err(Refused::Session(source)) => Some(source.into()),
                    _ => None,
                };
                return Err(Failure::AuthClosed { offered, source });
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                if partial_success {
                    described.note = Some("accepted, but the server wants more".to_owned());
                }
                offered.push(described);
                methods = remaining_methods.iter().map(String::from).collect();
                if !remaining_methods.contains(&MethodKind::PublicKey) {
                    break;
                }
            }
            Err(Refused::Session(source)) => {
                offered.push(described);
                return Err(Failure::AuthClosed { offered, source: Some(source.into()) });
            }
            Err(Refused::Agent(why)) => {
                described.note = Some(format!("the agent did not sign: {why}"));
                offered.push(described);
            }
        }
    }
    offered.extend(unusable);
    Err(Failure::Auth { user: user.to_owned(), offered, methods })
}

enum Refused {
    Session(russh::Error),
    Agent(Excerpt),
}

async fn attempt(
    handle: &mut Handle<ClientHandler>,
    user: &str,
    offer: Offer,
    agent: Option<&mut Agent>,
) -> Result<AuthResult, Refused> {
    let session = Refused::Session;
    match (offer, agent) {
        (Offer::Key { key, .. }, _) => {
            let key = PrivateKeyWithHashAlg::new(key, None);
            handle.authenticate_publickey(user, key).await.map_err(session)
        }
        (Offer::Certificate { key, certificate, .. }, _) => {
            handle.authenticate_openssh_cert(user, key, certificate).await.map_err(session)
        }
        (Offer::AgentKey { key, .. }, Some(agent)) => {
            let hash = rsa_hash(handle, key.key_data().is_rsa()).await.map_err(session)?;
            let signer = agent.signer();
            let answer = handle.authenticate_publickey_with(user, key, hash, signer).await;
            answer.map_err(refused_by_agent)
        }
        (Offer::AgentCertificate { certificate, .. }, Some(agent)) => {
            let is_rsa = certificate.public_key().is_rsa();
            let hash = rsa_hash(handle, is_rsa).await.map_err(session)?;
            let signer = agent.signer();
            let answer =
                handle.authenticate_certificate_with(user, certificate, hash, signer).await;
            answer.map_err(refused_by_agent)
        }
        (Offer::AgentKey { .. } | Offer::AgentCertificate { .. }, None) => {
            Err(Refused::Agent(Excerpt::of(b"it is gone")))
        }
    }
}

fn refused_by_agent(error: russh::AgentAuthError) -> Refused {
    match error {
        russh::AgentAuthError::Send(_) => Refused::Session(russh::Error::SendError),
        russh::AgentAuthError::Key(error) => {
            Refused::Agent(Excerpt::of(error.to_string().as_bytes()))
        }
    }
}

/// The hash that an RSA key signs with: what the server asks for, else SHA-512, and never SHA-1.
async fn rsa_hash(
    handle: &Handle<ClientHandler>,
    is_rsa: bool,
) -> Result<Option<HashAlg>, russh::Error> {
    if !is_rsa {
        return Ok(None);
    }
    let best = handle.best_supported_rsa_hash().await?;
    Ok(Some(best.flatten().unwrap_or(HashAlg::Sha512)))
}

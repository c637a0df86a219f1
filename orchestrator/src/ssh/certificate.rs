//! OpenSSH host certificates (PROTOCOL.certkeys).
//!
//! The key exchange proves that the server holds the key inside a certificate, and no more.
//! That an authority we know signed it, for this name, for hosts, and for now, is checked here.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{Fingerprint, HashAlg, PublicKey};

use super::known_hosts::{KeyBlob, Origin};

/// Why a certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its authority is not known")]
    UnknownAuthority,
    #[error("its authority is revoked by {} line {}", .0.file.display(), .0.line)]
    RevokedAuthority(Origin),
    #[error("its authority's key type {0} cannot be checked")]
    UnsupportedAuthority(String),
    #[error("it is not a host certificate")]
    NotForHosts,
    #[error("it is for {}, not for {name}", listed(.principals))]
    OtherPrincipal { name: String, principals: Vec<String> },
    #[error("it is not valid at this time")]
    NotNow,
    #[error("it has the critical option {0:?}, which no host certificate has")]
    CriticalOption(String),
    #[error("its signature is wrong")]
    WrongSignature,
}

fn listed(principals: &[String]) -> String {
    if principals.is_empty() { "no host at all".to_owned() } else { format!("{principals:?}") }
}

/// Checks a certificate that a server presented under `name`.
pub(super) fn check(
    certificate: &Certificate,
    name: &str,
    now: SystemTime,
    authorities: &[Origin],
    revocation: impl Fn(&KeyBlob) -> Option<Origin>,
) -> Result<(), Refusal> {
    let authority = PublicKey::new(certificate.signature_key().clone(), "");
    let encoded = authority.to_bytes().ok().and_then(KeyBlob::from_bytes);
    let Some(encoded) = encoded else { return Err(Refusal::UnknownAuthority) };
    if let Some(at) = revocation(&encoded) {
        return Err(Refusal::RevokedAuthority(at));
    }
    if !authorities.iter().any(|origin| origin.key.bytes == encoded.bytes) {
        return Err(Refusal::UnknownAuthority);
    }
    if !(authority.key_data().is_ed25519() || authority.key_data().is_ecdsa()) {
        return Err(Refusal::UnsupportedAuthority(encoded.algorithm));
    }
    if certificate.cert_type() != CertType::Host {
        return Err(Refusal::NotForHosts);
    }
    // OpenSSH takes a host certificate without principals for none, and matches exactly.
    if !certificate.valid_principals().iter().any(|principal| principal == name) {
        let principals = certificate.valid_principals().to_vec();
        return Err(Refusal::OtherPrincipal { name: name.to_owned(), principals });
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Err(Refusal::CriticalOption(option.escape_debug().to_string()));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_err(|_| Refusal::NotNow)?.as_secs();
    if seconds < certificate.valid_after() || seconds >= certificate.valid_before() {
        return Err(Refusal::NotNow);
    }
    // Checks the signature, and once more the authority and the time.
    let trusted = Fingerprint::new(HashAlg::Sha256, authority.key_data());
    certificate.validate_at(seconds, [&trusted]).map_err(|_| Refusal::WrongSignature)
}

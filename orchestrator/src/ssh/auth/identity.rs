//! Private keys and user certificates in files.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, PrivateKey, PublicKey};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::passphrase::{NoPassphrase, PassphraseProvider};
use crate::transport::{Failure, IdentityProblem};

/// No key file is larger; what is, is not one.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A key that can sign.
#[derive(Clone)]
pub(super) enum Loaded {
    /// It is here.
    Key(Arc<PrivateKey>),
    /// The file cannot be used by itself, but the agent holds the same key.
    InAgent(PublicKey),
}

impl Loaded {
    pub(super) fn public(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key.public_key(),
            Self::InAgent(key) => key,
        }
    }
}

/// The key files of this process. Each is decrypted once, however many hosts use it, so that a
/// person is asked once.
pub struct Identities {
    passphrases: Arc<dyn PassphraseProvider>,
    /// Held while a key is loaded, so that parallel connects wait for one prompt.
    loaded: Mutex<HashMap<PathBuf, Arc<PrivateKey>>>,
}

impl Default for Identities {
    fn default() -> Self {
        Self::new(Arc::new(NoPassphrase))
    }
}

impl Identities {
    /// Identities whose passphrases come from `passphrases`.
    #[must_use]
    pub fn new(passphrases: Arc<dyn PassphraseProvider>) -> Self {
        Self { passphrases, loaded: Mutex::default() }
    }

    /// Loads a key. Where the file alone will not do and the agent holds the key, the agent's
    /// is used.
    pub(super) async fn load(
        &self,
        path: &Path,
        agent_holds: impl Fn(&PublicKey) -> bool,
    ) -> Result<Loaded, Failure> {
        let mut cache = self.loaded.lock().await;
        if let Some(key) = cache.get(path) {
            return Ok(Loaded::Key(Arc::clone(key)));
        }
        let key = read_key(path)?;
        let is_rsa = key.algorithm().is_rsa();
        let usable = key.key_data().ed25519().is_some()
            || key.key_data().ecdsa().is_some()
            || (key.is_encrypted() && !is_rsa);
        if (key.is_encrypted() || !usable) && agent_holds(key.public_key()) {
            return Ok(Loaded::InAgent(key.public_key().clone()));
        }
        if !usable {
            let algorithm = if is_rsa { "RSA".to_owned() } else { key.algorithm().to_string() };
            return Err(failure(path, IdentityProblem::UnsupportedType(algorithm), None));
        }
        let key = if key.is_encrypted() { self.decrypt(path, key).await? } else { key };
        let key = Arc::new(key);
        cache.insert(path.to_owned(), Arc::clone(&key));
        Ok(Loaded::Key(key))
    }

    /// Decrypts on a thread of its own: asking may take as long as a person takes, and the key
    /// derivation is slow by design.
    async fn decrypt(&self, path: &Path, key: PrivateKey) -> Result<PrivateKey, Failure> {
        let passphrases = Arc::clone(&self.passphrases);
        let path = path.to_owned();
        let decrypted = tokio::task::spawn_blocking(move || {
            let passphrase = passphrases.passphrase(&path).map_err(|error| {
                failure(&path, IdentityProblem::PassphraseUnavailable, Some(error.into()))
            })?;
            let passphrase = passphrase
                .ok_or_else(|| failure(&path, IdentityProblem::PassphraseMissing, None))?;
            // The format has no other integrity check: a wrong passphrase is all it can tell.
            key.decrypt(&passphrase)
                .map_err(|_| failure(&path, IdentityProblem::PassphraseWrong, None))
        });
        decrypted.await.unwrap_or_else(|panicked| Err(Failure::Lost(Some(panicked.into()))))
    }
}

/// Reads a private key in any format that OpenSSH writes, still encrypted if it is.
fn read_key(path: &Path) -> Result<PrivateKey, Failure> {
    let unreadable =
        |error: io::Error| failure(path, IdentityProblem::Unreadable, Some(error.into()));
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if let Some(mode) = open_mode(&metadata) {
        return Err(failure(path, IdentityProblem::Permissions { mode }, None));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(failure(path, IdentityProblem::Malformed, None));
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(unreadable)?);
    if let Ok(key) = PrivateKey::from_openssh(&*text) {
        return Ok(key);
    }
    let malformed = |source: Option<_>| failure(path, IdentityProblem::Malformed, source);
    let text = std::str::from_utf8(&text).map_err(|error| malformed(Some(error.into())))?;
    if text.contains("BEGIN RSA PRIVATE KEY") {
        return Err(failure(path, IdentityProblem::UnsupportedType("RSA".to_owned()), None));
    }
    // PKCS#8 and SEC 1 (`BEGIN PRIVATE KEY`, `BEGIN EC PRIVATE KEY`).
    russh::keys::decode_secret_key(text, None).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => failure(
            path,
            IdentityProblem::UnsupportedType("encrypted PEM (convert it: ssh-keygen -p)".into()),
            None,
        ),
        error => malformed(Some(error.into())),
    })
}

/// The permission bits, if they let anyone but the owner at a file of ours. As in OpenSSH, a
/// file that belongs to someone else is their business.
pub(super) fn open_mode(metadata: &Metadata) -> Option<u32> {
    let ours = metadata.uid() == rustix::process::getuid().as_raw();
    let mode = metadata.mode() & 0o777;
    (ours && mode & 0o077 != 0).then_some(mode)
}

/// Reads a user certificate that is valid now.
pub(super) async fn certificate(path: &Path) -> Result<Certificate, Failure> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| failure(path, IdentityProblem::Unreadable, Some(error.into())))?;
    let certificate = Certificate::from_openssh(text.trim_end()).ok();
    let certificate = certificate
        .filter(|certificate| certificate.cert_type() == CertType::User)
        .ok_or_else(|| failure(path, IdentityProblem::NotACertificate, None))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now < certificate.valid_after() || now >= certificate.valid_before() {
        return Err(failure(path, IdentityProblem::CertificateExpired, None));
    }
    Ok(certificate)
}

pub(super) fn failure(
    path: &Path,
    problem: IdentityProblem,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> Failure {
    Failure::Identity { path: path.to_owned(), problem, source }
}

//! The key with which this orchestrator signs what it measured: ed25519 (RFC 8032), one file in the
//! state directory, for its owner alone, made at its first use.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// The file in the state directory: PKCS #8 v2 (RFC 5958) as DER.
const FILE_NAME: &str = "signing-key.der";

/// More than any such file has, in bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The file cannot be read.
    #[error("cannot read the signing key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot create the signing key {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read or write the file.
    #[error("the signing key {} is open to others (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no such key.
    #[error("{} is no ed25519 key in PKCS #8", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system's random number generator failed")]
    Random,
}

impl SigningKeyError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Invalid { path } => Some(format!(
                "restore {} from a backup, or move it away: a new one is made, and proofs of the old one need --signer",
                path.display()
            )),
            _ => None,
        }
    }
}

/// A private key. It is never shown, not even in debug output.
pub struct SigningKey(Ed25519KeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// The key in `folder`, made if there is none. Of two processes that make it at once, both
    /// use the key of the first.
    ///
    /// # Errors
    /// The file cannot be made or read, is open to others, or is no key.
    pub fn load_or_create(folder: &Path) -> Result<Self, SigningKeyError> {
        if let Some(key) = Self::load(folder)? {
            return Ok(key);
        }
        let path = folder.join(FILE_NAME);
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| SigningKeyError::Random)?;
        let created = |source| SigningKeyError::Create { path: path.clone(), source };
        // Whole or not at all under its name; a temporary file is for its owner alone.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(created)?;
        file.write_all(pkcs8.as_ref()).map_err(created)?;
        file.as_file().sync_all().map_err(created)?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(created(error.error)),
        }
        Self::load(folder)?.ok_or_else(|| created(io::ErrorKind::NotFound.into()))
    }

    /// The key in `folder`, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or is no key.
    pub fn load(folder: &Path) -> Result<Option<Self>, SigningKeyError> {
        let path = folder.join(FILE_NAME);
        let read = |source| SigningKeyError::Read { path: path.clone(), source };
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SigningKeyError::Open { path, mode });
        }
        let mut pkcs8 = Zeroizing::new(Vec::new());
        file.take(MAX_FILE_BYTES).read_to_end(&mut pkcs8).map_err(read)?;
        match Ed25519KeyPair::from_pkcs8(&pkcs8) {
            Ok(pair) => Ok(Some(Self(pair))),
            Err(_) => Err(SigningKeyError::Invalid { path }),
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    /// The signature of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

/// Whether `signature` is that of `message` by the private half of `public_key`.
#[must_use]
pub fn is_signed(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// A link is not followed: whoever could plant one could choose the key.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(SigningKey::load(folder.path()).unwrap().is_none());
        let keys = std::thread::scope(|scope| {
            let make = || SigningKey::load_or_create(folder.path()).unwrap().public_key();
            let threads = [(); 4].map(|()| scope.spawn(make));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "one of them wins");
        let file = folder.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn a_key_that_is_open_to_others_or_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        SigningKey::load_or_create(folder.path()).unwrap();
        let file = folder.path().join(FILE_NAME);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = SigningKey::load_or_create(folder.path()).unwrap_err();
        assert!(matches!(refused, SigningKeyError::Open { mode: 0o640, .. }), "{refused}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, b"no key").unwrap();
        let refused = SigningKey::load_or_create(folder.path()).unwrap_err();
        assert!(matches!(refused, SigningKeyError::Invalid { .. }), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), b"no key", "it is left as it was");
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_message() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] =
            folders.each_ref().map(|folder| SigningKey::load_or_create(folder.path()).unwrap());
        let signature = one.sign(b"message");
        assert!(is_signed(&one.public_key(), b"message", &signature));
        assert!(!is_signed(&one.public_key(), b"massage", &signature));
        assert!(!is_signed(&other.public_key(), b"message", &signature));
    }
}

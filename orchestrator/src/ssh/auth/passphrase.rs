//! Where passphrases of encrypted keys come from: never from an argument or a configuration
//! value, which others can read.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes that are wiped when they are no longer needed.
pub type Secret = Zeroizing<Vec<u8>>;

/// Gives the passphrase of a key. Called on a thread that may block, at most once per key file.
pub trait PassphraseProvider: Send + Sync {
    /// The passphrase, or `None` where nobody can be asked.
    ///
    /// # Errors
    /// It should be there and cannot be read.
    fn passphrase(&self, key: &Path) -> io::Result<Option<Secret>>;
}

/// Knows no passphrase.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPassphrase;

impl PassphraseProvider for NoPassphrase {
    fn passphrase(&self, _key: &Path) -> io::Result<Option<Secret>> {
        Ok(None)
    }
}

/// Reads one passphrase for every key from a file (`ORCHESTRATOR_KEY_PASSPHRASE_FILE`). The
/// first line counts, without its line end; the file must not be readable by others.
#[derive(Debug, Clone)]
pub struct PassphraseFile(pub PathBuf);

impl PassphraseProvider for PassphraseFile {
    fn passphrase(&self, _key: &Path) -> io::Result<Option<Secret>> {
        let mode = super::identity::open_mode(&std::fs::metadata(&self.0)?);
        if let Some(mode) = mode {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the permissions {mode:03o} of {} let others read it", self.0.display()),
            ));
        }
        let mut content = Zeroizing::new(std::fs::read(&self.0)?);
        let line = content.iter().position(|&b| b == b'\n').unwrap_or(content.len());
        content.truncate(line);
        if content.last() == Some(&b'\r') {
            content.pop();
        }
        Ok(Some(content))
    }
}

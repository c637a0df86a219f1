//! Wallets of Bittensor: where a hotkey's file is, what stands in it, and the pair that signs.
//!
//! Every format that `btcli` and its libraries ever wrote is read, and a bare phrase or seed; none is
//! written. The secret goes from the file into a [`HotkeyPair`] and is wiped everywhere else. What
//! must *not* be here: the secret of a coldkey (its file is never opened, only `coldkeypub.txt`), the
//! environment, the terminal. The caller hands those in.

mod keyfile;
mod pair;
mod password;
mod sealed;

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::hotkey::Hotkey;

pub use keyfile::{Format, KeyfileError};
pub use pair::{Crypto, HotkeyPair, NoKey};
pub use password::{Password, Passwords, Prompt, Variables, variable_name};
pub use sealed::{Seal, SealError};

/// Where wallets lie below the home directory.
pub const DEFAULT_FOLDER: &str = ".bittensor/wallets";

/// The name of a wallet and of a hotkey where none is given.
pub const DEFAULT_NAME: &str = "default";

/// More than any keyfile has, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What could not be done with a wallet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// A name that would lead out of the wallet's folder.
    #[error("{0:?} is no name of a wallet or a hotkey: one name of a file, without `/`")]
    Name(String),
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is too large to be a keyfile.
    #[error("{} is too large for a keyfile", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The content is no usable key.
    #[error("cannot use the keyfile {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyfileError,
    },
    /// It is encrypted and there is no password for it.
    #[error("the keyfile {} is encrypted ({}), and there is no password", path.display(), seal.name())]
    Locked {
        /// The file.
        path: PathBuf,
        /// How it is encrypted.
        seal: Seal,
    },
    /// It is encrypted and the password does not open it.
    #[error("cannot decrypt the keyfile {} ({})", path.display(), seal.name())]
    Seal {
        /// The file.
        path: PathBuf,
        /// How it is encrypted.
        seal: Seal,
        /// Why not.
        source: SealError,
    },
    /// The source of the password cannot be read.
    #[error("cannot read the password of {}", path.display())]
    Password {
        /// The keyfile.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WalletError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "name it with --wallet-path, --wallet-name, --wallet-hotkey, or make it: btcli wallet new-hotkey"
                    .to_owned(),
            ),
            Self::Locked { path, .. } => Some(format!(
                "set {} in the environment, or name a file with it in BT_WALLET_PASSWORD_FILE",
                variable_name(path)
            )),
            Self::Content { source: KeyfileError::PublicOnly, .. } => {
                Some("name the hotkey itself, not its public file".to_owned())
            }
            Self::Content { source: KeyfileError::Disagree { .. }, .. } => {
                Some("the file was mixed up or changed: make it anew from its phrase".to_owned())
            }
            _ => None,
        }
    }
}

/// Which wallet, and which of its hotkeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletPlace {
    folder: PathBuf,
    name: String,
    hotkey: String,
}

impl WalletPlace {
    /// The wallet `name` in the folder of wallets, and its hotkey.
    ///
    /// # Errors
    /// [`WalletError::Name`].
    pub fn new(folder: &Path, name: &str, hotkey: &str) -> Result<Self, WalletError> {
        for name in [name, hotkey] {
            let one = Path::new(name).components().count() == 1 && !name.contains('/');
            if !one || matches!(name, "." | "..") || name.contains('\0') {
                return Err(WalletError::Name(name.to_owned()));
            }
        }
        Ok(Self { folder: folder.to_owned(), name: name.to_owned(), hotkey: hotkey.to_owned() })
    }

    /// The wallet's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hotkey's name.
    #[must_use]
    pub fn hotkey(&self) -> &str {
        &self.hotkey
    }

    /// The file with the hotkey's secret.
    #[must_use]
    pub fn hotkey_file(&self) -> PathBuf {
        self.hotkeys_folder().join(&self.hotkey)
    }

    /// The address of the coldkey, from its public file; `None` where there is no such file.
    ///
    /// # Errors
    /// The file is there and states no address.
    pub fn coldkey(&self) -> Result<Option<Hotkey>, WalletError> {
        stated_address(&self.folder.join(&self.name).join("coldkeypub.txt"))
    }

    /// The address of the hotkey as its public file states it, which nothing proves; `None` where
    /// there is no such file.
    ///
    /// # Errors
    /// The file is there and states no address.
    pub fn stated_hotkey(&self) -> Result<Option<Hotkey>, WalletError> {
        let beside = self.hotkeys_folder().join(format!("{}pub.txt", self.hotkey));
        match stated_address(&beside)? {
            Some(hotkey) => Ok(Some(hotkey)),
            // One file for a whole wallet: of which hotkey it is, is known where there is but one.
            None if self.hotkeys().is_ok_and(|names| names == [self.hotkey.as_str()]) => {
                stated_address(&self.folder.join(&self.name).join("hotkeypub.txt"))
            }
            None => Ok(None),
        }
    }

    /// The names of the wallet's hotkeys, sorted; public files are none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn hotkeys(&self) -> Result<Vec<String>, WalletError> {
        let folder = self.hotkeys_folder();
        let failed = |source| WalletError::Read { path: folder.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = std::fs::metadata(entry.path()).is_ok_and(|found| found.is_file());
            if is_file && !name.ends_with("pub.txt") && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn hotkeys_folder(&self) -> PathBuf {
        self.folder.join(&self.name).join("hotkeys")
    }
}

/// A file with a key, read and not yet opened. The content is wiped when it is dropped.
pub struct Keyfile {
    path: PathBuf,
    mode: u32,
    content: Zeroizing<Vec<u8>>,
}

impl Keyfile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read or is too large.
    pub fn read(path: &Path) -> Result<Self, WalletError> {
        let failed = |source| WalletError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if found.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        // Of its final size at once: what grows leaves copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(1 + MAX_FILE_BYTES as usize));
        file.take(1 + MAX_FILE_BYTES).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(WalletError::TooLarge { path: path.to_owned() });
        }
        let mode = found.permissions().mode() & 0o7777;
        Ok(Self { path: path.to_owned(), mode, content })
    }

    /// The permission bits of the file.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// How it is encrypted, if it is.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        Seal::of(&self.content)
    }

    /// What is wrong with the file's permissions, in words for the user.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.mode & 0o077 != 0).then(|| {
            let path = self.path.display();
            format!(
                "the keyfile {path} is open to others (mode {:04o}): chmod 600 {path}",
                self.mode
            )
        })
    }

    /// The key pair, and how it was written. A password is looked for where the file is encrypted;
    /// `ask` allows asking a person for it.
    ///
    /// # Errors
    /// [`WalletError`]: no password, a wrong one, or content that is no usable key.
    pub fn open(
        &self,
        passwords: &Passwords<'_>,
        ask: bool,
    ) -> Result<(Format, HotkeyPair), WalletError> {
        let path = || self.path.clone();
        let Some(seal) = self.seal() else {
            return self.pair(&self.content);
        };
        let candidates = passwords
            .candidates(&self.path, ask)
            .map_err(|source| WalletError::Password { path: path(), source })?;
        let mut found = Err(WalletError::Locked { path: path(), seal });
        for password in candidates {
            match seal.open(&self.content, &password) {
                Ok(plain) => return self.pair(&plain),
                Err(source) => found = Err(WalletError::Seal { path: path(), seal, source }),
            }
        }
        found
    }

    fn pair(&self, content: &[u8]) -> Result<(Format, HotkeyPair), WalletError> {
        keyfile::read_pair(content)
            .map_err(|source| WalletError::Content { path: self.path.clone(), source })
    }
}

impl std::fmt::Debug for Keyfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyfile({})", self.path.display())
    }
}

/// The address that a public file states.
fn stated_address(path: &Path) -> Result<Option<Hotkey>, WalletError> {
    let file = match Keyfile::read(path) {
        Ok(file) => file,
        Err(WalletError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    keyfile::read_address(&file.content)
        .map(Some)
        .map_err(|source| WalletError::Content { path: path.to_owned(), source })
}

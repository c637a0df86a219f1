//! Secrets: where they may come from and how weak they may not be.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// What to do about a bad secret.
pub const HINT: &str = "make one and name its file as `jwt_secret_file`: \
     (umask 077; head -c 32 /dev/urandom | base64 > jwt-secret)";

/// The fewest characters of a secret: 32 of base64 carry 192 random bits.
const MIN_CHARS: usize = 32;
/// The fewest different characters: any 32 random base64 characters have more.
const MIN_DIFFERENT: usize = 10;
/// A secret is a line, not a document.
const MAX_BYTES: u64 = 4096;

/// Parts of words that stand in examples and are nobody's secret.
const PLACEHOLDERS: [&str; 9] = [
    "changeme",
    "placeholder",
    "example",
    "yoursecure",
    "yourjwt",
    "yoursecret",
    "secretkey",
    "password",
    "inproduction",
];

/// Why a text is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// It stands in an example.
    #[error("this is the placeholder of an example, which everybody knows")]
    Placeholder,
    /// It has too few characters.
    #[error("it has {0} characters and needs {MIN_CHARS}")]
    Short(usize),
    /// It has too few different characters.
    #[error("it has {0} different characters and needs {MIN_DIFFERENT}")]
    Uniform(usize),
}

/// Why the secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error("the secret in {} is readable by others (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is weak.
    #[error("the secret in {place} is not used: {problem}")]
    Weak {
        /// The file or the variable.
        place: String,
        /// Why.
        problem: WeakSecret,
    },
}

/// A secret that is good enough. It is never printed, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as a secret; white space around it is not part of it.
    ///
    /// # Errors
    /// [`WeakSecret`].
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        let text = text.trim();
        let plain: String = text
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        if PLACEHOLDERS.iter().any(|word| plain.contains(word)) {
            return Err(WeakSecret::Placeholder);
        }
        let count = text.chars().count();
        if count < MIN_CHARS {
            return Err(WeakSecret::Short(count));
        }
        let different: std::collections::BTreeSet<char> = text.chars().collect();
        if different.len() < MIN_DIFFERENT {
            return Err(WeakSecret::Uniform(different.len()));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Its bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A text of the environment that shall become a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw(Zeroizing<String>);

impl From<String> for Raw {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(hidden)")
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration file.
    Inline(Secret),
    /// A file, as written.
    File(PathBuf),
    /// The environment.
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: Raw,
    },
}

impl SecretSource {
    /// The secret; `resolve` makes a path of the configuration one that can be opened.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(&self, resolve: impl Fn(&Path) -> PathBuf) -> Result<Secret, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::Environment { variable, value } => Secret::new(&value.0)
                .map_err(|problem| SecretError::Weak { place: format!("${variable}"), problem }),
            Self::File(path) => read_file(&resolve(path)),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    let place = path.display().to_string();
    Secret::new(&text).map_err(|problem| SecretError::Weak { place, problem })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn placeholders_and_short_secrets_are_refused() {
        for example in [
            "your-secure-secret-key",
            "YOUR_SECURE_JWT_SECRET_HERE",
            "change-me-in-production",
            "Change_Me_5e0c9a71d2f84b36a1970c5be24df8137ca6029e",
        ] {
            assert_eq!(Secret::new(example), Err(WeakSecret::Placeholder), "{example}");
        }
        assert_eq!(Secret::new("5e0c9a71d2f8"), Err(WeakSecret::Short(12)));
        assert_eq!(Secret::new(&"ab".repeat(32)), Err(WeakSecret::Uniform(2)));
        Secret::new("5e0c9a71d2f84b36a1970c5be24df8137ca6029e\n").unwrap();
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("5e0c9a71d2f84b36a1970c5be24df8137ca6029e").unwrap();
        let value = String::from("5e0c").into();
        for source in
            [SecretSource::Inline(secret), SecretSource::Environment { variable: "V", value }]
        {
            assert!(!format!("{source:?}").contains("5e0c"));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "5e0c9a71d2f84b36a1970c5be24df8137ca6029e\n").unwrap();
        let source = SecretSource::File("secret".into());
        let read = || source.read(|path| directory.path().join(path));
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read().is_ok(), good, "{mode:o}");
        }
    }
}

//! Credentials of registries, from a file to the one header they are sent in.
//!
//! They travel to the engine through the SSH connection and are written nowhere: the engine uses
//! them for the one pull and forgets them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::image::ImageName;

/// The largest file that is read: Docker's own with a hundred registries is 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What Docker Hub is called in Docker's own file.
const HUB: &str = "https://index.docker.io/v1/";

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The file cannot be read.
    #[error("cannot read the registry's credentials in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("{} has mode {mode:04o}: others may read the credentials in it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is neither Docker's nor `user:password`.
    #[error("{} is neither Docker's config.json nor a line `user:password`", .0.display())]
    Form(PathBuf),
    /// The file keeps the credentials elsewhere.
    #[error("{} leaves the credentials to a helper program, which is not run", .0.display())]
    Helper(PathBuf),
    /// The file has none for the registry.
    #[error("{} has no credentials for {registry}", path.display())]
    NoneFor {
        /// The file.
        path: PathBuf,
        /// The registry.
        registry: String,
    },
}

impl AuthError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mode { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Helper(_) => Some(
                "write a file of mode 0600 with the line user:password and name that".to_owned(),
            ),
            Self::NoneFor { registry, .. } => Some(format!(
                "`docker login {registry}` on this machine writes them, or name a file with the line user:password"
            )),
            Self::Read { .. } | Self::Form(_) => None,
        }
    }
}

/// Credentials for the registry of one image.
pub struct RegistryAuth(Zeroizing<String>);

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(..)")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

/// A text that is wiped when it is dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::ops::Deref for Secret {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// What the header carries (Docker Engine API, "Authentication").
#[derive(Serialize)]
struct Header<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    identitytoken: &'a str,
    serveraddress: &'a str,
}

impl RegistryAuth {
    /// Reads what `path` has for the registry of `image`.
    ///
    /// # Errors
    /// The file is unreadable, open to others, of neither form, or has nothing for that registry.
    pub fn load(path: &Path, image: &ImageName) -> Result<Self, AuthError> {
        let read = |source| AuthError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(AuthError::Mode { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(read)?;
        Self::parse(path, &text, image)
    }

    fn parse(path: &Path, text: &str, image: &ImageName) -> Result<Self, AuthError> {
        let form = || AuthError::Form(path.to_owned());
        let registry = image.registry().unwrap_or(HUB);
        if !text.trim_start().starts_with('{') {
            let line = text.trim();
            let (user, password) = line.split_once(':').ok_or_else(form)?;
            if user.is_empty() || line.contains('\n') {
                return Err(form());
            }
            return Ok(Self::of(user, password, "", registry));
        }
        let file: ConfigFile = serde_json::from_str(text).map_err(|_| form())?;
        let names = match image.registry() {
            Some(name) => vec![name.to_owned(), format!("https://{name}"), format!("http://{name}")],
            None => [HUB, "docker.io", "index.docker.io"].map(str::to_owned).to_vec(),
        };
        let bare = |key: &str| key.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let entry = file
            .auths
            .iter()
            .find(|(key, _)| names.iter().any(|name| bare(key) == bare(name)))
            .map(|(_, entry)| entry);
        let helped = file.creds_store.is_some() || file.cred_helpers.contains_key(registry);
        let none = || AuthError::NoneFor { path: path.to_owned(), registry: registry.to_owned() };
        match entry {
            Some(Entry { identitytoken: Some(token), .. }) if !token.is_empty() => {
                Ok(Self::of("", "", token, registry))
            }
            Some(Entry { username: Some(user), password: Some(password), .. }) => {
                Ok(Self::of(user, password, "", registry))
            }
            Some(Entry { auth: Some(auth), .. }) if !auth.is_empty() => {
                let decoded = Zeroizing::new(STANDARD.decode(auth.as_bytes()).map_err(|_| form())?);
                let pair = std::str::from_utf8(&decoded).map_err(|_| form())?;
                let (user, password) =
                    pair.trim_end_matches('\0').split_once(':').ok_or_else(form)?;
                Ok(Self::of(user, password, "", registry))
            }
            Some(_) | None if helped => Err(AuthError::Helper(path.to_owned())),
            Some(_) | None => Err(none()),
        }
    }

    fn of(username: &str, password: &str, identitytoken: &str, serveraddress: &str) -> Self {
        let header = Header { username, password, identitytoken, serveraddress };
        // A structure of texts is always written.
        let json = Zeroizing::new(serde_json::to_vec(&header).unwrap_or_default());
        Self(Zeroizing::new(URL_SAFE.encode(&*json)))
    }

    /// The value of `X-Registry-Auth`.
    pub(super) fn header(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, image: &str) -> Result<String, AuthError> {
        let image = ImageName::parse(image).unwrap();
        let auth = RegistryAuth::parse(Path::new("f"), text, &image)?;
        Ok(String::from_utf8(URL_SAFE.decode(auth.header()).unwrap()).unwrap())
    }

    #[test]
    fn both_forms_give_the_header() {
        assert_eq!(
            parsed("ops:se:cret\n", "nvcr.io/x").unwrap(),
            r#"{"username":"ops","password":"se:cret","serveraddress":"nvcr.io"}"#
        );
        let config = r#"{"auths": {"nvcr.io": {"auth": "b3BzOnNlY3JldA=="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "ghcr.io": {"identitytoken": "t"}}}"#;
        assert!(parsed(config, "nvcr.io/x").unwrap().contains(r#""password":"secret""#));
        assert!(parsed(config, "busybox").unwrap().contains(r#""username":"hub""#));
        assert_eq!(
            parsed(config, "ghcr.io/x").unwrap(),
            r#"{"identitytoken":"t","serveraddress":"ghcr.io"}"#
        );
        assert!(matches!(parsed(config, "quay.io/x"), Err(AuthError::NoneFor { .. })));
        let helper = r#"{"auths": {"nvcr.io": {}}, "credsStore": "desktop"}"#;
        assert!(matches!(parsed(helper, "nvcr.io/x"), Err(AuthError::Helper(_))));
        for text in ["", "nothing", ":x", "{", "a:b\nc:d"] {
            assert!(matches!(parsed(text, "x"), Err(AuthError::Form(_))), "{text}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_nothing_is_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ops:secret").unwrap();
        let image = ImageName::parse("x").unwrap();
        let set = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            RegistryAuth::load(file.path(), &image)
        };
        let error = set(0o640).unwrap_err();
        assert!(error.to_string().contains("0640"), "{error}");
        assert!(error.hint().unwrap().starts_with("chmod 600"));
        assert_eq!(format!("{:?}", set(0o600).unwrap()), "RegistryAuth(..)");
    }
}

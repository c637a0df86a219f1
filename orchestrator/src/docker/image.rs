//! Names of images, as `docker pull` reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an image: registry/path:tag or registry/path@sha256:digest, in lower case")]
pub struct InvalidImage(pub String);

/// The longest name: the registry protocol's own limit is 255 bytes for the path.
const MAX_BYTES: usize = 512;

/// The name of an image with its tag or digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    /// As it was written, or with `:latest` where neither tag nor digest was.
    text: String,
    registry_bytes: usize,
}

impl ImageName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidImage`].
    pub fn parse(text: &str) -> Result<Self, InvalidImage> {
        let invalid = || InvalidImage(text.to_owned());
        let is_word = |word: &str, more: &str| {
            !word.is_empty()
                && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
                && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        if text.len() > MAX_BYTES {
            return Err(invalid());
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let is_digest = |digest: &str| match digest.strip_prefix("sha256:") {
            Some(hex) => hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
            None => false,
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid());
        }
        let last_slash = named.rfind('/').map_or(0, |at| at + 1);
        let last = named.get(last_slash..).unwrap_or_default();
        let (path, tag) = match last.find(':') {
            Some(colon) => {
                let (path, tag) = named.split_at(last_slash + colon);
                (path, tag.strip_prefix(':'))
            }
            None => (named, None),
        };
        if tag.is_some_and(|tag| !is_word(tag, "._-") || tag.len() > 128) {
            return Err(invalid());
        }
        let (registry, rest) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (Some(first), rest)
            }
            _ => (None, path),
        };
        let lower = |part: &str| is_word(part, "._-") && part == part.to_ascii_lowercase();
        if registry.is_some_and(|registry| !is_word(registry, ".-:[]"))
            || !rest.split('/').all(lower)
        {
            return Err(invalid());
        }
        let latest = if tag.is_none() && digest.is_none() { ":latest" } else { "" };
        let registry_bytes = registry.map_or(0, str::len);
        Ok(Self { text: format!("{text}{latest}"), registry_bytes })
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The registry's host and port; `None` is Docker Hub.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        self.text.get(..self.registry_bytes).filter(|registry| !registry.is_empty())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ImageName {
    type Error = InvalidImage;
    fn try_from(text: String) -> Result<Self, InvalidImage> {
        Self::parse(&text)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_registries_and_tags() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (text, name, registry) in [
            ("busybox", "busybox:latest", None),
            ("orch-it/busybox:1", "orch-it/busybox:1", None),
            ("nvcr.io/nvidia/pytorch:24.05-py3", "nvcr.io/nvidia/pytorch:24.05-py3", Some("nvcr.io")),
            ("localhost:5000/x", "localhost:5000/x:latest", Some("localhost:5000")),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", Some("127.0.0.1:5000")),
            (&digest, &digest, None),
        ] {
            let parsed = ImageName::parse(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.registry()), (name, registry), "{text}");
        }
        for text in ["", "Upper", "a b", "a:", "a@sha256:12", "a//b", "-x", "a?x=1", "../x", "a:b:c"] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}

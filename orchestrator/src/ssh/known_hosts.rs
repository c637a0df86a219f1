//! Reads OpenSSH `known_hosts` files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! Keys are compared as the bytes that go over the wire, so that a key type which this program
//! cannot use is still known, changed or revoked. Lines that mean nothing are skipped, as
//! OpenSSH does, and counted; a file that exists and cannot be read is an error, because
//! guessing at what it would have refused is not an option.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

mod pattern;

use self::pattern::Hosts;

/// A trust store that cannot be read, so that nothing can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the known hosts file {}", path.display())]
pub struct KnownHostsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// What some `known_hosts` files say.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
    skipped: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    marker: Marker,
    hosts: Hosts,
    key: KeyBlob,
    file: PathBuf,
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Plain,
    CertAuthority,
    Revoked,
}

/// A public key as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBlob {
    /// Key type, for example `ssh-ed25519`.
    pub algorithm: String,
    /// The encoded key (RFC 4253, 6.6), which starts with the type.
    pub bytes: Vec<u8>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The key that stands there.
    pub key: KeyBlob,
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

/// What is known of a key presented under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name has this key.
    Known(Origin),
    /// The name has other keys of this type.
    Changed(Vec<Origin>),
    /// The name has keys, none of this type.
    OtherType(Vec<Origin>),
    /// This key is marked `@revoked` for the name.
    Revoked(Origin),
    /// The name has no key of its own, and these authorities may sign for it.
    CertAuthority(Vec<Origin>),
    /// Nothing is known.
    Unknown,
}

/// The name under which a server stands in `known_hosts`: `host`, or `[host]:port` where the
/// port is not 22. Unlike OpenSSH there is no second look without the port: behind one address
/// different ports are often different machines.
#[must_use]
pub fn lookup_name(address: &str, port: u16) -> String {
    let address = address.to_ascii_lowercase();
    if port == 22 { address } else { format!("[{address}]:{port}") }
}

impl KnownHosts {
    /// Reads files in order. A file that does not exist has no entries.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn load<P: AsRef<Path>>(
        files: impl IntoIterator<Item = P>,
    ) -> Result<Self, KnownHostsError> {
        let mut known = Self::default();
        for path in files {
            let path = path.as_ref();
            match std::fs::read(path) {
                Ok(bytes) => known.add(&bytes, path),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(KnownHostsError { path: path.to_owned(), source }),
            }
        }
        Ok(known)
    }

    /// Adds the entries of one file's content. Any bytes are accepted; lines without meaning are
    /// skipped.
    pub fn add(&mut self, content: &[u8], file: &Path) {
        for (index, line) in content.split(|&b| b == b'\n').enumerate() {
            match parse_line(line) {
                Line::Blank => {}
                Line::Skipped => self.skipped += 1,
                Line::Entry(marker, hosts, key) => {
                    let file = file.to_owned();
                    self.entries.push(Entry { marker, hosts, key, file, line: index + 1 });
                }
            }
        }
    }

    /// How many lines were neither empty, comments nor entries.
    #[must_use]
    pub fn skipped_lines(&self) -> usize {
        self.skipped
    }

    /// What is known of `key` under `name` (see [`lookup_name`]). A revocation outweighs
    /// everything.
    #[must_use]
    pub fn check(&self, name: &str, key: &KeyBlob) -> Answer {
        if let Some(revoked) = self.revocation(name, key) {
            return Answer::Revoked(revoked);
        }
        let pinned = self.pins(name);
        if let Some(found) = pinned.iter().find(|origin| origin.key.bytes == key.bytes) {
            return Answer::Known(found.clone());
        }
        let (same, other): (Vec<_>, Vec<_>) =
            pinned.into_iter().partition(|origin| origin.key.algorithm == key.algorithm);
        if !same.is_empty() {
            return Answer::Changed(same);
        }
        if !other.is_empty() {
            return Answer::OtherType(other);
        }
        let authorities = self.authorities(name);
        if authorities.is_empty() { Answer::Unknown } else { Answer::CertAuthority(authorities) }
    }

    /// The keys that stand for `name` itself, without those revoked for it.
    #[must_use]
    pub fn pins(&self, name: &str) -> Vec<Origin> {
        self.of(name, Marker::Plain)
            .filter(|origin| self.revocation(name, &origin.key).is_none())
            .collect()
    }

    /// The authorities that may sign certificates for `name`, without those revoked for it.
    #[must_use]
    pub fn authorities(&self, name: &str) -> Vec<Origin> {
        self.of(name, Marker::CertAuthority)
            .filter(|origin| self.revocation(name, &origin.key).is_none())
            .collect()
    }

    /// Where `key` is revoked for `name`, if it is.
    #[must_use]
    pub fn revocation(&self, name: &str, key: &KeyBlob) -> Option<Origin> {
        self.of(name, Marker::Revoked).find(|origin| origin.key.bytes == key.bytes)
    }

    fn of(&self, name: &str, marker: Marker) -> impl Iterator<Item = Origin> {
        let matching = move |entry: &&Entry| entry.marker == marker && entry.hosts.matches(name);
        self.entries.iter().filter(matching).map(Entry::origin)
    }
}

impl Entry {
    fn origin(&self) -> Origin {
        Origin { key: self.key.clone(), file: self.file.clone(), line: self.line }
    }
}

impl KeyBlob {
    /// Wraps an encoded key, whose type it starts with.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let algorithm = std::str::from_utf8(rest.get(..len)?).ok()?.to_owned();
        let printable = !algorithm.is_empty() && algorithm.bytes().all(|b| b.is_ascii_graphic());
        printable.then_some(Self { algorithm, bytes })
    }

    /// Reads `type base64 [comment]`.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let (algorithm, encoded) = (words.next()?, words.next()?);
        let key = Self::from_bytes(decode(encoded)?)?;
        (key.algorithm == algorithm).then_some(key)
    }

    /// `type base64`, as OpenSSH writes keys.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{} {}", self.algorithm, STANDARD.encode(&self.bytes))
    }

    /// `SHA256:` and the unpadded base64 of the digest, as OpenSSH shows keys.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.bytes);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
    }
}

enum Line {
    Blank,
    Skipped,
    Entry(Marker, Hosts, KeyBlob),
}

fn parse_line(line: &[u8]) -> Line {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = trim_start(line);
    if line.is_empty() || line.starts_with(b"#") {
        return Line::Blank;
    }
    // Comments may be in any encoding; the fields before them are ASCII.
    let text = String::from_utf8_lossy(line);
    entry(&text).unwrap_or(Line::Skipped)
}

fn entry(text: &str) -> Option<Line> {
    let (first, rest) = word(text)?;
    let (marker, hosts, rest) = match first {
        "@cert-authority" => pair(Marker::CertAuthority, rest)?,
        "@revoked" => pair(Marker::Revoked, rest)?,
        marker if marker.starts_with('@') => return None,
        hosts => (Marker::Plain, hosts, rest),
    };
    Some(Line::Entry(marker, Hosts::parse(hosts)?, KeyBlob::from_line(rest)?))
}

fn pair(marker: Marker, rest: &str) -> Option<(Marker, &str, &str)> {
    let (hosts, rest) = word(rest)?;
    Some((marker, hosts, rest))
}

/// Splits off the first word and the blanks after it.
fn word(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once([' ', '\t'])?;
    (!word.is_empty()).then(|| (word, rest.trim_start_matches([' ', '\t'])))
}

fn trim_start(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
    line.get(blanks..).unwrap_or_default()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

#[cfg(test)]
mod tests;

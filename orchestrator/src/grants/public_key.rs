//! Public keys of validators, parsed strictly: what is granted is put together anew from the parts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The longest text that is looked at. An RSA key of 8192 bits has some 1400 characters.
const MAX_BYTES: usize = 8 * 1024;

/// Bits of an RSA modulus: OpenSSH refuses fewer (since 9.1), and more only cost time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a text is no public key that may be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicKey {
    /// Too long.
    #[error("the public key has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// A line break or another control character, which could begin a line of its own.
    #[error("a public key is one line of printable characters")]
    NotOneLine,
    /// The first word is no key type: options of `authorized_keys` are one case.
    #[error(
        "a public key begins with its type: ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521, ssh-rsa or sk-ssh-ed25519@openssh.com"
    )]
    Type,
    /// There is no base64 after the type.
    #[error("there is no key after its type")]
    Missing,
    /// It is not base64.
    #[error("the key is not base64")]
    Encoding,
    /// The bytes are not a key of that type.
    #[error("the key's bytes are not a key of its type")]
    Blob,
    /// An RSA key that is too short or too long.
    #[error("an RSA key of {0} bits is not accepted: 2048 to 8192")]
    RsaSize(usize),
}

/// A public key: its type and its blob, which agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: &'static str,
    blob: Vec<u8>,
}

/// What follows the type in a blob: the lengths of the strings, where they are fixed.
struct Kind {
    name: &'static str,
    /// The name of the curve, which the blob repeats.
    curve: Option<&'static str>,
    /// The length of the key material; `None` for RSA's two numbers.
    key_bytes: Option<usize>,
    /// Whether an application string follows (FIDO keys).
    application: bool,
}

const KINDS: [Kind; 6] = [
    Kind { name: "ssh-ed25519", curve: None, key_bytes: Some(32), application: false },
    Kind {
        name: "ecdsa-sha2-nistp256",
        curve: Some("nistp256"),
        key_bytes: Some(65),
        application: false,
    },
    Kind {
        name: "ecdsa-sha2-nistp384",
        curve: Some("nistp384"),
        key_bytes: Some(97),
        application: false,
    },
    Kind {
        name: "ecdsa-sha2-nistp521",
        curve: Some("nistp521"),
        key_bytes: Some(133),
        application: false,
    },
    Kind { name: "ssh-rsa", curve: None, key_bytes: None, application: false },
    Kind {
        name: "sk-ssh-ed25519@openssh.com",
        curve: None,
        key_bytes: Some(32),
        application: true,
    },
];

impl PublicKey {
    /// Reads `type base64 [comment]`. The comment is dropped.
    ///
    /// # Errors
    /// [`InvalidPublicKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidPublicKey> {
        if text.len() > MAX_BYTES {
            return Err(InvalidPublicKey::TooLong(text.len()));
        }
        // One line break at the end is that of a file.
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.chars().any(|c| c.is_control() || crate::printable::is_format(c)) {
            return Err(InvalidPublicKey::NotOneLine);
        }
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let name = words.next().ok_or(InvalidPublicKey::Type)?;
        let kind = KINDS.iter().find(|kind| kind.name == name).ok_or(InvalidPublicKey::Type)?;
        let encoded = words.next().ok_or(InvalidPublicKey::Missing)?;
        let blob = STANDARD.decode(encoded).map_err(|_| InvalidPublicKey::Encoding)?;
        check(kind, &blob)?;
        Ok(Self { kind: kind.name, blob })
    }

    /// `SHA256:<base64>`, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
    }
}

impl fmt::Display for PublicKey {
    /// `type base64`, put together from the parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, STANDARD.encode(&self.blob))
    }
}

/// RFC 4253, 6.6 and RFC 5656, 3.1: strings with a length of four bytes before them.
fn check(kind: &Kind, blob: &[u8]) -> Result<(), InvalidPublicKey> {
    let mut rest = blob;
    let mut next = || {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or(InvalidPublicKey::Blob)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (string, tail) = tail.split_at_checked(length).ok_or(InvalidPublicKey::Blob)?;
        rest = tail;
        Ok(string)
    };
    if next()? != kind.name.as_bytes() {
        return Err(InvalidPublicKey::Blob);
    }
    if let Some(curve) = kind.curve
        && next()? != curve.as_bytes()
    {
        return Err(InvalidPublicKey::Blob);
    }
    match kind.key_bytes {
        Some(length) => {
            let key = next()?;
            // An elliptic curve point, uncompressed.
            if key.len() != length || kind.curve.is_some() && key.first() != Some(&4) {
                return Err(InvalidPublicKey::Blob);
            }
        }
        None => {
            let exponent = next()?;
            let modulus = next()?;
            let bits = bits(modulus);
            if exponent.is_empty() || exponent.len() > 8 || exponent.first() >= Some(&0x80) {
                return Err(InvalidPublicKey::Blob);
            }
            if !RSA_BITS.contains(&bits) {
                return Err(InvalidPublicKey::RsaSize(bits));
            }
        }
    }
    if kind.application && next()?.len() > 256 {
        return Err(InvalidPublicKey::Blob);
    }
    if rest.is_empty() { Ok(()) } else { Err(InvalidPublicKey::Blob) }
}

/// The length of a positive number in two's complement.
fn bits(number: &[u8]) -> usize {
    let skipped = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.len() - skipped;
    match number.get(skipped) {
        Some(first) => significant * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_key_is_put_together_anew_without_its_comment() {
        let key = PublicKey::parse(&format!("{ED25519}  me@there, \"quoted\"\n")).unwrap();
        assert_eq!(key.to_string(), ED25519);
        assert!(key.fingerprint().starts_with("SHA256:"));
    }

    #[test]
    fn hostile_keys_are_refused() {
        use InvalidPublicKey::*;
        let of = |text: &str| PublicKey::parse(text).unwrap_err();
        let body = ED25519.split(' ').nth(1).unwrap();
        assert_eq!(of(&format!("{ED25519}\nssh-ed25519 {body}")), NotOneLine);
        assert_eq!(of(&format!("{ED25519}\r{ED25519}")), NotOneLine);
        assert_eq!(of(&format!("{ED25519}\n\n")), NotOneLine);
        assert_eq!(of(&format!("{ED25519} \u{2028}\u{202e}x")), NotOneLine);
        assert_eq!(of(&format!("{ED25519}\0")), NotOneLine);
        assert_eq!(of(&format!("command=\"id\" {ED25519}")), Type);
        assert_eq!(of(&format!("no-pty {ED25519}")), Type);
        assert_eq!(of(&format!("cert-authority {ED25519}")), Type);
        assert_eq!(of(&format!("ssh-dss {body}")), Type);
        assert_eq!(of(&format!("ssh-ed25519-cert-v01@openssh.com {body}")), Type);
        assert_eq!(of(""), Type);
        assert_eq!(of("ssh-ed25519"), Missing);
        assert_eq!(of("ssh-ed25519 AAAA=BBB"), Encoding);
        assert_eq!(of(&format!("ssh-rsa {body}")), Blob);
        assert_eq!(of(&format!("ssh-ed25519 {}AAAA", body)), Blob);
        assert_eq!(of(&"A".repeat(1 << 20)), TooLong(1 << 20));
    }

    #[test]
    fn short_rsa_keys_are_refused() {
        let key = |bytes: usize| {
            let mut blob = Vec::new();
            let modulus = [&[0][..], &vec![0xc1; bytes]].concat();
            for part in [&b"ssh-rsa"[..], &[1, 0, 1], &modulus] {
                blob.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
                blob.extend_from_slice(part);
            }
            PublicKey::parse(&format!("ssh-rsa {}", STANDARD.encode(blob)))
        };
        assert_eq!(key(128), Err(InvalidPublicKey::RsaSize(1024)));
        assert!(key(256).is_ok());
        assert_eq!(key(2000), Err(InvalidPublicKey::RsaSize(16_000)));
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_is_one_plain_line(text in "(ssh-ed25519|ssh-rsa|[a-z\" =-]{0,20}) ?[A-Za-z0-9+/=\n\r\t \"]{0,90}") {
            if let Ok(key) = PublicKey::parse(&text) {
                let line = key.to_string();
                proptest::prop_assert!(line.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
                proptest::prop_assert_eq!(line.split(' ').count(), 2);
            }
        }
    }
}

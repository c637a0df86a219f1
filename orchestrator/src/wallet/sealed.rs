//! Encrypted keyfiles: `$NACL` and Ansible Vault. Reading only; nothing here writes a wallet.

use aes::Aes256;
use argon2::{Algorithm, Argon2, Params, Version};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use serde::Serialize;
use zeroize::Zeroizing;

/// How a keyfile is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// Argon2i and XSalsa20-Poly1305, what `btcli` writes since 2023.
    Nacl,
    /// Ansible Vault 1.1 with AES-256, what it wrote before.
    AnsibleVault,
}

impl Seal {
    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nacl => "NaCl",
            Self::AnsibleVault => "Ansible Vault",
        }
    }

    /// The kind of encryption that a file's first bytes announce.
    #[must_use]
    pub fn of(content: &[u8]) -> Option<Self> {
        if content.starts_with(NACL) {
            Some(Self::Nacl)
        } else if content.starts_with(b"$ANSIBLE_VAULT") {
            Some(Self::AnsibleVault)
        } else {
            None
        }
    }

    /// Opens a file. It takes a second or two and, for `$NACL`, half a gigabyte of memory: that is
    /// the point of it.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(self, content: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        match self {
            Self::Nacl => open_nacl(content.strip_prefix(NACL).unwrap_or_default(), password),
            Self::AnsibleVault => open_vault(content, password),
        }
    }
}

/// Why an encrypted file stays shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The password is wrong, or the file was changed.
    #[error("the password is wrong, or the file is damaged")]
    Password,
    /// The file is cut off or has another shape.
    #[error("the file is damaged")]
    Damaged,
    /// A variant that is not known.
    #[error("only Ansible Vault 1.1 and 1.2 with AES256 are known")]
    Variant,
    /// There was no memory for it.
    #[error("there is no memory for the key derivation (512 MiB)")]
    Memory,
}

const NACL: &[u8] = b"$NACL";

/// The salt of every Bittensor wallet: the same for all, so that it protects nobody, but it is what
/// the files were made with.
const NACL_SALT: &[u8] = b"\x13q\x83\xdf\xf1Z\t\xbc\x9c\x90\xb5Q\x879\xe9\xb1";

/// libsodium's `crypto_pwhash_argon2i_MEMLIMIT_SENSITIVE`, in KiB.
const NACL_MEMORY_KIB: u32 = 512 * 1024;

/// libsodium's `crypto_pwhash_argon2i_OPSLIMIT_SENSITIVE`: passes over the memory.
const NACL_PASSES: u32 = 8;

/// Nonce (24 bytes), authenticator (16 bytes), ciphertext: `crypto_secretbox` of NaCl.
fn open_nacl(content: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, rest) = content.split_first_chunk::<24>().ok_or(SealError::Damaged)?;
    let (tag, ciphertext) = rest.split_first_chunk::<16>().ok_or(SealError::Damaged)?;
    let params = Params::new(NACL_MEMORY_KIB, NACL_PASSES, 1, Some(32));
    let params = params.map_err(|_| SealError::Damaged)?;
    let mut key = Zeroizing::new([0_u8; 32]);
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into(password, NACL_SALT, key.as_mut_slice())
        .map_err(|_| SealError::Memory)?;
    let mut cipher = XSalsa20::new(&(*key).into(), &(*nonce).into());
    // The first 32 bytes of the stream are the one-time key of the authenticator.
    let mut once = Zeroizing::new([0_u8; 32]);
    cipher.apply_keystream(once.as_mut_slice());
    let computed = Poly1305::new(&(*once).into()).compute_unpadded(ciphertext);
    if !constant_time_eq(&computed, tag) {
        return Err(SealError::Password);
    }
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    cipher.apply_keystream(&mut plain);
    Ok(plain)
}

/// The header line, then hexadecimal of three lines: salt, HMAC-SHA-256, ciphertext, each again in
/// hexadecimal. Keys: PBKDF2-HMAC-SHA-256, 10,000 rounds, 80 bytes.
fn open_vault(content: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    const ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(10_000).expect("it is no zero");
    let text = std::str::from_utf8(content).map_err(|_| SealError::Damaged)?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default().trim_end();
    let known = ["$ANSIBLE_VAULT;1.1;AES256", "$ANSIBLE_VAULT;1.2;AES256;"];
    if header != known[0] && !header.starts_with(known[1]) {
        return Err(SealError::Variant);
    }
    let digits: String = lines.map(str::trim).collect();
    let body = crate::hex::decode(&digits).ok_or(SealError::Damaged)?;
    let body = String::from_utf8(body).map_err(|_| SealError::Damaged)?;
    let mut parts = body.split('\n').map(|part| crate::hex::decode(part.trim()));
    let (Some(Some(salt)), Some(Some(mac)), Some(Some(ciphertext))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Err(SealError::Damaged);
    };
    let mut keys = Zeroizing::new([0_u8; 80]);
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        &salt,
        password,
        keys.as_mut_slice(),
    );
    let (cipher_key, rest) = keys.split_first_chunk::<32>().ok_or(SealError::Damaged)?;
    let (mac_key, rest) = rest.split_first_chunk::<32>().ok_or(SealError::Damaged)?;
    let (counter, _) = rest.split_first_chunk::<16>().ok_or(SealError::Damaged)?;
    let mac_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, mac_key);
    ring::hmac::verify(&mac_key, &ciphertext, &mac).map_err(|_| SealError::Password)?;
    let mut plain = Zeroizing::new(ciphertext);
    Ctr128BE::<Aes256>::new(&(*cipher_key).into(), &(*counter).into()).apply_keystream(&mut plain);
    // PKCS #7 padding of 1 to 16 bytes.
    let pad = usize::from(plain.last().copied().unwrap_or_default());
    let length = plain.len().checked_sub(pad).filter(|_| (1..=16).contains(&pad));
    plain.truncate(length.ok_or(SealError::Damaged)?);
    Ok(plain)
}

fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |found, (left, right)| found | (left ^ right)) == 0
}

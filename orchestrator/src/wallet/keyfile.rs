//! What stands in an unencrypted keyfile: the JSON of `btcli`, or just a phrase, a seed, a key.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::pair::{Crypto, HotkeyPair};
use crate::hotkey::{Hotkey, InvalidHotkey};

/// How a keyfile is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The JSON document of `btcli`.
    Json,
    /// A BIP-39 phrase and nothing else.
    SeedPhrase,
    /// 32 bytes of seed in hexadecimal and nothing else.
    HexSeed,
    /// 64 bytes of an sr25519 key in hexadecimal and nothing else.
    HexKey,
}

impl Format {
    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::SeedPhrase => "seed phrase",
            Self::HexSeed => "hexadecimal seed",
            Self::HexKey => "hexadecimal key",
        }
    }
}

/// Why the content of a keyfile gives no key. None of these says anything of the secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyfileError {
    /// Neither JSON nor a phrase nor a seed.
    #[error("it is no keyfile: neither JSON, nor a phrase, nor a seed in hexadecimal")]
    Unknown,
    /// An encryption of 2021 whose wallets nothing can open any more.
    #[error("it is encrypted in the oldest way of btcli (Fernet), which is not supported")]
    Fernet,
    /// The JSON is damaged or has another shape. What stands there is not quoted.
    #[error("its JSON is damaged at line {line}, column {column}")]
    Json {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// The cryptography is not known.
    #[error("its cryptoType is not known (0 is ed25519, 1 is sr25519)")]
    Crypto,
    /// A field is not what it should be.
    #[error("its {0} is no such value")]
    Field(&'static str),
    /// The address does not parse.
    #[error("its ss58Address is no address")]
    Address(#[source] InvalidHotkey),
    /// Two fields are of different keys.
    #[error("its {field} is of another key than its {other}")]
    Disagree {
        /// The one.
        field: &'static str,
        /// The other.
        other: &'static str,
    },
    /// It holds no secret.
    #[error("it holds the public key alone, with which nothing can be signed")]
    PublicOnly,
}

/// The keys that stand in a file; unknown ones are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    account_id: Option<String>,
    public_key: Option<String>,
    private_key: Option<String>,
    secret_phrase: Option<String>,
    secret_seed: Option<String>,
    ss58_address: Option<String>,
    crypto_type: Option<serde_json::Value>,
}

impl Drop for Document {
    fn drop(&mut self) {
        for secret in [&mut self.private_key, &mut self.secret_phrase, &mut self.secret_seed] {
            secret.zeroize();
        }
    }
}

/// The key pair of a file's content, and how it was written. Everything that the file says of the
/// key must be of one key.
///
/// # Errors
/// [`KeyfileError`].
pub fn read_pair(content: &[u8]) -> Result<(Format, HotkeyPair), KeyfileError> {
    let text = text_of(content)?;
    let sr25519 = Crypto::Sr25519;
    if text.starts_with('{') {
        return Ok((Format::Json, document(text)?.pair()?));
    }
    if text.starts_with("gAAAAA") {
        return Err(KeyfileError::Fernet);
    }
    if let Some(seed) = bytes::<32>(text) {
        let pair = HotkeyPair::from_seed(sr25519, &seed).map_err(|_| KeyfileError::Unknown)?;
        return Ok((Format::HexSeed, pair));
    }
    if let Some(key) = bytes::<64>(text) {
        let pair = HotkeyPair::from_sr25519_key(&key).map_err(|_| KeyfileError::Unknown)?;
        return Ok((Format::HexKey, pair));
    }
    match phrase_pair(sr25519, text) {
        Some(pair) => Ok((Format::SeedPhrase, pair)),
        None if text.split_whitespace().count() >= 12 => {
            Err(KeyfileError::Field("phrase (BIP-39, English, with its checksum)"))
        }
        None => Err(KeyfileError::Unknown),
    }
}

/// The address that a file states, without its secret: of `...pub.txt`, or of a keyfile.
///
/// # Errors
/// [`KeyfileError`].
pub fn read_address(content: &[u8]) -> Result<Hotkey, KeyfileError> {
    let text = text_of(content)?;
    if !text.starts_with('{') {
        // The oldest public files hold the address alone.
        return Hotkey::parse(text).map_err(|_| KeyfileError::Unknown);
    }
    let stated = document(text)?.stated()?;
    stated.first().map(|(_, hotkey)| *hotkey).ok_or(KeyfileError::Field("ss58Address"))
}

fn text_of(content: &[u8]) -> Result<&str, KeyfileError> {
    let text = std::str::from_utf8(content).map_err(|_| KeyfileError::Unknown)?;
    Ok(text.trim_start_matches('\u{feff}').trim())
}

fn document(text: &str) -> Result<Document, KeyfileError> {
    serde_json::from_str(text)
        .map_err(|error| KeyfileError::Json { line: error.line(), column: error.column() })
}

fn phrase_pair(crypto: Crypto, text: &str) -> Option<HotkeyPair> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let phrase = Zeroizing::new(words.join(" ").to_lowercase());
    HotkeyPair::from_phrase(crypto, &phrase).ok()
}

/// Hexadecimal of N bytes, with or without `0x`.
fn bytes<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let bytes = Zeroizing::new(crate::hex::decode(text.strip_prefix("0x").unwrap_or(text))?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

impl Document {
    fn crypto(&self) -> Result<Crypto, KeyfileError> {
        use serde_json::Value;
        match &self.crypto_type {
            // Files from before ed25519 was possible.
            None | Some(Value::Null) => Ok(Crypto::Sr25519),
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(Crypto::Ed25519),
            Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(Crypto::Sr25519),
            Some(_) => Err(KeyfileError::Crypto),
        }
    }

    /// What the file says of its public key, which must be one key.
    fn stated(&self) -> Result<Vec<(&'static str, Hotkey)>, KeyfileError> {
        let mut stated = Vec::new();
        for (field, text) in [("publicKey", &self.public_key), ("accountId", &self.account_id)] {
            if let Some(text) = text {
                let key = bytes::<32>(text).ok_or(KeyfileError::Field(field))?;
                stated.push((field, Hotkey::from_public_key(*key)));
            }
        }
        if let Some(text) = &self.ss58_address {
            let address = Hotkey::parse(text).map_err(KeyfileError::Address)?;
            stated.push(("ss58Address", address));
        }
        if let Some((first, key)) = stated.first()
            && let Some((other, _)) = stated.iter().find(|(_, other)| other != key)
        {
            return Err(KeyfileError::Disagree { field: other, other: first });
        }
        Ok(stated)
    }

    fn pair(&self) -> Result<HotkeyPair, KeyfileError> {
        let crypto = self.crypto()?;
        let stated = self.stated()?;
        let mut pairs = Vec::new();
        if let Some(phrase) = filled(&self.secret_phrase) {
            let pair = phrase_pair(crypto, phrase);
            pairs.push(("secretPhrase", pair.ok_or(KeyfileError::Field("secretPhrase"))?));
        }
        if let Some(seed) = filled(&self.secret_seed) {
            let pair = bytes::<32>(seed).and_then(|seed| HotkeyPair::from_seed(crypto, &seed).ok());
            pairs.push(("secretSeed", pair.ok_or(KeyfileError::Field("secretSeed"))?));
        }
        if let Some(key) = filled(&self.private_key) {
            let pair = private_pair(crypto, key);
            pairs.push(("privateKey", pair.ok_or(KeyfileError::Field("privateKey"))?));
        }
        let mut pairs = pairs.into_iter();
        let (first, pair) = pairs.next().ok_or(KeyfileError::PublicOnly)?;
        let others = pairs.map(|(field, pair)| (field, pair.hotkey()));
        match others.chain(stated).find(|(_, other)| *other != pair.hotkey()) {
            Some((field, _)) => Err(KeyfileError::Disagree { field, other: first }),
            None => Ok(pair),
        }
    }
}

/// An sr25519 key has 64 bytes; of ed25519 the seed is written, alone or before the public key.
fn private_pair(crypto: Crypto, text: &str) -> Option<HotkeyPair> {
    match crypto {
        Crypto::Sr25519 => HotkeyPair::from_sr25519_key(&*bytes::<64>(text)?).ok(),
        Crypto::Ed25519 => {
            if let Some(seed) = bytes::<32>(text) {
                return HotkeyPair::from_seed(crypto, &seed).ok();
            }
            let both = bytes::<64>(text)?;
            let (seed, public) = both.split_first_chunk::<32>()?;
            let pair = HotkeyPair::from_seed(crypto, seed).ok()?;
            (pair.hotkey().public_key() == public).then_some(pair)
        }
    }
}

fn filled(field: &Option<String>) -> Option<&str> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty() && *text != "0x")
}

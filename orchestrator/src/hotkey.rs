//! The address of a hotkey: a public key as SS58 text with the prefix of Bittensor.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sp_core::crypto::{AccountId32, PublicError, Ss58AddressFormat, Ss58Codec as _};

/// The SS58 prefix of Bittensor (and of Substrate in general).
pub const SS58_PREFIX: u16 = 42;

/// No address of 32 bytes is longer, whatever its prefix.
const MAX_CHARS: usize = 64;

/// Why a text is not a [`Hotkey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHotkey {
    /// A character that base58 does not have, or an empty text.
    #[error("an address is written in base58: letters and digits without 0, O, I and l")]
    Alphabet,
    /// Another number of bytes than an address of a 32-byte key has.
    #[error("an address of a hotkey has 48 characters")]
    Length,
    /// The checksum does not fit: a character is wrong.
    #[error("the checksum of the address does not fit: a character is wrong or missing")]
    Checksum,
    /// The address of another network.
    #[error("the address is of another network (SS58 prefix {0}, Bittensor has {SS58_PREFIX})")]
    Network(u16),
}

/// The address of a hotkey or a coldkey: 32 bytes of public key. As text, SS58 with prefix 42.
///
/// One key has one text, so comparing keys and comparing texts is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hotkey([u8; 32]);

impl Hotkey {
    /// The address of a public key, of either kind of cryptography.
    #[must_use]
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads an address.
    ///
    /// # Errors
    /// [`InvalidHotkey`]: no base58, a wrong checksum, another network.
    pub fn parse(text: &str) -> Result<Self, InvalidHotkey> {
        if text.len() > MAX_CHARS {
            return Err(InvalidHotkey::Length);
        }
        let (account, format) =
            AccountId32::from_ss58check_with_version(text).map_err(|error| match error {
                PublicError::BadBase58 => InvalidHotkey::Alphabet,
                PublicError::InvalidChecksum => InvalidHotkey::Checksum,
                _ if text.is_empty() => InvalidHotkey::Alphabet,
                _ => InvalidHotkey::Length,
            })?;
        match u16::from(format) {
            SS58_PREFIX => Ok(Self(account.into())),
            other => Err(InvalidHotkey::Network(other)),
        }
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = Ss58AddressFormat::custom(SS58_PREFIX);
        f.pad(&AccountId32::from(self.0).to_ss58check_with_version(format))
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hotkey({self})")
    }
}

impl FromStr for Hotkey {
    type Err = InvalidHotkey;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl From<AccountId32> for Hotkey {
    fn from(account: AccountId32) -> Self {
        Self(account.into())
    }
}

impl From<Hotkey> for AccountId32 {
    fn from(hotkey: Hotkey) -> Self {
        Self::from(hotkey.0)
    }
}

impl TryFrom<String> for Hotkey {
    type Error = InvalidHotkey;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Hotkey> for String {
    fn from(hotkey: Hotkey) -> Self {
        hotkey.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Substrate's well-known account `//Alice` (sr25519).
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const ALICE_KEY: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";

    #[test]
    fn an_address_is_its_public_key_and_back() {
        let alice = Hotkey::parse(ALICE).unwrap();
        assert_eq!(crate::hex::encode(alice.public_key()), ALICE_KEY);
        assert_eq!(alice.to_string(), ALICE);
        assert_eq!(serde_json::to_string(&alice).unwrap(), format!("\"{ALICE}\""));
        assert_eq!(serde_json::from_str::<Hotkey>(&format!("\"{ALICE}\"")).unwrap(), alice);
    }

    #[test]
    fn what_is_no_address_is_refused_for_what_it_is() {
        use InvalidHotkey::*;
        let error = |text: &str| Hotkey::parse(text).unwrap_err();
        assert_eq!(error(&ALICE.replace("GKut", "GKuu")), Checksum);
        assert_eq!(error(&ALICE.replace("GK", "0O")), Alphabet);
        assert_eq!(error(""), Alphabet);
        assert_eq!(error(&ALICE[..40]), Length);
        assert_eq!(error(&"1".repeat(10_000)), Length);
        // The same key on Polkadot (prefix 0).
        assert_eq!(error("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"), Network(0));
        assert_eq!(error(&format!(" {ALICE}")), Alphabet);
    }
}

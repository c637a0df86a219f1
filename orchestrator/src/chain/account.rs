//! Addresses of the chain.

use sp_core::crypto::Ss58Codec as _;

pub use sp_core::crypto::AccountId32;

/// The prefix of Bittensor's addresses, the generic one of Substrate: they begin with `5`.
const SS58_PREFIX: u16 = 42;

/// Why a text is no address of this chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not base 58, not 32 bytes, or a wrong checksum.
    #[error("it is not an SS58 address (48 characters, mostly, beginning with 5)")]
    NotSs58,
    /// An address of another chain.
    #[error("it is an address with the prefix {0}; Bittensor's have {SS58_PREFIX}")]
    WrongPrefix(u16),
}

/// Reads an SS58 address with Bittensor's prefix.
///
/// # Errors
/// [`InvalidAddress`].
pub fn account(text: &str) -> Result<AccountId32, InvalidAddress> {
    let (account, prefix) = AccountId32::from_ss58check_with_version(text)
        .map_err(|_not_told_apart| InvalidAddress::NotSs58)?;
    match u16::from(prefix) {
        SS58_PREFIX => Ok(account),
        other => Err(InvalidAddress::WrongPrefix(other)),
    }
}

/// The SS58 form of an address, for files and output.
pub(super) fn ss58(account: &AccountId32) -> String {
    account.to_ss58check_with_version(SS58_PREFIX.into())
}

/// An address as its SS58 text in JSON.
pub(super) mod as_ss58 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::AccountId32;

    pub fn serialize<S: Serializer>(account: &AccountId32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::ss58(account))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AccountId32, D::Error> {
        super::account(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of the development account Alice, and the same key on Polkadot.
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const ALICE_ON_POLKADOT: &str = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";

    #[test]
    fn an_address_is_read_and_written_the_same() {
        assert_eq!(ss58(&account(ALICE).unwrap()), ALICE);
    }

    #[test]
    fn what_is_no_address_of_this_chain_is_refused() {
        assert_eq!(account(ALICE_ON_POLKADOT), Err(InvalidAddress::WrongPrefix(0)));
        let changed = ALICE.replace("Grw", "Grx");
        for text in ["", "5", "0x00", changed.as_str(), &ALICE[1..]] {
            assert_eq!(account(text), Err(InvalidAddress::NotSs58), "{text}");
        }
    }
}

//! Why the chain refuses a call, by name.
//!
//! The same mistake is refused in two ways, by the age of the runtime: the transaction pool answers a
//! number before anything is in a block, or the call is in a block and failed with an error of the
//! pallet. The numbers of the pool are fixed; those of the pallet's errors move from runtime to
//! runtime and are looked up in its metadata.

use std::fmt;

use subxt::error::{BackendError, DispatchError, ExtrinsicError, RpcError};
use subxt::tx::{TransactionInvalid, TransactionUnknown, ValidationResult};

use crate::printable::printable;

/// Who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionStage {
    /// The transaction pool: the call is in no block.
    Pool,
    /// The runtime: the call is in a block, and has changed nothing.
    Block,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Rejection {
    /// Who refused.
    pub stage: RejectionStage,
    /// The runtime's name for it, such as `ServingRateLimitExceeded`.
    pub name: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.stage {
            RejectionStage::Pool => "the transaction pool",
            RejectionStage::Block => "the runtime",
        };
        write!(f, "{who} refused the call: {}", self.name)
    }
}

impl Rejection {
    fn pool(name: impl Into<String>) -> Self {
        Self { stage: RejectionStage::Pool, name: printable(&name.into()) }
    }

    /// What a validation says; `None` when the call is valid.
    pub(super) fn of_validation(result: &ValidationResult) -> Option<Self> {
        match result {
            ValidationResult::Valid(_) => None,
            ValidationResult::Invalid(TransactionInvalid::Custom(number))
            | ValidationResult::Unknown(TransactionUnknown::Custom(number)) => {
                Some(Self::pool(pool_error(*number)))
            }
            ValidationResult::Invalid(reason) => Some(Self::pool(format!("{reason:?}"))),
            ValidationResult::Unknown(reason) => Some(Self::pool(format!("{reason:?}"))),
        }
    }

    /// What the submission says, when it is a refusal of the pool and no failure of the way to it:
    /// JSON-RPC error 1010, with `Custom error: 12` or words in its data.
    pub(super) fn of_submission(error: &ExtrinsicError) -> Option<Self> {
        let ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(RpcError::ClientError(
            subxt::rpcs::Error::User(answer),
        ))) = error
        else {
            return None;
        };
        // Of the errors of the pool (1010 to 1050 in sc-rpc-api), those that are no refusal of this
        // call are few and say it themselves.
        if !(1010..=1050).contains(&answer.code) {
            return None;
        }
        let data = answer.data.as_ref().map(|data| data.get().trim_matches('"').to_owned());
        let number = data.as_deref().and_then(|data| data.strip_prefix("Custom error: "));
        Some(match number.and_then(|number| number.parse().ok()) {
            Some(number) => Self::pool(pool_error(number)),
            None => Self::pool(data.unwrap_or_else(|| answer.message.clone())),
        })
    }

    /// What a failed call says, looked up in the metadata.
    pub(super) fn of_dispatch(error: &DispatchError) -> Self {
        let name = match error {
            DispatchError::Module(module) => match module.details() {
                Ok(details) => details.variant.name.clone(),
                Err(_) => format!("the error {:?} that the metadata does not name", module.bytes()),
            },
            other => other.to_string(),
        };
        Self { stage: RejectionStage::Block, name: printable(&name) }
    }

    /// What to do next.
    pub(super) fn hint(&self) -> &'static str {
        match self.name.as_str() {
            "HotKeyNotRegisteredInNetwork" | "HotKeyNotRegisteredInSubNet" => {
                "register the hotkey with btcli, with the coldkey; this program never uses one"
            }
            "ServingRateLimitExceeded" | "RateLimitExceeded" => "wait; a block takes 12 s",
            "InvalidIpAddress" | "InvalidIpType" | "InvalidPort" => {
                "give the address at which validators reach the axon"
            }
            "Stale" | "Future" => "another call of this hotkey is under way: run it again",
            _ => "see the name in the documentation of Bittensor",
        }
    }
}

/// The pool's own numbers, as far as they can come of serving an axon and are the same in all
/// runtimes that were looked at.
fn pool_error(number: u8) -> String {
    match number {
        3 => "SubnetNotExists",
        6 => "RateLimitExceeded",
        10 => "HotKeyNotRegisteredInNetwork",
        11 => "InvalidIpAddress",
        12 => "ServingRateLimitExceeded",
        13 => "InvalidPort",
        255 => "BadRequest",
        other => return format!("Custom({other})"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pools_numbers_have_names() {
        let name = |number| {
            let invalid = ValidationResult::Invalid(TransactionInvalid::Custom(number));
            Rejection::of_validation(&invalid).unwrap().name
        };
        assert_eq!(name(10), "HotKeyNotRegisteredInNetwork");
        assert_eq!(name(12), "ServingRateLimitExceeded");
        assert_eq!(name(255), "BadRequest");
        assert_eq!(name(200), "Custom(200)");
        let stale = ValidationResult::Invalid(TransactionInvalid::Stale);
        assert_eq!(Rejection::of_validation(&stale).unwrap().name, "Stale");
    }

    #[test]
    fn a_refused_submission_is_told_from_a_lost_connection() {
        let of = |code, data: Option<&str>| {
            let answer = subxt::rpcs::UserError {
                code,
                message: "Invalid\u{1b} Transaction".to_owned(),
                data: data.map(|data| serde_json::from_str(data).unwrap()),
            };
            let rpc = RpcError::ClientError(subxt::rpcs::Error::User(answer));
            Rejection::of_submission(&ExtrinsicError::ErrorSubmittingTransaction(rpc.into()))
        };
        let named = of(1010, Some("\"Custom error: 12\"")).unwrap();
        assert_eq!(named.name, "ServingRateLimitExceeded");
        let words = of(1010, Some("\"Transaction is outdated\"")).unwrap();
        assert_eq!(words.name, "Transaction is outdated");
        assert_eq!(of(1010, None).unwrap().name, "Invalid  Transaction");
        assert_eq!(of(-32000, None), None);
        assert_eq!(Rejection::of_submission(&ExtrinsicError::UnsupportedVersion), None);
    }
}

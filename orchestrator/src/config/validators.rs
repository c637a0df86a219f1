//! `[validator_challenges]`: what validators may have done on hosts.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::Keys;

/// `[validator_challenges]`: challenges of GPUs with the validator's own nonces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorChallenges {
    /// Whether there are any.
    pub enabled: bool,
    /// How many one validator may have under way.
    pub max_per_validator: usize,
    /// How long a validator may take for the nonce of the next round.
    pub round_timeout: Duration,
    /// How long the answer to one request may take.
    pub answer_timeout: Duration,
    /// The model table; `None` is the built-in one.
    pub models: Option<PathBuf>,
}

pub(super) fn challenges(keys: &Keys<'_, '_>) -> ValidatorChallenges {
    // A GPU does nothing else meanwhile, and the lease that holds it lasts half an hour.
    let round = Duration::from_millis(100)..=Duration::from_secs(300);
    let answer = Duration::from_secs(1)..=Duration::from_secs(600);
    ValidatorChallenges {
        enabled: keys.flag("enabled", true),
        max_per_validator: keys.count("max_per_validator", 1..=1024, 4),
        round_timeout: keys.time("round_timeout", round, Duration::from_secs(30)),
        answer_timeout: keys.time("answer_timeout", answer, Duration::from_secs(300)),
        models: keys.path("models"),
    }
}

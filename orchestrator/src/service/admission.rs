//! Which validators are let in, decided from what is in memory.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::axon::{Admission, Denied};
use crate::chain::AccountId32;
use crate::grants::Candidate;
use crate::hotkey::Hotkey;
use crate::metagraph_cache::MetagraphCache;

/// An older metagraph says nothing of today's stakes and permits. An outage of the chain for a
/// night locks nobody out.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The operator's list, and the chain's word where there is a chain.
#[derive(Debug, Clone)]
pub struct Doorkeeper {
    allowed: Arc<RwLock<BTreeSet<Hotkey>>>,
    metagraph: Option<MetagraphCache>,
    min_stake_rao: u64,
}

impl Doorkeeper {
    /// Lets in whom the metagraph shows with a permit and enough stake, if `allowed` is empty or
    /// has it. Without a metagraph only whom `allowed` has.
    #[must_use]
    pub fn new(
        allowed: BTreeSet<Hotkey>,
        metagraph: Option<MetagraphCache>,
        min_stake_rao: u64,
    ) -> Self {
        Self { allowed: Arc::new(RwLock::new(allowed)), metagraph, min_stake_rao }
    }

    /// Takes another list from now on.
    pub fn allow(&self, allowed: BTreeSet<Hotkey>) {
        *self.allowed.write().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    /// The validators that hosts are assigned among.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(metagraph) = &self.metagraph else {
            // Nobody knows a stake; the operator named them.
            let named = |hotkey: &Hotkey| Candidate {
                hotkey: hotkey.to_string(),
                stake_rao: u64::MAX,
                has_permit: true,
            };
            return allowed.iter().map(named).collect();
        };
        let Some(metagraph) = metagraph.current() else { return Vec::new() };
        metagraph
            .neurons
            .iter()
            .map(|neuron| (Hotkey::from_public_key(neuron.hotkey.clone().into()), neuron))
            .filter(|(hotkey, _)| allowed.is_empty() || allowed.contains(hotkey))
            .map(|(hotkey, neuron)| Candidate {
                hotkey: hotkey.to_string(),
                stake_rao: neuron.stake_rao,
                has_permit: neuron.validator_permit,
            })
            .collect()
    }
}

impl Admission for Doorkeeper {
    fn admit(&self, hotkey: &Hotkey) -> Result<(), Denied> {
        {
            let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
            let named = allowed.contains(hotkey);
            if !named && (!allowed.is_empty() || self.metagraph.is_none()) {
                return Err(Denied::NotAllowed);
            }
        }
        let Some(metagraph) = &self.metagraph else { return Ok(()) };
        if metagraph.age().is_none_or(|age| age > MAX_AGE) {
            return Err(Denied::Unknown);
        }
        let account = AccountId32::from(*hotkey.public_key());
        let neuron = metagraph.neuron(&account).ok_or(Denied::NotRegistered)?;
        if !neuron.validator_permit {
            return Err(Denied::NoPermit);
        }
        if neuron.stake_rao < self.min_stake_rao {
            return Err(Denied::LowStake);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_chain_only_the_list_counts() {
        let (known, other) = (Hotkey::from_public_key([1; 32]), Hotkey::from_public_key([2; 32]));
        let door = Doorkeeper::new(BTreeSet::from([known]), None, u64::MAX);
        assert_eq!(door.admit(&known), Ok(()));
        assert_eq!(door.admit(&other), Err(Denied::NotAllowed));
        assert_eq!(door.candidates().len(), 1);
        door.allow(BTreeSet::new());
        assert_eq!(door.admit(&known), Err(Denied::NotAllowed));
    }
}

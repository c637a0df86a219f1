//! Which validators get which hosts: `[validator_assignment]` as a pure function.

use std::collections::BTreeMap;

use crate::config::{Strategy, ValidatorAssignment};
use crate::ids::HostName;

/// A validator as the chain shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its hotkey (SS58).
    pub hotkey: String,
    /// Its stake in rao (1e-9 TAO).
    pub stake_rao: u64,
    /// Whether it may validate on the subnet.
    pub has_permit: bool,
}

/// The hosts of each validator that may ask for any. The order of the arguments does not matter:
/// equal input gives equal output on every machine.
///
/// A validator without a permit or below the least stake gets nothing, also when it is the
/// preferred one. Without assignment, every validator with a permit may ask for every host; stake
/// is then judged where requests are admitted.
#[must_use]
pub fn assign(
    rules: &ValidatorAssignment,
    candidates: &[Candidate],
    hosts: &[HostName],
) -> BTreeMap<String, Vec<HostName>> {
    let mut hosts = hosts.to_vec();
    hosts.sort();
    hosts.dedup();
    let mut able: Vec<&Candidate> = candidates.iter().filter(|one| one.has_permit).collect();
    if rules.enabled {
        able.retain(|one| one.stake_rao >= rules.min_stake_rao);
    }
    // The most stake first, and equal stakes by hotkey.
    able.sort_by(|a, b| b.stake_rao.cmp(&a.stake_rao).then_with(|| a.hotkey.cmp(&b.hotkey)));
    able.dedup_by(|a, b| a.hotkey == b.hotkey);
    let all_to = |hotkey: &str| BTreeMap::from([(hotkey.to_owned(), hosts.clone())]);
    if !rules.enabled {
        return able.iter().map(|one| (one.hotkey.clone(), hosts.clone())).collect();
    }
    let preferred = rules
        .validator_hotkey
        .as_ref()
        .and_then(|wanted| able.iter().find(|one| one.hotkey == *wanted));
    match rules.strategy {
        Strategy::Fixed => preferred.map(|one| all_to(&one.hotkey)).unwrap_or_default(),
        Strategy::HighestStake => {
            preferred.or(able.first()).map(|one| all_to(&one.hotkey)).unwrap_or_default()
        }
        Strategy::RoundRobin => {
            let mut turns: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
            for (host, one) in hosts.iter().zip(able.iter().cycle()) {
                turns.entry(one.hotkey.clone()).or_default().push(host.clone());
            }
            turns
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn rules(strategy: Strategy, hotkey: Option<&str>) -> ValidatorAssignment {
        let config = Config::default().validator_assignment;
        ValidatorAssignment { strategy, validator_hotkey: hotkey.map(Into::into), ..config }
    }

    fn candidates() -> Vec<Candidate> {
        let one = |hotkey: &str, tao: u64, has_permit| Candidate {
            hotkey: hotkey.to_owned(),
            stake_rao: tao * 1_000_000_000,
            has_permit,
        };
        vec![
            one("poor", 5_999, true),
            one("mid", 6_000, true),
            one("rich", 90_000, true),
            one("richest", 99_000, false),
            one("twin", 6_000, true),
        ]
    }

    fn hosts(count: usize) -> Vec<HostName> {
        (1..=count).map(|n| HostName::new(format!("gpu-{n}")).unwrap()).collect()
    }

    fn assigned(rules: &ValidatorAssignment, count: usize) -> Vec<(String, usize)> {
        let found = assign(rules, &candidates(), &hosts(count));
        found.into_iter().map(|(hotkey, hosts)| (hotkey, hosts.len())).collect()
    }

    fn pairs(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
        expected.iter().map(|(hotkey, count)| ((*hotkey).to_owned(), *count)).collect()
    }

    #[test]
    fn the_highest_stake_with_a_permit_gets_all() {
        assert_eq!(assigned(&rules(Strategy::HighestStake, None), 3), pairs(&[("rich", 3)]));
        assert_eq!(assigned(&rules(Strategy::HighestStake, Some("mid")), 3), pairs(&[("mid", 3)]));
        // One that does not qualify is not preferred.
        let poor = rules(Strategy::HighestStake, Some("poor"));
        assert_eq!(assigned(&poor, 3), pairs(&[("rich", 3)]));
    }

    #[test]
    fn fixed_is_the_named_one_or_nobody() {
        assert_eq!(assigned(&rules(Strategy::Fixed, Some("mid")), 2), pairs(&[("mid", 2)]));
        for nobody in ["poor", "richest", "unknown"] {
            assert_eq!(assigned(&rules(Strategy::Fixed, Some(nobody)), 2), pairs(&[]));
        }
    }

    #[test]
    fn round_robin_goes_by_stake_and_differs_by_one_at_most() {
        let rules = rules(Strategy::RoundRobin, None);
        assert_eq!(assigned(&rules, 7), pairs(&[("mid", 2), ("rich", 3), ("twin", 2)]));
        assert_eq!(assigned(&rules, 1), pairs(&[("rich", 1)]));
        assert_eq!(assigned(&rules, 0), pairs(&[]));
        let mut shuffled = candidates();
        shuffled.reverse();
        assert_eq!(assign(&rules, &shuffled, &hosts(7)), assign(&rules, &candidates(), &hosts(7)));
    }

    #[test]
    fn without_assignment_every_permit_may_ask() {
        let rules = ValidatorAssignment { enabled: false, ..rules(Strategy::Fixed, None) };
        let all = [("mid", 2), ("poor", 2), ("rich", 2), ("twin", 2)];
        assert_eq!(assigned(&rules, 2), pairs(&all));
    }
}

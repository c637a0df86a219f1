//! Proofs: how old the last one is, and whether they take longer than they used to.

use std::time::Duration;

use runner_protocol::HostFacts;

use super::{History, ProofTime, words};
use crate::config::SweepConfig;
use crate::sweep::{Code, Finding};

/// Proofs of the same kind before the newest that make a median worth comparing with.
const ENOUGH: usize = 5;

/// How many of them are looked at.
const MOST: usize = 50;

pub(super) fn findings(
    facts: &HostFacts,
    history: &History<'_>,
    now_ms: i64,
    config: &SweepConfig,
) -> Vec<Finding> {
    let mut found = drift(history, config);
    // A host without GPUs has nothing to prove.
    if facts.gpus.devices.is_empty() {
        return found;
    }
    let limit = config.proof_max_age;
    match history.last_proof_ms {
        None => {
            let expected = format!("one in {}", words(limit));
            found.push(Finding::new(Code::ProofNever, "host", "no accepted proof", expected));
        }
        Some(at_ms) => {
            let age = u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0);
            let age = Duration::from_millis(age);
            if age > limit {
                let seen = format!("{} old", words(age));
                let expected = format!("at most {}", words(limit));
                found.push(Finding::new(Code::ProofStale, "host", seen, expected));
            }
        }
    }
    found
}

/// The newest proof of each GPU against the median of those before it that are of the same kind.
fn drift(history: &History<'_>, config: &SweepConfig) -> Vec<Finding> {
    let mut seen: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for (index, newest) in history.proofs.iter().enumerate() {
        if seen.contains(&newest.gpu.as_str()) {
            continue;
        }
        seen.push(&newest.gpu);
        let before = history.proofs.iter().skip(index.saturating_add(1));
        found.extend(drift_of(newest, before, config));
    }
    found
}

fn drift_of<'p>(
    newest: &ProofTime,
    before: impl Iterator<Item = &'p ProofTime>,
    config: &SweepConfig,
) -> Option<Finding> {
    let same = before.filter(|it| it.gpu == newest.gpu && it.kind == newest.kind).take(MOST);
    let mut times: Vec<u64> = same.map(|it| it.nanos).collect();
    if times.len() < ENOUGH {
        return None;
    }
    times.sort_unstable();
    let median = *times.get(times.len() / 2)?;
    let slack = u128::from(median) * u128::from(config.pow_drift_percent.saturating_add(100));
    if u128::from(newest.nanos) * 100 <= slack {
        return None;
    }
    let ms = |nanos: u64| format!("{}.{} ms", nanos / 1_000_000, nanos / 100_000 % 10);
    let expected = format!(
        "at most {} % over {}, the median of the {} before",
        config.pow_drift_percent,
        ms(median),
        times.len()
    );
    Some(Finding::new(Code::PowDrift, &newest.gpu, ms(newest.nanos), expected))
}

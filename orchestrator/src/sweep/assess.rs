//! From findings to the state of a host, with patience for what passes by itself.

use super::{Code, Confirmation, Finding, HostMemory, Severity};
use crate::config::SweepConfig;
use crate::host_state::{HostEvent, HostState};

/// A finding of the sweeps before that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The row of the database.
    pub id: String,
    /// The finding as it was last recorded.
    pub finding: Finding,
    /// Sweeps in a row that have seen it, counted up to where it counts.
    pub times: u32,
    /// When it was first seen, milliseconds.
    pub first_ms: i64,
}

/// What a sweep means for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// What moves its state.
    pub event: HostEvent,
    /// How often in a row each finding was seen, in the order of the findings.
    pub times: Vec<u32>,
    /// Whether each finding counts, in the order of the findings.
    pub confirmed: Vec<bool>,
}

/// Whether the host was reached as far as the runner, given this finding.
fn is_out_of_reach(code: Code) -> bool {
    matches!(code, Code::Unreachable | Code::LoginRefused | Code::HostKey)
}

/// Whether a state is one of trouble.
fn is_bad(state: HostState) -> bool {
    matches!(state, HostState::Degraded | HostState::Unreachable | HostState::Quarantined)
}

/// Assesses the findings of one sweep. `memory` is brought up to date: its counts and its changes of
/// state.
#[must_use]
pub fn assess(
    state: HostState,
    memory: &mut HostMemory,
    known: &[Known],
    findings: &[Finding],
    now_ms: i64,
    max_retry_attempts: u32,
    config: &SweepConfig,
) -> Assessment {
    let mut times = Vec::with_capacity(findings.len());
    let mut confirmed = Vec::with_capacity(findings.len());
    for finding in findings {
        let before = known.iter().find(|it| it.finding.key() == finding.key());
        let seen = before.map_or(0, |it| it.times).saturating_add(1);
        let needed = match finding.code.confirmation() {
            Confirmation::AtOnce => 1,
            // A host that was never well has no good state to be patient about.
            Confirmation::Repeated if state == HostState::Unknown => 1,
            Confirmation::Repeated => max_retry_attempts.max(1),
        };
        // Counted no further than it matters, so that a lasting trouble costs no write.
        times.push(seen.min(max_retry_attempts.max(1)));
        confirmed.push(seen >= needed);
    }
    let matters = |finding: &Finding| finding.severity >= Severity::Warning;
    let counts = || findings.iter().zip(&confirmed).filter(|(it, sure)| **sure && matters(it));
    let any_trouble = findings.iter().any(matters);
    // Counted no further than it is asked for, so that a host that stays well costs no write.
    let well = memory.well_in_row.saturating_add(1).min(max_retry_attempts.max(1));
    memory.well_in_row = if any_trouble { 0 } else { well };
    let window_ms = i64::try_from(config.flap_window.as_millis()).unwrap_or(i64::MAX);
    memory.changes_ms.retain(|at| *at > now_ms.saturating_sub(window_ms));
    let limit = usize::try_from(config.flap_changes).unwrap_or(usize::MAX);
    // Half way to being set aside, a host must prove more than one good moment.
    let unsteady = memory.changes_ms.len() >= limit.div_ceil(2);
    let wanted = if unsteady { max_retry_attempts.max(1) } else { 1 };
    let mut event = if counts().any(|(finding, _)| is_out_of_reach(finding.code)) {
        HostEvent::NotReached
    } else if counts().next().is_some() {
        HostEvent::FoundFaulty
    } else if any_trouble || (is_bad(state) && memory.well_in_row < wanted) {
        HostEvent::Suspected
    } else {
        HostEvent::FoundWell
    };
    let next = state.after(event);
    // A person's decisions are no flapping.
    let by_hand = matches!(state, HostState::Draining | HostState::Quarantined);
    if is_bad(next) != is_bad(state) && state != HostState::Unknown && !by_hand {
        memory.changes_ms.push(now_ms);
        if memory.changes_ms.len() >= limit && is_bad(next) {
            event = HostEvent::FailedTooOften;
        }
    }
    Assessment { event, times, confirmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host over many sweeps.
    struct Life {
        state: HostState,
        memory: HostMemory,
        known: Vec<Known>,
        now_ms: i64,
        config: SweepConfig,
    }

    impl Life {
        fn of(state: HostState) -> Self {
            let config = SweepConfig::default();
            let (memory, known) = Default::default();
            Self { state, memory, known, now_ms: 0, config }
        }

        /// One sweep that finds these, five minutes after the last.
        fn sweep(&mut self, codes: &[Code]) -> HostState {
            self.now_ms += 300_000;
            let findings: Vec<Finding> =
                codes.iter().map(|code| Finding::new(*code, "host", "", "")).collect();
            let done = assess(
                self.state,
                &mut self.memory,
                &self.known,
                &findings,
                self.now_ms,
                3,
                &self.config,
            );
            self.known = findings
                .into_iter()
                .zip(done.times)
                .map(|(finding, times)| Known { id: String::new(), finding, times, first_ms: 0 })
                .collect();
            self.state = self.state.after(done.event);
            self.state
        }
    }

    use HostState::*;

    #[test]
    fn what_may_pass_counts_at_the_third_time_in_a_row() {
        let mut life = Life::of(Ready);
        for codes in [&[Code::Unreachable][..], &[Code::Unreachable], &[], &[Code::Unreachable]] {
            assert_eq!(life.sweep(codes), Ready);
        }
        assert_eq!(life.sweep(&[Code::Unreachable]), Ready);
        assert_eq!(life.sweep(&[Code::Unreachable]), Unreachable);
        assert_eq!(life.sweep(&[Code::GpuHot]), Unreachable, "reached, and not well yet");
        assert_eq!(life.sweep(&[]), Ready);
    }

    #[test]
    fn what_does_not_pass_counts_at_once_and_information_never() {
        let mut life = Life::of(Ready);
        assert_eq!(life.sweep(&[Code::GpuMigOn, Code::Rebooted]), Ready);
        assert_eq!(life.sweep(&[Code::GpuMissing]), Degraded);
        assert_eq!(life.sweep(&[]), Ready);
        assert_eq!(life.sweep(&[Code::HostKey]), Unreachable);
    }

    #[test]
    fn a_host_that_was_never_well_gets_no_patience() {
        assert_eq!(Life::of(Unknown).sweep(&[Code::Unreachable]), Unreachable);
    }

    #[test]
    fn a_person_wins_over_every_sweep() {
        for codes in [&[][..], &[Code::GpuMissing], &[Code::HostKey]] {
            assert_eq!(Life::of(Draining).sweep(codes), Draining);
            assert_eq!(Life::of(Quarantined).sweep(codes), Quarantined);
        }
    }

    #[test]
    fn a_lease_survives_findings_and_not_a_lost_host() {
        let mut life = Life::of(Leased);
        assert_eq!(life.sweep(&[Code::GpuMissing]), Leased);
        assert_eq!(life.sweep(&[Code::HostKey]), Unreachable);
    }

    #[test]
    fn a_host_that_flaps_must_be_well_for_longer_and_is_set_aside_in_the_end() {
        let mut life = Life::of(Ready);
        assert_eq!(life.sweep(&[Code::GpuMissing]), Degraded);
        assert_eq!(life.sweep(&[]), Ready);
        assert_eq!(life.sweep(&[Code::GpuMissing]), Degraded);
        // Three changes: from now on three good sweeps are asked for.
        assert_eq!(life.sweep(&[]), Degraded);
        assert_eq!(life.sweep(&[]), Degraded);
        assert_eq!(life.sweep(&[]), Ready);
        assert_eq!(life.sweep(&[Code::GpuMissing]), Degraded);
        for state in [Degraded, Degraded, Ready] {
            assert_eq!(life.sweep(&[]), state);
        }
        assert_eq!(life.sweep(&[Code::GpuMissing]), Quarantined);
        assert_eq!(life.sweep(&[]), Quarantined);
    }

    #[test]
    fn changes_of_long_ago_are_no_flapping() {
        let mut life = Life::of(Ready);
        for _ in 0..20 {
            assert_eq!(life.sweep(&[Code::GpuMissing]), Degraded);
            assert_eq!(life.sweep(&[]), Ready);
            life.now_ms += 7_200_000;
        }
    }

    #[test]
    fn a_lasting_trouble_is_counted_no_further_than_it_matters() {
        let mut life = Life::of(Ready);
        for _ in 0..10 {
            life.sweep(&[Code::LoadHigh]);
        }
        assert_eq!((life.known[0].times, life.state), (3, Degraded));
    }
}

//! When a container of ours should not be as it is, and a lease not be held: one judgement for the
//! sweep, which tells it, and for the reconciliation, which ends it.

/// Who holds a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No live lease.
    None,
    /// A live lease that nobody renewed in time.
    Overdue,
    /// A live lease.
    Live,
}

/// What counts of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerLife<'a> {
    /// The engine's word: `running`, `exited`, ...
    pub state: &'a str,
    /// Whether it ends with its holder.
    pub foreground: bool,
    /// Whether it is to be removed when it has ended.
    pub remove: bool,
    /// When it must have ended, milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// From when on it may be removed once it has ended, milliseconds since the Unix epoch.
    pub keep_until_ms: Option<i64>,
}

/// What is wrong with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerFault {
    /// It runs past its deadline.
    Overdue,
    /// It runs in the foreground, and its holder is gone.
    Abandoned,
    /// It was made and never started, and its holder is gone.
    NeverStarted,
    /// It has ended and was to be removed by a holder that is gone.
    Ended,
    /// It has ended and was kept as long as it was to be.
    Kept,
    /// It has ended, and its lease has not.
    LeaseOutlived,
}

impl ContainerFault {
    /// The same in words, as the audit chain has them.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Overdue => "its time was over",
            Self::Abandoned => "its holder is gone",
            Self::NeverStarted => "it was never started",
            Self::Ended => "it has ended",
            Self::Kept => "it was kept long enough",
            Self::LeaseOutlived => "the container has ended",
        }
    }
}

impl ContainerLife<'_> {
    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self.state, "running" | "paused" | "restarting")
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn fault(&self, holder: Holder, now_ms: i64) -> Option<ContainerFault> {
        // Whoever holds it in the foreground renews the lease; a live lease that is not overdue is
        // somebody at work.
        let abandoned = holder != Holder::Live;
        match self.state {
            _ if self.runs() => {
                if self.deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
                    Some(ContainerFault::Overdue)
                } else {
                    (self.foreground && abandoned).then_some(ContainerFault::Abandoned)
                }
            }
            "created" => abandoned.then_some(ContainerFault::NeverStarted),
            "removing" => None,
            // It has ended. Its holder is reading how, or the engine removes detached ones itself.
            _ if self.foreground && !abandoned => None,
            _ if self.remove => Some(ContainerFault::Ended),
            _ if self.keep_until_ms.is_some_and(|until| until <= now_ms) => {
                Some(ContainerFault::Kept)
            }
            _ => (holder != Holder::None).then_some(ContainerFault::LeaseOutlived),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    #[test]
    fn what_is_wrong_with_each_container() {
        use ContainerFault::*;
        use Holder::{Live, Overdue as Late};
        for (state, foreground, remove, deadline_ms, holder, expected) in [
            ("running", true, true, None, Live, None),
            ("running", true, true, None, Late, Some(Abandoned)),
            ("running", true, false, None, Holder::None, Some(Abandoned)),
            ("running", true, false, Some(NOW), Live, Some(Overdue)),
            ("running", false, false, Some(NOW + 1), Live, None),
            ("running", false, false, None, Holder::None, None),
            ("paused", false, false, Some(NOW), Holder::None, Some(Overdue)),
            ("created", true, true, None, Live, None),
            ("created", false, false, None, Holder::None, Some(NeverStarted)),
            ("removing", false, true, None, Holder::None, None),
            // Its holder is reading how it ended.
            ("exited", true, true, None, Live, None),
            ("exited", true, true, None, Late, Some(Ended)),
            ("exited", false, false, None, Live, Some(LeaseOutlived)),
            ("dead", false, false, None, Holder::None, None),
        ] {
            let life =
                ContainerLife { state, foreground, remove, deadline_ms, keep_until_ms: None };
            assert_eq!(life.fault(holder, NOW), expected, "{life:?} {holder:?}");
        }
    }

    #[test]
    fn what_is_to_be_kept_is_kept_for_a_while_when_it_has_ended() {
        use ContainerFault::*;
        for (state, until, holder, expected) in [
            ("exited", NOW + 1, Holder::Live, Some(LeaseOutlived)),
            ("exited", NOW + 1, Holder::None, None),
            ("exited", NOW, Holder::Live, Some(Kept)),
            ("dead", NOW, Holder::None, Some(Kept)),
            ("running", NOW, Holder::Live, None),
        ] {
            let life = ContainerLife {
                state,
                foreground: false,
                remove: false,
                deadline_ms: None,
                keep_until_ms: Some(until),
            };
            assert_eq!(life.fault(holder, NOW), expected, "{life:?} {holder:?}");
        }
    }
}

//! Counters of this process, each defined here once. Who serves them reads [`all`]; and one time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// When something last happened.
#[derive(Debug)]
pub struct Moment(AtomicI64);

/// When the metagraph that is served was read from the chain.
pub static METAGRAPH_READ: Moment = Moment(AtomicI64::new(i64::MIN));

impl Moment {
    /// It happened at this time, milliseconds since the Unix epoch.
    pub fn set(&self, at_ms: i64) {
        self.0.store(at_ms, Ordering::Relaxed);
    }

    /// When it happened last, if it ever did.
    #[must_use]
    pub fn value(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at_ms| *at_ms != i64::MIN)
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal,)+) => {
        $($(#[doc = $help])+ pub static $constant: Counter = Counter::new();)+

        /// Every counter: its name, what it counts, and its value.
        pub fn all() -> impl Iterator<Item = (&'static str, &'static str, u64)> {
            [$(($name, concat!($($help),+).trim_ascii(), $constant.value()),)+].into_iter()
        }
    };
}

counters! {
    /// Containers that were started.
    CONTAINERS_STARTED = "orchestrator_containers_started_total",
    /// Containers that were stopped on request.
    CONTAINERS_STOPPED = "orchestrator_containers_stopped_total",
    /// Containers that were stopped because their time was over or their holder was gone.
    CONTAINERS_EXPIRED = "orchestrator_containers_expired_total",
    /// Containers that could not be created or started.
    CONTAINERS_FAILED = "orchestrator_containers_failed_total",
    /// Leases that were refused because others held the GPUs.
    LEASES_REFUSED = "orchestrator_leases_refused_total",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_and_names_are_distinct() {
        let before = CONTAINERS_FAILED.value();
        CONTAINERS_FAILED.increment();
        assert_eq!(CONTAINERS_FAILED.value(), before + 1);
        let names: std::collections::BTreeSet<_> = all().map(|(name, _, _)| name).collect();
        assert_eq!(names.len(), all().count());
        assert!(
            all().all(|(name, help, _)| name.starts_with("orchestrator_") && help.ends_with('.'))
        );
    }
}

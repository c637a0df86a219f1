//! `[sweep]`: how a sweep runs and from where on a host is not well.

use std::time::Duration;

use super::read::{count, duration_of, number, switch};
use super::{Problems, Section};

/// `[sweep]`. The thresholds are those of `docs/sweep.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepConfig {
    /// The whole pass.
    pub timeout: Duration,
    /// Hosts probed at a time.
    pub parallel: usize,
    /// Codes of findings that are not wanted.
    pub ignore: Vec<String>,
    /// Less free space or inodes than this share is low, in percent.
    pub disk_free_percent: u32,
    /// Less than this share is critical, in percent.
    pub disk_critical_percent: u32,
    /// This much free space is enough whatever the share, in GiB.
    pub disk_enough_gib: u32,
    /// Less available memory than this share is low, in percent.
    pub memory_available_percent: u32,
    /// Runnable threads for each hardware thread, over five minutes.
    pub load_per_thread: u32,
    /// How far a host's clock may be from ours.
    pub clock_skew: Duration,
    /// A GPU of this temperature is hot, in degrees Celsius.
    pub gpu_hot_celsius: u32,
    /// Corrected memory errors of a GPU in a day.
    pub ecc_corrected_per_day: u32,
    /// For how long an Xid error counts.
    pub xid_window: Duration,
    /// How old the last accepted proof may be.
    pub proof_max_age: Duration,
    /// How much slower than its own median a GPU's proof may be, in percent.
    pub pow_drift_percent: u32,
    /// Changes of state after which a host is set aside.
    pub flap_changes: u32,
    /// The time over which they are counted.
    pub flap_window: Duration,
    /// Repairs of one kind of one host.
    pub recovery_attempts: u32,
    /// The time over which they are counted.
    pub recovery_window: Duration,
    /// Whether services of a host may be restarted.
    pub restart_services: bool,
    /// How long the history of probes is kept.
    pub history: Duration,
}

// The arguments for these values stand in docs/sweep.md and config/orchestrator.toml.
impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            parallel: 512,
            ignore: Vec::new(),
            disk_free_percent: 10,
            disk_critical_percent: 2,
            disk_enough_gib: 100,
            memory_available_percent: 5,
            load_per_thread: 2,
            clock_skew: Duration::from_secs(5),
            gpu_hot_celsius: 88,
            ecc_corrected_per_day: 1_000,
            xid_window: Duration::from_hours(24),
            proof_max_age: Duration::from_hours(7 * 24),
            pow_drift_percent: 10,
            flap_changes: 6,
            flap_window: Duration::from_hours(2),
            recovery_attempts: 3,
            recovery_window: Duration::from_hours(24),
            restart_services: false,
            history: Duration::from_hours(14 * 24),
        }
    }
}

pub(super) const KEYS: [&str; 20] = [
    "timeout",
    "parallel",
    "ignore",
    "disk_free_percent",
    "disk_critical_percent",
    "disk_enough_gib",
    "memory_available_percent",
    "load_per_thread",
    "clock_skew",
    "gpu_hot_celsius",
    "ecc_corrected_per_day",
    "xid_window",
    "proof_max_age",
    "pow_drift_percent",
    "flap_changes",
    "flap_window",
    "recovery_attempts",
    "recovery_window",
    "restart_services",
    "history",
];

pub(super) fn read(section: &Section<'_>, problems: &mut Problems) -> SweepConfig {
    let d = SweepConfig::default();
    let pass = Duration::from_secs(1)..=Duration::from_hours(1);
    let skew = Duration::from_millis(100)..=Duration::from_hours(24);
    let days = Duration::from_secs(1)..=Duration::from_hours(3650 * 24);
    let ignore = section.texts("ignore", problems).map_or_else(Vec::new, |codes| {
        codes.into_iter().map(|code| code.value.to_owned()).collect()
    });
    let problems = std::cell::RefCell::new(problems);
    let time = |key, bounds, default| {
        duration_of(section, key, bounds, default, &mut problems.borrow_mut())
    };
    let whole =
        |key, bounds, default| number(section, key, bounds, default, &mut problems.borrow_mut());
    // Borrowed within calls only: a borrow in the literal below would last to its end.
    let hosts = |key, default| count(section, key, 1..=8192, default, &mut problems.borrow_mut());
    let on = |key, default| switch(section, key, default, &mut problems.borrow_mut());
    SweepConfig {
        timeout: time("timeout", &pass, d.timeout),
        parallel: hosts("parallel", d.parallel),
        ignore,
        disk_free_percent: whole("disk_free_percent", 0..=100, d.disk_free_percent),
        disk_critical_percent: whole("disk_critical_percent", 0..=100, d.disk_critical_percent),
        disk_enough_gib: whole("disk_enough_gib", 0..=1_000_000, d.disk_enough_gib),
        memory_available_percent: whole(
            "memory_available_percent",
            0..=100,
            d.memory_available_percent,
        ),
        load_per_thread: whole("load_per_thread", 1..=1_000, d.load_per_thread),
        clock_skew: time("clock_skew", &skew, d.clock_skew),
        gpu_hot_celsius: whole("gpu_hot_celsius", 30..=150, d.gpu_hot_celsius),
        ecc_corrected_per_day: whole(
            "ecc_corrected_per_day",
            0..=u32::MAX,
            d.ecc_corrected_per_day,
        ),
        xid_window: time("xid_window", &days, d.xid_window),
        proof_max_age: time("proof_max_age", &days, d.proof_max_age),
        pow_drift_percent: whole("pow_drift_percent", 1..=1_000, d.pow_drift_percent),
        flap_changes: whole("flap_changes", 2..=1_000, d.flap_changes),
        flap_window: time("flap_window", &days, d.flap_window),
        recovery_attempts: whole("recovery_attempts", 0..=1_000, d.recovery_attempts),
        recovery_window: time("recovery_window", &days, d.recovery_window),
        restart_services: on("restart_services", d.restart_services),
        history: time("history", &days, d.history),
    }
}

//! `[sweep]`: how a sweep runs and from where on a host is not well.

use std::time::Duration;

use super::keys::Keys;

/// `[sweep]`. The thresholds are those of `docs/sweep.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepConfig {
    /// The whole pass.
    pub timeout: Duration,
    /// When `serve` sweeps, as cron says it, in UTC; empty is every `health_check_interval`.
    pub schedule: String,
    /// Up to this is added to each due time of `serve`.
    pub jitter: Duration,
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
pub(super) fn read(keys: &Keys<'_, '_>) -> SweepConfig {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let days = Duration::from_secs(1)..=hours(3650 * 24);
    SweepConfig {
        timeout: keys.time("timeout", Duration::from_secs(1)..=hours(1), Duration::from_secs(120)),
        schedule: keys.text("schedule", ""),
        jitter: keys.time("jitter", Duration::ZERO..=hours(24), Duration::ZERO),
        parallel: keys.count("parallel", 1..=8192, 512),
        ignore: keys.texts("ignore", &[]),
        disk_free_percent: keys.count("disk_free_percent", 0..=100, 10),
        disk_critical_percent: keys.count("disk_critical_percent", 0..=100, 2),
        disk_enough_gib: keys.count("disk_enough_gib", 0..=1_000_000, 100),
        memory_available_percent: keys.count("memory_available_percent", 0..=100, 5),
        load_per_thread: keys.count("load_per_thread", 1..=1_000, 2),
        clock_skew: keys.time(
            "clock_skew",
            Duration::from_millis(100)..=hours(24),
            Duration::from_secs(5),
        ),
        gpu_hot_celsius: keys.count("gpu_hot_celsius", 30..=150, 88),
        ecc_corrected_per_day: keys.count("ecc_corrected_per_day", 0..=u64::from(u32::MAX), 1_000),
        xid_window: keys.time("xid_window", days.clone(), hours(24)),
        proof_max_age: keys.time("proof_max_age", days.clone(), hours(7 * 24)),
        pow_drift_percent: keys.count("pow_drift_percent", 1..=1_000, 10),
        flap_changes: keys.count("flap_changes", 2..=1_000, 6),
        flap_window: keys.time("flap_window", days.clone(), hours(2)),
        recovery_attempts: keys.count("recovery_attempts", 0..=1_000, 3),
        recovery_window: keys.time("recovery_window", days.clone(), hours(24)),
        restart_services: keys.flag("restart_services", false),
        history: keys.time("history", days, hours(14 * 24)),
    }
}

impl Default for SweepConfig {
    fn default() -> Self {
        super::Config::default().sweep
    }
}

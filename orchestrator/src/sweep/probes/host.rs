//! The host without its GPUs.

use std::time::Duration;

use runner_protocol::HostFacts;
use runner_protocol::facts::{ContainerRuntime, DiskFacts};

use super::{Probed, words};
use crate::config::SweepConfig;
use crate::sweep::{Code, Finding, HostMemory, Severity};

/// Mounts whose being read-only stops a host from working. Others are often so on purpose.
const MUST_WRITE: [&str; 4] = ["/", "/var", "/home", "/var/lib/docker"];

pub(super) fn findings(probed: &Probed, memory: &HostMemory, config: &SweepConfig) -> Vec<Finding> {
    let facts = &probed.facts;
    let mut found: Vec<Finding> = facts.disks.iter().flat_map(|it| disk(it, config)).collect();
    found.extend(reboot(facts, memory));
    found.extend(clock(probed, config));
    found.extend(main_memory(facts, config));
    found.extend(load(facts, config));
    found.extend(facts.container_runtimes.iter().filter_map(silent_runtime));
    found.extend(runtimes(facts));
    found.extend(facts.problems.iter().map(|problem| {
        Finding::new(Code::FactUnreadable, &problem.source, &problem.message, "readable")
    }));
    found
}

fn reboot(facts: &HostFacts, memory: &HostMemory) -> Option<Finding> {
    let (now, before) = (facts.boot_id.as_ref()?, memory.boot_id.as_ref()?);
    if now == before {
        return None;
    }
    let seen = format!("{now}, up for {}", words(Duration::from_secs(facts.uptime_secs)));
    Some(Finding::new(Code::Rebooted, "host", seen, before))
}

fn clock(probed: &Probed, config: &SweepConfig) -> Option<Finding> {
    let facts = &probed.facts;
    let theirs = i64::try_from(facts.clock_unix_ms).unwrap_or(i64::MAX);
    // The host read its clock between our asking and its answer, so that the way costs nothing.
    let (behind, ahead) =
        (probed.asked_ms.saturating_sub(theirs), theirs.saturating_sub(probed.answered_ms));
    let skew = Duration::from_millis(u64::try_from(behind.max(ahead)).unwrap_or(0));
    if skew > config.clock_skew {
        let way = if behind > ahead { "behind" } else { "ahead" };
        let seen = format!("{} {way} ours", words(skew));
        let expected = format!("at most {}", words(config.clock_skew));
        return Some(Finding::new(Code::ClockSkew, "host", seen, expected));
    }
    (facts.clock_synchronized == Some(false))
        .then(|| Finding::new(Code::ClockUnsynchronized, "host", "unsynchronized", "synchronized"))
}

/// `part` of `whole` in percent; all of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(100).checked_div(u128::from(whole));
    share.map_or(100, |share| u64::try_from(share).unwrap_or(u64::MAX))
}

/// How bad a share of what is left is.
fn shortage(free_percent: u64, config: &SweepConfig) -> Option<Severity> {
    match free_percent {
        share if share < u64::from(config.disk_critical_percent) => Some(Severity::Critical),
        share if share < u64::from(config.disk_free_percent) => Some(Severity::Warning),
        _ => None,
    }
}

fn disk(disk: &DiskFacts, config: &SweepConfig) -> Vec<Finding> {
    let mount = disk.mount.as_str();
    if disk.read_only {
        // What cannot be written cannot run out.
        return MUST_WRITE
            .contains(&mount)
            .then(|| Finding::new(Code::DiskReadOnly, mount, "read-only", "writable"))
            .into_iter()
            .collect();
    }
    let mut found = Vec::new();
    let enough = u64::from(config.disk_enough_gib) << 30;
    let space = shortage(percent(disk.free_bytes, disk.total_bytes), config);
    if let Some(severity) = space.filter(|_| disk.free_bytes < enough) {
        let seen = format!("{} of {} free", mib(disk.free_bytes), mib(disk.total_bytes));
        let expected = format!("at least {} % or {} free", config.disk_free_percent, mib(enough));
        found.push(Finding::new(Code::DiskSpaceLow, mount, seen, expected).severe(severity));
    }
    if let (Some(total), Some(free)) = (disk.inodes_total, disk.inodes_free)
        && let Some(severity) = shortage(percent(free, total), config)
    {
        let seen = format!("{free} of {total} free");
        let expected = format!("at least {} % free", config.disk_free_percent);
        found.push(Finding::new(Code::DiskInodesLow, mount, seen, expected).severe(severity));
    }
    found
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn main_memory(facts: &HostFacts, config: &SweepConfig) -> Option<Finding> {
    let memory = &facts.memory;
    let wanted = u64::from(config.memory_available_percent);
    // Nothing known is a problem of its own, not a shortage.
    if percent(memory.available_bytes, memory.total_bytes) >= wanted {
        return None;
    }
    let seen = format!("{} of {} available", mib(memory.available_bytes), mib(memory.total_bytes));
    Some(Finding::new(Code::MemoryLow, "host", seen, format!("at least {wanted} % available")))
}

fn load(facts: &HostFacts, config: &SweepConfig) -> Option<Finding> {
    let limit = u64::from(facts.cpu.threads).saturating_mul(u64::from(config.load_per_thread));
    let five = facts.load.five_milli;
    if limit == 0 || five <= limit.saturating_mul(1000) {
        return None;
    }
    let seen = format!("{}.{:03} over five minutes", five / 1000, five % 1000);
    Some(Finding::new(Code::LoadHigh, "host", seen, format!("at most {limit}")))
}

/// Whether the runner can ask a runtime of this kind at all.
fn is_asked(runtime: &ContainerRuntime) -> bool {
    matches!(runtime.name.as_str(), "docker" | "podman")
}

fn silent_runtime(runtime: &ContainerRuntime) -> Option<Finding> {
    if runtime.answers || !is_asked(runtime) {
        return None;
    }
    let seen = runtime.problem.as_deref().unwrap_or("no answer");
    Some(Finding::new(Code::ContainerRuntimeSilent, &runtime.socket, seen, "an answer"))
}

fn runtimes(facts: &HostFacts) -> Option<Finding> {
    if facts.container_runtimes.is_empty() {
        let expected = "docker, podman, containerd or cri-o";
        return Some(Finding::new(Code::ContainerRuntimeMissing, "host", "none", expected));
    }
    let mut answering = facts.container_runtimes.iter().filter(|it| it.answers).peekable();
    let has_gpus = !facts.pci_gpus.is_empty() || !facts.gpus.devices.is_empty();
    if !has_gpus || answering.peek().is_none() {
        return None;
    }
    answering.all(|it| it.nvidia_runtime == Some(false)).then(|| {
        let (seen, expected) = ("no nvidia runtime", "the nvidia runtime or CDI");
        Finding::new(Code::ContainerRuntimeWithoutNvidia, "host", seen, expected)
    })
}

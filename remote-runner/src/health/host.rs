//! The host without its GPUs.

use runner_protocol::facts::{ContainerRuntime, DiskFacts};
use runner_protocol::{Finding, HostFacts, Severity};

use super::finding;

/// Below this share of free space or inodes, in percent, images no longer fit soon.
const LOW_PERCENT: u64 = 10;

/// Below this share, in percent, services start to fail.
const CRITICAL_PERCENT: u64 = 2;

/// This much free space is enough whatever the share: 10 % of a large array is no shortage.
const ENOUGH_BYTES: u64 = 100 << 30;

/// Below this share of available memory, in percent, the kernel starts to kill.
const LOW_MEMORY_PERCENT: u64 = 5;

/// More runnable threads than this for each hardware thread slow the host's GPUs down.
const LOAD_PER_THREAD: u64 = 2;

/// A clock before 2024-01-01T00:00:00Z was never set, and every certificate fails by it.
const EARLIEST_CLOCK_MS: u64 = 1_704_067_200_000;

/// Mounts whose being read-only stops a host from working. Others are often so on purpose.
const MUST_WRITE: [&str; 4] = ["/", "/var", "/home", "/var/lib/docker"];

pub(super) fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts.disks.iter().flat_map(disk).collect();
    found.extend(memory(facts));
    found.extend(load(facts));
    found.extend(clock(facts));
    found.extend(facts.container_runtimes.iter().filter_map(silent_runtime));
    found.extend(runtimes(facts));
    found.extend(facts.problems.iter().map(|problem| {
        let message = "a source of facts could not be read";
        let (source, seen) = (problem.source.as_str(), problem.message.as_str());
        finding(Severity::Info, "fact_unreadable", source, message, seen, "readable")
    }));
    found
}

/// `part` of `whole` in percent; all of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(100).checked_div(u128::from(whole));
    share.map_or(100, |share| u64::try_from(share).unwrap_or(u64::MAX))
}

/// How bad a share of what is left is.
fn shortage(free_percent: u64) -> Option<Severity> {
    match free_percent {
        share if share < CRITICAL_PERCENT => Some(Severity::Critical),
        share if share < LOW_PERCENT => Some(Severity::Warning),
        _ => None,
    }
}

fn disk(disk: &DiskFacts) -> Vec<Finding> {
    let mount = disk.mount.as_str();
    let mut found = Vec::new();
    if disk.read_only {
        if MUST_WRITE.contains(&mount) {
            let message = "the file system is mounted read-only";
            found.push(finding(
                Severity::Critical,
                "disk_read_only",
                mount,
                message,
                "read-only",
                "writable",
            ));
        }
        // What cannot be written cannot run out.
        return found;
    }
    let space = shortage(percent(disk.free_bytes, disk.total_bytes));
    if let Some(severity) = space.filter(|_| disk.free_bytes < ENOUGH_BYTES) {
        let seen = format!("{} of {} free", mib(disk.free_bytes), mib(disk.total_bytes));
        let expected = format!("at least {LOW_PERCENT} % or {} free", mib(ENOUGH_BYTES));
        let message = "the file system is nearly full";
        found.push(finding(severity, "disk_space_low", mount, message, seen, expected));
    }
    if let (Some(total), Some(free)) = (disk.inodes_total, disk.inodes_free)
        && let Some(severity) = shortage(percent(free, total))
    {
        let seen = format!("{free} of {total} free");
        let expected = format!("at least {LOW_PERCENT} % free");
        let message = "the file system can hold few more files";
        found.push(finding(severity, "disk_inodes_low", mount, message, seen, expected));
    }
    found
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn memory(facts: &HostFacts) -> Option<Finding> {
    let memory = &facts.memory;
    // Nothing known is a problem of its own, not a shortage.
    if percent(memory.available_bytes, memory.total_bytes) >= LOW_MEMORY_PERCENT {
        return None;
    }
    let seen = format!("{} of {} available", mib(memory.available_bytes), mib(memory.total_bytes));
    let expected = format!("at least {LOW_MEMORY_PERCENT} % available");
    let message = "main memory is nearly used up";
    Some(finding(Severity::Warning, "memory_low", "host", message, seen, expected))
}

fn load(facts: &HostFacts) -> Option<Finding> {
    let limit = u64::from(facts.cpu.threads).saturating_mul(LOAD_PER_THREAD);
    let five = facts.load.five_milli;
    if limit == 0 || five <= limit.saturating_mul(1000) {
        return None;
    }
    let seen = format!("{}.{:03} over five minutes", five / 1000, five % 1000);
    let message = "more work waits than the processors can do";
    Some(finding(Severity::Warning, "load_high", "host", message, seen, format!("at most {limit}")))
}

fn clock(facts: &HostFacts) -> Option<Finding> {
    if facts.clock_unix_ms < EARLIEST_CLOCK_MS {
        let seen = format!("{} s after 1970", facts.clock_unix_ms / 1000);
        let (code, message) = ("clock_implausible", "the clock was never set");
        return Some(finding(Severity::Critical, code, "host", message, seen, "the present time"));
    }
    (facts.clock_synchronized == Some(false)).then(|| {
        let message = "no time source keeps the clock in step";
        let (seen, expected) = ("unsynchronized", "synchronized");
        finding(Severity::Warning, "clock_unsynchronized", "host", message, seen, expected)
    })
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
    let message = "the container runtime does not answer on its socket";
    let (code, socket) = ("container_runtime_silent", runtime.socket.as_str());
    Some(finding(Severity::Warning, code, socket, message, seen, "an answer"))
}

fn runtimes(facts: &HostFacts) -> Option<Finding> {
    if facts.container_runtimes.is_empty() {
        let (code, message) = ("container_runtime_missing", "no container runtime has a socket");
        let expected = "docker, podman, containerd or cri-o";
        return Some(finding(Severity::Warning, code, "host", message, "none", expected));
    }
    let mut answering = facts.container_runtimes.iter().filter(|it| it.answers).peekable();
    let has_gpus = !facts.pci_gpus.is_empty() || !facts.gpus.devices.is_empty();
    if !has_gpus || answering.peek().is_none() {
        return None;
    }
    answering.all(|it| it.nvidia_runtime == Some(false)).then(|| {
        let message = "no container runtime is set up to give GPUs to containers";
        let (code, expected) = ("container_runtime_without_nvidia", "the nvidia runtime or CDI");
        finding(Severity::Warning, code, "host", message, "no nvidia runtime", expected)
    })
}

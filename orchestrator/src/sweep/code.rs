//! The kinds of findings: a stable word for each, how much it matters, from when on it counts, and
//! what mends it. `docs/sweep.md` has them all, and a test holds it complete.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Severity;

/// From when on a finding counts for the host's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// When it is first seen: it does not pass by itself.
    AtOnce,
    /// When so many sweeps in a row have seen it (`max_retry_attempts`): it may pass by itself.
    Repeated,
}

impl Confirmation {
    /// The words of the documentation.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::Repeated => "repeated",
        }
    }
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $severity:ident, $confirmation:ident, $message:literal, $fix:literal;)+) => {
        /// A stable code. Codes are added, never renamed or reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = $message] $variant,)+ }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The word.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }

            /// How much it matters, unless the finding says otherwise.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity,)+ }
            }

            /// From when on it counts.
            #[must_use]
            pub fn confirmation(self) -> Confirmation {
                match self { $(Code::$variant => Confirmation::$confirmation,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(Code::$variant => $message,)+ }
            }

            /// What mends it, with `{host}`, `{ssh}` and `{subject}` left open.
            #[must_use]
            pub fn fix_template(self) -> &'static str {
                match self { $(Code::$variant => $fix,)+ }
            }
        }
    };
}

codes! {
    Unreachable = "unreachable", Critical, Repeated,
        "the host was not reached", "{ssh} true";
    LoginRefused = "login_refused", Critical, Repeated,
        "the host refused our login", "{ssh} true";
    HostKey = "host_key", Critical, AtOnce,
        "the host's key is not the one that is trusted", "orchestrator hosts trust {host}";
    RunnerMissing = "runner_missing", Critical, AtOnce,
        "the runner is not on the host", "orchestrator deploy --limit {host}";
    RunnerDamaged = "runner_damaged", Critical, AtOnce,
        "the runner on the host is not the one that was sent", "orchestrator deploy --limit {host}";
    RunnerFailed = "runner_failed", Critical, Repeated,
        "the runner did not do its part", "orchestrator deploy --limit {host}";
    RunnerSilent = "runner_silent", Critical, Repeated,
        "the host did not answer in time", "{ssh} uptime";
    Rebooted = "rebooted", Info, AtOnce,
        "the host was restarted since the last sweep", "{ssh} last -x reboot";
    ClockSkew = "clock_skew", Warning, Repeated,
        "the host's clock is wrong", "{ssh} sudo timedatectl set-ntp true";
    ClockUnsynchronized = "clock_unsynchronized", Warning, Repeated,
        "no time source keeps the host's clock in step", "{ssh} sudo timedatectl set-ntp true";
    DiskSpaceLow = "disk_space_low", Warning, AtOnce,
        "a file system is nearly full", "{ssh} docker system prune --all";
    DiskInodesLow = "disk_inodes_low", Warning, AtOnce,
        "a file system can hold few more files", "{ssh} docker system prune --all";
    DiskReadOnly = "disk_read_only", Critical, AtOnce,
        "a file system is mounted read-only", "{ssh} sudo mount -o remount,rw {subject}";
    MemoryLow = "memory_low", Warning, Repeated,
        "main memory is nearly used up", "{ssh} ps aux --sort=-rss";
    LoadHigh = "load_high", Warning, Repeated,
        "more work waits than the processors can do", "{ssh} ps aux --sort=-pcpu";
    FactUnreadable = "fact_unreadable", Info, AtOnce,
        "a source of facts could not be read", "{ssh} ls -l {subject}";
    ContainerRuntimeMissing = "container_runtime_missing", Warning, AtOnce,
        "no container runtime has a socket", "{ssh} sudo apt-get install docker.io";
    ContainerRuntimeSilent = "container_runtime_silent", Warning, Repeated,
        "the container runtime does not answer on its socket", "{ssh} sudo systemctl restart docker";
    ContainerRuntimeWithoutNvidia = "container_runtime_without_nvidia", Warning, AtOnce,
        "no container runtime is set up to give GPUs to containers",
        "{ssh} sudo nvidia-ctk runtime configure --runtime=docker";
    ContainerOverdue = "container_overdue", Warning, AtOnce,
        "a container of ours runs past its deadline", "orchestrator stop {host}/{subject}";
    ContainerAbandoned = "container_abandoned", Warning, AtOnce,
        "a container of ours runs in the foreground, and its holder is gone",
        "orchestrator stop {host}/{subject}";
    ContainerUnleased = "container_unleased", Warning, AtOnce,
        "a container of ours runs without a live lease", "orchestrator stop {host}/{subject}";
    ContainerLeftBehind = "container_left_behind", Info, AtOnce,
        "a container of ours has ended, or was never started, and is still there",
        "orchestrator rm {host}/{subject}";
    LeaseOutlived = "lease_outlived", Warning, Repeated,
        "a lease is held for a container that has ended or is gone", "orchestrator ps --limit {host}";
    GrantExpired = "grant_expired", Warning, AtOnce,
        "the line of an expired grant is still in a file of keys", "orchestrator grants revoke {subject}";
    GrantRevoked = "grant_revoked", Critical, AtOnce,
        "the line of a grant that was taken back is still in a file of keys",
        "orchestrator grants revoke {subject}";
    GrantUnknown = "grant_unknown", Warning, AtOnce,
        "a file of keys has the line of a grant that this database did not give",
        "{ssh} grep -rl {subject} .ssh";
    DriverMissing = "driver_missing", Critical, AtOnce,
        "the host has NVIDIA GPUs and no driver answers for them", "{ssh} sudo modprobe nvidia";
    DriverLibraryMismatch = "driver_library_mismatch", Critical, AtOnce,
        "NVML: Driver/library version mismatch: the library was upgraded under the loaded module",
        "{ssh} sudo reboot";
    DriverStalled = "driver_stalled", Critical, Repeated,
        "the NVIDIA driver does not answer in time", "{ssh} sudo reboot";
    DriverCrashed = "driver_crashed", Critical, Repeated,
        "the NVIDIA library crashes", "{ssh} nvidia-smi";
    DriverFailed = "driver_failed", Critical, Repeated,
        "the NVIDIA driver does not work", "{ssh} nvidia-smi";
    SourcesDisagree = "sources_disagree", Warning, AtOnce,
        "NVML and the kernel contradict each other", "orchestrator hosts show {host}";
    ClaimMismatch = "claim_mismatch", Warning, AtOnce,
        "the GPUs are not what the fleet file claims", "orchestrator hosts show {host}";
    GpuMissing = "gpu_missing", Critical, AtOnce,
        "a GPU of the passport is gone", "{ssh} nvidia-smi -L";
    GpuSwapped = "gpu_swapped", Critical, AtOnce,
        "another GPU is in the place of one of the passport", "orchestrator deploy --limit {host}";
    GpuNew = "gpu_new", Warning, AtOnce,
        "a GPU is there that the passport does not have", "orchestrator deploy --limit {host}";
    GpuSilent = "gpu_silent", Critical, AtOnce,
        "a GPU does not answer", "{ssh} sudo reboot";
    GpuXid = "gpu_xid", Warning, AtOnce,
        "the NVIDIA kernel module logged an error", "{ssh} sudo dmesg --ctime";
    GpuEccUncorrected = "gpu_ecc_uncorrected", Critical, AtOnce,
        "uncorrected memory errors since the driver was loaded", "{ssh} sudo nvidia-smi -r -i {subject}";
    GpuEccSlope = "gpu_ecc_slope", Warning, AtOnce,
        "corrected memory errors come faster than a sound device's", "{ssh} nvidia-smi -q -d ECC -i {subject}";
    GpuEccOff = "gpu_ecc_off", Warning, AtOnce,
        "error correction is switched off", "{ssh} sudo nvidia-smi -e 1 -i {subject}";
    GpuRowRemapPending = "gpu_row_remap_pending", Warning, AtOnce,
        "a row of memory waits to be replaced: the GPU wants a reset", "{ssh} sudo nvidia-smi -r -i {subject}";
    GpuRowRemapFailed = "gpu_row_remap_failed", Critical, AtOnce,
        "a row of memory could not be replaced: the GPU wants an RMA", "{ssh} nvidia-smi -q -d ROW_REMAPPER -i {subject}";
    GpuPcieWidthLow = "gpu_pcie_width_low", Warning, AtOnce,
        "the PCI Express link has fewer lanes than it could have", "{ssh} nvidia-smi -q -i {subject}";
    GpuPcieGenerationLow = "gpu_pcie_generation_low", Warning, Repeated,
        "the PCI Express link of a busy GPU is slower than it could be", "{ssh} nvidia-smi -q -i {subject}";
    GpuThrottled = "gpu_throttled", Warning, Repeated,
        "heat or power supply slows the GPU down", "{ssh} nvidia-smi -q -d PERFORMANCE -i {subject}";
    GpuPowerLimitLow = "gpu_power_limit_low", Warning, AtOnce,
        "the power limit is below the GPU's own", "{ssh} nvidia-smi -q -d POWER -i {subject}";
    GpuHot = "gpu_hot", Warning, Repeated,
        "the GPU is nearly too hot to work", "{ssh} nvidia-smi -q -d TEMPERATURE -i {subject}";
    GpuPersistenceOff = "gpu_persistence_off", Info, AtOnce,
        "the driver lets the GPU go when idle, so each start takes seconds", "{ssh} sudo nvidia-smi -pm 1 -i {subject}";
    GpuMigOn = "gpu_mig_on", Info, AtOnce,
        "the GPU is split into instances", "{ssh} sudo nvidia-smi -mig 0 -i {subject}";
    ProofNever = "proof_never", Info, AtOnce,
        "the host's GPUs have never proven themselves", "orchestrator verify {host}";
    ProofStale = "proof_stale", Warning, AtOnce,
        "the last accepted proof of the host is old", "orchestrator verify {host}";
    ProofFailed = "proof_failed", Critical, Repeated,
        "the host did not prove its GPU when this sweep asked", "orchestrator verify {host}";
    PowDrift = "pow_drift", Warning, Repeated,
        "the GPU's proofs take longer than its own used to", "orchestrator verify {host}";
}

/// What is filled into a fix.
#[derive(Debug, Clone, Default)]
pub struct FixPlaces {
    /// The host's name, which is safe in a command line.
    pub host: String,
    /// The start of a command line that runs what follows on the host, quoted already.
    pub ssh: String,
}

impl Code {
    /// Whether it is about reaching the host and its runner, so that it is gone only when both
    /// answer, and all else is not known while it stands.
    #[must_use]
    pub fn is_of_reach(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::LoginRefused
                | Self::HostKey
                | Self::RunnerMissing
                | Self::RunnerDamaged
                | Self::RunnerFailed
                | Self::RunnerSilent
        )
    }

    /// The command that mends it, or that shows more. A subject is a host's word: one that is not
    /// safe in a shell stays out.
    #[must_use]
    pub fn fix(self, places: &FixPlaces, subject: &str) -> String {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_' | '/' | '-');
        let starts_plain = subject.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
        let subject = if starts_plain && subject.chars().all(safe) { subject } else { "WHICH" };
        self.fix_template()
            .replace("{host}", &places.host)
            .replace("{ssh}", &places.ssh)
            .replace("{subject}", subject)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code of a finding")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.name() == text)
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::severity_name;
    use super::*;

    #[test]
    fn the_documentation_lists_every_code_in_order_and_no_other() {
        let documented: Vec<Vec<String>> = include_str!("../../../docs/sweep.md")
            .split("## Findings")
            .nth(1)
            .unwrap()
            .split("\n## ")
            .next()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()))
            .map(|cells| cells.take(5).collect())
            .collect();
        let known: Vec<Vec<String>> = Code::ALL
            .iter()
            .map(|code| {
                vec![
                    format!("`{code}`"),
                    severity_name(code.severity()).to_owned(),
                    code.confirmation().words().to_owned(),
                    code.message().to_owned(),
                    format!("`{}`", code.fix_template()),
                ]
            })
            .collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn a_subject_of_the_host_is_no_way_into_a_shell() {
        let places = FixPlaces { host: "gpu-01".into(), ssh: "ssh a@b".into() };
        let fix = |subject| Code::DiskReadOnly.fix(&places, subject);
        assert_eq!(fix("/var/lib/docker"), "ssh a@b sudo mount -o remount,rw /var/lib/docker");
        for subject in ["/a b", "/$(id)", "/a;id", "/`id`", "-o", "", "/a\nid", "/a'"] {
            assert_eq!(fix(subject), "ssh a@b sudo mount -o remount,rw WHICH", "{subject:?}");
        }
    }

    #[test]
    fn names_read_back() {
        for code in Code::ALL {
            assert_eq!(code.name().parse(), Ok(*code));
        }
    }
}

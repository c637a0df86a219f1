//! What a host is, as the runner finds it.
//!
//! Sizes are bytes, power is milliwatts, clocks are MHz, times are milliseconds or seconds as the
//! name says; there are no floating-point numbers. `None` means that the host or the device does
//! not report the value, never zero. A source that exists and could not be read is a [`Problem`].

use serde::{Deserialize, Serialize};

use crate::bounded;

mod gpu;

pub use gpu::{
    ClockFacts, ComputeCapability, DriverState, EccFacts, Gpu, GpuFacts, GpuProcess, MAX_GPUS,
    PcieFacts, PowerFacts, RowRemapFacts,
};

/// The most mounts that facts carry.
pub const MAX_DISKS: usize = 1024;

/// The most entries of the other lists.
pub const MAX_ENTRIES: usize = 1024;

/// Everything the runner finds out about its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// The distribution.
    pub os: OsFacts,
    /// The kernel's release, such as `6.8.0-45-generic`.
    pub kernel: String,
    /// The machine's architecture, such as `x86_64`.
    pub arch: String,
    /// The version of the GNU C library, such as `2.39`.
    pub glibc: Option<String>,
    /// The host's own name for itself.
    pub hostname: String,
    /// `/etc/machine-id`: stays over restarts, and is often equal on cloned images.
    pub machine_id: Option<String>,
    /// The kernel's boot id: changes at each restart.
    pub boot_id: Option<String>,
    /// Seconds since the restart.
    pub uptime_secs: u64,
    /// The host's clock when the facts were read, milliseconds since the Unix epoch.
    pub clock_unix_ms: u64,
    /// Whether the kernel's clock is being kept in step with a time source.
    pub clock_synchronized: Option<bool>,
    /// Processors.
    pub cpu: CpuFacts,
    /// Load averages.
    pub load: LoadFacts,
    /// Main memory.
    pub memory: MemoryFacts,
    /// Mounted file systems that hold data: no kernel file systems, each device once.
    #[serde(deserialize_with = "bounded::list::<MAX_DISKS, _, _>")]
    pub disks: Vec<DiskFacts>,
    /// Container runtimes with a socket.
    #[serde(deserialize_with = "bounded::list::<64, _, _>")]
    pub container_runtimes: Vec<ContainerRuntime>,
    /// NVIDIA display devices on the PCI bus, whether or not a driver answers for them.
    #[serde(deserialize_with = "bounded::list::<MAX_GPUS, _, _>")]
    pub pci_gpus: Vec<PciGpu>,
    /// What the NVIDIA driver says.
    pub gpus: GpuFacts,
    /// Where two sources contradict each other.
    #[serde(deserialize_with = "bounded::list::<MAX_ENTRIES, _, _>")]
    pub disagreements: Vec<Disagreement>,
    /// Sources that exist and could not be read.
    #[serde(deserialize_with = "bounded::list::<MAX_ENTRIES, _, _>")]
    pub problems: Vec<Problem>,
    /// What the NVIDIA kernel module has complained of since the restart, one entry for each device
    /// and kind; `None` if the login may not read the kernel's log (`dmesg_restrict`) or there is
    /// none, as in most containers.
    #[serde(deserialize_with = "xid_errors")]
    pub xid_errors: Option<Vec<XidError>>,
    /// The lines of grants in the files of keys that were asked about.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<MAX_GRANT_LINES, _, _>"
    )]
    pub grants: Vec<GrantLine>,
}

/// What is asked of the host besides what it is anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactsQuery {
    /// The socket of a container engine that is not in a usual place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Files in which lines of grants may be, as [`HostFacts::grants`]; `~/` is the login's home.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<MAX_KEY_FILES, _, _>"
    )]
    pub key_files: Vec<String>,
}

/// The most files of keys of one question.
pub const MAX_KEY_FILES: usize = 16;

/// The most lines of grants that facts carry.
pub const MAX_GRANT_LINES: usize = 16_384;

/// A line of a grant in a file of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrantLine {
    /// The file, as it was asked about.
    pub file: String,
    /// The grant's id.
    pub grant: String,
}

/// The distribution, from `/etc/os-release` (os-release(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OsFacts {
    /// `ID`, such as `ubuntu`.
    pub id: String,
    /// `VERSION_ID`, such as `24.04`.
    pub version: Option<String>,
    /// `PRETTY_NAME`, such as `Ubuntu 24.04.1 LTS`.
    pub name: String,
}

/// Processors, from `/proc/cpuinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuFacts {
    /// The model of the first processor.
    pub model: String,
    /// Physical packages.
    pub sockets: u32,
    /// Physical cores of all packages.
    pub cores: u32,
    /// Hardware threads that are online.
    pub threads: u32,
    /// Threads that this process may use: its affinity and its control group's quota.
    pub usable_threads: u32,
}

/// Load averages (proc(5), `/proc/loadavg`) in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadFacts {
    /// Over one minute.
    pub one_milli: u64,
    /// Over five minutes.
    pub five_milli: u64,
    /// Over fifteen minutes.
    pub fifteen_milli: u64,
}

/// Main memory, from `/proc/meminfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryFacts {
    /// All of it.
    pub total_bytes: u64,
    /// What a new program could use without swapping.
    pub available_bytes: u64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// Unused swap space.
    pub swap_free_bytes: u64,
}

/// A mounted file system, from `/proc/self/mountinfo` and statvfs(3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskFacts {
    /// Where it is mounted.
    pub mount: String,
    /// What is mounted, such as `/dev/nvme0n1p2`.
    pub device: String,
    /// The file system's type, such as `ext4`.
    pub fs: String,
    /// Its size.
    pub total_bytes: u64,
    /// What an unprivileged user can still write.
    pub free_bytes: u64,
    /// How many inodes it can hold; `None` where the file system has no such limit.
    pub inodes_total: Option<u64>,
    /// How many inodes an unprivileged user can still make.
    pub inodes_free: Option<u64>,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// A container runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRuntime {
    /// `docker`, `podman`, `containerd` or `cri-o`.
    pub name: String,
    /// The path of its socket.
    pub socket: String,
    /// Whether it answered. Always `false` for runtimes that speak gRPC, which is not asked.
    pub answers: bool,
    /// Why it did not answer.
    pub problem: Option<String>,
    /// Its version, such as `27.3.1`.
    pub version: Option<String>,
    /// The version of its API, such as `1.47`.
    pub api_version: Option<String>,
    /// Whether an `nvidia` runtime, or the nvidia CDI devices, are set up in it.
    pub nvidia_runtime: Option<bool>,
    /// The containers of orchestrators in it, running or not; `None` if it did not say, or if there
    /// are more than [`MAX_ENTRIES`].
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "own_containers")]
    pub containers: Option<Vec<OwnContainer>>,
}

/// A container with the [`labels`](crate::labels) of an orchestrator, whichever that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnContainer {
    /// The engine's id.
    pub id: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// The identity of the database that it belongs to.
    pub owner: String,
    /// Its lease there.
    pub lease: String,
    /// `foreground` or `detached`.
    pub mode: String,
    /// When it must have ended, milliseconds since the Unix epoch.
    pub deadline_unix_ms: Option<u64>,
    /// Whether it is to be removed when it has ended.
    pub remove: bool,
    /// Until when it is kept at least once it has ended, milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_until_unix_ms: Option<u64>,
}

/// An NVIDIA display device on the PCI bus, from `/sys/bus/pci/devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PciGpu {
    /// Domain, bus, device and function, such as `0000:3b:00.0`, in lower case.
    pub address: String,
    /// The device id, such as `0x2335`.
    pub device_id: String,
    /// The kernel driver bound to it, such as `nvidia`, `nouveau` or `vfio-pci`.
    pub kernel_driver: Option<String>,
    /// The present link width, in lanes.
    pub link_width: Option<u32>,
    /// The widest link of the device, in lanes.
    pub link_width_max: Option<u32>,
}

/// Two sources that contradict each other about one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disagreement {
    /// A stable word: `driver_version`, `gpu_only_in_nvml`, `gpu_only_on_pci`,
    /// `gpu_only_in_proc`, `gpu_model`, `gpu_uuid`, `gpu_vbios`.
    pub code: String,
    /// What it is about: a GPU's PCI address, or `driver`.
    pub subject: String,
    /// What NVML says; empty if it says nothing.
    pub nvml: String,
    /// The other source's name.
    pub other_source: String,
    /// What the other source says; empty if it says nothing.
    pub other: String,
}

/// The most kinds of Xid errors that facts carry, over all devices.
const MAX_XID_ERRORS: usize = 256;

/// One kind of error that the NVIDIA kernel module logged for one device: an Xid (NVIDIA, "XID
/// Errors").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XidError {
    /// The device's PCI address, such as `0000:3b:00.0`, in lower case.
    pub pci_address: String,
    /// The error's number, such as 79: the GPU has fallen off the bus.
    pub xid: u32,
    /// How often it came since the restart, as far as the kernel's log goes back.
    pub count: u32,
    /// How long ago it last came, in seconds.
    pub last_secs_ago: u64,
    /// What follows the number in the last message.
    pub message: String,
}

/// A list that may be missing, with a largest length.
fn xid_errors<'de, D>(deserializer: D) -> Result<Option<Vec<XidError>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct List(#[serde(deserialize_with = "bounded::list::<MAX_XID_ERRORS, _, _>")] Vec<XidError>);
    Ok(Option::<List>::deserialize(deserializer)?.map(|list| list.0))
}

/// The same for the containers of an engine.
fn own_containers<'de, D>(deserializer: D) -> Result<Option<Vec<OwnContainer>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct List(
        #[serde(deserialize_with = "bounded::list::<MAX_ENTRIES, _, _>")] Vec<OwnContainer>,
    );
    Ok(Option::<List>::deserialize(deserializer)?.map(|list| list.0))
}

/// A source that exists and could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The source, such as `/proc/meminfo`.
    pub source: String,
    /// What happened.
    pub message: String,
}

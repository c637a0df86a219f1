//! What the operator declares of a host: the result of reading the fleet file, with every
//! default, range and alias already resolved. Plain data; nothing here touches a network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::HostName;

/// Where an SSH agent is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentSocket {
    /// The socket that `SSH_AUTH_SOCK` names, if it names one.
    #[default]
    Environment,
    /// This socket.
    Path(PathBuf),
    /// No agent is asked.
    Disabled,
}

/// One SSH server to log in to: the host itself, or one jump on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or IP address, without port or brackets; also the name looked up in `known_hosts`.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Private key files in the order in which they are offered; `~` already expanded.
    pub identity_files: Vec<PathBuf>,
    /// OpenSSH user certificates (`*-cert.pub`) that belong to the keys.
    pub certificate_files: Vec<PathBuf>,
    /// Which agent may be asked for keys.
    pub agent: AgentSocket,
    /// The pinned host key as `SHA256:<base64>`, if the fleet file pins one.
    pub host_key: Option<String>,
    /// The name under which `known_hosts` knows this server when it is not `address`
    /// (`HostKeyAlias` of ssh_config).
    pub host_key_alias: Option<String>,
    /// The `known_hosts` files that ssh_config names for this server; empty is the user's usual
    /// `~/.ssh/known_hosts`.
    pub known_hosts_files: Vec<PathBuf>,
}

/// How work reaches a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMode {
    /// The orchestrator uploads the runner over SSH.
    #[default]
    Ssh,
    /// The operator has placed the runner; it is verified and never uploaded.
    Manual,
}

/// The GPUs that the operator says a host has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuClaim {
    /// Product name as NVML reports it, for example `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// How many of them.
    pub count: u32,
}

impl HostSpec {
    /// Every server that is logged in to on the way to the host, itself last.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.proxy_jump.iter().chain(std::iter::once(&self.endpoint))
    }
}

/// One host, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// The operator's name for it, unique in the fleet.
    pub name: HostName,
    /// The SSH server on the host.
    pub endpoint: Endpoint,
    /// Jumps from here to the host, first hop first.
    pub proxy_jump: Vec<Endpoint>,
    /// How work reaches it.
    pub mode: HostMode,
    /// The GPUs it should have; deploy compares this with what it finds.
    pub gpus: Option<GpuClaim>,
    /// Free labels for selectors.
    pub labels: BTreeMap<String, String>,
    /// Directory on the host for our files instead of `~/.cache/orchestrator`.
    pub work_dir: Option<String>,
    /// What containers may be there.
    #[serde(default)]
    pub containers: ContainerRules,
}

/// What the fleet file says of containers on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRules {
    /// Where the engine listens; `None` looks in the usual places.
    pub socket: Option<String>,
    /// Whether `--privileged` is allowed.
    pub allow_privileged: bool,
    /// The most memory of one container, bytes; also what it gets unless it asks for less.
    pub memory_bytes: Option<u64>,
    /// The most processes of one container.
    pub pids: Option<u64>,
    /// The most processors of one container, thousandths.
    pub cpus_milli: Option<u64>,
    /// The longest that one container may run, seconds.
    pub timeout_secs: Option<u64>,
}

//! What of the engine's answers is used. Everything has a default: Podman leaves fields out that
//! Docker has, and later versions may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A container in a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its names, each with a slash before it.
    pub names: Vec<String>,
    /// Its image as it was named.
    pub image: String,
    /// `running`, `exited`, ...
    pub state: String,
    /// The same in the engine's words, with a time.
    pub status: String,
    /// When it was created, seconds since the Unix epoch.
    pub created: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Option<Vec<Port>>,
}

impl ContainerSummary {
    /// Its name without the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.first().map(|name| name.trim_start_matches('/')).unwrap_or_default()
    }
}

/// A port of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// The host's address.
    #[serde(rename(deserialize = "IP", serialize = "ip"))]
    pub ip: Option<String>,
    /// The container's port.
    #[serde(rename(deserialize = "PrivatePort", serialize = "container"))]
    pub private_port: u16,
    /// The host's port.
    #[serde(rename(deserialize = "PublicPort", serialize = "host"))]
    pub public_port: Option<u16>,
}

/// A container, looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspected {
    /// Its id.
    pub id: String,
    /// Its name with a slash before it.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// How it was configured.
    pub config: Config,
}

/// What a container is doing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "PascalCase"))]
pub struct State {
    /// `created`, `running`, `exited`, ...
    pub status: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether the kernel killed it for want of memory.
    #[serde(rename(deserialize = "OOMKilled"))]
    pub oom_killed: bool,
    /// Its exit code.
    pub exit_code: i64,
    /// What went wrong, in the engine's words.
    pub error: String,
    /// When it started.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
}

/// How a container was configured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The answer to a wait.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Waited {
    /// The container's exit code.
    pub status_code: i64,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) api_version: String,
    #[serde(rename = "MinAPIVersion")]
    pub(super) min_api_version: String,
}

/// How the engine is set up.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) cgroup_driver: Option<String>,
}

/// The answer to a create.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Created {
    pub(super) id: String,
    pub(super) warnings: Option<Vec<String>>,
}

/// One line of a pull.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PullLine {
    pub(super) id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) error: Option<String>,
    #[serde(rename = "progressDetail")]
    pub(super) progress: Option<Progress>,
}

/// How far a layer is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) current: Option<u64>,
    pub(super) total: Option<u64>,
}

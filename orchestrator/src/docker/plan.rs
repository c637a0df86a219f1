//! What a container shall be, with the safe defaults, as the engine's create request.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::image::ImageName;
use super::mount::Mount;
use crate::host_spec::ContainerRules;

/// Processes and threads of a container unless said otherwise: frameworks start one thread for
/// each core, and a fork bomb is over before the host's own limit.
const DEFAULT_PIDS: i64 = 4096;

/// What a container may do as root inside it: own, read and signal its own files and processes,
/// become another user, and listen on low ports. Of Docker's own set this leaves out raw sockets,
/// device nodes, file capabilities, `chroot` and writing to the host's audit log.
const CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// The labels that say whose a container is. Nothing without them is shown or touched.
pub mod labels {
    /// The identity of the database that the container belongs to.
    pub const OWNER: &str = "orchestrator.owner";
    /// Its lease there, which is also our name for it.
    pub const LEASE: &str = "orchestrator.lease";
    /// When it must have ended, milliseconds since the Unix epoch.
    pub const DEADLINE: &str = "orchestrator.deadline-ms";
    /// The UUIDs of its GPUs, with commas between.
    pub const GPUS: &str = "orchestrator.gpus";
    /// `foreground` or `detached`.
    pub const MODE: &str = "orchestrator.mode";
    /// The hotkey of the validator that it was run for, if it was one.
    pub const VALIDATOR: &str = "orchestrator.validator";
    /// Until when it is kept at least once it has ended, milliseconds since the Unix epoch; later it
    /// may be removed.
    pub const KEEP: &str = "orchestrator.keep-until-ms";
    /// `true` if it is to be removed when it has ended.
    pub const REMOVE: &str = "orchestrator.remove";
}

/// How a container is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own network behind the host's address.
    #[default]
    Bridge,
    /// None but its own loopback.
    None,
}

/// A port of the host that leads into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publish {
    /// The address of the host; loopback unless said otherwise.
    pub address: std::net::IpAddr,
    /// The host's TCP port; 0 is any.
    pub host: u16,
    /// The container's TCP port.
    pub container: u16,
}

/// What a container shall be.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Its name; without one the engine makes one up.
    pub name: Option<String>,
    /// Its image.
    pub image: ImageName,
    /// What it runs; empty is what the image says.
    pub command: Vec<String>,
    /// Its variables.
    pub environment: Vec<(String, String)>,
    /// Its bind mounts.
    pub mounts: Vec<Mount>,
    /// Its ports.
    pub publish: Vec<Publish>,
    /// Its network.
    pub network: Network,
    /// Its user, as the engine reads it.
    pub user: Option<String>,
    /// Its working directory.
    pub workdir: Option<String>,
    /// Processors, thousandths.
    pub cpus_milli: Option<u64>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes.
    pub pids: Option<u64>,
    /// `/dev/shm`, bytes.
    pub shm_bytes: Option<u64>,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Whether it is the host, but for its name.
    pub privileged: bool,
    /// Whether it goes when it has ended.
    pub remove: bool,
    /// Whether it outlives the command that starts it.
    pub detached: bool,
    /// How long it may run, seconds.
    pub timeout_secs: Option<u64>,
}

/// Why a plan is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It asks for more than the fleet file allows.
    #[error("{what} of {wanted} is more than the {most} that the fleet file allows on this host")]
    OverLimit {
        /// Which option.
        what: &'static str,
        /// How much is wanted.
        wanted: u64,
        /// How much is allowed.
        most: u64,
    },
    /// It asks for the host.
    #[error("--privileged is not allowed on this host: a privileged container is root on the host")]
    Privileged,
    /// Ports without a network.
    #[error("--publish needs --network bridge")]
    PublishWithoutNetwork,
}

/// A plan that the rules of a host allow, with what they add.
#[derive(Debug, Clone)]
pub struct RuledPlan(ContainerPlan);

impl ContainerPlan {
    /// Holds the plan against the rules of a host. What is not said gets the rule's limit.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn under(&self, rules: &ContainerRules) -> Result<RuledPlan, PlanError> {
        let mut plan = self.clone();
        plan.memory_bytes = limited("--memory", plan.memory_bytes, rules.memory_bytes)?;
        plan.cpus_milli = limited("--cpus (thousandths)", plan.cpus_milli, rules.cpus_milli)?;
        plan.timeout_secs = limited("--timeout (seconds)", plan.timeout_secs, rules.timeout_secs)?;
        let pids = rules.pids.map(|most| most.min(DEFAULT_PIDS.unsigned_abs()));
        plan.pids = match plan.pids {
            Some(_) => limited("--pids", plan.pids, rules.pids)?,
            None => pids,
        };
        if plan.privileged && !rules.allow_privileged {
            return Err(PlanError::Privileged);
        }
        if !plan.publish.is_empty() && plan.network == Network::None {
            return Err(PlanError::PublishWithoutNetwork);
        }
        Ok(RuledPlan(plan))
    }
}

fn limited(
    what: &'static str,
    wanted: Option<u64>,
    most: Option<u64>,
) -> Result<Option<u64>, PlanError> {
    match (wanted, most) {
        (Some(wanted), Some(most)) if wanted > most => {
            Err(PlanError::OverLimit { what, wanted, most })
        }
        (wanted, most) => Ok(wanted.or(most)),
    }
}

impl RuledPlan {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &ContainerPlan {
        &self.0
    }

    /// The engine's create request (Docker Engine API 1.44, `POST /containers/create`).
    pub(super) fn body(&self, labels: &BTreeMap<&str, String>, gpus: &[String]) -> Value {
        let plan = &self.0;
        let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
        let environment: Vec<String> =
            plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mounts: Vec<Value> = plan
            .mounts
            .iter()
            .map(|mount| {
                json!({
                    "Type": "bind",
                    "Source": mount.source,
                    "Target": mount.target,
                    "ReadOnly": mount.read_only,
                    "BindOptions": { "Propagation": "rprivate" },
                })
            })
            .collect();
        let port = |publish: &Publish| format!("{}/tcp", publish.container);
        let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for publish in &plan.publish {
            let host = json!({
                "HostIp": publish.address.to_string(),
                "HostPort": if publish.host == 0 { String::new() } else { publish.host.to_string() },
            });
            bindings.entry(port(publish)).or_default().push(host);
        }
        let exposed: BTreeMap<String, Value> =
            plan.publish.iter().map(|publish| (port(publish), json!({}))).collect();
        let devices = if gpus.is_empty() {
            json!([])
        } else {
            json!([{ "Driver": "nvidia", "DeviceIDs": gpus, "Capabilities": [["gpu"]] }])
        };
        let mut host = json!({
            "AutoRemove": plan.remove && plan.detached,
            "CapDrop": ["ALL"],
            "CapAdd": CAPABILITIES,
            "CgroupnsMode": "private",
            "DeviceRequests": devices,
            "IpcMode": "private",
            "Mounts": mounts,
            "NetworkMode": match plan.network { Network::Bridge => "bridge", Network::None => "none" },
            "PidsLimit": number(plan.pids).unwrap_or(DEFAULT_PIDS),
            "PortBindings": bindings,
            "Privileged": plan.privileged,
            "ReadonlyRootfs": plan.read_only,
            "RestartPolicy": { "Name": "no" },
            "SecurityOpt": ["no-new-privileges"],
        });
        let mut set = |name: &str, value: Option<i64>| {
            if let (Some(value), Some(host)) = (value, host.as_object_mut()) {
                host.insert(name.to_owned(), json!(value));
            }
        };
        set("NanoCpus", number(plan.cpus_milli.map(|milli| milli.saturating_mul(1_000_000))));
        set("Memory", number(plan.memory_bytes));
        // The same: memory and swap together, so there is no swap beyond the limit.
        set("MemorySwap", number(plan.memory_bytes));
        set("ShmSize", number(plan.shm_bytes));
        let mut body = json!({
            "Image": plan.image.as_str(),
            "Env": environment,
            "ExposedPorts": exposed,
            "HostConfig": host,
            "Labels": labels,
            "OpenStdin": false,
            "Tty": false,
        });
        if let Some(body) = body.as_object_mut() {
            if !plan.command.is_empty() {
                body.insert("Cmd".to_owned(), json!(plan.command));
            }
            for (name, value) in [("User", &plan.user), ("WorkingDir", &plan.workdir)] {
                if let Some(value) = value {
                    body.insert(name.to_owned(), json!(value));
                }
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ContainerPlan {
        ContainerPlan {
            name: None,
            image: ImageName::parse("busybox").unwrap(),
            command: vec!["true".to_owned()],
            environment: vec![("A".to_owned(), "b=c".to_owned())],
            mounts: Vec::new(),
            publish: Vec::new(),
            network: Network::Bridge,
            user: None,
            workdir: None,
            cpus_milli: None,
            memory_bytes: None,
            pids: None,
            shm_bytes: None,
            read_only: false,
            privileged: false,
            remove: true,
            detached: false,
            timeout_secs: None,
        }
    }

    #[test]
    fn the_defaults_are_safe() {
        let body = plan().under(&ContainerRules::default()).unwrap().body(&BTreeMap::new(), &[]);
        let host = &body["HostConfig"];
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        assert_eq!(host["PidsLimit"], 4096);
        assert_eq!(host["Privileged"], false);
        assert_eq!(host["NetworkMode"], "bridge");
        assert_eq!(host["AutoRemove"], false);
        assert_eq!(host["DeviceRequests"], json!([]));
        assert_eq!(host.get("Memory"), None);
        assert_eq!(body["Env"], json!(["A=b=c"]));
    }

    #[test]
    fn gpus_are_named_by_uuid() {
        let ruled = plan().under(&ContainerRules::default()).unwrap();
        let body = ruled.body(&BTreeMap::new(), &["GPU-1".to_owned()]);
        let expected =
            json!([{ "Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]] }]);
        assert_eq!(body["HostConfig"]["DeviceRequests"], expected);
    }

    #[test]
    fn the_rules_of_a_host_hold() {
        let rules = ContainerRules {
            memory_bytes: Some(1000),
            pids: Some(100),
            timeout_secs: Some(60),
            ..ContainerRules::default()
        };
        let ruled = plan().under(&rules).unwrap();
        let host = &ruled.body(&BTreeMap::new(), &[])["HostConfig"];
        assert_eq!((&host["Memory"], &host["MemorySwap"]), (&json!(1000), &json!(1000)));
        assert_eq!((&host["PidsLimit"], ruled.plan().timeout_secs), (&json!(100), Some(60)));
        let over = ContainerPlan { memory_bytes: Some(1001), ..plan() };
        assert!(matches!(over.under(&rules), Err(PlanError::OverLimit { most: 1000, .. })));
        let over = ContainerPlan { pids: Some(101), ..plan() };
        assert!(matches!(over.under(&rules), Err(PlanError::OverLimit { most: 100, .. })));
        let privileged = ContainerPlan { privileged: true, ..plan() };
        assert_eq!(privileged.under(&rules).unwrap_err(), PlanError::Privileged);
        let allowed = ContainerRules { allow_privileged: true, ..rules };
        assert!(privileged.under(&allowed).is_ok());
    }
}

//! `[[executor_management.executors]]`: hosts as a miner's configuration declares them.

use toml::de::DeValue;

use super::keys::Keys;
use crate::ids::HostName;
use crate::toml_text::{Problems, Section};

/// What an executor of the guide's time was reached by, and hosts are not.
const ONLY_GRPC: &str = "this executor has only a gRPC address: hosts are reached over SSH, and \
     nothing of ours listens on them";
/// What to do about it.
const ADD_SSH: &str = "add `host`, `ssh_username` and `ssh_port`, or write a fleet file: \
     orchestrator config migrate miner.toml";

/// One executor: a host that the configuration declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executor {
    /// Its name in the fleet.
    pub name: HostName,
    /// Host name or IP address; `None` only while a configuration is migrated.
    pub host: Option<String>,
    /// Login name; `ssh_session.default_executor_username` where absent.
    pub ssh_username: Option<String>,
    /// SSH port.
    pub ssh_port: u16,
    /// Private key file; `ssh_session.miner_executor_key_path` where absent.
    pub ssh_key_path: Option<String>,
    /// `user@host:port` of a jump.
    pub proxy_jump: Option<String>,
    /// The pinned host key.
    pub host_key: Option<String>,
    /// Product name and number of the GPUs that it should have.
    pub gpus: Option<(String, u64)>,
    /// The gRPC address, which only a migration looks at.
    pub grpc_address: Option<String>,
}

const KNOWN: [&str; 11] = [
    "id",
    "name",
    "host",
    "ssh_username",
    "ssh_port",
    "ssh_key_path",
    "proxy_jump",
    "host_key",
    "gpu_model",
    "gpu_count",
    "enabled",
];
const PASSED: [(&str, &str); 3] = [
    ("grpc_address", "hosts are reached over SSH, and nothing of ours listens on them"),
    ("port", "it is the port of the gRPC service; SSH's is `ssh_port`"),
    ("metadata", "labels stand in the fleet file"),
];

/// Reads the list; executors that are not enabled are left out.
pub(super) fn read(keys: &Keys<'_, '_>, migrating: bool) -> Vec<Executor> {
    keys.know("executors");
    let Some(section) = keys.section() else {
        keys.note("executors", "[]".to_owned(), false);
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut given = false;
    if let Some(value) = section.get("executors") {
        given = true;
        let mut problems = keys.problems();
        let problems = &mut *problems;
        match value.get_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            let title = "[[executor_management.executors]]";
                            let one =
                                Section::unchecked(title, item.span(), table, section.source());
                            found.extend(executor(&one, index, migrating, problems));
                        }
                        _ => section.wrong_type("executors", item, "a list of tables", problems),
                    }
                }
            }
            _ => section.wrong_type("executors", value, "a list of tables", problems),
        }
        let mut seen = std::collections::BTreeSet::new();
        for executor in &found {
            if !seen.insert(executor.name.clone()) {
                let message = format!("two executors are called {}", executor.name);
                problems.error(section.key_span("executors"), message);
            }
        }
    }
    let names: Vec<&str> = found.iter().map(|executor| executor.name.as_str()).collect();
    let written =
        if names.is_empty() { "[]".to_owned() } else { format!("[{}]", names.join(", ")) };
    keys.note("executors", written, given);
    found
}

fn executor(
    section: &Section<'_>,
    index: usize,
    migrating: bool,
    problems: &mut Problems,
) -> Option<Executor> {
    let passed: Vec<&str> = PASSED.iter().map(|(key, _)| *key).collect();
    section.check_keys(&KNOWN, &passed, problems);
    if super::keys::flag(section, "enabled", problems) == Some(false) {
        return None;
    }
    let mut text = |key| {
        section
            .text(key, problems)
            .map(|text| text.value.to_owned())
            .filter(|text| !text.is_empty())
    };
    let (id, called, host) = (text("id"), text("name"), text("host"));
    let (ssh_username, ssh_key_path) = (text("ssh_username"), text("ssh_key_path"));
    let (proxy_jump, host_key) = (text("proxy_jump"), text("host_key"));
    let (gpu_model, grpc_address) = (text("gpu_model"), text("grpc_address"));
    let ssh_port = section.integer("ssh_port", 1..=65_535, problems);
    let gpu_count = section.integer("gpu_count", 1..=1_024, problems);
    match (&host, &grpc_address) {
        (Some(_), _) => {
            for (key, because) in PASSED {
                if section.get(key).is_some() {
                    let message = format!("`executors[{index}].{key}` is ignored: {because}");
                    problems.warn(section.key_span(key), message);
                }
            }
        }
        (None, _) if migrating => {}
        (None, Some(_)) => {
            problems.error_with_hint(section.key_span("grpc_address"), ONLY_GRPC, ADD_SSH);
        }
        (None, None) => section.missing("host", problems),
    }
    let name = name(called.as_deref(), id.as_deref(), host.as_deref(), index);
    Some(Executor {
        name,
        host,
        ssh_username,
        ssh_port: ssh_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(22),
        ssh_key_path,
        proxy_jump,
        host_key,
        gpus: gpu_model.map(|model| (model, gpu_count.unwrap_or(1))),
        grpc_address,
    })
}

/// The first of name, id and address that is a host name; else the name made one; else a number.
fn name(called: Option<&str>, id: Option<&str>, host: Option<&str>, index: usize) -> HostName {
    let made = called.map(|text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        text.chars().map(|c| if plain(c) { c } else { '-' }).collect::<String>()
    });
    #[expect(clippy::expect_used, reason = "letters, a hyphen and at most twenty digits")]
    let numbered = HostName::new(format!("executor-{}", index + 1)).expect("it is a host name");
    let wishes = [called, id, host, made.as_deref()];
    wishes.into_iter().flatten().find_map(|text| HostName::new(text).ok()).unwrap_or(numbered)
}

//! What is said of a host besides its SSH server: mode, GPUs, labels, work directory, containers.

use std::collections::BTreeMap;

use super::DeclaredServer;
use super::server::proxy_jump;
use crate::host_spec::{ContainerRules, GpuClaim, HostMode};
use crate::toml_text::{self, Problems, Section, text};
use crate::{byte_size, config};

/// The keys that `[defaults]` and `[[hosts]]` share.
pub(super) const TRAIT_KEYS: [&str; 7] =
    ["proxy_jump", "mode", "labels", "gpus", "work_dir", "docker_socket", "containers"];

/// What `[defaults]` and `[[hosts]]` say of a host besides its server.
#[derive(Debug, Clone, Default)]
pub(super) struct Traits {
    pub(super) proxy_jump: Option<Vec<DeclaredServer>>,
    pub(super) mode: Option<HostMode>,
    pub(super) gpus: Option<GpuClaim>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) work_dir: Option<String>,
    pub(super) docker_socket: Option<String>,
    pub(super) containers: Option<ContainerRules>,
}

impl Traits {
    /// Takes from the defaults what is unsaid here; labels are merged.
    pub(super) fn or(self, defaults: &Self) -> Self {
        let mut labels = defaults.labels.clone();
        labels.extend(self.labels);
        Self {
            proxy_jump: self.proxy_jump.or_else(|| defaults.proxy_jump.clone()),
            mode: self.mode.or(defaults.mode),
            gpus: self.gpus.or_else(|| defaults.gpus.clone()),
            labels,
            work_dir: self.work_dir.or_else(|| defaults.work_dir.clone()),
            docker_socket: self.docker_socket.or_else(|| defaults.docker_socket.clone()),
            containers: self.containers.or_else(|| defaults.containers.clone()),
        }
    }
}

impl Traits {
    /// The rules for containers, with the engine's place.
    pub(super) fn rules(&self) -> ContainerRules {
        let rules = self.containers.clone().unwrap_or_default();
        ContainerRules { socket: self.docker_socket.clone(), ..rules }
    }
}

pub(super) fn read_traits(section: &Section<'_>, problems: &mut Problems) -> Traits {
    Traits {
        proxy_jump: proxy_jump(section, problems),
        mode: read_mode(section, problems),
        gpus: read_gpus(section, problems),
        labels: read_labels(section, problems),
        work_dir: read_work_dir(section, problems),
        docker_socket: read_docker_socket(section, problems),
        containers: read_containers(section, problems),
    }
}

fn read_mode(section: &Section<'_>, problems: &mut Problems) -> Option<HostMode> {
    let written = section.text("mode", problems)?;
    match written.value {
        "ssh" => Some(HostMode::Ssh),
        "manual" => Some(HostMode::Manual),
        "kubernetes" => {
            problems.error_with_hint(
                written.span,
                "mode `kubernetes` is not supported yet by this version",
                "use `ssh`, or `manual` with a runner that you have placed",
            );
            None
        }
        other => {
            let message = format!("unknown mode `{}`", other.escape_debug());
            let hint = toml_text::suggest(other, &["ssh", "manual"]);
            problems.error_with_hint(written.span, message, hint);
            None
        }
    }
}

fn read_gpus(section: &Section<'_>, problems: &mut Problems) -> Option<GpuClaim> {
    let table = section.table("gpus", problems)?;
    let known = ["model", "count"];
    let gpus = Section::open(
        "`gpus`",
        table.span(),
        table.into_inner(),
        section.source(),
        &known,
        problems,
    );
    for key in known {
        if gpus.get(key).is_none() {
            gpus.missing(key, problems);
        }
    }
    let model = gpus.text("model", problems);
    let count = gpus.integer("count", 1..=1024, problems);
    let model = model?;
    if model.value.trim().is_empty() || model.value.len() > 128 || !is_printable(model.value) {
        problems.error(model.span, "`model` must be a product name, as nvidia-smi -L prints it");
        return None;
    }
    Some(GpuClaim { model: model.value.to_owned(), count: u32::try_from(count?).ok()? })
}

fn read_labels(section: &Section<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(table) = section.table("labels", problems) else { return labels };
    for (key, value) in table.get_ref().iter() {
        let name: &str = key.get_ref();
        if !is_label(name, 63) || name.is_empty() {
            let message = format!("bad label name `{}`", name.escape_debug());
            let hint = "1 to 63 letters, digits, '.', '_', '-' and '/'";
            problems.error_with_hint(key.span(), message, hint);
            continue;
        }
        match text(value, section.source()) {
            None => {
                let found = toml_text::type_name(value.get_ref());
                let message = format!("label `{name}` must be a string, and is {found}");
                problems.error_with_hint(value.span(), message, "put it in quotes");
            }
            Some(text) if !is_label(text.value, 128) => {
                let message = format!("bad value of label `{name}`");
                let hint = "up to 128 letters, digits, '.', '_', '-' and '/'";
                problems.error_with_hint(text.span, message, hint);
            }
            Some(text) => {
                labels.insert(name.to_owned(), text.value.to_owned());
            }
        }
    }
    labels
}

/// What a selector can name without quoting, and a metric can carry as it is.
fn is_label(text: &str, most: usize) -> bool {
    text.len() <= most && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn read_work_dir(section: &Section<'_>, problems: &mut Problems) -> Option<String> {
    let written = section.text("work_dir", problems)?;
    let rooted = written.value.starts_with('/') || written.value.starts_with("~/");
    let climbs = written.value.split('/').any(|part| part == "..");
    if rooted && !climbs && written.value.len() <= 512 && is_printable(written.value) {
        return Some(written.value.to_owned());
    }
    problems.error_with_hint(
        written.span,
        "`work_dir` must be an absolute path on the host without `..`",
        "for example /scratch/orchestrator or ~/orchestrator",
    );
    None
}

fn read_docker_socket(section: &Section<'_>, problems: &mut Problems) -> Option<String> {
    let written = section.text("docker_socket", problems)?;
    let climbs = written.value.split('/').any(|part| part == "..");
    // 108 bytes are what the kernel takes as the name of a socket.
    if written.value.starts_with('/')
        && !climbs
        && written.value.len() < 108
        && is_printable(written.value)
    {
        return Some(written.value.to_owned());
    }
    problems.error_with_hint(
        written.span,
        "`docker_socket` must be the absolute path of a socket on the host",
        "for example /run/user/1000/docker.sock",
    );
    None
}

/// `containers = { allow_privileged, memory, cpus, pids, timeout }`, all of them limits.
fn read_containers(section: &Section<'_>, problems: &mut Problems) -> Option<ContainerRules> {
    let table = section.table("containers", problems)?;
    let known = ["allow_privileged", "memory", "cpus", "pids", "timeout"];
    let rules = Section::open(
        "`containers`",
        table.span(),
        table.into_inner(),
        section.source(),
        &known,
        problems,
    );
    let allow_privileged = match rules.get("allow_privileged") {
        None => false,
        Some(value) => value.get_ref().as_bool().unwrap_or_else(|| {
            problems.error(value.span(), "`allow_privileged` must be true or false");
            false
        }),
    };
    let memory = rules.text("memory", problems);
    let memory_bytes = memory.and_then(|memory| match byte_size::parse(memory.value) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            problems.error(memory.span, format!("`memory`: {error}"));
            None
        }
    });
    let timeout = rules.text("timeout", problems);
    let timeout_secs = timeout.and_then(|timeout| match config::duration::parse(timeout.value) {
        Ok(timeout) => Some(timeout.as_secs().max(1)),
        Err(error) => {
            problems.error(timeout.span, format!("`timeout`: {error}"));
            None
        }
    });
    let cpus = rules.integer("cpus", 1..=4096, problems);
    Some(ContainerRules {
        socket: None,
        allow_privileged,
        memory_bytes,
        pids: rules.integer("pids", 1..=4_194_304, problems),
        cpus_milli: cpus.map(|cpus| cpus.saturating_mul(1000)),
        timeout_secs,
    })
}

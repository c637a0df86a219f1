//! What can be known of a fleet without touching it: `orchestrator check`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::range::compress;
use super::{
    Environment, FleetFile, FleetFileError, NothingSelected, ResolveError, Selector, resolve,
};
use crate::host_spec::{Endpoint, HostSpec};

/// Why there is nothing to report on.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The fleet file is wrong.
    #[error(transparent)]
    FleetFile(#[from] FleetFileError),
    /// Some hosts cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The selector picks nothing.
    #[error(transparent)]
    Selector(#[from] NothingSelected),
}

/// What `check` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The fleet file.
    pub path: PathBuf,
    /// The hosts, resolved, in the order of the file.
    pub hosts: Vec<HostSpec>,
    /// What was noticed; errors first.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// True when nothing found would keep a host from being reached.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Deploy would fail.
    Error,
    /// Deploy may work, and this is not as it should be.
    Warning,
}

/// Something noticed about one or more hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for what it is.
    pub code: FindingCode,
    /// The hosts it concerns, written compactly; empty if it concerns none in particular.
    pub hosts: String,
    /// What was noticed.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The stable words for findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingCode {
    /// A private key file is not there.
    MissingKeyFile,
    /// A private key file cannot be read.
    UnreadableKeyFile,
    /// A private key file can be read by others.
    KeyFilePermissions,
    /// A certificate file cannot be read.
    MissingCertificateFile,
    /// No key file is configured or found, and no agent is asked.
    NoIdentity,
    /// No host key is pinned and there is no `known_hosts`.
    NoKnownHosts,
    /// The fleet file says something odd.
    FleetFile,
    /// `ssh_config` could not be taken as it is.
    SshConfig,
}

/// Reads, resolves and checks a fleet file. Nothing remote is touched, and nothing is written.
///
/// # Errors
/// [`CheckError`] when there is no fleet to speak of; everything else is a [`Finding`].
pub async fn check(
    path: &Path,
    environment: &Environment,
    selector: Option<&Selector>,
) -> Result<CheckReport, CheckError> {
    let fleet = FleetFile::load(path)?;
    let resolved = resolve(&fleet, environment).await?;
    let hosts = match selector {
        None => resolved.hosts,
        Some(selector) => selector.select(&resolved.hosts)?.into_iter().cloned().collect(),
    };
    let general = |code, message| Finding {
        severity: Severity::Warning,
        code,
        hosts: String::new(),
        message,
        hint: None,
    };
    let mut findings: Vec<Finding> = Vec::new();
    for warning in &fleet.warnings {
        findings.push(general(
            FindingCode::FleetFile,
            format!("{}:{}:{}: {}", path.display(), warning.line, warning.column, warning.message),
        ));
    }
    findings.extend(resolved.warnings.into_iter().map(|w| general(FindingCode::SshConfig, w)));
    findings.extend(file_findings(&hosts, environment));
    findings.sort_by_key(|finding| (finding.severity, finding.code));
    Ok(CheckReport { path: path.to_owned(), hosts, findings })
}

/// What is wrong with a file, before it is known whom it concerns.
type Fault = (Severity, FindingCode, String, Option<String>);

/// Each file is looked at once, however many hosts name it.
fn file_findings(hosts: &[HostSpec], environment: &Environment) -> Vec<Finding> {
    let mut keys: BTreeMap<&Path, Option<Fault>> = BTreeMap::new();
    let mut known_hosts: BTreeMap<&Path, bool> = BTreeMap::new();
    let usual_known_hosts = environment.home.join(".ssh/known_hosts");
    let mut concerned: BTreeMap<Fault, Vec<&str>> = BTreeMap::new();
    for host in hosts {
        let mut faults: Vec<Fault> = Vec::new();
        for endpoint in host.proxy_jump.iter().chain([&host.endpoint]) {
            for key in &endpoint.identity_files {
                faults.extend(keys.entry(key).or_insert_with(|| key_fault(key)).clone());
            }
            for file in &endpoint.certificate_files {
                let look = || std::fs::File::open(file).err().map(|e| certificate_fault(file, &e));
                faults.extend(keys.entry(file).or_insert_with(look).clone());
            }
            faults.extend(identity_fault(endpoint));
            let mut files: Vec<&Path> =
                endpoint.known_hosts_files.iter().map(PathBuf::as_path).collect();
            if files.is_empty() {
                files.push(&usual_known_hosts);
            }
            let mut is_there =
                |file| *known_hosts.entry(file).or_insert_with(|| Path::is_file(file));
            if endpoint.host_key.is_none() && !files.into_iter().any(&mut is_there) {
                faults.push(no_known_hosts());
            }
        }
        for fault in faults {
            concerned.entry(fault).or_default().push(host.name.as_str());
        }
    }
    let findings = concerned.into_iter().map(|((severity, code, message, hint), names)| Finding {
        severity,
        code,
        hosts: compress(names),
        message,
        hint,
    });
    findings.collect()
}

fn key_fault(path: &Path) -> Option<Fault> {
    let shown = path.display();
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some((
            Severity::Error,
            FindingCode::MissingKeyFile,
            format!("the key file {shown} is missing"),
            Some(format!("make one: ssh-keygen -t ed25519 -f {shown}")),
        )),
        Err(error) => Some((
            Severity::Error,
            FindingCode::UnreadableKeyFile,
            format!("the key file {shown} cannot be read: {error}"),
            None,
        )),
        Ok(data) if !data.is_file() => Some((
            Severity::Error,
            FindingCode::UnreadableKeyFile,
            format!("the key file {shown} is not a file"),
            None,
        )),
        Ok(data) if data.mode() & 0o077 != 0 => {
            let by = if data.mode() & 0o007 != 0 { "everybody" } else { "its group" };
            Some((
                Severity::Error,
                FindingCode::KeyFilePermissions,
                format!("the key file {shown} is open to {by} (mode {:04o})", data.mode() & 0o7777),
                Some(format!("chmod 600 {shown}")),
            ))
        }
        Ok(_) => None,
    }
}

fn certificate_fault(path: &Path, error: &std::io::Error) -> Fault {
    let message = format!("the certificate {} cannot be read: {error}", path.display());
    (Severity::Error, FindingCode::MissingCertificateFile, message, None)
}

fn identity_fault(endpoint: &Endpoint) -> Option<Fault> {
    let asks_agent = endpoint.agent != crate::host_spec::AgentSocket::Disabled;
    if !endpoint.identity_files.is_empty() || asks_agent {
        return None;
    }
    let message = format!("no key for {}: no key file, and no agent is asked", endpoint.address);
    let hint = "set identity_file in the fleet file".to_owned();
    Some((Severity::Error, FindingCode::NoIdentity, message, Some(hint)))
}

fn no_known_hosts() -> Fault {
    (
        Severity::Warning,
        FindingCode::NoKnownHosts,
        "no host key is pinned in the fleet file, and there is no known_hosts file".to_owned(),
        Some(
            "pin host_key, or let the first `deploy --accept-new-host-keys` record the keys it meets"
                .to_owned(),
        ),
    )
}

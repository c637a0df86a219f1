//! Makes a fleet file of what operators already have: an Ansible inventory, or `~/.ssh/config`.
//!
//! What cannot be taken over is said in a comment at its host, so that nothing is lost silently. A
//! secret (`ansible_password` and the like) is never copied, only named. The text is a draft for
//! the operator to read; it is checked by the fleet file's own parser before it is handed out.

use std::path::Path;

use crate::config::{Executor, SshSessionConfig};
use crate::fleet_file::{FleetFile, FleetFileError};

mod ansible;
mod ansible_ini;
mod ansible_vars;
mod ansible_yaml;
mod draft;
mod executors;
mod ssh_config;

use draft::Draft;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be understood.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The source is no YAML, or no inventory.
    #[error("the inventory is not the YAML that Ansible reads: {0}")]
    Yaml(String),
    /// More hosts than a fleet file may have.
    #[error("more than {} hosts", crate::fleet_file::MAX_HOSTS)]
    TooMany,
    /// There is no host in it that could be taken over.
    #[error("there is no host to import")]
    NoHosts,
    /// The draft is refused by the fleet file's parser: a defect of the importer.
    #[error("the imported fleet file is not accepted")]
    Rejected(#[source] FleetFileError),
}

/// An imported fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The fleet file.
    pub toml: String,
    /// How many hosts it has.
    pub hosts: usize,
    /// How many comments say that something was not taken over.
    pub notes: usize,
}

/// Imports an Ansible inventory in INI form.
///
/// # Errors
/// [`ImportError`].
pub fn ansible_ini(text: &str) -> Result<Imported, ImportError> {
    finish("an Ansible inventory", ansible::draft(ansible_ini::parse(text)?))
}

/// Imports an Ansible inventory in YAML form.
///
/// # Errors
/// [`ImportError`].
pub fn ansible_yaml(text: &str) -> Result<Imported, ImportError> {
    finish("an Ansible inventory", ansible::draft(ansible_yaml::parse(text)?))
}

/// Imports the hosts without wildcards of an `ssh_config`; a host that others jump through becomes
/// a jump.
///
/// # Errors
/// [`ImportError::NoHosts`].
pub fn ssh_config(text: &str) -> Result<Imported, ImportError> {
    finish("ssh_config", ssh_config::draft(text))
}

/// Makes a fleet file of the executors of a miner's configuration.
///
/// # Errors
/// [`ImportError`]; an address, name or key that no fleet file takes is one.
pub fn executors(
    executors: &[Executor],
    session: &SshSessionConfig,
) -> Result<Imported, ImportError> {
    let imported = executors::write(executors, session);
    if imported.hosts == 0 {
        return Err(ImportError::NoHosts);
    }
    FleetFile::parse(Path::new("fleet.toml"), &imported.toml).map_err(ImportError::Rejected)?;
    Ok(imported)
}

fn finish(source: &str, draft: Draft) -> Result<Imported, ImportError> {
    if draft.hosts.is_empty() {
        return Err(ImportError::NoHosts);
    }
    let (toml, notes) = draft.print(source);
    let fleet = FleetFile::parse(Path::new("fleet.toml"), &toml).map_err(ImportError::Rejected)?;
    Ok(Imported { toml, hosts: fleet.hosts.len(), notes })
}

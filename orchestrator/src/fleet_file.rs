//! The fleet file: which hosts there are and how they are reached.
//!
//! Three steps, each usable alone:
//! 1. [`FleetFile::load`] reads and checks the text. It looks at nothing but the file.
//! 2. [`resolve`] fills in what the file leaves open from the user's `ssh_config` and home, which
//!    it is given; it may run the local `ssh -G`, and never touches a network.
//! 3. [`Selector`] picks hosts.
//!
//! Reading `$HOME` or the working directory is the caller's business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::host_spec::{AgentSocket, ContainerRules, GpuClaim, HostMode};
use crate::ids::HostName;
use crate::toml_text::{self, Diagnostic, Diagnostics, ReadError};

mod address_book;
mod check;
mod parse;
pub mod range;
mod resolve;
mod selector;
pub(crate) mod server;
pub(crate) mod ssh_config;
mod ssh_query;
mod traits;

pub use check::{CheckError, CheckReport, Finding, FindingCode, Severity, check};
pub use resolve::{Environment, ResolveError, ResolveProblem, Resolved, SshConfig, resolve};
pub use selector::{InvalidSelector, NothingSelected, Selector};

/// The most hosts that one fleet file may stand for; checked before a range is expanded.
pub const MAX_HOSTS: u64 = 10_000;

/// Why a fleet file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FleetFileError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file says something that is wrong; every independent error is listed.
    #[error("{0}")]
    Invalid(Diagnostics),
}

/// A fleet file that was read and found right, with its ranges expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The hosts, in the order of the file; never empty, names unique.
    pub hosts: Vec<DeclaredHost>,
    /// What is odd and does not stop anything, such as two hosts at one address.
    pub warnings: Vec<Diagnostic>,
    /// `[defaults]`, as far as a jump falls back on it.
    pub(crate) defaults: ServerSettings,
    /// `[jumps.<name>]`.
    pub(crate) jumps: BTreeMap<String, DeclaredServer>,
}

impl FleetFile {
    /// Reads a fleet file.
    ///
    /// # Errors
    /// [`FleetFileError`]: unreadable, too large, or wrong in one or more places.
    pub fn load(path: &Path) -> Result<Self, FleetFileError> {
        Self::parse(path, &toml_text::read(path)?)
    }

    /// Reads the text of a fleet file; `path` is what messages call it.
    ///
    /// # Errors
    /// [`FleetFileError::Invalid`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FleetFileError> {
        parse::parse(path, text).map_err(FleetFileError::Invalid)
    }
}

/// One host as the file declares it: ranges expanded, `[defaults]` applied, nothing looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredHost {
    /// Its name.
    pub name: HostName,
    /// The SSH server on it.
    pub server: DeclaredServer,
    /// The way to it: `None` if the file does not say, so that `ssh_config` may; empty if the file
    /// says that there is no jump.
    pub proxy_jump: Option<Vec<DeclaredServer>>,
    /// How work reaches it.
    pub mode: HostMode,
    /// The GPUs it should have.
    pub gpus: Option<GpuClaim>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Directory on the host for our files.
    pub work_dir: Option<String>,
    /// What containers may be there, and where their engine listens.
    pub containers: ContainerRules,
    /// The line of the `[[hosts]]` entry, from 1.
    pub line: usize,
}

/// An SSH server as the file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredServer {
    /// Host name, IP address without brackets, or alias of `ssh_config`.
    pub address: String,
    /// What the file says of it.
    pub settings: ServerSettings,
}

/// What may be said of an SSH server; `None` is unsaid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSettings {
    /// Login name.
    pub user: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Private key files as written, `~` not expanded.
    pub identity_files: Option<Vec<String>>,
    /// Certificates as written.
    pub certificate_files: Option<Vec<String>>,
    /// Which agent is asked; a path as written.
    pub agent: Option<AgentSocket>,
    /// The pinned host key, `SHA256:<base64>`.
    pub host_key: Option<String>,
}

impl ServerSettings {
    /// Takes from `other` what is unsaid here.
    #[must_use]
    pub(crate) fn or(self, other: &Self) -> Self {
        Self {
            user: self.user.or_else(|| other.user.clone()),
            port: self.port.or(other.port),
            identity_files: self.identity_files.or_else(|| other.identity_files.clone()),
            certificate_files: self.certificate_files.or_else(|| other.certificate_files.clone()),
            agent: self.agent.or_else(|| other.agent.clone()),
            host_key: self.host_key.or_else(|| other.host_key.clone()),
        }
    }
}

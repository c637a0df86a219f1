//! The configuration file, `orchestrator.toml`.
//!
//! `config/orchestrator.toml` is the manual: every key with its default, and a test holds the two
//! equal. Sections and keys have the names of the miner guide, so that a miner's configuration is
//! read as it is. A key has an effect, or is refused, or is named in a warning that says why it has
//! none. This module depends on none that it configures: it holds plain numbers, and the caller
//! hands them on.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::toml_text::{self, Diagnostics, Problems, ReadError};

mod alerts;
mod database;
pub mod duration;
mod executors;
mod keys;
mod read;
mod secret;
mod sections;
mod sweep;
mod validators;

pub use crate::toml_text::Diagnostic;
pub use alerts::AlertsConfig;
pub use database::{DatabaseUrl, InvalidDatabaseUrl, StatePlaces};
pub use executors::Executor;
pub use keys::Variables;
pub use secret::{HINT as SECRET_HINT, Secret, SecretError, SecretSource, WeakSecret};
pub use sections::{
    AuthMethod, BittensorConfig, DatabaseConfig, ExecutorManagement, LogFormat, LogLevel,
    LoggingConfig, MetricsConfig, Network, OperatorApiConfig, PrometheusConfig, RateLimit,
    SecurityConfig, ServerConfig, SshConfig, SshSessionConfig, Strategy, ValidatorAssignment,
    ValidatorAuth, ValidatorComms,
};
pub use sweep::SweepConfig;
pub use validators::{ImageRule, PullPolicy, ValidatorChallenges, ValidatorContainers};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file says something that is wrong; every independent error is listed.
    #[error("{0}")]
    Invalid(Diagnostics),
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[operator_api]`.
    pub operator_api: OperatorApiConfig,
    /// `[database]`.
    pub database: DatabaseConfig,
    /// `[bittensor]`.
    pub bittensor: BittensorConfig,
    /// `[executor_management]`.
    pub executor_management: ExecutorManagement,
    /// `[validator_comms]`.
    pub validator_comms: ValidatorComms,
    /// `[security]`.
    pub security: SecurityConfig,
    /// `[logging]`.
    pub logging: LoggingConfig,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[ssh_session]`.
    pub ssh_session: SshSessionConfig,
    /// `[validator_assignment]`.
    pub validator_assignment: ValidatorAssignment,
    /// `[validator_challenges]`.
    pub validator_challenges: ValidatorChallenges,
    /// `[validator_containers]`.
    pub validator_containers: ValidatorContainers,
    /// `[ssh]`.
    pub ssh: SshConfig,
    /// `[sweep]`.
    pub sweep: SweepConfig,
    /// `[alerts]`.
    pub alerts: AlertsConfig,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// The built-in default.
    Default,
    /// The configuration file.
    File {
        /// Its line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: &'static str,
    },
    /// The file has it, and it changes nothing.
    Ignored {
        /// Its line, from 1.
        line: usize,
        /// Why it changes nothing.
        because: &'static str,
    },
}

/// One key with its value in TOML. A secret's value is `(hidden)` or `(none)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `section.key`.
    pub key: String,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// A configuration with what was noticed while it was read.
#[derive(Debug)]
pub struct Reading {
    /// What it says.
    pub config: Config,
    /// Every key, in the order of the manual.
    pub entries: Vec<Entry>,
    /// What is odd and stops nothing, such as a key that is ignored.
    pub warnings: Vec<Diagnostic>,
    /// What is wrong; the configuration is not to be used then.
    pub errors: Option<Diagnostics>,
}

impl Default for Config {
    fn default() -> Self {
        read::read(Path::new(""), "", &|_| None, false).config
    }
}

impl Config {
    /// Reads a configuration file, without an environment.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, or wrong in one or more places.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &toml_text::read(path)?)
    }

    /// Reads the text of a configuration; `path` is what messages call it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Reading::parse(path, text, &|_| None).map(|reading| reading.config)
    }
}

impl Reading {
    /// Reads a configuration file and the variables that stand in for secrets.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, or wrong in one or more places.
    pub fn load(path: &Path, variables: Variables<'_>) -> Result<Self, ConfigError> {
        Self::parse(path, &toml_text::read(path)?, variables)
    }

    /// Reads the text of a configuration; `path` is what messages call it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(path: &Path, text: &str, variables: Variables<'_>) -> Result<Self, ConfigError> {
        let mut reading = read::read(path, text, variables, false);
        match reading.errors.take() {
            Some(errors) => Err(ConfigError::Invalid(errors)),
            None => Ok(reading),
        }
    }

    /// Reads a file that is to be migrated: executors may lack an address, and errors are data.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub fn for_migration(path: &Path) -> Result<Self, ConfigError> {
        Ok(read::read(path, &toml_text::read(path)?, &|_| None, true))
    }
}

/// Where a configuration file is looked for, besides `--config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPlaces {
    /// `$ORCHESTRATOR_CONFIG`, where set and not empty.
    pub environment: Option<PathBuf>,
    /// The working directory.
    pub working_directory: PathBuf,
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config_home: PathBuf,
}

/// The configuration file to read: what was asked for, whether or not it exists, else the first that
/// exists of `./orchestrator.toml` and `~/.config/orchestrator/orchestrator.toml`. `None` is the
/// defaults.
#[must_use]
pub fn locate(asked_for: Option<&Path>, places: &SearchPlaces) -> Option<PathBuf> {
    if let Some(path) = asked_for.or(places.environment.as_deref()) {
        return Some(path.to_owned());
    }
    [
        places.working_directory.join("orchestrator.toml"),
        places.config_home.join("orchestrator/orchestrator.toml"),
    ]
    .into_iter()
    .find(|path| path.exists())
}

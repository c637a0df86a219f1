//! The configuration file, `orchestrator.toml`.
//!
//! `config/orchestrator.toml` is the manual: every key with its default, and a test holds the two
//! equal. A key exists only if it has an effect; any other is refused with its place. This module
//! depends on none that it configures: it holds plain numbers, and the caller hands them on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::toml_text::{self, Diagnostics, Problems, ReadError, Section};

mod alerts;
mod database;
pub mod duration;
mod read;
mod sweep;

pub use alerts::AlertsConfig;
pub use database::{DatabaseUrl, InvalidDatabaseUrl, StatePlaces};
pub use sweep::SweepConfig;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[database]`.
    pub database: DatabaseConfig,
    /// `[executor_management]`.
    pub executor_management: ExecutorManagement,
    /// `[ssh]`.
    pub ssh: SshConfig,
    /// `[sweep]`.
    pub sweep: SweepConfig,
    /// `[alerts]`.
    pub alerts: AlertsConfig,
    /// `[logging]`.
    pub logging: LoggingConfig,
}

/// `[database]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseConfig {
    /// Where the database is; [`DatabaseUrl::sqlite_path`] makes a path of it.
    pub url: DatabaseUrl,
}

/// `[executor_management]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorManagement {
    /// Hosts worked on at a time.
    pub parallel: usize,
    /// How long a sweep's probe of one host may take.
    pub health_check_timeout: Duration,
    /// Sweeps in a row that must see a passing trouble before it counts.
    pub max_retry_attempts: u32,
    /// Whether a sweep mends what is safe to mend.
    pub auto_recovery: bool,
}

/// `[ssh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// Resolving a name.
    pub resolve_timeout: Duration,
    /// One TCP connect.
    pub connect_timeout: Duration,
    /// Greeting and key exchange.
    pub handshake_timeout: Duration,
    /// Authentication.
    pub auth_timeout: Duration,
    /// Silence before a keepalive is sent.
    pub keepalive_interval: Duration,
    /// Attempts before a transient failure counts.
    pub connect_attempts: usize,
    /// Unauthenticated connects at a time per server or jump.
    pub max_unauthenticated_per_route: usize,
}

/// `[logging]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoggingConfig {
    /// What is logged.
    pub level: LogLevel,
    /// How it looks.
    pub format: LogFormat,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the words of every logger")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How a log record looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

// The arguments for these values stand with `ssh::Limits`, which they end up in, and for operators
// in config/orchestrator.toml.
impl Default for SshConfig {
    fn default() -> Self {
        Self {
            resolve_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(15),
            connect_attempts: 4,
            max_unauthenticated_per_route: 8,
        }
    }
}

impl Default for ExecutorManagement {
    fn default() -> Self {
        // One core drives about this many handshakes a second.
        Self {
            parallel: 64,
            // Longer than a host under load takes to log in and ask its driver; three connect
            // attempts to one that does not answer fit.
            health_check_timeout: Duration::from_secs(30),
            max_retry_attempts: 3,
            auto_recovery: true,
        }
    }
}

impl Config {
    /// Reads a configuration file.
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
        read::parse(path, text).map_err(ConfigError::Invalid)
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

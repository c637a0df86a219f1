//! From the configuration file and the environment to what the core takes.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::{self, Config, Reading, SearchPlaces, StatePlaces};
use crate::ssh::Limits;
use crate::store::StoreOptions;

/// The configuration and what it was read from.
#[derive(Debug)]
pub struct Settings {
    /// What it says, key by key, and what is odd in it.
    pub reading: Reading,
    /// The file; `None` for the built-in defaults.
    pub file: Option<PathBuf>,
    /// The database that it means.
    pub database: PathBuf,
    home: PathBuf,
}

impl Settings {
    /// What the configuration says.
    pub fn config(&self) -> &Config {
        &self.reading.config
    }

    /// A path of the configuration as one that can be opened.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let file = self.file.as_deref();
        StatePlaces { home: &self.home, state_home: None, config: file }.resolve(path)
    }
}

/// Finds and reads the configuration.
pub fn load(asked_for: Option<&Path>, home: &Path) -> Result<Settings, Failure> {
    let places = SearchPlaces {
        environment: variable("ORCHESTRATOR_CONFIG"),
        working_directory: PathBuf::new(),
        config_home: absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
    };
    read(config::locate(asked_for, &places), home)
}

/// Reads this configuration file, or the defaults.
pub fn read(file: Option<PathBuf>, home: &Path) -> Result<Settings, Failure> {
    let variables = |name: &str| std::env::var(name).ok();
    let reading = match &file {
        Some(path) => Reading::load(path, &variables),
        None => Reading::parse(Path::new("built-in defaults"), "", &variables),
    };
    let reading = reading.map_err(|error| {
        Failure::user("cannot use the configuration").because(error).hint(
            "`orchestrator init` writes an explained example; config/orchestrator.toml in the source is the manual",
        )
    })?;
    let state_home = absolute("XDG_STATE_HOME");
    let places = StatePlaces { home, state_home: state_home.as_deref(), config: file.as_deref() };
    let database = reading.config.database.url.sqlite_path(&places);
    Ok(Settings { reading, file, database, home: home.to_owned() })
}

/// How the database is opened.
pub fn store_options(config: &Config) -> StoreOptions {
    let database = &config.database;
    StoreOptions {
        max_connections: database.max_connections,
        min_connections: database.min_connections,
        connect_timeout: database.connect_timeout,
        idle_timeout: database.idle_timeout,
        max_lifetime: database.max_lifetime,
        migrate: database.run_migrations,
    }
}

/// The SSH client's numbers.
pub fn limits(config: &Config) -> Limits {
    let ssh = &config.ssh;
    Limits {
        resolve: ssh.resolve_timeout,
        tcp: ssh.connect_timeout,
        handshake: ssh.handshake_timeout,
        auth: ssh.auth_timeout,
        keepalive_interval: ssh.keepalive_interval,
        connect_attempts: ssh.connect_attempts,
        gate: ssh.max_unauthenticated_per_route,
        ..Limits::default()
    }
}

/// A path in the environment, if the variable is set and not empty.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A directory in the environment; the XDG specification ignores relative ones.
fn absolute(name: &str) -> Option<PathBuf> {
    variable(name).filter(|path| path.is_absolute())
}

/// The name of the user whose process this is: by its id in /etc/passwd, which nobody can set in
/// an environment, and for accounts from elsewhere by `USER` or `LOGNAME`.
pub fn user_name() -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut accounts = local.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let account = accounts.find(|fields| fields.get(2) == Some(&uid.as_str()));
    let named = account.and_then(|fields| fields.first().map(|name| (*name).to_owned()));
    let said = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.or_else(said).filter(|user| !user.is_empty())
}

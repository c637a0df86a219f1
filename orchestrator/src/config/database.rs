//! Where the database is.

use std::fmt;
use std::path::{Path, PathBuf};

/// The default, which follows `$XDG_STATE_HOME`.
const DEFAULT: &str = "~/.local/state/orchestrator/orchestrator.db";

/// Why a text is no database URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// PostgreSQL.
    #[error("PostgreSQL is not supported yet by this version")]
    Postgres,
    /// `sqlite::memory:`, which would forget everything at once.
    #[error("a database in memory would forget every host at the end of the command")]
    Memory,
    /// `?mode=rwc` and the like.
    #[error("options after `?` are not supported; the file is made when it is missing")]
    Options,
    /// Something else.
    #[error("a database is written sqlite:PATH")]
    Unknown,
}

/// An SQLite file, as written: `~` and relative paths are not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// What a database's path is resolved against.
#[derive(Debug, Clone, Copy)]
pub struct StatePlaces<'a> {
    /// The user's home.
    pub home: &'a Path,
    /// `$XDG_STATE_HOME`, where set and absolute.
    pub state_home: Option<&'a Path>,
    /// The configuration file that was read, if any.
    pub config: Option<&'a Path>,
}

impl StatePlaces<'_> {
    /// A path of the configuration as one that can be opened: `~` is the home, a relative path
    /// starts at the configuration file.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("~") {
            Ok(below) => self.home.join(below),
            Err(_) => self.config.and_then(Path::parent).unwrap_or(Path::new("")).join(path),
        }
    }
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH` or `sqlite://PATH`.
    ///
    /// # Errors
    /// [`InvalidDatabaseUrl`].
    pub fn parse(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(InvalidDatabaseUrl::Postgres);
        }
        let path = text.strip_prefix("sqlite:").ok_or(InvalidDatabaseUrl::Unknown)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.contains(":memory:") {
            return Err(InvalidDatabaseUrl::Memory);
        }
        if path.contains('?') {
            return Err(InvalidDatabaseUrl::Options);
        }
        if path.is_empty() || path.ends_with('/') || path.chars().any(char::is_control) {
            return Err(InvalidDatabaseUrl::Unknown);
        }
        Ok(Self(path.to_owned()))
    }

    /// The file.
    #[must_use]
    pub fn sqlite_path(&self, places: &StatePlaces<'_>) -> PathBuf {
        if let (DEFAULT, Some(state_home)) = (self.0.as_str(), places.state_home) {
            return state_home.join("orchestrator/orchestrator.db");
        }
        places.resolve(Path::new(&self.0))
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &str, state_home: Option<&str>) -> PathBuf {
        DatabaseUrl::parse(url).unwrap().sqlite_path(&StatePlaces {
            home: Path::new("/home/u"),
            state_home: state_home.map(Path::new),
            config: Some(Path::new("/etc/o/orchestrator.toml")),
        })
    }

    #[test]
    fn paths_are_resolved() {
        assert_eq!(path("sqlite:/x/o.db", None), Path::new("/x/o.db"));
        assert_eq!(path("sqlite:///x/o.db", None), Path::new("/x/o.db"));
        assert_eq!(path("sqlite:data/o.db", Some("/s")), Path::new("/etc/o/data/o.db"));
        let default = DatabaseUrl::default().to_string();
        let expected = "/home/u/.local/state/orchestrator/orchestrator.db";
        assert_eq!(path(&default, None), Path::new(expected));
        assert_eq!(path(&default, Some("/s")), Path::new("/s/orchestrator/orchestrator.db"));
    }

    #[test]
    fn other_databases_are_refused_by_name() {
        use InvalidDatabaseUrl::*;
        let error = |url| DatabaseUrl::parse(url).unwrap_err();
        assert_eq!(error("postgres://u:p@h/db"), Postgres);
        assert_eq!(error("sqlite::memory:"), Memory);
        assert_eq!(error("sqlite:./o.db?mode=rwc"), Options);
        assert_eq!(error("./o.db"), Unknown);
        assert_eq!(error("sqlite:"), Unknown);
    }
}

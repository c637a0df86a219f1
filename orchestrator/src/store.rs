//! The database: hosts, trusted host keys, facts, challenges, seen GPUs, leases, sweeps and the
//! audit chain.
//!
//! One [`Store`] owns the connection pool; every write that belongs together is one transaction,
//! so a kill at any moment leaves either all of it or none. Facts, keys, challenges and events are history:
//! rows are added, never overwritten. What must *not* be here: anything that talks to a host,
//! decides about one, or prints.

mod audit;
mod axon;
mod challenges;
mod facts;
mod grants;
mod host_keys;
mod hosts;
mod leases;
mod ledger;
mod listings;
mod metagraphs;
mod proofs;
mod serve_lease;
mod sessions;
mod sweeps;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use audit::{AuditFault, AuditReport, Event, NewEvent};
pub use axon::{ReplayJournal, Spend};
pub use challenges::{ChallengeEnd, ChallengeRow, JudgedProof, NewChallenge};
pub use facts::FactsRecord;
pub use grants::{
    GrantEnd, GrantFilter, GrantLimits, GrantRow, GrantState, LimitReached, NewGrant,
};
pub use host_keys::TrustedKey;
pub use hosts::{HostContact, HostRecord};
pub use leases::{GpuRequest, HeldGpu, Lease, LeaseError, LeaseKind, NewLease};
pub use ledger::{Duplicate, SeenBy, Sighting};
pub use listings::{Counts, ProofRow};
pub use metagraphs::MetagraphRow;
pub use proofs::{GpuProof, SignedProofFilter, SignedProofRow};
pub use serve_lease::{SERVE_LEASE_MS, ServeLease};
pub use sessions::{NewSession, SessionFilter, SessionRow};
pub use sweeps::{
    AlertRow, FindingRow, HostChange, HostKnowledge, HostSweep, LockHolder, ProbeRow, SweepCounts,
    SweepLock, SweepRow, trouble_of,
};

/// How long a statement waits for another process's write to end. A write here is a few rows;
/// half a minute of contention means that something holds the database and should be reported.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How a database is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Connections of this process at most. SQLite has one writer at a time; a few readers beside
    /// it are enough.
    pub max_connections: u32,
    /// Connections that are kept open.
    pub min_connections: u32,
    /// Waiting for a free connection, or for another process's write.
    pub connect_timeout: Duration,
    /// After how long an unused connection is closed.
    pub idle_timeout: Duration,
    /// After how long any connection is replaced.
    pub max_lifetime: Duration,
    /// Whether tables of an older release are brought up to date; without, they are refused.
    pub migrate: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 5,
            min_connections: 1,
            connect_timeout: BUSY_TIMEOUT,
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            migrate: true,
        }
    }
}

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder of the database could not be made.
    #[error("cannot create the database folder {}", path.display())]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot migrate the database {}", path.display())]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// What the migrator said; a database of a newer release is refused here.
        source: sqlx::migrate::MigrateError,
    },
    /// The tables are of an older release, and they are not to be migrated.
    #[error("the database {} is of an older release, and `run_migrations` is false", path.display())]
    Outdated {
        /// The database file.
        path: PathBuf,
    },
    /// A statement failed.
    #[error("cannot {operation} in the database")]
    Statement {
        /// What was being done, as a verb and its object.
        operation: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A stored document could not be read back or written.
    #[error("cannot {operation}: the stored document is not what this version writes")]
    Document {
        /// What was being done.
        operation: &'static str,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// The system gave no randomness for a new id.
    #[error("the system's random number generator failed")]
    Random,
}

/// Names the operation of a failed statement.
fn statement(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Statement { operation, source }
}

/// Names the operation of a failed document.
fn document(operation: &'static str) -> impl FnOnce(serde_json::Error) -> Error {
    move |source| Error::Document { operation, source }
}

/// The database, open and migrated. Clones share one pool.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    path: PathBuf,
}

impl Store {
    /// Opens the database at `path`, creating the file, its folder (mode 0700) and its tables.
    ///
    /// # Errors
    /// The folder or file cannot be made or read, or the database is of a newer release.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, &StoreOptions::default()).await
    }

    /// As [`Self::open`], with these options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(path: &Path, options: &StoreOptions) -> Result<Self, Error> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder {
            create_private_folder(folder)
                .map_err(|source| Error::CreateFolder { path: folder.to_path_buf(), source })?;
        }
        create_private_file(path).map_err(|source| Error::Open {
            path: path.to_path_buf(),
            source: sqlx::Error::Io(source),
        })?;
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL, NORMAL can lose the last transactions at a power cut but never corrupts;
            // FULL is one fsync for each host of a deploy, and an audit trail is worth it.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.connect_timeout);
        let pool = SqlitePoolOptions::new()
            .max_connections(options.max_connections)
            .min_connections(options.min_connections)
            .acquire_timeout(options.connect_timeout)
            .idle_timeout(options.idle_timeout)
            .max_lifetime(options.max_lifetime)
            .connect_with(connect)
            .await
            .map_err(|source| Error::Open { path: path.to_path_buf(), source })?;
        if !options.migrate && !is_current(&pool).await {
            return Err(Error::Outdated { path: path.to_path_buf() });
        }
        migrate(&pool)
            .await
            .map_err(|source| Error::Migrate { path: path.to_path_buf(), source })?;
        Ok(Self { pool, path: path.to_path_buf() })
    }

    /// The file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for running statements and closes the file, merging the write-ahead log.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// Runs a query and reads each of its rows.
    async fn read_all<T>(
        &self,
        operation: &'static str,
        query: Query<'_, Sqlite, SqliteArguments>,
        read: fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = query.fetch_all(&self.pool).await.map_err(statement(operation))?;
        rows.iter().map(|row| read(row).map_err(statement(operation))).collect()
    }

    /// Begins a transaction that holds the write lock from its first statement, so that what it
    /// reads (the head of the audit chain) is still true when it writes.
    async fn write(&self, operation: &'static str) -> Result<Transaction<'_, Sqlite>, Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(statement(operation))
    }
}

/// Whether every migration of this release was applied.
async fn is_current(pool: &SqlitePool) -> bool {
    let known = sqlx::migrate!("../migrations").iter().count();
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
        .unwrap_or(0);
    usize::try_from(applied).is_ok_and(|applied| applied >= known)
}

/// Brings the tables up to this release. Programs that start at the same time on a new database
/// all find the same migrations missing, and SQLite has no lock that spans several of them: the
/// ones that come second fail at what is there already, and then have nothing left to do. So a
/// failure counts only when it comes again without anyone having got further in between.
async fn migrate(pool: &SqlitePool) -> Result<(), sqlx::migrate::MigrateError> {
    let migrations = sqlx::migrate!("../migrations");
    let mut applied = None;
    loop {
        let Err(error) = migrations.run(pool).await else { return Ok(()) };
        // Without the table of migrations nobody has got anywhere.
        let now: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await
            .unwrap_or(0);
        if applied.is_some_and(|applied| applied >= now) {
            return Err(error);
        }
        applied = Some(now);
    }
}

/// The time now as the store keeps it.
#[must_use]
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A fresh random id: 128 bits in lower hexadecimal.
fn new_id() -> Result<String, Error> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(crate::hex::encode(&bytes))
}

/// Makes the folder for the current user only; an existing folder is left as it is.
fn create_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the file for the current user only before SQLite would make it for everybody.
fn create_private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

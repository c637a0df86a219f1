//! Lists and counts over all hosts, for the operator API and the metrics.

use serde::Serialize;
use sqlx::Row as _;

use super::{Error, Store, statement};
use crate::ids::HostName;

/// A challenge with its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProofRow {
    /// The challenge id, in hexadecimal.
    pub id: String,
    /// The host.
    pub host: String,
    /// When it was issued, milliseconds since the Unix epoch.
    pub issued_ms: i64,
    /// Who asked.
    pub issued_by: String,
    /// What was to compute it.
    pub backend: String,
    /// When it ended; `None` if it was interrupted or is under way.
    pub ended_ms: Option<i64>,
    /// `accepted`, `unproven`, `rejected`, or `failed` where there is no proof.
    pub outcome: Option<String>,
    /// Why there is no proof.
    pub reason: Option<String>,
}

/// How many rows there are of something, by a word.
pub type Counts = Vec<(String, i64)>;

impl Store {
    /// Challenges of all hosts or of one, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proofs(
        &self,
        host: Option<&HostName>,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<ProofRow>, Error> {
        let operation = "read challenges";
        let host = host.map(HostName::as_str);
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<ProofRow, sqlx::Error> {
            Ok(ProofRow {
                id: row.try_get("id")?,
                host: row.try_get("host")?,
                issued_ms: row.try_get("issued_ms")?,
                issued_by: row.try_get("issued_by")?,
                backend: row.try_get("backend")?,
                ended_ms: row.try_get("ended_ms")?,
                outcome: row.try_get("outcome")?,
                reason: row.try_get("reason")?,
            })
        };
        let query = sqlx::query(
            "SELECT id, host, issued_ms, issued_by, backend, ended_ms, outcome, reason \
             FROM challenges LEFT JOIN proofs ON proofs.challenge = challenges.id \
             WHERE (? IS NULL OR host = ?) ORDER BY issued_ms DESC, id LIMIT ? OFFSET ?",
        )
        .bind(host)
        .bind(host)
        .bind(i64::from(limit))
        .bind(i64::from(offset));
        self.read_all(operation, query, read).await
    }

    /// Hosts by state.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count_hosts(&self) -> Result<Counts, Error> {
        self.counts(
            "SELECT state AS word, count(*) AS n FROM hosts WHERE purged_ms IS NULL GROUP BY state",
        )
        .await
    }

    /// Proofs by outcome.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count_proofs(&self) -> Result<Counts, Error> {
        self.counts("SELECT outcome AS word, count(*) AS n FROM proofs GROUP BY outcome").await
    }

    /// Grants by state.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count_grants(&self) -> Result<Counts, Error> {
        self.counts("SELECT state AS word, count(*) AS n FROM grants GROUP BY state").await
    }

    /// The number of the last audit event; 0 for an empty chain.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn last_event(&self) -> Result<i64, Error> {
        sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM events")
            .fetch_one(&self.pool)
            .await
            .map_err(statement("count events"))
    }

    async fn counts(&self, query: &'static str) -> Result<Counts, Error> {
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, i64), sqlx::Error> {
            Ok((row.try_get("word")?, row.try_get("n")?))
        };
        let counts = self.read_all("count rows", sqlx::query(query), read).await?;
        Ok(counts.into_iter().collect())
    }
}

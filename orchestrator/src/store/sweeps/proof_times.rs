//! How long proofs took.

use sqlx::{Row as _, Sqlite, Transaction};

use super::super::{Error, Store, statement};
use crate::ids::HostName;
use crate::pow::ProofDuration;
use crate::sweep::ProofTime;

/// Adds the time of a proof within the caller's transaction.
pub(in crate::store) async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    challenge: &str,
    at_ms: i64,
    duration: &ProofDuration,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO proof_times (challenge, host, gpu, kind, at_ms, nanos) \
         SELECT id, host, ?, ?, ?, ? FROM challenges WHERE id = ?",
    )
    .bind(&duration.gpu)
    .bind(duration.kind)
    .bind(at_ms)
    .bind(duration.nanos)
    .bind(challenge)
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement("record the time of a proof"))
}

impl Store {
    /// The times of the proofs of all hosts since a time, newest first.
    pub(super) async fn proof_times_since(
        &self,
        since_ms: i64,
    ) -> Result<Vec<(String, ProofTime)>, Error> {
        self.proof_times(None, since_ms).await
    }

    /// The times of the proofs of a host since a time, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proof_times_of(
        &self,
        host: &HostName,
        since_ms: i64,
    ) -> Result<Vec<ProofTime>, Error> {
        let times = self.proof_times(Some(host), since_ms).await?;
        Ok(times.into_iter().map(|(_, time)| time).collect())
    }

    async fn proof_times(
        &self,
        host: Option<&HostName>,
        since_ms: i64,
    ) -> Result<Vec<(String, ProofTime)>, Error> {
        let operation = "read the times of proofs";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, ProofTime), sqlx::Error> {
            let time = ProofTime {
                at_ms: row.try_get("at_ms")?,
                gpu: row.try_get("gpu")?,
                kind: row.try_get("kind")?,
                nanos: u64::try_from(row.try_get::<i64, _>("nanos")?).unwrap_or_default(),
            };
            Ok((row.try_get("host")?, time))
        };
        let query = sqlx::query(
            "SELECT host, gpu, kind, at_ms, nanos FROM proof_times \
             WHERE at_ms >= ? AND (? IS NULL OR host = ?) ORDER BY at_ms DESC",
        )
        .bind(since_ms)
        .bind(host.map(HostName::as_str))
        .bind(host.map(HostName::as_str));
        self.read_all(operation, query, read).await
    }

    /// When each host's last proof was accepted.
    pub(super) async fn last_accepted_proofs(&self) -> Result<Vec<(String, i64)>, Error> {
        let operation = "read the last proofs";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, i64), sqlx::Error> {
            Ok((row.try_get("host")?, row.try_get("at_ms")?))
        };
        let query = sqlx::query(
            "SELECT challenges.host AS host, MAX(proofs.ended_ms) AS at_ms FROM proofs \
             JOIN challenges ON challenges.id = proofs.challenge \
             WHERE proofs.outcome = 'accepted' GROUP BY challenges.host",
        );
        self.read_all(operation, query, read).await
    }
}

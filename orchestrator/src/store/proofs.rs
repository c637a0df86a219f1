//! Proofs as others ask for them: when each GPU of a host last proved itself, and the signed documents.

use serde::Serialize;
use sqlx::Row as _;

use super::{Error, Store, statement};
use crate::ids::HostName;

/// When a GPU that is on a host last proved itself there, and how the last try ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuProof {
    /// The GPU's UUID as its driver writes it.
    pub gpu: String,
    /// When its last accepted proof ended, milliseconds since the Unix epoch.
    pub accepted_ms: Option<i64>,
    /// The mode of that proof.
    pub accepted_mode: Option<String>,
    /// When it was last challenged; `None` if it never was.
    pub tried_ms: Option<i64>,
    /// The mode of that challenge.
    pub tried_mode: Option<String>,
    /// `accepted`, `unproven`, `rejected` or `failed`; `None` if it was interrupted, is under way, or
    /// never was.
    pub outcome: Option<String>,
}

/// A challenge of which there is a signed proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedProofRow {
    /// The challenge id, in hexadecimal.
    pub id: String,
    /// The GPU; `None` for the reference.
    pub gpu: Option<String>,
    /// Our name of the model it was for.
    pub model: Option<String>,
    /// `quick`, `deep` or `hold`.
    pub mode: Option<String>,
    /// When it was issued, milliseconds since the Unix epoch.
    pub issued_ms: i64,
    /// When it ended.
    pub ended_ms: i64,
    /// `accepted`, `unproven` or `rejected`.
    pub outcome: String,
    /// The first check that failed.
    pub failed_check: Option<String>,
    /// The size of the documents.
    pub bytes: i64,
}

/// Which signed proofs are wanted.
#[derive(Debug, Clone)]
pub struct SignedProofFilter {
    /// Of this host.
    pub host: HostName,
    /// Of this GPU.
    pub gpu: Option<String>,
    /// Older than the challenge of this time and id, which is where the page before ended.
    pub before: Option<(i64, String)>,
}

impl Store {
    /// The GPUs that were last seen on a host, by UUID, with their proofs there.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn gpu_proofs(&self, host: &HostName) -> Result<Vec<GpuProof>, Error> {
        let query = sqlx::query(
            "SELECT seen.uuid, tried.issued_ms AS tried_ms, tried.mode AS tried_mode, \
               ended.outcome, good.ended_ms AS accepted_ms, accepted.mode AS accepted_mode \
             FROM gpu_sightings AS seen \
             LEFT JOIN challenges AS tried ON tried.id = ( \
               SELECT id FROM challenges WHERE host = seen.host AND gpu_uuid = seen.uuid \
               ORDER BY issued_ms DESC, id DESC LIMIT 1) \
             LEFT JOIN proofs AS ended ON ended.challenge = tried.id \
             LEFT JOIN challenges AS accepted ON accepted.id = ( \
               SELECT id FROM challenges JOIN proofs ON proofs.challenge = challenges.id \
               WHERE host = seen.host AND gpu_uuid = seen.uuid AND outcome = 'accepted' \
               ORDER BY issued_ms DESC, id DESC LIMIT 1) \
             LEFT JOIN proofs AS good ON good.challenge = accepted.id \
             WHERE seen.host = ? AND seen.gone_ms IS NULL ORDER BY seen.uuid",
        )
        .bind(host.as_str());
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<GpuProof, sqlx::Error> {
            Ok(GpuProof {
                gpu: row.try_get("uuid")?,
                accepted_ms: row.try_get("accepted_ms")?,
                accepted_mode: row.try_get("accepted_mode")?,
                tried_ms: row.try_get("tried_ms")?,
                tried_mode: row.try_get("tried_mode")?,
                outcome: row.try_get("outcome")?,
            })
        };
        self.read_all("read the proofs of a host's GPUs", query, read).await
    }

    /// Signed proofs, newest first, at most `limit` of them; their documents are read one by one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn signed_proofs(
        &self,
        filter: &SignedProofFilter,
        limit: u32,
    ) -> Result<Vec<SignedProofRow>, Error> {
        let (before_ms, before_id) = match &filter.before {
            Some((at, id)) => (*at, id.as_str()),
            None => (i64::MAX, ""),
        };
        let query = sqlx::query(
            "SELECT id, gpu_uuid, model, mode, issued_ms, ended_ms, outcome, failed_check, \
               LENGTH(proof_json) AS bytes \
             FROM challenges JOIN proofs ON proofs.challenge = challenges.id \
             WHERE host = ? AND (? IS NULL OR gpu_uuid = ?) AND proof_json IS NOT NULL \
               AND (issued_ms < ? OR (issued_ms = ? AND id < ?)) \
             ORDER BY issued_ms DESC, id DESC LIMIT ?",
        )
        .bind(filter.host.as_str())
        .bind(&filter.gpu)
        .bind(&filter.gpu)
        .bind(before_ms)
        .bind(before_ms)
        .bind(before_id)
        .bind(i64::from(limit));
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<SignedProofRow, sqlx::Error> {
            Ok(SignedProofRow {
                id: row.try_get("id")?,
                gpu: row.try_get("gpu_uuid")?,
                model: row.try_get("model")?,
                mode: row.try_get("mode")?,
                issued_ms: row.try_get("issued_ms")?,
                ended_ms: row.try_get("ended_ms")?,
                outcome: row.try_get("outcome")?,
                failed_check: row.try_get("failed_check")?,
                bytes: row.try_get("bytes")?,
            })
        };
        self.read_all("read signed proofs", query, read).await
    }

    /// The signed documents of a challenge, as `verify --proof-out` writes them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proof_documents(&self, challenge: &str) -> Result<Option<String>, Error> {
        sqlx::query_scalar("SELECT proof_json FROM proofs WHERE challenge = ?")
            .bind(challenge)
            .fetch_optional(&self.pool)
            .await
            .map(Option::flatten)
            .map_err(statement("read a signed proof"))
    }
}

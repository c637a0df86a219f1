//! Challenges of the proof-of-work and how each ended: rows are added, never changed.

use serde::Serialize;
use sqlx::Row as _;

use super::sweeps::insert_proof_time;
use super::{Error, NewEvent, Store, audit, now_ms, statement};
use crate::ids::HostName;
use crate::pow::ProofDuration;
use crate::reason::Reason;

/// Round trips older than this, in milliseconds, say nothing of the line between us and a host: 30
/// days. Hosts and orchestrators move.
const RTT_MEMORY_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// A challenge that is about to be sent.
#[derive(Debug, Clone)]
pub struct NewChallenge {
    /// The challenge id, in hexadecimal.
    pub id: String,
    /// The host it goes to.
    pub host: HostName,
    /// What shall compute it, in one word.
    pub backend: &'static str,
    /// The GPU's UUID as its driver writes it; `None` for the reference.
    pub gpu_uuid: Option<String>,
    /// `quick`, `deep` or `hold`.
    pub mode: &'static str,
    /// Our name of the model it is for; `None` for the reference.
    pub model: Option<String>,
    /// The challenge as a JSON document.
    pub challenge_json: String,
}

/// How a challenge ended.
#[derive(Debug, Clone)]
pub enum ChallengeEnd {
    /// There is a proof, and the verifier has judged it.
    Judged(Box<JudgedProof>),
    /// There is no proof.
    Failed {
        /// Why.
        reason: Reason,
        /// The same in words.
        message: String,
    },
}

/// A proof and what was found.
#[derive(Debug, Clone, Default)]
pub struct JudgedProof {
    /// `accepted`, `unproven` or `rejected`.
    pub outcome: &'static str,
    /// The first check that failed.
    pub failed_check: Option<String>,
    /// The verdict as a JSON document.
    pub verdict_json: String,
    /// The signed proofs, one document a line: one, and one more for each later probe of a hold.
    pub proof_json: String,
    /// How long it took, where that can be compared with other proofs.
    pub duration: Option<ProofDuration>,
    /// Nanoseconds of the fill, the chains and the slowest product.
    pub fill_ns: Option<u64>,
    /// See [`Self::fill_ns`].
    pub chain_ns: Option<u64>,
    /// See [`Self::fill_ns`].
    pub gemm_ns: Option<u64>,
    /// The smallest round trip of the session, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// What the GPU was at meanwhile, as a JSON document.
    pub telemetry_json: Option<String>,
}

/// A challenge as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChallengeRow {
    /// The challenge id, in hexadecimal.
    pub id: String,
    /// When it was issued, milliseconds since the Unix epoch.
    pub issued_ms: i64,
    /// Who asked.
    pub issued_by: String,
    /// What was to compute it.
    pub backend: String,
    /// The GPU it was to; `None` for the reference.
    pub gpu_uuid: Option<String>,
    /// `quick`, `deep` or `hold`; `None` in rows of before modes were kept.
    pub mode: Option<String>,
    /// Our name of the model it was for.
    pub model: Option<String>,
    /// When it ended; `None` if it was interrupted or is under way.
    pub ended_ms: Option<i64>,
    /// `accepted`, `unproven`, `rejected`, or `failed` where there is no proof.
    pub outcome: Option<String>,
    /// Why there is no proof.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// The first check that failed.
    pub failed_check: Option<String>,
    /// Nanoseconds of the fill.
    pub fill_ns: Option<i64>,
    /// Nanoseconds of the chains.
    pub chain_ns: Option<i64>,
    /// Nanoseconds of the slowest product.
    pub gemm_ns: Option<i64>,
    /// Nanoseconds of the smallest round trip of that session.
    pub rtt_ns: Option<i64>,
    /// What the GPU was at meanwhile.
    #[serde(skip)]
    pub telemetry_json: Option<String>,
    /// The signed proofs, one document a line.
    #[serde(skip)]
    pub proof_json: Option<String>,
}

const COLUMNS: &str = "challenges.id, issued_ms, issued_by, backend, gpu_uuid, mode, model, ended_ms, \
     outcome, reason, message, failed_check, fill_ns, chain_ns, gemm_ns, rtt_ns, telemetry_json, \
     proof_json";

impl Store {
    /// Records challenges, all or none. They must not be sent before this has returned.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn record_challenges(
        &self,
        actor: &str,
        challenges: &[NewChallenge],
    ) -> Result<(), Error> {
        let operation = "record a challenge";
        let mut tx = self.write(operation).await?;
        for challenge in challenges {
            sqlx::query(
                "INSERT INTO challenges (id, host, issued_ms, issued_by, backend, gpu_uuid, mode, \
                 model, challenge_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&challenge.id)
            .bind(challenge.host.as_str())
            .bind(now_ms())
            .bind(actor)
            .bind(challenge.backend)
            .bind(&challenge.gpu_uuid)
            .bind(challenge.mode)
            .bind(&challenge.model)
            .bind(&challenge.challenge_json)
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        }
        tx.commit().await.map_err(statement(operation))
    }

    /// Records how challenges ended, with audit events: all or none. A challenge ends once.
    ///
    /// # Errors
    /// The database cannot be written, a challenge is unknown, or it has ended before.
    pub async fn record_challenge_ends(
        &self,
        actor: &str,
        ends: &[(String, ChallengeEnd)],
        events: &[NewEvent],
    ) -> Result<(), Error> {
        let operation = "record the end of a challenge";
        let ns = |value: Option<u64>| value.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX));
        let mut tx = self.write(operation).await?;
        for (id, end) in ends {
            let none = JudgedProof::default();
            let (outcome, reason, message, judged) = match end {
                ChallengeEnd::Judged(judged) => (judged.outcome, None, None, judged.as_ref()),
                ChallengeEnd::Failed { reason, message } => {
                    ("failed", Some(reason.code()), Some(message), &none)
                }
            };
            let is_judged = matches!(end, ChallengeEnd::Judged(_));
            sqlx::query(
                "INSERT INTO proofs (challenge, ended_ms, outcome, reason, message, failed_check, \
                 verdict_json, proof_json, fill_ns, chain_ns, gemm_ns, rtt_ns, telemetry_json) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(id)
            .bind(now_ms())
            .bind(outcome)
            .bind(reason)
            .bind(message)
            .bind(&judged.failed_check)
            .bind(is_judged.then_some(&judged.verdict_json))
            .bind(is_judged.then_some(&judged.proof_json))
            .bind(ns(judged.fill_ns))
            .bind(ns(judged.chain_ns))
            .bind(ns(judged.gemm_ns))
            .bind(ns(judged.rtt_ns))
            .bind(&judged.telemetry_json)
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
            if let Some(duration) = &judged.duration {
                insert_proof_time(&mut tx, id, now_ms(), duration).await?;
            }
        }
        audit::append(&mut tx, actor, events).await?;
        tx.commit().await.map_err(statement(operation))
    }

    /// The challenges of a host, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn challenges(
        &self,
        host: &HostName,
        limit: u32,
    ) -> Result<Vec<ChallengeRow>, Error> {
        let operation = "read the challenges of a host";
        let query = format!(
            "SELECT {COLUMNS} \
             FROM challenges LEFT JOIN proofs ON proofs.challenge = challenges.id \
             WHERE host = ? ORDER BY issued_ms DESC, challenges.rowid DESC LIMIT ?",
        );
        let query =
            sqlx::query(sqlx::AssertSqlSafe(query)).bind(host.as_str()).bind(i64::from(limit));
        self.read_all(operation, query, challenge).await
    }

    /// The newest challenge of each GPU of a host, by UUID; those of the reference are left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn last_challenges(&self, host: &HostName) -> Result<Vec<ChallengeRow>, Error> {
        let operation = "read the last challenges of a host";
        let query = format!(
            "SELECT {COLUMNS} \
             FROM challenges LEFT JOIN proofs ON proofs.challenge = challenges.id \
             WHERE host = ? AND gpu_uuid IS NOT NULL AND NOT EXISTS ( \
               SELECT 1 FROM challenges AS later WHERE later.host = challenges.host \
                 AND later.gpu_uuid = challenges.gpu_uuid \
                 AND (later.issued_ms > challenges.issued_ms \
                   OR (later.issued_ms = challenges.issued_ms AND later.id > challenges.id))) \
             ORDER BY gpu_uuid",
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(host.as_str());
        self.read_all(operation, query, challenge).await
    }

    /// The smallest round trip to a host in the last 30 days, in nanoseconds.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn least_rtt_ns(&self, host: &HostName) -> Result<Option<u64>, Error> {
        let least: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(rtt_ns) FROM proofs JOIN challenges ON proofs.challenge = challenges.id \
             WHERE host = ? AND ended_ms > ?",
        )
        .bind(host.as_str())
        .bind(now_ms() - RTT_MEMORY_MS)
        .fetch_one(&self.pool)
        .await
        .map_err(statement("read the round trips to a host"))?;
        Ok(least.and_then(|ns| u64::try_from(ns).ok()))
    }
}

fn challenge(row: &sqlx::sqlite::SqliteRow) -> Result<ChallengeRow, sqlx::Error> {
    Ok(ChallengeRow {
        id: row.try_get("id")?,
        issued_ms: row.try_get("issued_ms")?,
        issued_by: row.try_get("issued_by")?,
        backend: row.try_get("backend")?,
        gpu_uuid: row.try_get("gpu_uuid")?,
        mode: row.try_get("mode")?,
        model: row.try_get("model")?,
        ended_ms: row.try_get("ended_ms")?,
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        message: row.try_get("message")?,
        failed_check: row.try_get("failed_check")?,
        fill_ns: row.try_get("fill_ns")?,
        chain_ns: row.try_get("chain_ns")?,
        gemm_ns: row.try_get("gemm_ns")?,
        rtt_ns: row.try_get("rtt_ns")?,
        telemetry_json: row.try_get("telemetry_json")?,
        proof_json: row.try_get("proof_json")?,
    })
}

//! Challenges of the proof-of-work and how each ended: rows are added, never changed.

use serde::Serialize;
use sqlx::Row as _;

use super::sweeps::insert_proof_time;
use super::{Error, NewEvent, Store, audit, now_ms, statement};
use crate::ids::HostName;
use crate::reason::Reason;

/// A challenge that is about to be sent.
#[derive(Debug, Clone)]
pub struct NewChallenge {
    /// The challenge id, in hexadecimal.
    pub id: String,
    /// The host it goes to.
    pub host: HostName,
    /// What shall compute it, in one word.
    pub backend: &'static str,
    /// The challenge as a JSON document.
    pub challenge_json: String,
}

/// How a challenge ended.
#[derive(Debug, Clone)]
pub enum ChallengeEnd {
    /// There is a proof, and the verifier has judged it.
    Judged {
        /// `accepted`, `unproven` or `rejected`.
        outcome: &'static str,
        /// The verdict as a JSON document.
        verdict_json: String,
        /// The signed proof.
        proof_json: String,
    },
    /// There is no proof.
    Failed {
        /// Why.
        reason: Reason,
        /// The same in words.
        message: String,
    },
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
    /// When it ended; `None` if it was interrupted or is under way.
    pub ended_ms: Option<i64>,
    /// `accepted`, `unproven`, `rejected`, or `failed` where there is no proof.
    pub outcome: Option<String>,
    /// Why there is no proof.
    pub reason: Option<String>,
    /// The signed proof.
    #[serde(skip)]
    pub proof_json: Option<String>,
}

impl Store {
    /// Records a challenge. It must not be sent before this has returned.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn record_challenge(
        &self,
        actor: &str,
        challenge: &NewChallenge,
    ) -> Result<(), Error> {
        let operation = "record a challenge";
        sqlx::query(
            "INSERT INTO challenges (id, host, issued_ms, issued_by, backend, challenge_json) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&challenge.id)
        .bind(challenge.host.as_str())
        .bind(now_ms())
        .bind(actor)
        .bind(challenge.backend)
        .bind(&challenge.challenge_json)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(statement(operation))
    }

    /// Records how a challenge ended, with its audit event. A challenge ends once.
    ///
    /// # Errors
    /// The database cannot be written, the challenge is unknown, or it has ended before.
    pub async fn record_challenge_end(
        &self,
        actor: &str,
        id: &str,
        end: &ChallengeEnd,
        event: NewEvent,
    ) -> Result<(), Error> {
        let operation = "record the end of a challenge";
        let (outcome, reason, message, verdict, proof) = match end {
            ChallengeEnd::Judged { outcome, verdict_json, proof_json } => {
                (*outcome, None, None, Some(verdict_json), Some(proof_json))
            }
            ChallengeEnd::Failed { reason, message } => {
                ("failed", Some(reason.code()), Some(message), None, None)
            }
        };
        let mut tx = self.write(operation).await?;
        sqlx::query(
            "INSERT INTO proofs \
             (challenge, ended_ms, outcome, reason, message, verdict_json, proof_json) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(now_ms())
        .bind(outcome)
        .bind(reason)
        .bind(message)
        .bind(verdict)
        .bind(proof)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        if let Some(proof) = proof {
            insert_proof_time(&mut tx, id, now_ms(), proof).await?;
        }
        audit::append(&mut tx, actor, &[event]).await?;
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
        sqlx::query(
            "SELECT id, issued_ms, issued_by, backend, ended_ms, outcome, reason, proof_json \
             FROM challenges LEFT JOIN proofs ON proofs.challenge = challenges.id \
             WHERE host = ? ORDER BY issued_ms DESC, challenges.rowid DESC LIMIT ?",
        )
        .bind(host.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?
        .iter()
        .map(|row| challenge(row).map_err(statement(operation)))
        .collect()
    }
}

fn challenge(row: &sqlx::sqlite::SqliteRow) -> Result<ChallengeRow, sqlx::Error> {
    Ok(ChallengeRow {
        id: row.try_get("id")?,
        issued_ms: row.try_get("issued_ms")?,
        issued_by: row.try_get("issued_by")?,
        backend: row.try_get("backend")?,
        ended_ms: row.try_get("ended_ms")?,
        outcome: row.try_get("outcome")?,
        reason: row.try_get("reason")?,
        proof_json: row.try_get("proof_json")?,
    })
}

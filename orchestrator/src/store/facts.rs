//! What was found on hosts: one row for each finding.

use runner_protocol::HostFacts;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, Store, document, new_id, statement};
use crate::ids::HostName;

/// The facts of one host at one time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FactsRecord {
    /// When the runner found them, by our clock.
    pub taken_ms: i64,
    /// What it found.
    pub facts: HostFacts,
}

impl Store {
    /// The facts of a host, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read, or a row is not what this version writes.
    pub async fn facts_history(
        &self,
        host: &HostName,
        limit: u32,
    ) -> Result<Vec<FactsRecord>, Error> {
        let operation = "read the facts of a host";
        let rows = sqlx::query(
            "SELECT taken_ms, facts_json FROM facts WHERE host = ? ORDER BY taken_ms DESC LIMIT ?",
        )
        .bind(host.as_str())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?;
        rows.iter()
            .map(|row| {
                let json: String = row.try_get("facts_json").map_err(statement(operation))?;
                Ok(FactsRecord {
                    taken_ms: row.try_get("taken_ms").map_err(statement(operation))?,
                    facts: serde_json::from_str(&json).map_err(document(operation))?,
                })
            })
            .collect()
    }
}

/// Adds a row within the caller's transaction.
pub(super) async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
    taken_ms: i64,
    facts: &HostFacts,
) -> Result<(), Error> {
    insert_sized(tx, host, taken_ms, facts, usize::MAX).await
}

/// As [`insert`], unless the document is larger than `most` bytes.
pub(super) async fn insert_sized(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
    taken_ms: i64,
    facts: &HostFacts,
    most: usize,
) -> Result<(), Error> {
    let operation = "record the facts of a host";
    let json = serde_json::to_string(facts).map_err(document(operation))?;
    if json.len() > most {
        tracing::warn!(%host, bytes = json.len(), "the facts are too large to be kept");
        return Ok(());
    }
    sqlx::query("INSERT INTO facts (id, host, taken_ms, facts_json) VALUES (?, ?, ?, ?)")
        .bind(new_id()?)
        .bind(host.as_str())
        .bind(taken_ms)
        .bind(json)
        .execute(&mut **tx)
        .await
        .map_err(statement(operation))?;
    Ok(())
}

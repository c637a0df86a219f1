//! The hosts we know: their declaration at the last deploy and their state.

use runner_protocol::HostFacts;
use serde::Serialize;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, NewEvent, Store, audit, document, facts, leases, now_ms, statement, sweeps};
use crate::host_spec::HostSpec;
use crate::host_state::{HostEvent, HostState};
use crate::ids::HostName;
use crate::reason::Reason;
use crate::sweep::Passport;

/// A host as we know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostRecord {
    /// The declaration at the last deploy.
    pub spec: HostSpec,
    /// Its state.
    pub state: HostState,
    /// Since when.
    pub state_since_ms: i64,
    /// When it was first declared.
    pub first_seen_ms: i64,
    /// When it last answered.
    pub last_seen_ms: Option<i64>,
    /// SHA-256 of the runner that last ran there.
    pub runner_sha256: Option<String>,
    /// Version of that runner.
    pub runner_version: Option<String>,
    /// Code of the last failure, gone after a success.
    pub last_reason: Option<String>,
    /// Words of the last failure.
    pub last_message: Option<String>,
    /// Why a person drained it.
    pub drain_note: Option<String>,
}

/// The result of one contact with a host, recorded as one transaction.
#[derive(Debug, Clone)]
pub struct HostContact {
    /// The declaration that was used.
    pub spec: HostSpec,
    /// What it means for the host's state.
    pub event: HostEvent,
    /// SHA-256 and version of the runner that answered.
    pub runner: Option<(String, String)>,
    /// What it found.
    pub facts: Option<HostFacts>,
    /// Why the contact failed or what is wrong with the host.
    pub trouble: Option<(Reason, String)>,
    /// What the audit chain shall say.
    pub events: Vec<NewEvent>,
}

const COLUMNS: &str = "spec_json, state, state_since_ms, first_seen_ms, last_seen_ms, \
     runner_sha256, runner_version, last_reason, last_message, drain_note";

impl Store {
    /// Every host that was deployed to and not purged, by name.
    ///
    /// # Errors
    /// The database cannot be read, or a row is not what this version writes.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>, Error> {
        let query = format!("SELECT {COLUMNS} FROM hosts WHERE purged_ms IS NULL ORDER BY name");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .map_err(statement("read hosts"))?
            .iter()
            .map(record)
            .collect()
    }

    /// One host, unless it is unknown or purged.
    ///
    /// # Errors
    /// The database cannot be read, or the row is not what this version writes.
    pub async fn host(&self, name: &HostName) -> Result<Option<HostRecord>, Error> {
        let query = format!("SELECT {COLUMNS} FROM hosts WHERE name = ? AND purged_ms IS NULL");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(statement("read a host"))?
            .as_ref()
            .map(record)
            .transpose()
    }

    /// Records a contact: declaration, state, facts and audit events together. Returns the state
    /// that the host has now.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of the contact is recorded.
    pub async fn record_contact(
        &self,
        actor: &str,
        contact: &HostContact,
    ) -> Result<HostState, Error> {
        let operation = "record a contact with a host";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        let state = ensure_host(&mut tx, &contact.spec, now).await?;
        let mut next = state.after(contact.event);
        // A host that could not be reached for a while may still be held.
        if next == HostState::Ready && leases::holds_gpus(&mut tx, &contact.spec.name).await? {
            next = next.after(HostEvent::LeaseTaken);
        }
        let reached = contact.event != HostEvent::NotReached;
        sqlx::query(
            "UPDATE hosts SET state = ?, \
               state_since_ms = CASE WHEN state = ? THEN state_since_ms ELSE ? END, \
               last_seen_ms = CASE WHEN ? THEN ? ELSE last_seen_ms END, \
               runner_sha256 = COALESCE(?, runner_sha256), \
               runner_version = COALESCE(?, runner_version), \
               last_reason = ?, last_message = ? \
             WHERE name = ?",
        )
        .bind(next.name())
        .bind(next.name())
        .bind(now)
        .bind(reached)
        .bind(now)
        .bind(contact.runner.as_ref().map(|(sha256, _)| sha256))
        .bind(contact.runner.as_ref().map(|(_, version)| version))
        .bind(contact.trouble.as_ref().map(|(reason, _)| reason.code()))
        .bind(contact.trouble.as_ref().map(|(_, message)| message))
        .bind(contact.spec.name.as_str())
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        if let Some(found) = &contact.facts {
            facts::insert(&mut tx, &contact.spec.name, now, found).await?;
            let good = Passport::of(found).filter(|_| contact.event == HostEvent::FoundWell);
            if let Some(passport) = good {
                sweeps::put_passport(&mut tx, contact.spec.name.as_str(), now, &passport).await?;
            }
        }
        audit::append(&mut tx, actor, &contact.events).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(next)
    }

    /// Applies a person's decision (drain, resume) to a host. Returns the state before and after,
    /// or `None` when the host is unknown.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn apply_decision(
        &self,
        actor: &str,
        host: &HostName,
        decision: HostEvent,
        note: Option<&str>,
        event: NewEvent,
    ) -> Result<Option<(HostState, HostState)>, Error> {
        let operation = "record a decision about a host";
        let mut tx = self.write(operation).await?;
        let Some(state) = read_state(&mut tx, host).await? else {
            return Ok(None);
        };
        let next = state.after(decision);
        sqlx::query(
            "UPDATE hosts SET state = ?, drain_note = ?, \
               state_since_ms = CASE WHEN state = ? THEN state_since_ms ELSE ? END WHERE name = ?",
        )
        .bind(next.name())
        .bind(note)
        .bind(next.name())
        .bind(now_ms())
        .bind(host.as_str())
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(Some((state, next)))
    }

    /// Forgets a host after it was purged; its facts and events stay.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn record_purge(
        &self,
        actor: &str,
        host: &HostName,
        event: NewEvent,
    ) -> Result<(), Error> {
        let operation = "record the purge of a host";
        let mut tx = self.write(operation).await?;
        sqlx::query("UPDATE hosts SET purged_ms = ? WHERE name = ?")
            .bind(now_ms())
            .bind(host.as_str())
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        sweeps::forget(&mut tx, host).await?;
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))
    }
}

/// Makes or refreshes the host's row and returns its state before this contact. A purged host
/// that is deployed again starts anew.
pub(super) async fn ensure_host(
    tx: &mut Transaction<'_, Sqlite>,
    spec: &HostSpec,
    now: i64,
) -> Result<HostState, Error> {
    let operation = "record a host";
    let unknown = HostState::Unknown.name();
    sqlx::query(
        "INSERT INTO hosts (name, spec_json, state, state_since_ms, first_seen_ms) \
         VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET spec_json = excluded.spec_json, \
           state = CASE WHEN hosts.purged_ms IS NULL THEN hosts.state ELSE excluded.state END, \
           drain_note = CASE WHEN hosts.purged_ms IS NULL THEN hosts.drain_note ELSE NULL END, \
           purged_ms = NULL",
    )
    .bind(spec.name.as_str())
    .bind(serde_json::to_string(spec).map_err(document(operation))?)
    .bind(unknown)
    .bind(now)
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(statement(operation))?;
    Ok(read_state(tx, &spec.name).await?.unwrap_or(HostState::Unknown))
}

pub(super) async fn read_state(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
) -> Result<Option<HostState>, Error> {
    let operation = "read the state of a host";
    sqlx::query("SELECT state FROM hosts WHERE name = ? AND purged_ms IS NULL")
        .bind(host.as_str())
        .fetch_optional(&mut **tx)
        .await
        .map_err(statement(operation))?
        .map(|row| state(&row))
        .transpose()
        .map_err(statement(operation))
}

/// Why a host is in its state: a person's note, or its last failure.
pub(super) async fn read_note(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
) -> Result<Option<String>, Error> {
    sqlx::query_scalar("SELECT COALESCE(drain_note, last_message) FROM hosts WHERE name = ?")
        .bind(host.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(statement("read why a host is in its state"))
}

/// Sets the state of a host and, if that is another one, since when.
pub(super) async fn write_state(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
    state: HostState,
    now: i64,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE hosts SET state_since_ms = CASE WHEN state = ? THEN state_since_ms ELSE ? END, \
           state = ? WHERE name = ?",
    )
    .bind(state.name())
    .bind(now)
    .bind(state.name())
    .bind(host.as_str())
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement("record the state of a host"))
}

fn state(row: &sqlx::sqlite::SqliteRow) -> Result<HostState, sqlx::Error> {
    row.try_get::<String, _>("state")?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn record(row: &sqlx::sqlite::SqliteRow) -> Result<HostRecord, Error> {
    let operation = "read a host";
    let json: String = row.try_get("spec_json").map_err(statement(operation))?;
    let spec = serde_json::from_str(&json).map_err(document(operation))?;
    let read = || -> Result<HostRecord, sqlx::Error> {
        Ok(HostRecord {
            spec,
            state: state(row)?,
            state_since_ms: row.try_get("state_since_ms")?,
            first_seen_ms: row.try_get("first_seen_ms")?,
            last_seen_ms: row.try_get("last_seen_ms")?,
            runner_sha256: row.try_get("runner_sha256")?,
            runner_version: row.try_get("runner_version")?,
            last_reason: row.try_get("last_reason")?,
            last_message: row.try_get("last_message")?,
            drain_note: row.try_get("drain_note")?,
        })
    };
    read().map_err(statement(operation))
}

//! Alerts: what was last told of each host, and what is on its way.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::Row as _;

use super::super::{Error, Store, new_id, now_ms, statement};
use crate::host_state::HostState;
use crate::ids::HostName;

/// The most rows that wait for one channel; the oldest go first. A channel that is down for long
/// must not fill the disk, and the newest alert tells the present state of what it names.
const MAX_WAITING: i64 = 200;

/// A change of a host's state that nobody was told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostChange {
    /// The host.
    pub host: HostName,
    /// What was told last; `ready` if nothing was.
    pub before: HostState,
    /// What it is now.
    pub after: HostState,
    /// Whether it is the same as was told, and long ago.
    pub reminder: bool,
}

/// An alert that waits for its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// Its id.
    pub id: String,
    /// Where it goes, in one word.
    pub channel: String,
    /// When it was made, milliseconds.
    pub created_ms: i64,
    /// The alert.
    pub alert_json: String,
    /// Deliveries that failed.
    pub attempts: u32,
    /// When it is due, milliseconds.
    pub next_ms: i64,
}

/// Whether a state is one to be told of.
fn is_trouble(state: HostState) -> bool {
    matches!(state, HostState::Degraded | HostState::Unreachable | HostState::Quarantined)
}

/// What is to be told, given what was.
fn change(
    told: Option<(HostState, i64)>,
    state: HostState,
    now_ms: i64,
    remind_ms: i64,
) -> Option<(HostState, bool)> {
    match told {
        None => is_trouble(state).then_some((HostState::Ready, false)),
        Some((told, at_ms)) if told == state => {
            (now_ms.saturating_sub(at_ms) >= remind_ms).then_some((told, true))
        }
        // Who set it aside knows.
        Some(_) if state == HostState::Draining => None,
        Some((told, _)) => Some((told, false)),
    }
}

impl Store {
    /// Finds what nobody was told of these hosts, notes it as told, and puts the alert that `write`
    /// makes of it into the outbox of each channel: one transaction, so that whatever is killed
    /// when, every change is told once. Returns the changes.
    ///
    /// # Errors
    /// The database cannot be read or written; then nothing is noted.
    pub async fn queue_alerts(
        &self,
        states: &[(HostName, HostState)],
        channels: &[&str],
        remind_ms: i64,
        write: impl FnOnce(&[HostChange]) -> String + Send,
    ) -> Result<Vec<HostChange>, Error> {
        let operation = "queue alerts";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        let rows = sqlx::query("SELECT host, state, told_ms FROM alert_marks")
            .fetch_all(&mut *tx)
            .await
            .map_err(statement(operation))?;
        let mut told: HashMap<String, (HostState, i64)> = HashMap::new();
        for row in &rows {
            let state: String = row.try_get("state").map_err(statement(operation))?;
            let at_ms = row.try_get("told_ms").map_err(statement(operation))?;
            let host = row.try_get("host").map_err(statement(operation))?;
            told.insert(host, (state.parse().unwrap_or(HostState::Unknown), at_ms));
        }
        let mut changes = Vec::new();
        for (host, state) in states {
            let before = told.get(host.as_str()).copied();
            let found = change(before, *state, now, remind_ms);
            if let Some((before, reminder)) = found {
                let after = *state;
                changes.push(HostChange { host: host.clone(), before, after, reminder });
            }
            if is_trouble(*state) {
                if found.is_some() {
                    sqlx::query(
                        "INSERT INTO alert_marks (host, state, told_ms) VALUES (?, ?, ?) \
                         ON CONFLICT (host) DO UPDATE SET state = excluded.state, \
                           told_ms = excluded.told_ms",
                    )
                    .bind(host.as_str())
                    .bind(state.name())
                    .bind(now)
                    .execute(&mut *tx)
                    .await
                    .map_err(statement(operation))?;
                }
            } else if before.is_some() {
                sqlx::query("DELETE FROM alert_marks WHERE host = ?")
                    .bind(host.as_str())
                    .execute(&mut *tx)
                    .await
                    .map_err(statement(operation))?;
            }
        }
        if !changes.is_empty() {
            let alert = write(&changes);
            for channel in channels {
                put(&mut tx, channel, now, &alert).await?;
            }
        }
        tx.commit().await.map_err(statement(operation))?;
        Ok(changes)
    }

    /// Queues an alert that is of no host, for these channels.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn queue_notice(&self, channels: &[&str], alert: &str) -> Result<(), Error> {
        let operation = "queue an alert";
        let mut tx = self.write(operation).await?;
        for channel in channels {
            put(&mut tx, channel, now_ms(), alert).await?;
        }
        tx.commit().await.map_err(statement(operation))
    }

    /// The alerts whose time has come, oldest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn due_alerts(&self, limit: u32) -> Result<Vec<AlertRow>, Error> {
        let operation = "read the waiting alerts";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<AlertRow, sqlx::Error> {
            Ok(AlertRow {
                id: row.try_get("id")?,
                channel: row.try_get("channel")?,
                created_ms: row.try_get("created_ms")?,
                alert_json: row.try_get("alert_json")?,
                attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                next_ms: row.try_get("next_ms")?,
            })
        };
        let query = sqlx::query(
            "SELECT id, channel, created_ms, alert_json, attempts, next_ms FROM alert_outbox \
             WHERE next_ms <= ? ORDER BY created_ms, id LIMIT ?",
        )
        .bind(now_ms())
        .bind(i64::from(limit));
        self.read_all(operation, query, read).await
    }

    /// Takes an alert for delivery until `until_ms`, so that nobody else delivers it meanwhile.
    /// `false` if somebody else has it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn claim_alert(&self, alert: &AlertRow, until_ms: i64) -> Result<bool, Error> {
        sqlx::query("UPDATE alert_outbox SET next_ms = ? WHERE id = ? AND next_ms = ?")
            .bind(until_ms)
            .bind(&alert.id)
            .bind(alert.next_ms)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(statement("take an alert"))
    }

    /// How many alerts wait, whether or not their time has come.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn waiting_alerts(&self) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM alert_outbox")
            .fetch_one(&self.pool)
            .await
            .map_err(statement("count the waiting alerts"))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Removes an alert that was delivered or is given up.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn remove_alert(&self, id: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM alert_outbox WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(statement("remove an alert"))
    }

    /// Notes a delivery that failed, and when to try again.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn postpone_alert(&self, id: &str, next_ms: i64, error: &str) -> Result<(), Error> {
        sqlx::query(
            "UPDATE alert_outbox SET attempts = attempts + 1, next_ms = ?, last_error = ? \
             WHERE id = ?",
        )
        .bind(next_ms)
        .bind(error)
        .bind(id)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(statement("postpone an alert"))
    }
}

async fn put(
    tx: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    channel: &str,
    now: i64,
    alert: &str,
) -> Result<(), Error> {
    let operation = "queue an alert";
    sqlx::query(
        "INSERT INTO alert_outbox (id, channel, created_ms, alert_json, attempts, next_ms) \
         VALUES (?, ?, ?, ?, 0, ?)",
    )
    .bind(new_id()?)
    .bind(channel)
    .bind(now)
    .bind(alert)
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(statement(operation))?;
    sqlx::query(
        "DELETE FROM alert_outbox WHERE channel = ? AND id NOT IN \
           (SELECT id FROM alert_outbox WHERE channel = ? ORDER BY created_ms DESC LIMIT ?)",
    )
    .bind(channel)
    .bind(channel)
    .bind(MAX_WAITING)
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement(operation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostState::*;

    #[test]
    fn a_change_is_told_once_and_reminded_of() {
        for (told, state, now, expected) in [
            (None, Ready, 0, None),
            (None, Leased, 0, None),
            (None, Draining, 0, None),
            (None, Degraded, 0, Some((Ready, false))),
            (Some((Degraded, 0)), Degraded, 99, None),
            (Some((Degraded, 0)), Degraded, 100, Some((Degraded, true))),
            (Some((Degraded, 0)), Unreachable, 1, Some((Degraded, false))),
            (Some((Unreachable, 0)), Ready, 1, Some((Unreachable, false))),
            (Some((Unreachable, 0)), Draining, 1, None),
        ] {
            assert_eq!(change(told, state, now, 100), expected, "{told:?} {state}");
        }
    }
}

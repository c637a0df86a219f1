//! The identity ledger: which GPU was seen on which host.
//!
//! A UUID is a claim of its host. What the ledger shows is a claim that two hosts make at the same
//! time. A GPU that moved is told from that by the older host, which no longer shows it when it is
//! looked at again, or was purged.

use serde::Serialize;
use serde_json::json;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, NewEvent, Store, audit, now_ms, statement};
use crate::ids::HostName;

/// What looked at a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBy {
    /// A deploy.
    Deploy,
    /// A verification.
    Verify,
}

impl SeenBy {
    fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Verify => "verify",
        }
    }
}

/// A GPU that another host shows as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// The GPU.
    pub uuid: String,
    /// The other host; the same one where it shows the UUID twice.
    pub other_host: String,
    /// When the other host showed it first, milliseconds since the Unix epoch.
    pub other_first_seen_ms: i64,
    /// When it showed it last.
    pub other_last_seen_ms: i64,
    /// When it last proved it.
    pub other_proven_ms: Option<i64>,
}

/// Where a GPU was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    /// The GPU.
    pub uuid: String,
    /// The host.
    pub host: String,
    /// When first, milliseconds since the Unix epoch.
    pub first_seen_ms: i64,
    /// When last.
    pub last_seen_ms: i64,
    /// `deploy` or `verify`.
    pub seen_by: String,
    /// When a proof of it was last accepted there.
    pub proven_ms: Option<i64>,
    /// When a later look at the host did not show it any more.
    pub gone_ms: Option<i64>,
}

impl Store {
    /// Records all GPUs that a host shows now. Those it showed before and does not show any more are
    /// gone from it. A GPU that another host shows too is returned, and told in the audit chain as
    /// `gpu.duplicate`; one that another host no longer shows has moved: `gpu.moved`.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of it is recorded.
    pub async fn record_sightings(
        &self,
        actor: &str,
        host: &HostName,
        seen_by: SeenBy,
        uuids: &[String],
    ) -> Result<Vec<Duplicate>, Error> {
        let operation = "record the GPUs of a host";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        let before = of_host(&mut tx, host).await?;
        for gone in before.iter().filter(|row| row.gone_ms.is_none() && !uuids.contains(&row.uuid))
        {
            sqlx::query("UPDATE gpu_sightings SET gone_ms = ? WHERE uuid = ? AND host = ?")
                .bind(now)
                .bind(&gone.uuid)
                .bind(host.as_str())
                .execute(&mut *tx)
                .await
                .map_err(statement(operation))?;
        }
        let (mut duplicates, mut events) = (Vec::new(), Vec::new());
        for (place, uuid) in uuids.iter().enumerate() {
            let known = before.iter().find(|row| row.uuid == *uuid);
            if uuids.iter().take(place).any(|earlier| earlier == uuid) {
                duplicates.push(Duplicate {
                    uuid: uuid.clone(),
                    other_host: host.as_str().to_owned(),
                    other_first_seen_ms: known.map_or(now, |row| row.first_seen_ms),
                    other_last_seen_ms: now,
                    other_proven_ms: known.and_then(|row| row.proven_ms),
                });
                continue;
            }
            let (live, past) = elsewhere(&mut tx, uuid, host).await?;
            let is_new = known.is_none_or(|row| row.gone_ms.is_some());
            if live.is_empty()
                && is_new
                && let Some(from) = past.first()
            {
                events.push(NewEvent {
                    kind: "gpu.moved",
                    host: Some(host.clone()),
                    detail: json!({
                        "uuid": uuid,
                        "from": from.host,
                        "last_seen_there_ms": from.last_seen_ms,
                    }),
                });
            }
            duplicates.extend(live.into_iter().map(|other| Duplicate {
                uuid: uuid.clone(),
                other_host: other.host,
                other_first_seen_ms: other.first_seen_ms,
                other_last_seen_ms: other.last_seen_ms,
                other_proven_ms: other.proven_ms,
            }));
            sqlx::query(
                "INSERT INTO gpu_sightings (uuid, host, first_seen_ms, last_seen_ms, seen_by) \
                 VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (uuid, host) DO UPDATE SET last_seen_ms = excluded.last_seen_ms, \
                   seen_by = excluded.seen_by, gone_ms = NULL",
            )
            .bind(uuid)
            .bind(host.as_str())
            .bind(now)
            .bind(now)
            .bind(seen_by.name())
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        }
        events.extend(duplicates.iter().map(|duplicate| NewEvent {
            kind: "gpu.duplicate",
            host: Some(host.clone()),
            detail: json!({ "uuid": duplicate.uuid, "seen_ms": now, "other": duplicate }),
        }));
        audit::append(&mut tx, actor, &events).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(duplicates)
    }

    /// Notes that proofs of these GPUs were accepted on a host that has shown them.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn record_proven(&self, host: &HostName, uuids: &[String]) -> Result<(), Error> {
        let operation = "record proven GPUs";
        let mut tx = self.write(operation).await?;
        for uuid in uuids {
            sqlx::query("UPDATE gpu_sightings SET proven_ms = ? WHERE uuid = ? AND host = ?")
                .bind(now_ms())
                .bind(uuid)
                .bind(host.as_str())
                .execute(&mut *tx)
                .await
                .map_err(statement(operation))?;
        }
        tx.commit().await.map_err(statement(operation))
    }

    /// The GPUs that a host has ever shown, by UUID.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sightings(&self, host: &HostName) -> Result<Vec<Sighting>, Error> {
        let operation = "read the GPUs of a host";
        let mut tx = self.pool.begin().await.map_err(statement(operation))?;
        of_host(&mut tx, host).await
    }
}

const COLUMNS: &str = "gpu_sightings.uuid, gpu_sightings.host, gpu_sightings.first_seen_ms, \
     gpu_sightings.last_seen_ms, gpu_sightings.seen_by, gpu_sightings.proven_ms, \
     gpu_sightings.gone_ms";

async fn of_host(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
) -> Result<Vec<Sighting>, Error> {
    let operation = "read the GPUs of a host";
    let query = format!("SELECT {COLUMNS} FROM gpu_sightings WHERE host = ? ORDER BY uuid");
    sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(host.as_str())
        .fetch_all(&mut **tx)
        .await
        .map_err(statement(operation))?
        .iter()
        .map(|row| sighting(row).map_err(statement(operation)))
        .collect()
}

/// Where else a GPU was seen: on hosts that still show it, and on hosts that do not or were purged,
/// latest first.
async fn elsewhere(
    tx: &mut Transaction<'_, Sqlite>,
    uuid: &str,
    host: &HostName,
) -> Result<(Vec<Sighting>, Vec<Sighting>), Error> {
    let operation = "read where a GPU was seen";
    // A host of a fleet file that was never deployed to has no row, and is not purged either.
    let query = format!(
        "SELECT {COLUMNS}, hosts.purged_ms AS purged_ms FROM gpu_sightings \
         LEFT JOIN hosts ON hosts.name = gpu_sightings.host \
         WHERE uuid = ? AND host <> ? ORDER BY gpu_sightings.last_seen_ms DESC",
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(uuid)
        .bind(host.as_str())
        .fetch_all(&mut **tx)
        .await
        .map_err(statement(operation))?;
    let (mut live, mut past) = (Vec::new(), Vec::new());
    for row in rows {
        let seen = sighting(&row).map_err(statement(operation))?;
        let purged: Option<i64> = row.try_get("purged_ms").map_err(statement(operation))?;
        // Seen again after a purge without a new deploy: it is there.
        let away = seen.gone_ms.is_some() || purged.is_some_and(|at| at >= seen.last_seen_ms);
        if away { past.push(seen) } else { live.push(seen) }
    }
    Ok((live, past))
}

fn sighting(row: &sqlx::sqlite::SqliteRow) -> Result<Sighting, sqlx::Error> {
    Ok(Sighting {
        uuid: row.try_get("uuid")?,
        host: row.try_get("host")?,
        first_seen_ms: row.try_get("first_seen_ms")?,
        last_seen_ms: row.try_get("last_seen_ms")?,
        seen_by: row.try_get("seen_by")?,
        proven_ms: row.try_get("proven_ms")?,
        gone_ms: row.try_get("gone_ms")?,
    })
}

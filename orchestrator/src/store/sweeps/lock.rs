//! The lock of the sweeps: one holder at a time, which keeps it by renewing.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row as _;

use super::super::{Error, Store, new_id, now_ms, statement};

/// The lock's only row, as long as sweeps are of the whole database.
const NAME: &str = "sweep";

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockHolder {
    /// User, machine and process.
    pub holder: String,
    /// Since when, milliseconds.
    pub since_ms: i64,
    /// Until when, unless it is renewed, milliseconds.
    pub expires_ms: i64,
}

/// A lock that is held. It ends with its lease; [`Store::release_sweep_lock`] ends it sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepLock {
    token: String,
}

impl Store {
    /// Takes the lock for `lease`, unless someone else's is not over.
    ///
    /// # Errors
    /// The database cannot be written. A lock that is held is no error but the other answer.
    pub async fn take_sweep_lock(
        &self,
        holder: &str,
        lease: Duration,
    ) -> Result<Result<SweepLock, LockHolder>, Error> {
        let operation = "take the lock of the sweeps";
        let (now, token) = (now_ms(), new_id()?);
        let mut tx = self.write(operation).await?;
        let taken = sqlx::query(
            "INSERT INTO sweep_lock (name, token, holder, since_ms, expires_ms) \
             VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET token = excluded.token, holder = excluded.holder, \
               since_ms = excluded.since_ms, expires_ms = excluded.expires_ms \
             WHERE sweep_lock.expires_ms <= ?",
        )
        .bind(NAME)
        .bind(&token)
        .bind(holder)
        .bind(now)
        .bind(now.saturating_add(millis(lease)))
        .bind(now)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?
        .rows_affected();
        let row = sqlx::query("SELECT holder, since_ms, expires_ms FROM sweep_lock WHERE name = ?")
            .bind(NAME)
            .fetch_one(&mut *tx)
            .await
            .map_err(statement(operation))?;
        tx.commit().await.map_err(statement(operation))?;
        if taken > 0 {
            return Ok(Ok(SweepLock { token }));
        }
        let held = || -> Result<LockHolder, sqlx::Error> {
            Ok(LockHolder {
                holder: row.try_get("holder")?,
                since_ms: row.try_get("since_ms")?,
                expires_ms: row.try_get("expires_ms")?,
            })
        };
        held().map(Err).map_err(statement(operation))
    }

    /// Keeps the lock for another `lease`. `false` if it was lost: it was not renewed in time and
    /// someone else has taken it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn renew_sweep_lock(&self, lock: &SweepLock, lease: Duration) -> Result<bool, Error> {
        let expires = now_ms().saturating_add(millis(lease));
        sqlx::query("UPDATE sweep_lock SET expires_ms = ? WHERE name = ? AND token = ?")
            .bind(expires)
            .bind(NAME)
            .bind(&lock.token)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() > 0)
            .map_err(statement("renew the lock of the sweeps"))
    }

    /// Gives the lock back. One that was lost is left to who has it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn release_sweep_lock(&self, lock: &SweepLock) -> Result<(), Error> {
        sqlx::query("DELETE FROM sweep_lock WHERE name = ? AND token = ?")
            .bind(NAME)
            .bind(&lock.token)
            .execute(&self.pool)
            .await
            .map(|_| ())
            .map_err(statement("release the lock of the sweeps"))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

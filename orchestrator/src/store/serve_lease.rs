//! Which process serves this database: one row that its holder renews.

use serde::Serialize;
use sqlx::Row as _;

use super::{Error, Store, new_id, now_ms, statement};

/// How long a lease holds without being renewed. Renewed three times in it, one lost write or a
/// paused machine does no harm; a dead holder is succeeded within half a minute.
pub const SERVE_LEASE_MS: i64 = 30_000;

/// The holder of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServeLease {
    /// A random id of the process's life.
    pub holder: String,
    /// The machine that it runs on.
    pub machine: String,
    /// Its process id there.
    pub pid: u32,
    /// Since when.
    pub acquired_ms: i64,
    /// Until when, unless renewed.
    pub expires_ms: i64,
}

impl Store {
    /// Takes the lease, or says who holds it. `alone_here` says that the caller knows by another
    /// lock that no other process of this machine serves: then a lease of this machine is that of
    /// a dead one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn take_serve_lease(
        &self,
        machine: &str,
        alone_here: bool,
    ) -> Result<Result<ServeLease, ServeLease>, Error> {
        let operation = "take the lease of the service";
        let mut tx = self.write(operation).await?;
        let now = now_ms();
        let query = "SELECT holder, machine, pid, acquired_ms, expires_ms FROM serve_lease";
        let row =
            sqlx::query(query).fetch_optional(&mut *tx).await.map_err(statement(operation))?;
        if let Some(row) = row {
            let held = read(&row).map_err(statement(operation))?;
            if held.expires_ms > now && !(alone_here && held.machine == machine) {
                return Ok(Err(held));
            }
        }
        let lease = ServeLease {
            holder: new_id()?,
            machine: machine.to_owned(),
            pid: std::process::id(),
            acquired_ms: now,
            expires_ms: now + SERVE_LEASE_MS,
        };
        sqlx::query(
            "INSERT INTO serve_lease (name, holder, machine, pid, acquired_ms, expires_ms) \
             VALUES ('serve', ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET \
             holder = excluded.holder, machine = excluded.machine, pid = excluded.pid, \
             acquired_ms = excluded.acquired_ms, expires_ms = excluded.expires_ms",
        )
        .bind(&lease.holder)
        .bind(&lease.machine)
        .bind(i64::from(lease.pid))
        .bind(lease.acquired_ms)
        .bind(lease.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(Ok(lease))
    }

    /// Renews the lease. False when another process has taken it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn renew_serve_lease(&self, lease: &ServeLease) -> Result<bool, Error> {
        self.extend(lease, now_ms() + SERVE_LEASE_MS).await
    }

    /// Gives the lease back, so that the next process need not wait.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn return_serve_lease(&self, lease: &ServeLease) -> Result<(), Error> {
        self.extend(lease, 0).await.map(|_| ())
    }

    async fn extend(&self, lease: &ServeLease, until: i64) -> Result<bool, Error> {
        sqlx::query("UPDATE serve_lease SET expires_ms = ? WHERE holder = ?")
            .bind(until)
            .bind(&lease.holder)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(statement("renew the lease of the service"))
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<ServeLease, sqlx::Error> {
    let pid: i64 = row.try_get("pid")?;
    Ok(ServeLease {
        holder: row.try_get("holder")?,
        machine: row.try_get("machine")?,
        pid: u32::try_from(pid).unwrap_or(0),
        acquired_ms: row.try_get("acquired_ms")?,
        expires_ms: row.try_get("expires_ms")?,
    })
}

//! Nonces that the axon has accepted.
//!
//! A journal has a connection of its own, whose commits do not wait for the disk: they survive the
//! death of the process at any moment, and after a power cut `floor` refuses what may be missing.

use std::collections::HashSet;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool};

use super::{BUSY_TIMEOUT, Error, Store, statement};

/// A key and a nonce, to be accepted once.
pub type Spend = (String, i64);

/// Where accepted nonces are written. Shared by every process that has the database open.
#[derive(Debug, Clone)]
pub struct ReplayJournal {
    pool: SqlitePool,
}

impl Store {
    /// Opens the journal of nonces.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub async fn replay_journal(&self) -> Result<ReplayJournal, Error> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| Error::Open { path: self.path.clone(), source })?;
        Ok(ReplayJournal { pool })
    }
}

impl ReplayJournal {
    /// Begins to accept nonces on this boot of the machine, and returns the floor: nothing up to it
    /// may be accepted. `now` and `ahead` (how far a nonce may be in the future) are nanoseconds.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn begin(&self, boot: &str, now: i64, ahead: i64) -> Result<i64, Error> {
        let operation = "begin the journal of nonces";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(statement(operation))?;
        let row = sqlx::query("SELECT boot, floor FROM axon_replay WHERE id = 1")
            .fetch_optional(&mut *tx)
            .await
            .map_err(statement(operation))?;
        let floor = match row {
            // A new database: nothing of before may be repeated to it.
            None => now,
            Some(row) => {
                let known: i64 = row.try_get("floor").map_err(statement(operation))?;
                let last: String = row.try_get("boot").map_err(statement(operation))?;
                // What was accepted just before a power cut had a nonce up to `ahead` in the future.
                if last == boot { known } else { known.max(now.saturating_add(ahead)) }
            }
        };
        sqlx::query(
            "INSERT INTO axon_replay (id, boot, floor) VALUES (1, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, floor = excluded.floor",
        )
        .bind(boot)
        .bind(floor)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(floor)
    }

    /// Records nonces and says which were new: of `endpoints` those above every nonce before, of
    /// `nonces` those that were never there. No key may be in `endpoints` twice.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of it is recorded.
    pub async fn spend(
        &self,
        endpoints: &[Spend],
        nonces: &[Spend],
    ) -> Result<(HashSet<Spend>, HashSet<Spend>), Error> {
        let operation = "record nonces";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(statement(operation))?;
        let mut raised = HashSet::new();
        if !endpoints.is_empty() {
            let mut query = values("INSERT INTO axon_endpoints (endpoint, nonce) ", endpoints);
            query.push(
                " ON CONFLICT (endpoint) DO UPDATE SET nonce = excluded.nonce \
                 WHERE excluded.nonce > axon_endpoints.nonce RETURNING endpoint, nonce",
            );
            raised = fetch(query, &mut tx).await.map_err(statement(operation))?;
        }
        let mut added = HashSet::new();
        if !nonces.is_empty() {
            let mut query = values("INSERT INTO axon_nonces (caller, nonce) ", nonces);
            query.push(" ON CONFLICT (nonce, caller) DO NOTHING RETURNING caller, nonce");
            added = fetch(query, &mut tx).await.map_err(statement(operation))?;
        }
        tx.commit().await.map_err(statement(operation))?;
        Ok((raised, added))
    }

    /// Forgets endpoints, and at most `limit` single nonces, of up to `floor`; remembers that nothing
    /// up to it may be accepted again. Returns how many single nonces went: as many as `limit` when
    /// there may be more.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn forget(&self, floor: i64, limit: u32) -> Result<u64, Error> {
        let operation = "forget old nonces";
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(statement(operation))?;
        sqlx::query("UPDATE axon_replay SET floor = ? WHERE id = 1 AND floor < ?")
            .bind(floor)
            .bind(floor)
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        sqlx::query("DELETE FROM axon_endpoints WHERE nonce <= ?")
            .bind(floor)
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        let gone = sqlx::query(
            "DELETE FROM axon_nonces WHERE (nonce, caller) IN \
             (SELECT nonce, caller FROM axon_nonces WHERE nonce <= ? ORDER BY nonce LIMIT ?)",
        )
        .bind(floor)
        .bind(i64::from(limit))
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?
        .rows_affected();
        tx.commit().await.map_err(statement(operation))?;
        Ok(gone)
    }

    /// How many nonces are remembered.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count(&self) -> Result<i64, Error> {
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM axon_endpoints) + (SELECT count(*) FROM axon_nonces)",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(statement("count nonces"))
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

fn values<'a>(insert: &'static str, rows: &'a [Spend]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(insert);
    query.push_values(rows, |mut row, (key, nonce): &'a Spend| {
        row.push_bind(key.clone()).push_bind(*nonce);
    });
    query
}

async fn fetch(
    mut query: QueryBuilder<Sqlite>,
    tx: &mut sqlx::Transaction<'_, Sqlite>,
) -> Result<HashSet<Spend>, sqlx::Error> {
    let rows = query.build().fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

//! Passes over the fleet and what is shown of them later.

use serde::Serialize;
use sqlx::Row as _;

use super::super::{Error, Store, new_id, now_ms, statement};
use crate::ids::HostName;

/// Rows that are removed in one statement, so that no other writer waits for long.
const PRUNE_ROWS: i64 = 20_000;

/// How a sweep ended, in hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SweepCounts {
    /// Whose state is good.
    pub well: u64,
    /// That answer, and whose state is bad.
    pub troubled: u64,
    /// That do not answer.
    pub unreached: u64,
    /// Whose turn did not come.
    pub not_probed: u64,
}

/// A sweep as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SweepRow {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started_ms: i64,
    /// Who began it.
    pub started_by: String,
    /// When it ended; `None` if it was interrupted or is under way.
    pub ended_ms: Option<i64>,
    /// Hosts that it was of.
    pub hosts: i64,
    /// See [`SweepCounts`].
    pub well: Option<i64>,
    /// See [`SweepCounts`].
    pub troubled: Option<i64>,
    /// See [`SweepCounts`].
    pub unreached: Option<i64>,
    /// See [`SweepCounts`].
    pub not_probed: Option<i64>,
}

/// One look at one host as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeRow {
    /// When.
    pub at_ms: i64,
    /// How long it took.
    pub elapsed_ms: i64,
    /// Whether the host answered.
    pub reached: bool,
    /// Its state after it.
    pub state: String,
    /// The worst severity that was found.
    pub worst: Option<String>,
    /// Core temperatures, separated by commas.
    pub celsius: Option<String>,
}

/// A finding as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingRow {
    /// The host.
    pub host: String,
    /// The kind.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// How much it matters.
    pub severity: String,
    /// What was seen.
    pub seen: String,
    /// What was expected.
    pub expected: String,
    /// When it was first seen.
    pub first_ms: i64,
    /// When it was gone; `None` while it is not.
    pub resolved_ms: Option<i64>,
}

impl Store {
    /// Records that a sweep of so many hosts begins. Returns its id.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn begin_sweep(&self, actor: &str, hosts: usize) -> Result<String, Error> {
        let id = new_id()?;
        sqlx::query("INSERT INTO sweeps (id, started_ms, started_by, hosts) VALUES (?, ?, ?, ?)")
            .bind(&id)
            .bind(now_ms())
            .bind(actor)
            .bind(count(hosts as u64))
            .execute(&self.pool)
            .await
            .map_err(statement("record a sweep"))?;
        Ok(id)
    }

    /// Records how a sweep ended.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn end_sweep(&self, id: &str, counts: &SweepCounts) -> Result<(), Error> {
        sqlx::query(
            "UPDATE sweeps SET ended_ms = ?, well = ?, troubled = ?, unreached = ?, \
             not_probed = ? WHERE id = ?",
        )
        .bind(now_ms())
        .bind(count(counts.well))
        .bind(count(counts.troubled))
        .bind(count(counts.unreached))
        .bind(count(counts.not_probed))
        .bind(id)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(statement("record the end of a sweep"))
    }

    /// Sweeps since a time, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sweeps_since(&self, since_ms: i64, limit: u32) -> Result<Vec<SweepRow>, Error> {
        let operation = "read the sweeps";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<SweepRow, sqlx::Error> {
            Ok(SweepRow {
                id: row.try_get("id")?,
                started_ms: row.try_get("started_ms")?,
                started_by: row.try_get("started_by")?,
                ended_ms: row.try_get("ended_ms")?,
                hosts: row.try_get("hosts")?,
                well: row.try_get("well")?,
                troubled: row.try_get("troubled")?,
                unreached: row.try_get("unreached")?,
                not_probed: row.try_get("not_probed")?,
            })
        };
        let query = sqlx::query(
            "SELECT id, started_ms, started_by, ended_ms, hosts, well, troubled, unreached, \
             not_probed FROM sweeps WHERE started_ms >= ? ORDER BY started_ms DESC LIMIT ?",
        )
        .bind(since_ms)
        .bind(i64::from(limit));
        self.read_all(operation, query, read).await
    }

    /// The looks at a host since a time, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn probes_of(
        &self,
        host: &HostName,
        since_ms: i64,
        limit: u32,
    ) -> Result<Vec<ProbeRow>, Error> {
        let operation = "read the probes of a host";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<ProbeRow, sqlx::Error> {
            Ok(ProbeRow {
                at_ms: row.try_get("at_ms")?,
                elapsed_ms: row.try_get("elapsed_ms")?,
                reached: row.try_get::<i64, _>("reached")? != 0,
                state: row.try_get("state")?,
                worst: row.try_get("worst")?,
                celsius: row.try_get("celsius")?,
            })
        };
        let query = sqlx::query(
            "SELECT at_ms, elapsed_ms, reached, state, worst, celsius FROM probes \
             WHERE host = ? AND at_ms >= ? ORDER BY at_ms DESC LIMIT ?",
        )
        .bind(host.as_str())
        .bind(since_ms)
        .bind(i64::from(limit));
        self.read_all(operation, query, read).await
    }

    /// The findings that were open since a time, of one host if given, newest first, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn findings_since(
        &self,
        host: Option<&HostName>,
        since_ms: i64,
        limit: u32,
    ) -> Result<Vec<FindingRow>, Error> {
        let operation = "read the findings";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<FindingRow, sqlx::Error> {
            Ok(FindingRow {
                host: row.try_get("host")?,
                code: row.try_get("code")?,
                subject: row.try_get("subject")?,
                severity: row.try_get("severity")?,
                seen: row.try_get("seen")?,
                expected: row.try_get("expected")?,
                first_ms: row.try_get("first_ms")?,
                resolved_ms: row.try_get("resolved_ms")?,
            })
        };
        let query = sqlx::query(
            "SELECT host, code, subject, severity, seen, expected, first_ms, resolved_ms \
             FROM findings WHERE (? IS NULL OR host = ?) \
               AND (resolved_ms IS NULL OR resolved_ms >= ?) \
             ORDER BY first_ms DESC LIMIT ?",
        )
        .bind(host.map(HostName::as_str))
        .bind(host.map(HostName::as_str))
        .bind(since_ms)
        .bind(i64::from(limit));
        self.read_all(operation, query, read).await
    }

    /// Removes history from before a time, some of it at each call. Returns how many rows went.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn prune_sweeps(&self, before_ms: i64) -> Result<u64, Error> {
        let operation = "remove old sweeps";
        let mut gone = 0;
        for query in [
            "DELETE FROM probes WHERE rowid IN \
               (SELECT rowid FROM probes WHERE sweep IN \
                 (SELECT id FROM sweeps WHERE started_ms < ?) LIMIT ?)",
            "DELETE FROM findings WHERE rowid IN \
               (SELECT rowid FROM findings WHERE resolved_ms < ? LIMIT ?)",
            "DELETE FROM proof_times WHERE rowid IN \
               (SELECT rowid FROM proof_times WHERE at_ms < ? LIMIT ?)",
            "DELETE FROM sweeps WHERE rowid IN \
               (SELECT rowid FROM sweeps WHERE started_ms < ? AND NOT EXISTS \
                 (SELECT 1 FROM probes WHERE probes.sweep = sweeps.id) LIMIT ?)",
        ] {
            gone += sqlx::query(query)
                .bind(before_ms)
                .bind(PRUNE_ROWS)
                .execute(&self.pool)
                .await
                .map_err(statement(operation))?
                .rows_affected();
        }
        Ok(gone)
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

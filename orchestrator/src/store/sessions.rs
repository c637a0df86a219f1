//! Sessions of validators with the axon: which were opened, and which were ended before their time.

use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;

use super::{Error, NewEvent, Store, audit, new_id, now_ms, statement};

/// For how long an expired session is remembered, in milliseconds: a day. Nothing depends on it.
const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    /// Its id.
    pub id: String,
    /// The axon's hotkey.
    pub axon: String,
    /// The validator's hotkey.
    pub validator: String,
    /// From where it was opened.
    pub address: String,
    /// When, milliseconds since the Unix epoch.
    pub issued_ms: i64,
    /// When it ends by itself.
    pub expires_ms: i64,
    /// When it was ended before that.
    pub ended_ms: Option<i64>,
    /// By whom.
    pub ended_by: Option<String>,
}

/// A session that is to be opened.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The axon's hotkey.
    pub axon: String,
    /// The validator's hotkey.
    pub validator: String,
    /// From where it is opened.
    pub address: String,
    /// How long it holds, in milliseconds.
    pub lifetime_ms: i64,
}

/// Which sessions are meant; all conditions that are there must hold.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// The one of this id.
    pub id: Option<String>,
    /// Those of this validator.
    pub validator: Option<String>,
    /// Those that have neither ended nor expired.
    pub live: bool,
}

impl Store {
    /// Opens a session, unless the validator has `most` live ones. Returns `None` then.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn open_session(
        &self,
        session: &NewSession,
        most: u32,
    ) -> Result<Option<SessionRow>, Error> {
        let operation = "open a session";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        sqlx::query("DELETE FROM axon_sessions WHERE expires_ms < ?")
            .bind(now - MEMORY_MS)
            .execute(&mut *tx)
            .await
            .map_err(statement(operation))?;
        let live: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM axon_sessions \
             WHERE validator = ? AND expires_ms > ? AND ended_ms IS NULL",
        )
        .bind(&session.validator)
        .bind(now)
        .fetch_one(&mut *tx)
        .await
        .map_err(statement(operation))?;
        if live >= i64::from(most) {
            return Ok(None);
        }
        let row = SessionRow {
            id: new_id()?,
            axon: session.axon.clone(),
            validator: session.validator.clone(),
            address: session.address.clone(),
            issued_ms: now,
            expires_ms: now.saturating_add(session.lifetime_ms),
            ended_ms: None,
            ended_by: None,
        };
        sqlx::query(
            "INSERT INTO axon_sessions (id, axon, validator, address, issued_ms, expires_ms) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.id)
        .bind(&row.axon)
        .bind(&row.validator)
        .bind(&row.address)
        .bind(row.issued_ms)
        .bind(row.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        let event = NewEvent { kind: "session.opened", host: None, detail: json!(row) };
        audit::append(&mut tx, &row.validator, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(Some(row))
    }

    /// Whether a session of this axon and validator goes on.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn session_is_live(
        &self,
        id: &str,
        axon: &str,
        validator: &str,
    ) -> Result<bool, Error> {
        let found: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM axon_sessions WHERE id = ? AND axon = ? AND validator = ? \
             AND expires_ms > ? AND ended_ms IS NULL",
        )
        .bind(id)
        .bind(axon)
        .bind(validator)
        .bind(now_ms())
        .fetch_one(&self.pool)
        .await
        .map_err(statement("look up a session"))?;
        Ok(found > 0)
    }

    /// Ends the live sessions among those that are meant, for every process, and returns them.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn end_sessions(
        &self,
        actor: &str,
        filter: &SessionFilter,
    ) -> Result<Vec<SessionRow>, Error> {
        let operation = "end sessions";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        let rows = sqlx::query(
            "UPDATE axon_sessions SET ended_ms = ?, ended_by = ? \
             WHERE (? IS NULL OR id = ?) AND (? IS NULL OR validator = ?) \
               AND expires_ms > ? AND ended_ms IS NULL \
             RETURNING id, axon, validator, address, issued_ms, expires_ms, ended_ms, ended_by",
        )
        .bind(now)
        .bind(actor)
        .bind(&filter.id)
        .bind(&filter.id)
        .bind(&filter.validator)
        .bind(&filter.validator)
        .bind(now)
        .fetch_all(&mut *tx)
        .await
        .map_err(statement(operation))?;
        let ended: Result<Vec<_>, _> = rows.iter().map(read).collect();
        let ended = ended.map_err(statement(operation))?;
        let event = |row: &SessionRow| NewEvent {
            kind: "session.ended",
            host: None,
            detail: json!({ "id": row.id, "validator": row.validator }),
        };
        let events: Vec<NewEvent> = ended.iter().map(event).collect();
        audit::append(&mut tx, actor, &events).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(ended)
    }

    /// Sessions, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sessions(
        &self,
        filter: &SessionFilter,
        limit: u32,
    ) -> Result<Vec<SessionRow>, Error> {
        let query = sqlx::query(
            "SELECT id, axon, validator, address, issued_ms, expires_ms, ended_ms, ended_by \
             FROM axon_sessions WHERE (? IS NULL OR id = ?) AND (? IS NULL OR validator = ?) \
               AND (? = 0 OR (expires_ms > ? AND ended_ms IS NULL)) \
             ORDER BY issued_ms DESC, id LIMIT ?",
        )
        .bind(&filter.id)
        .bind(&filter.id)
        .bind(&filter.validator)
        .bind(&filter.validator)
        .bind(i64::from(filter.live))
        .bind(now_ms())
        .bind(i64::from(limit));
        self.read_all("read sessions", query, read).await
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<SessionRow, sqlx::Error> {
    Ok(SessionRow {
        id: row.try_get("id")?,
        axon: row.try_get("axon")?,
        validator: row.try_get("validator")?,
        address: row.try_get("address")?,
        issued_ms: row.try_get("issued_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        ended_by: row.try_get("ended_by")?,
    })
}

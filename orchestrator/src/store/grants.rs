//! SSH grants to validators: who was given which key on which host, until when, and how it ended.

use serde::Serialize;
use serde_json::json;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, NewEvent, Store, audit, new_id, now_ms, statement};
use crate::ids::HostName;

/// Where a grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantState {
    /// About to be written on the host.
    Pending,
    /// In the host's file.
    Placed,
    /// Ended, and to be taken out of the host's file.
    Ended,
    /// Not in the host's file any more, or never was.
    Gone,
}

impl GrantState {
    const ALL: [Self; 4] = [Self::Pending, Self::Placed, Self::Ended, Self::Gone];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Placed => "placed",
            Self::Ended => "ended",
            Self::Gone => "gone",
        }
    }
}

/// Why a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantEnd {
    /// A person or the validator took it back.
    Revoked,
    /// Its time was over.
    Expired,
    /// It could not be placed, or nobody knows whether it was.
    Failed,
    /// Somebody took its line out of the file.
    Lost,
}

impl GrantEnd {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// A grant that is about to be placed.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// The host.
    pub host: HostName,
    /// The validator's hotkey.
    pub validator: String,
    /// Type and base64.
    pub public_key: String,
    /// `SHA256:...`.
    pub fingerprint: String,
    /// From where it may be used.
    pub from_address: String,
    /// The file on the host.
    pub keys_file: String,
    /// When it ends, milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// How many grants there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantLimits {
    /// Live ones of one validator.
    pub per_validator: u32,
    /// Live ones on one host.
    pub per_host: u32,
    /// New ones of one validator within the window.
    pub rate: u32,
    /// The window, milliseconds.
    pub window_ms: i64,
}

/// A limit that a new grant would pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// Of the validator.
    #[error("validator {validator} has {limit} live grants already")]
    Validator {
        /// Its hotkey.
        validator: String,
        /// The limit.
        limit: u32,
    },
    /// Of the host.
    #[error("host {host} has {limit} live grants already")]
    Host {
        /// The host.
        host: HostName,
        /// The limit.
        limit: u32,
    },
    /// Too many in a short time.
    #[error("validator {validator} was given {limit} grants within {} s", window_ms / 1000)]
    Rate {
        /// Its hotkey.
        validator: String,
        /// The limit.
        limit: u32,
        /// The window.
        window_ms: i64,
    },
}

/// A grant as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantRow {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The host.
    pub host: String,
    /// The validator's hotkey.
    pub validator: String,
    /// Fingerprint of the key.
    pub fingerprint: String,
    /// From where it may be used.
    pub from_address: String,
    /// When it was asked for.
    pub issued_ms: i64,
    /// Who asked.
    pub issued_by: String,
    /// When it ends by itself.
    pub expires_ms: i64,
    /// Where it stands.
    pub state: GrantState,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Why: revoked, expired, failed or lost.
    pub end_reason: Option<String>,
    /// The file on the host.
    pub keys_file: String,
}

/// Which grants are wanted.
#[derive(Debug, Clone, Default)]
pub struct GrantFilter {
    /// Of this host.
    pub host: Option<HostName>,
    /// Of this validator.
    pub validator: Option<String>,
    /// Only those that are not gone.
    pub open: bool,
}

const COLUMNS: &str = "id, host, validator, fingerprint, from_address, issued_ms, issued_by, \
     expires_ms, state, ended_ms, end_reason, keys_file";

impl Store {
    /// Notes a grant before anything of it is written on the host, if no limit stands against it.
    /// Returns its id. The limits hold however many ask at once.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn begin_grant(
        &self,
        actor: &str,
        grant: &NewGrant,
        limits: &GrantLimits,
    ) -> Result<Result<String, LimitReached>, Error> {
        let operation = "record a grant";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        if let Some(reached) = limit_reached(&mut tx, grant, limits, now).await? {
            return Ok(Err(reached));
        }
        let id = new_id()?;
        sqlx::query(
            "INSERT INTO grants (id, host, validator, public_key, fingerprint, from_address, \
             keys_file, issued_ms, issued_by, expires_ms, state) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')",
        )
        .bind(&id)
        .bind(grant.host.as_str())
        .bind(&grant.validator)
        .bind(&grant.public_key)
        .bind(&grant.fingerprint)
        .bind(&grant.from_address)
        .bind(&grant.keys_file)
        .bind(now)
        .bind(actor)
        .bind(grant.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        let event = NewEvent {
            kind: "grant.requested",
            host: Some(grant.host.clone()),
            detail: json!({
                "grant": id,
                "validator": grant.validator,
                "fingerprint": grant.fingerprint,
                "from": grant.from_address,
                "expires_ms": grant.expires_ms,
            }),
        };
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(Ok(id))
    }

    /// Notes that the line of a pending grant is in the file. False when the grant has ended
    /// meanwhile, so that its line has to be taken out again.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn grant_placed(&self, actor: &str, grant: &GrantRow) -> Result<bool, Error> {
        let query = "UPDATE grants SET state = 'placed' WHERE id = ? AND state = 'pending'";
        let changed = self.move_grant(actor, grant, query, "grant.placed", None).await?;
        Ok(changed)
    }

    /// Notes that a grant has ended: its line is to be taken out. False if it had ended before.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn end_grant(
        &self,
        actor: &str,
        grant: &GrantRow,
        end: GrantEnd,
    ) -> Result<bool, Error> {
        let query = "UPDATE grants SET state = 'ended', ended_ms = ?, end_reason = ? \
             WHERE id = ? AND state IN ('pending', 'placed')";
        let kind = match end {
            GrantEnd::Revoked => "grant.revoked",
            GrantEnd::Expired => "grant.expired",
            GrantEnd::Failed => "grant.failed",
            GrantEnd::Lost => "grant.lost",
        };
        self.move_grant(actor, grant, query, kind, Some(end)).await
    }

    /// Notes that the line of an ended grant is out of the file.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn grant_gone(&self, actor: &str, grant: &GrantRow) -> Result<bool, Error> {
        let query = "UPDATE grants SET state = 'gone' WHERE id = ? AND state = 'ended'";
        self.move_grant(actor, grant, query, "grant.removed", None).await
    }

    async fn move_grant(
        &self,
        actor: &str,
        grant: &GrantRow,
        query: &'static str,
        kind: &'static str,
        end: Option<GrantEnd>,
    ) -> Result<bool, Error> {
        let operation = "record what became of a grant";
        let mut tx = self.write(operation).await?;
        let mut update = sqlx::query(query);
        if let Some(end) = end {
            update = update.bind(now_ms()).bind(end.name());
        }
        let done = update.bind(&grant.id).execute(&mut *tx).await.map_err(statement(operation))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            kind,
            host: HostName::new(grant.host.as_str()).ok(),
            detail: json!({
                "grant": grant.id,
                "validator": grant.validator,
                "fingerprint": grant.fingerprint,
            }),
        };
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(true)
    }

    /// One grant.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn grant(&self, id: &str) -> Result<Option<GrantRow>, Error> {
        let operation = "read a grant";
        let query = format!("SELECT {COLUMNS} FROM grants WHERE id = ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(statement(operation))?
            .map(|row| read(&row))
            .transpose()
            .map_err(statement(operation))
    }

    /// Grants, newest first, at most `limit` of them after skipping `offset`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn grants(
        &self,
        filter: &GrantFilter,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<GrantRow>, Error> {
        let operation = "read grants";
        let host = filter.host.as_ref().map(HostName::as_str);
        let query = format!(
            "SELECT {COLUMNS} FROM grants WHERE (? IS NULL OR host = ?) \
             AND (? IS NULL OR validator = ?) AND (? = 0 OR state <> 'gone') \
             ORDER BY issued_ms DESC, id LIMIT ? OFFSET ?"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(host)
            .bind(host)
            .bind(&filter.validator)
            .bind(&filter.validator)
            .bind(i64::from(filter.open))
            .bind(i64::from(limit))
            .bind(i64::from(offset));
        self.read_all(operation, query, read).await
    }
}

async fn limit_reached(
    tx: &mut Transaction<'_, Sqlite>,
    grant: &NewGrant,
    limits: &GrantLimits,
    now: i64,
) -> Result<Option<LimitReached>, Error> {
    let operation = "count grants";
    let mut count = async |query: &'static str, subject: &str, time: i64| {
        let count: i64 = sqlx::query_scalar(query)
            .bind(subject)
            .bind(time)
            .fetch_one(&mut **tx)
            .await
            .map_err(statement(operation))?;
        Ok::<u32, Error>(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let live = "SELECT count(*) FROM grants WHERE validator = ? AND expires_ms > ? \
         AND state IN ('pending', 'placed')";
    if count(live, &grant.validator, now).await? >= limits.per_validator {
        let (validator, limit) = (grant.validator.clone(), limits.per_validator);
        return Ok(Some(LimitReached::Validator { validator, limit }));
    }
    let live = "SELECT count(*) FROM grants WHERE host = ? AND expires_ms > ? \
         AND state IN ('pending', 'placed')";
    if count(live, grant.host.as_str(), now).await? >= limits.per_host {
        let (host, limit) = (grant.host.clone(), limits.per_host);
        return Ok(Some(LimitReached::Host { host, limit }));
    }
    let recent = "SELECT count(*) FROM grants WHERE validator = ? AND issued_ms > ?";
    if count(recent, &grant.validator, now - limits.window_ms).await? >= limits.rate {
        let (validator, limit) = (grant.validator.clone(), limits.rate);
        let window_ms = limits.window_ms;
        return Ok(Some(LimitReached::Rate { validator, limit, window_ms }));
    }
    Ok(None)
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<GrantRow, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let known = GrantState::ALL.into_iter().find(|one| one.name() == state);
    Ok(GrantRow {
        id: row.try_get("id")?,
        host: row.try_get("host")?,
        validator: row.try_get("validator")?,
        fingerprint: row.try_get("fingerprint")?,
        from_address: row.try_get("from_address")?,
        issued_ms: row.try_get("issued_ms")?,
        issued_by: row.try_get("issued_by")?,
        expires_ms: row.try_get("expires_ms")?,
        state: known
            .ok_or_else(|| sqlx::Error::Decode(format!("{state:?} is no grant state").into()))?,
        ended_ms: row.try_get("ended_ms")?,
        end_reason: row.try_get("end_reason")?,
        keys_file: row.try_get("keys_file")?,
    })
}

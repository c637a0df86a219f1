//! Leases: who holds which GPUs of which host, for what and until when.
//!
//! A GPU is in at most one live lease; an index of the database sees to it, so two operators or
//! two processes can never both have it. Taking is all or nothing. A lease ends when its holder
//! releases it or when someone has seen that nothing runs under it any more; the clock alone ends
//! only leases under which nothing can be running: those whose container was never created and
//! those of verifications, whose runner ends by itself soon after its holder.

use serde::Serialize;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, NewEvent, Store, audit, hosts, new_id, now_ms, statement};
use crate::host_state::{HostEvent, HostState};
use crate::ids::HostName;

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    /// A container; its subject is the container's id.
    Container,
    /// A verification; its subject is the challenge's id.
    Verify,
    /// A validator's access; its subject is the grant's id.
    Grant,
}

impl LeaseKind {
    /// The name in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Verify => "verify",
            Self::Grant => "grant",
        }
    }

    fn read(text: &str) -> Result<Self, sqlx::Error> {
        [Self::Container, Self::Verify, Self::Grant]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| sqlx::Error::Decode(format!("{text:?} is no kind of lease").into()))
    }

    /// Whether a host in this state may be held for it. A verification is how a host that was set
    /// aside shows what it is, so it may be verified in any state.
    fn may_hold(self, state: HostState, with_gpus: bool) -> bool {
        match (self, state) {
            (Self::Verify, _) | (_, HostState::Ready | HostState::Leased) => true,
            (_, HostState::Draining | HostState::Quarantined) => false,
            // Without GPUs, a faulty or unseen host may still do.
            (_, HostState::Unknown | HostState::Degraded | HostState::Unreachable) => !with_gpus,
        }
    }
}

/// Which GPUs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuRequest {
    /// These, by UUID; none is a lease of the host alone.
    These(Vec<String>),
    /// So many of these, whichever are free.
    Any {
        /// How many.
        count: usize,
        /// The UUIDs to choose from, the preferred ones first.
        of: Vec<String>,
    },
}

impl GpuRequest {
    /// A lease without GPUs.
    #[must_use]
    pub fn none() -> Self {
        Self::These(Vec::new())
    }

    /// How many GPUs are wanted.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::These(gpus) => gpus.len(),
            Self::Any { count, .. } => *count,
        }
    }
}

/// A lease that is wanted.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// On which host.
    pub host: HostName,
    /// For what.
    pub kind: LeaseKind,
    /// Which GPUs.
    pub gpus: GpuRequest,
    /// When it lapses unless it is renewed, milliseconds since the Unix epoch; `None` is never.
    pub expires_ms: Option<i64>,
}

/// A lease as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// 128 random bits in hexadecimal.
    pub id: String,
    /// The host.
    pub host: HostName,
    /// For what.
    pub kind: LeaseKind,
    /// The UUIDs of its GPUs, in order.
    pub gpus: Vec<String>,
    /// Who took it: `user@machine`.
    pub actor: String,
    /// The process that took it, on that machine.
    pub pid: u32,
    /// The id of what it is for, once that exists.
    pub subject: Option<String>,
    /// When it was taken.
    pub created_ms: i64,
    /// When it lapses; `None` is never.
    pub expires_ms: Option<i64>,
    /// When it ended; `None` is live.
    pub released_ms: Option<i64>,
    /// Why it ended.
    pub released_why: Option<String>,
}

impl Lease {
    /// Whether its time has passed while nobody ended it.
    #[must_use]
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        self.released_ms.is_none() && self.expires_ms.is_some_and(|end| end <= now_ms)
    }
}

/// A GPU that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldGpu {
    /// Its UUID.
    pub gpu: String,
    /// The lease.
    pub lease: String,
    /// What for.
    pub kind: LeaseKind,
    /// By whom.
    pub actor: String,
    /// Since when.
    pub since_ms: i64,
}

/// Why a lease cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The host is not one of ours.
    #[error("there is no host {0}")]
    UnknownHost(HostName),
    /// The host takes no lease in its state.
    #[error("{host} is {state} and takes no new lease{}", note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default())]
    NotTaking {
        /// The host.
        host: HostName,
        /// Its state.
        state: HostState,
        /// Why it is in that state, where that is known.
        note: Option<String>,
    },
    /// Somebody else holds GPUs that are wanted.
    #[error("{}", held_words(.0))]
    Held(Vec<HeldGpu>),
    /// Not enough of the GPUs are free.
    #[error("{wanted} GPUs are wanted and {free} of {of} are free")]
    TooFew {
        /// How many are wanted.
        wanted: usize,
        /// How many are free.
        free: usize,
        /// How many there are to choose from.
        of: usize,
    },
    /// The database could not be read or written.
    #[error(transparent)]
    Store(#[from] Error),
}

fn held_words(held: &[HeldGpu]) -> String {
    let words = held.iter().map(|held| {
        let (gpu, kind, actor) = (&held.gpu, held.kind.name(), &held.actor);
        let lease: String = held.lease.chars().take(12).collect();
        format!("{gpu} is held by {actor} ({kind}, lease {lease})")
    });
    words.collect::<Vec<_>>().join("; ")
}

const COLUMNS: &str = "id, host, kind, actor, pid, subject, created_ms, expires_ms, released_ms, \
     released_why";

impl Store {
    /// The id of this database, made at the first question: what is left on hosts carries it, so
    /// that two fleets that share a host leave each other's things alone.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub async fn identity(&self) -> Result<String, Error> {
        let operation = "read the identity of the database";
        let read = || {
            sqlx::query_scalar::<_, String>("SELECT id FROM identity WHERE one = 1")
                .fetch_optional(&self.pool)
        };
        if let Some(id) = read().await.map_err(statement(operation))? {
            return Ok(id);
        }
        sqlx::query(
            "INSERT INTO identity (one, id, created_ms) VALUES (1, ?, ?) ON CONFLICT (one) DO NOTHING",
        )
        .bind(new_id()?)
        .bind(now_ms())
        .execute(&self.pool)
        .await
        .map_err(statement(operation))?;
        read().await.and_then(|id| id.ok_or(sqlx::Error::RowNotFound)).map_err(statement(operation))
    }

    /// Takes a lease: all of its GPUs or none. Records it, the host's new state and the audit
    /// event together.
    ///
    /// # Errors
    /// The host takes no lease, GPUs are held by others, or the database cannot be written.
    pub async fn acquire_lease(&self, actor: &str, wanted: &NewLease) -> Result<Lease, LeaseError> {
        let operation = "take a lease";
        let now = now_ms();
        let mut tx = self.write(operation).await?;
        let host = &wanted.host;
        let Some(state) = hosts::read_state(&mut tx, host).await? else {
            return Err(LeaseError::UnknownHost(host.clone()));
        };
        if !wanted.kind.may_hold(state, wanted.gpus.count() > 0) {
            let note = hosts::read_note(&mut tx, host).await?;
            return Err(LeaseError::NotTaking { host: host.clone(), state, note });
        }
        release_lapsed(&mut tx, host, now).await?;
        let held = held_gpus(&mut tx, host).await?;
        let gpus = choose(&wanted.gpus, &held)?;
        let lease = Lease {
            id: new_id()?,
            host: host.clone(),
            kind: wanted.kind,
            gpus,
            actor: actor.to_owned(),
            pid: std::process::id(),
            subject: None,
            created_ms: now,
            expires_ms: wanted.expires_ms,
            released_ms: None,
            released_why: None,
        };
        insert(&mut tx, &lease).await?;
        if !lease.gpus.is_empty() && matches!(state, HostState::Ready | HostState::Leased) {
            hosts::write_state(&mut tx, host, state.after(HostEvent::LeaseTaken), now).await?;
        }
        let event = NewEvent {
            kind: "lease.taken",
            host: Some(host.clone()),
            detail: serde_json::json!({
                "lease": lease.id, "kind": lease.kind, "gpus": lease.gpus, "expires_ms": lease.expires_ms,
            }),
        };
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(lease)
    }

    /// Moves the end of a live lease. `false` if it has ended.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn renew_lease(&self, id: &str, expires_ms: Option<i64>) -> Result<bool, Error> {
        let renewed =
            sqlx::query("UPDATE leases SET expires_ms = ? WHERE id = ? AND released_ms IS NULL")
                .bind(expires_ms)
                .bind(id)
                .execute(&self.pool)
                .await
                .map_err(statement("renew a lease"))?;
        Ok(renewed.rows_affected() > 0)
    }

    /// Says what a live lease is for now, and until when. `false` if it has ended.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn bind_lease(
        &self,
        id: &str,
        subject: &str,
        expires_ms: Option<i64>,
    ) -> Result<bool, Error> {
        let bound = sqlx::query(
            "UPDATE leases SET subject = ?, expires_ms = ? WHERE id = ? AND released_ms IS NULL",
        )
        .bind(subject)
        .bind(expires_ms)
        .bind(id)
        .execute(&self.pool)
        .await
        .map_err(statement("bind a lease"))?;
        Ok(bound.rows_affected() > 0)
    }

    /// Ends a lease, with the host's new state and the audit event. `false` if it had ended
    /// already, which is no error: the holder and a reconciliation may both come to it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn release_lease(&self, actor: &str, id: &str, why: &str) -> Result<bool, Error> {
        let operation = "release a lease";
        let mut tx = self.write(operation).await?;
        let Some(lease) = one(&mut tx, id).await?.filter(|lease| lease.released_ms.is_none())
        else {
            return Ok(false);
        };
        release(&mut tx, actor, &lease, why, now_ms()).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(true)
    }

    /// The live leases of one host, or of all, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn live_leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, Error> {
        let operation = "read leases";
        let query = format!(
            "SELECT {COLUMNS} FROM leases WHERE released_ms IS NULL AND (? = 0 OR host = ?) \
             ORDER BY created_ms, id"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(i64::from(host.is_some()))
            .bind(host.map(HostName::as_str).unwrap_or_default());
        let mut leases = self.read_all(operation, query, read).await?;
        self.fill_gpus(&mut leases).await?;
        Ok(leases)
    }

    /// The live leases whose time has passed, of one host or of all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn overdue_leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, Error> {
        let now = now_ms();
        let mut leases = self.live_leases(host).await?;
        leases.retain(|lease| lease.is_overdue(now));
        Ok(leases)
    }

    /// Leases, live or not, whose id begins with `prefix`, at most `limit` of them, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn leases_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<Lease>, Error> {
        let operation = "read a lease";
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let query = format!(
            "SELECT {COLUMNS} FROM leases WHERE id LIKE ? ORDER BY created_ms DESC, id LIMIT ?"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(format!("{}%", prefix.to_ascii_lowercase()))
            .bind(i64::from(limit));
        let mut leases = self.read_all(operation, query, read).await?;
        self.fill_gpus(&mut leases).await?;
        Ok(leases)
    }

    /// The leases of one actor, live or not, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn leases_of(&self, actor: &str, limit: u32) -> Result<Vec<Lease>, Error> {
        let operation = "read the leases of an actor";
        let query = format!(
            "SELECT {COLUMNS} FROM leases WHERE actor = ? ORDER BY created_ms DESC, id LIMIT ?"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(actor).bind(i64::from(limit));
        let mut leases = self.read_all(operation, query, read).await?;
        self.fill_gpus(&mut leases).await?;
        Ok(leases)
    }

    /// How many leases of this kind an actor holds, and how many it has taken since then,
    /// milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn count_leases(
        &self,
        actor: &str,
        kind: LeaseKind,
        since_ms: i64,
    ) -> Result<(u64, u64), Error> {
        let row = sqlx::query(
            "SELECT COUNT(*) FILTER (WHERE released_ms IS NULL) AS live, \
             COUNT(*) FILTER (WHERE created_ms >= ?) AS taken \
             FROM leases WHERE actor = ? AND kind = ?",
        )
        .bind(since_ms)
        .bind(actor)
        .bind(kind.name())
        .fetch_one(&self.pool)
        .await
        .map_err(statement("count leases"))?;
        let count = |name| row.try_get::<i64, _>(name).map_err(statement("count leases"));
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        Ok((number(count("live")?), number(count("taken")?)))
    }

    async fn fill_gpus(&self, leases: &mut [Lease]) -> Result<(), Error> {
        for lease in leases {
            lease.gpus =
                sqlx::query_scalar("SELECT gpu FROM lease_gpus WHERE lease = ? ORDER BY gpu")
                    .bind(&lease.id)
                    .fetch_all(&self.pool)
                    .await
                    .map_err(statement("read the GPUs of a lease"))?;
        }
        Ok(())
    }
}

/// Whether a live lease holds GPUs of the host.
pub(super) async fn holds_gpus(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
) -> Result<bool, Error> {
    let query = "SELECT count(*) FROM lease_gpus WHERE host = ? AND released_ms IS NULL";
    let count: i64 = sqlx::query_scalar(query)
        .bind(host.as_str())
        .fetch_one(&mut **tx)
        .await
        .map_err(statement("count the leases of a host"))?;
    Ok(count > 0)
}

/// The GPUs that a request comes to, given those that are held.
fn choose(request: &GpuRequest, held: &[HeldGpu]) -> Result<Vec<String>, LeaseError> {
    let is_free = |gpu: &&String| !held.iter().any(|held| held.gpu == **gpu);
    match request {
        GpuRequest::These(gpus) => {
            let taken: Vec<HeldGpu> =
                held.iter().filter(|held| gpus.contains(&held.gpu)).cloned().collect();
            if taken.is_empty() { Ok(distinct(gpus.iter())) } else { Err(LeaseError::Held(taken)) }
        }
        GpuRequest::Any { count, of } => {
            let of = distinct(of.iter());
            let free: Vec<String> = of.iter().filter(is_free).cloned().collect();
            if free.len() < *count {
                let (wanted, free, of) = (*count, free.len(), of.len());
                return Err(LeaseError::TooFew { wanted, free, of });
            }
            Ok(distinct(free.iter().take(*count)))
        }
    }
}

/// Sorted, each once.
fn distinct<'a>(gpus: impl Iterator<Item = &'a String>) -> Vec<String> {
    gpus.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect()
}

async fn held_gpus(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
) -> Result<Vec<HeldGpu>, Error> {
    let operation = "read the GPUs that are held";
    sqlx::query(
        "SELECT lease_gpus.gpu, leases.id, leases.kind, leases.actor, leases.created_ms \
         FROM lease_gpus JOIN leases ON leases.id = lease_gpus.lease \
         WHERE lease_gpus.host = ? AND lease_gpus.released_ms IS NULL",
    )
    .bind(host.as_str())
    .fetch_all(&mut **tx)
    .await
    .map_err(statement(operation))?
    .iter()
    .map(|row| {
        Ok(HeldGpu {
            gpu: row.try_get("gpu")?,
            lease: row.try_get("id")?,
            kind: LeaseKind::read(&row.try_get::<String, _>("kind")?)?,
            actor: row.try_get("actor")?,
            since_ms: row.try_get("created_ms")?,
        })
    })
    .collect::<Result<_, sqlx::Error>>()
    .map_err(statement(operation))
}

/// Ends the leases of a host whose time has passed and under which nothing can be running.
async fn release_lapsed(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostName,
    now: i64,
) -> Result<(), Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM leases WHERE host = ? AND released_ms IS NULL AND expires_ms <= ? \
           AND (kind = 'verify' OR (kind = 'container' AND subject IS NULL))"
    );
    let operation = "read the leases that have lapsed";
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(host.as_str())
        .bind(now)
        .fetch_all(&mut **tx)
        .await
        .map_err(statement(operation))?;
    for row in &rows {
        let lease = read(row).map_err(statement(operation))?;
        let actor = lease.actor.clone();
        release(tx, &actor, &lease, "its holder did not renew it", now).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Transaction<'_, Sqlite>, lease: &Lease) -> Result<(), LeaseError> {
    let operation = "record a lease";
    sqlx::query(
        "INSERT INTO leases (id, host, kind, actor, pid, created_ms, expires_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&lease.id)
    .bind(lease.host.as_str())
    .bind(lease.kind.name())
    .bind(&lease.actor)
    .bind(i64::from(lease.pid))
    .bind(lease.created_ms)
    .bind(lease.expires_ms)
    .execute(&mut **tx)
    .await
    .map_err(statement(operation))?;
    for gpu in &lease.gpus {
        sqlx::query("INSERT INTO lease_gpus (lease, host, gpu) VALUES (?, ?, ?)")
            .bind(&lease.id)
            .bind(lease.host.as_str())
            .bind(gpu)
            .execute(&mut **tx)
            .await
            .map_err(statement(operation))?;
    }
    Ok(())
}

async fn release(
    tx: &mut Transaction<'_, Sqlite>,
    actor: &str,
    lease: &Lease,
    why: &str,
    now: i64,
) -> Result<(), Error> {
    let operation = "release a lease";
    sqlx::query("UPDATE leases SET released_ms = ?, released_why = ? WHERE id = ?")
        .bind(now)
        .bind(why)
        .bind(&lease.id)
        .execute(&mut **tx)
        .await
        .map_err(statement(operation))?;
    sqlx::query("UPDATE lease_gpus SET released_ms = ? WHERE lease = ?")
        .bind(now)
        .bind(&lease.id)
        .execute(&mut **tx)
        .await
        .map_err(statement(operation))?;
    if let Some(state) = hosts::read_state(tx, &lease.host).await?
        && !holds_gpus(tx, &lease.host).await?
    {
        let next = state.after(HostEvent::LeaseReleased);
        hosts::write_state(tx, &lease.host, next, now).await?;
    }
    let event = NewEvent {
        kind: "lease.released",
        host: Some(lease.host.clone()),
        detail: serde_json::json!({
            "lease": lease.id, "kind": lease.kind, "subject": lease.subject, "why": why,
        }),
    };
    audit::append(tx, actor, &[event]).await
}

async fn one(tx: &mut Transaction<'_, Sqlite>, id: &str) -> Result<Option<Lease>, Error> {
    let operation = "read a lease";
    let query = format!("SELECT {COLUMNS} FROM leases WHERE id = ?");
    sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(id)
        .fetch_optional(&mut **tx)
        .await
        .map_err(statement(operation))?
        .as_ref()
        .map(read)
        .transpose()
        .map_err(statement(operation))
}

/// A row without its GPUs.
fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Lease, sqlx::Error> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(Lease {
        id: row.try_get("id")?,
        host: HostName::new(row.try_get::<String, _>("host")?).map_err(|e| wrong(Box::new(e)))?,
        kind: LeaseKind::read(&row.try_get::<String, _>("kind")?)?,
        gpus: Vec::new(),
        actor: row.try_get("actor")?,
        pid: u32::try_from(row.try_get::<i64, _>("pid")?).map_err(|e| wrong(Box::new(e)))?,
        subject: row.try_get("subject")?,
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        released_ms: row.try_get("released_ms")?,
        released_why: row.try_get("released_why")?,
    })
}

//! The audit chain: append-only events, each hashed over its content and the hash before it.
//!
//! A changed, removed or inserted row breaks the chain at that place. Cutting rows off the end
//! leaves a shorter chain that is still whole; who must detect that keeps the head hash
//! elsewhere and passes it to [`Store::audit_verify`].

use serde::Serialize;
use serde_json::Value;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, Store, document, now_ms, statement};
use crate::ids::HostName;

/// What the first event's `prev_hash` is: 64 zeros, the hash of nothing.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Separates these hashes from any other use of SHA-256 over similar bytes.
const DOMAIN: &str = "orchestrator audit event 1";

/// Rows that `audit verify` reads at a time: memory stays flat over a chain of any length.
const PAGE_ROWS: i64 = 1_000;

/// An event to be appended.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What happened, as `object.verb`: `deploy.succeeded`, `hostkey.accepted`.
    pub kind: &'static str,
    /// The host it happened to.
    pub host: Option<HostName>,
    /// The particulars. Never a secret.
    pub detail: Value,
}

/// An event as it stands in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Place in the chain, from 1, without gaps.
    pub seq: i64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who: the local user and machine that ran the command.
    pub actor: String,
    /// What happened.
    pub kind: String,
    /// To which host.
    pub host: Option<String>,
    /// The particulars, as the JSON text that was hashed.
    pub detail: String,
    /// Hash of the event before.
    pub prev_hash: String,
    /// Hash of this event.
    pub hash: String,
}

impl Event {
    /// SHA-256 over the domain and every field, each preceded by its length, so that no two
    /// different events have the same bytes.
    fn compute_hash(&self) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut field = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        field(DOMAIN.as_bytes());
        field(self.prev_hash.as_bytes());
        field(&self.seq.to_le_bytes());
        field(&self.at_ms.to_le_bytes());
        field(self.actor.as_bytes());
        field(self.kind.as_bytes());
        // Absent and empty differ.
        field(if self.host.is_some() { b"host" } else { b"none" });
        field(self.host.as_deref().unwrap_or_default().as_bytes());
        field(self.detail.as_bytes());
        crate::hex::encode(context.finish().as_ref())
    }
}

/// Where and how the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditFault {
    /// The row's content does not give the row's hash.
    Altered {
        /// The row.
        seq: i64,
    },
    /// The row does not continue the one before it.
    BrokenLink {
        /// The row.
        seq: i64,
    },
    /// Rows are missing before this one.
    Gap {
        /// The number that should have come.
        expected: i64,
        /// The number that came.
        found: i64,
    },
    /// The chain is whole and does not contain the head that the caller knows.
    HeadMissing {
        /// The hash that the caller gave.
        expected: String,
    },
}

impl std::fmt::Display for AuditFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Altered { seq } => {
                write!(f, "event {seq} was altered: its content does not give its hash")
            }
            Self::BrokenLink { seq } => {
                write!(f, "event {seq} does not continue the event before it")
            }
            Self::Gap { expected, found } => {
                write!(f, "event {expected} is missing: event {found} stands in its place")
            }
            Self::HeadMissing { expected } => {
                write!(f, "no event has the hash {expected}: the end of the chain was cut off")
            }
        }
    }
}

/// What a check of the whole chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// How many events were read.
    pub events: i64,
    /// Hash of the last event read; 64 zeros for an empty chain.
    pub head: String,
    /// The first fault, if the chain is broken.
    pub fault: Option<AuditFault>,
}

impl Store {
    /// Appends events in their order, in one transaction.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn append_events(&self, actor: &str, events: &[NewEvent]) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let mut tx = self.write("append events").await?;
        append(&mut tx, actor, events).await?;
        tx.commit().await.map_err(statement("append events"))
    }

    /// Events after `seq`, oldest first, at most `limit` of them, of one host if given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn events_after(
        &self,
        seq: i64,
        host: Option<&HostName>,
        limit: i64,
    ) -> Result<Vec<Event>, Error> {
        let query = sqlx::query(
            "SELECT seq, at_ms, actor, kind, host, detail_json, prev_hash, hash FROM events \
             WHERE seq > ? AND (? IS NULL OR host = ?) ORDER BY seq LIMIT ?",
        )
        .bind(seq)
        .bind(host.map(HostName::as_str))
        .bind(host.map(HostName::as_str))
        .bind(limit);
        self.read_all("read events", query, event).await
    }

    /// Reads the whole chain and checks every hash and link. `expected_head` is a head hash that
    /// was noted earlier: the chain must contain it.
    ///
    /// # Errors
    /// The database cannot be read. A broken chain is not an error but a report with a fault.
    pub async fn audit_verify(&self, expected_head: Option<&str>) -> Result<AuditReport, Error> {
        let mut report = AuditReport { events: 0, head: GENESIS.to_owned(), fault: None };
        let mut head_seen = expected_head.is_none_or(|head| head == GENESIS);
        let mut last_seq = 0;
        loop {
            // By number, not by offset: a chain that grows meanwhile is read to its new end.
            let page = self.events_after(last_seq, None, PAGE_ROWS).await?;
            if page.is_empty() {
                break;
            }
            for event in page {
                report.fault = if event.seq != last_seq + 1 {
                    Some(AuditFault::Gap { expected: last_seq + 1, found: event.seq })
                } else if event.prev_hash != report.head {
                    Some(AuditFault::BrokenLink { seq: event.seq })
                } else if event.compute_hash() != event.hash {
                    Some(AuditFault::Altered { seq: event.seq })
                } else {
                    None
                };
                if report.fault.is_some() {
                    return Ok(report);
                }
                last_seq = event.seq;
                report.events += 1;
                head_seen = head_seen || expected_head == Some(event.hash.as_str());
                report.head = event.hash;
            }
        }
        if !head_seen && let Some(expected) = expected_head {
            report.fault = Some(AuditFault::HeadMissing { expected: expected.to_owned() });
        }
        Ok(report)
    }
}

/// Appends within the caller's transaction, which must hold the write lock.
pub(super) async fn append(
    tx: &mut Transaction<'_, Sqlite>,
    actor: &str,
    events: &[NewEvent],
) -> Result<(), Error> {
    let operation = "append events";
    let head = sqlx::query("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut **tx)
        .await
        .map_err(statement(operation))?;
    let (mut seq, mut prev_hash) = match head {
        Some(row) => (
            row.try_get::<i64, _>("seq").map_err(statement(operation))?,
            row.try_get::<String, _>("hash").map_err(statement(operation))?,
        ),
        None => (0, GENESIS.to_owned()),
    };
    for new in events {
        seq += 1;
        let mut event = Event {
            seq,
            at_ms: now_ms(),
            actor: actor.to_owned(),
            kind: new.kind.to_owned(),
            host: new.host.as_ref().map(|host| host.as_str().to_owned()),
            detail: serde_json::to_string(&new.detail).map_err(document(operation))?,
            prev_hash,
            hash: String::new(),
        };
        event.hash = event.compute_hash();
        sqlx::query(
            "INSERT INTO events (seq, at_ms, actor, kind, host, detail_json, prev_hash, hash) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(event.seq)
        .bind(event.at_ms)
        .bind(&event.actor)
        .bind(&event.kind)
        .bind(&event.host)
        .bind(&event.detail)
        .bind(&event.prev_hash)
        .bind(&event.hash)
        .execute(&mut **tx)
        .await
        .map_err(statement(operation))?;
        prev_hash = event.hash;
    }
    Ok(())
}

fn event(row: &sqlx::sqlite::SqliteRow) -> Result<Event, sqlx::Error> {
    Ok(Event {
        seq: row.try_get("seq")?,
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        kind: row.try_get("kind")?,
        host: row.try_get("host")?,
        detail: row.try_get("detail_json")?,
        prev_hash: row.try_get("prev_hash")?,
        hash: row.try_get("hash")?,
    })
}

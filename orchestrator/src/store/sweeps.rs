//! Sweeps: what each found, what is open, and what is remembered of a host until the next.

mod batch;
mod holdings;
mod lock;
mod outbox;
mod passes;
mod proof_times;

use std::collections::HashMap;

use runner_protocol::HostFacts;
use serde_json::json;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Error, GrantRow, NewEvent, Store, audit, document, facts, new_id, now_ms, statement};
use crate::host_spec::HostSpec;
use crate::host_state::{HostEvent, HostState};
use crate::ids::HostName;
use crate::sweep::{
    Finding, HeldLease, HostMemory, Known, Passport, ProofTime, severity_name, severity_of,
};

pub use lock::{LockHolder, SweepLock};
pub use outbox::{AlertRow, HostChange};
pub use passes::{FindingRow, ProbeRow, SweepCounts, SweepRow};
pub(super) use proof_times::insert as insert_proof_time;

/// The largest facts that a sweep keeps, as a JSON document: those of 16 GPUs are some 40 KiB, and a
/// host that says something else at each sweep must not fill the disk.
const MAX_FACTS_BYTES: usize = 512 * 1024;

/// What is known of a host when a sweep begins.
#[derive(Debug, Clone)]
pub struct HostKnowledge {
    /// Its state.
    pub state: HostState,
    /// Its passport.
    pub passport: Option<Passport>,
    /// What the sweeps before remember.
    pub memory: HostMemory,
    /// The findings that are not over.
    pub open: Vec<Known>,
    /// Its proofs, newest first.
    pub proofs: Vec<ProofTime>,
    /// When its last proof was accepted.
    pub last_proof_ms: Option<i64>,
    /// The live leases of its containers.
    pub leases: Vec<HeldLease>,
    /// The grants whose lines may be there.
    pub grants: Vec<GrantRow>,
}

impl Default for HostKnowledge {
    fn default() -> Self {
        let (passport, memory, open, proofs, last_proof_ms) = Default::default();
        let (leases, grants) = Default::default();
        let state = HostState::Unknown;
        Self { state, passport, memory, open, proofs, last_proof_ms, leases, grants }
    }
}

/// What a sweep found of one host, to be recorded.
#[derive(Debug, Clone)]
pub struct HostSweep {
    /// The declaration that was used.
    pub spec: HostSpec,
    /// When the look began.
    pub at_ms: i64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Whether there was a connection to the host.
    pub reached: bool,
    /// Whether its facts came: without them, what was found before is neither seen nor gone.
    pub probed: bool,
    /// What it means for the state.
    pub event: HostEvent,
    /// The findings of this look.
    pub findings: Vec<Finding>,
    /// How often in a row each was seen.
    pub times: Vec<u32>,
    /// The findings that were open before it.
    pub known: Vec<Known>,
    /// What is remembered from now on; `None` if nothing of it changed.
    pub memory: Option<HostMemory>,
    /// The passport, where it is a new one.
    pub passport: Option<Passport>,
    /// The facts, where something lasting in them changed.
    pub facts: Option<HostFacts>,
    /// SHA-256 and version of the runner that answered.
    pub runner: Option<(String, String)>,
    /// What is worst, in words.
    pub trouble: Option<(String, String)>,
    /// Core temperatures, separated by commas.
    pub celsius: Option<String>,
    /// What else the audit chain shall say.
    pub events: Vec<NewEvent>,
}

impl Store {
    /// What is known of every host that is not purged, read in a few statements whatever their
    /// number. Proofs are those since `proofs_since_ms`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sweep_knowledge(
        &self,
        proofs_since_ms: i64,
    ) -> Result<HashMap<String, HostKnowledge>, Error> {
        let operation = "read what is known of the hosts";
        let rows = sqlx::query(
            "SELECT hosts.name, hosts.state, passports.passport_json, sweep_memory.memory_json \
             FROM hosts LEFT JOIN passports ON passports.host = hosts.name \
             LEFT JOIN sweep_memory ON sweep_memory.host = hosts.name \
             WHERE hosts.purged_ms IS NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?;
        let mut known = HashMap::with_capacity(rows.len());
        for row in &rows {
            let name: String = row.try_get("name").map_err(statement(operation))?;
            let state: String = row.try_get("state").map_err(statement(operation))?;
            let json = |column| -> Result<Option<String>, Error> {
                row.try_get(column).map_err(statement(operation))
            };
            let passport = json("passport_json")?;
            let memory = json("memory_json")?;
            let of_host = HostKnowledge {
                state: state.parse().unwrap_or(HostState::Unknown),
                passport: passport
                    .map(|json| serde_json::from_str(&json))
                    .transpose()
                    .map_err(document(operation))?,
                memory: memory
                    .map(|json| serde_json::from_str(&json))
                    .transpose()
                    .map_err(document(operation))?
                    .unwrap_or_default(),
                ..HostKnowledge::default()
            };
            known.insert(name, of_host);
        }
        for (host, finding) in self.open_findings().await? {
            if let Some(of_host) = known.get_mut(&host) {
                of_host.open.push(finding);
            }
        }
        for (host, time) in self.proof_times_since(proofs_since_ms).await? {
            if let Some(of_host) = known.get_mut(&host) {
                of_host.proofs.push(time);
            }
        }
        for (host, at_ms) in self.last_accepted_proofs().await? {
            if let Some(of_host) = known.get_mut(&host) {
                of_host.last_proof_ms = Some(at_ms);
            }
        }
        for (host, lease) in self.held_leases().await? {
            if let Some(of_host) = known.get_mut(&host) {
                of_host.leases.push(lease);
            }
        }
        for grant in self.open_grants().await? {
            if let Some(of_host) = known.get_mut(&grant.host) {
                of_host.grants.push(grant);
            }
        }
        Ok(known)
    }

    async fn open_findings(&self) -> Result<Vec<(String, Known)>, Error> {
        let operation = "read the open findings";
        let rows = sqlx::query(
            "SELECT id, host, code, subject, severity, seen, expected, times, first_ms \
             FROM findings WHERE resolved_ms IS NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, Option<Known>), sqlx::Error> {
            let code: String = row.try_get("code")?;
            let severity: String = row.try_get("severity")?;
            // A code of a later release is left to it.
            let known = code.parse().ok().zip(severity_of(&severity));
            let known = match known {
                None => None,
                Some((code, severity)) => Some(Known {
                    id: row.try_get("id")?,
                    finding: Finding {
                        code,
                        severity,
                        subject: row.try_get("subject")?,
                        seen: row.try_get("seen")?,
                        expected: row.try_get("expected")?,
                    },
                    times: u32::try_from(row.try_get::<i64, _>("times")?).unwrap_or(u32::MAX),
                    first_ms: row.try_get("first_ms")?,
                }),
            };
            Ok((row.try_get("host")?, known))
        };
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let (host, known) = read(row).map_err(statement(operation))?;
            all.extend(known.map(|known| (host, known)));
        }
        Ok(all)
    }

    /// Records what a sweep found of some hosts, in one transaction. Returns each host's state
    /// before and after, in the order of `batch`. A state that a person set meanwhile stays.
    ///
    /// # Errors
    /// The database cannot be written; then nothing of the batch is recorded.
    pub async fn record_probes(
        &self,
        actor: &str,
        sweep: &str,
        batch: &[HostSweep],
    ) -> Result<Vec<(HostState, HostState)>, Error> {
        let operation = "record what a sweep found";
        let mut tx = self.write(operation).await?;
        let now = now_ms();
        let before = batch::ensure_hosts(&mut tx, batch, now).await?;
        let states: Vec<(HostState, HostState)> = batch
            .iter()
            .map(|host| {
                let before = before.get(host.spec.name.as_str()).copied();
                let before = before.unwrap_or(HostState::Unknown);
                (before, before.after(host.event))
            })
            .collect();
        batch::write_looks(&mut tx, sweep, batch, &states, now).await?;
        let mut events = Vec::new();
        for (host, states) in batch.iter().zip(&states) {
            record_host(&mut tx, host, *states, now, &mut events).await?;
        }
        if !events.is_empty() {
            audit::append(&mut tx, actor, &events).await?;
        }
        tx.commit().await.map_err(statement(operation))?;
        Ok(states)
    }
}

/// Records what differs from host to host and from sweep to sweep; mostly that is nothing.
async fn record_host(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostSweep,
    (before, after): (HostState, HostState),
    now: i64,
    events: &mut Vec<NewEvent>,
) -> Result<(), Error> {
    let name = host.spec.name.as_str();
    record_findings(tx, host, now, events).await?;
    if let Some(memory) = &host.memory {
        put_document(tx, MEMORY, name, memory).await?;
    }
    if let Some(passport) = &host.passport {
        put_passport(tx, name, now, passport).await?;
    }
    if let Some(found) = &host.facts {
        facts::insert_sized(tx, &host.spec.name, now, found, MAX_FACTS_BYTES).await?;
    }
    if before != after {
        events.push(NewEvent {
            kind: "host.state_changed",
            host: Some(host.spec.name.clone()),
            detail: json!({ "before": before, "after": after, "trouble": host.trouble }),
        });
    }
    events.extend(host.events.iter().cloned());
    Ok(())
}

/// Opens what is new, changes what is seen otherwise, closes what is gone. A finding that stays as
/// it was costs nothing.
async fn record_findings(
    tx: &mut Transaction<'_, Sqlite>,
    host: &HostSweep,
    now: i64,
    events: &mut Vec<NewEvent>,
) -> Result<(), Error> {
    let operation = "record the findings of a host";
    let event = |kind, finding: &Finding| NewEvent {
        kind,
        host: Some(host.spec.name.clone()),
        detail: json!({
            "code": finding.code,
            "subject": finding.subject,
            "severity": severity_name(finding.severity),
            "seen": finding.seen,
            "expected": finding.expected,
        }),
    };
    for (finding, times) in host.findings.iter().zip(&host.times) {
        let known = host.known.iter().find(|known| known.finding.key() == finding.key());
        let Some(known) = known else {
            sqlx::query(
                "INSERT INTO findings \
                 (id, host, code, subject, severity, seen, expected, times, first_ms) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(new_id()?)
            .bind(host.spec.name.as_str())
            .bind(finding.code.name())
            .bind(&finding.subject)
            .bind(severity_name(finding.severity))
            .bind(&finding.seen)
            .bind(&finding.expected)
            .bind(i64::from(*times))
            .bind(now)
            .execute(&mut **tx)
            .await
            .map_err(statement(operation))?;
            if finding.severity == crate::sweep::Severity::Critical {
                events.push(event("finding.opened", finding));
            }
            continue;
        };
        // What was seen differs by a little each time (bytes free, degrees); the row keeps what it
        // was at first, unless the matter got worse or better.
        if known.times != *times || known.finding.severity != finding.severity {
            sqlx::query(
                "UPDATE findings SET times = ?, severity = ?, seen = ?, expected = ? WHERE id = ?",
            )
            .bind(i64::from(*times))
            .bind(severity_name(finding.severity))
            .bind(&finding.seen)
            .bind(&finding.expected)
            .bind(&known.id)
            .execute(&mut **tx)
            .await
            .map_err(statement(operation))?;
        }
    }
    for known in &host.known {
        // What a host that was not reached would say is not known.
        let gone = host.findings.iter().all(|finding| finding.key() != known.finding.key());
        if gone && (host.probed || known.finding.code.is_of_reach()) {
            sqlx::query("UPDATE findings SET resolved_ms = ? WHERE id = ?")
                .bind(now)
                .bind(&known.id)
                .execute(&mut **tx)
                .await
                .map_err(statement(operation))?;
            if known.finding.severity == crate::sweep::Severity::Critical {
                events.push(event("finding.resolved", &known.finding));
            }
        }
    }
    Ok(())
}

const MEMORY: &str = "INSERT INTO sweep_memory (host, memory_json) VALUES (?, ?) \
     ON CONFLICT (host) DO UPDATE SET memory_json = excluded.memory_json";

async fn put_document(
    tx: &mut Transaction<'_, Sqlite>,
    query: &'static str,
    host: &str,
    value: &impl serde::Serialize,
) -> Result<(), Error> {
    let operation = "record what a sweep remembers";
    sqlx::query(query)
        .bind(host)
        .bind(serde_json::to_string(value).map_err(document(operation))?)
        .execute(&mut **tx)
        .await
        .map(|_| ())
        .map_err(statement(operation))
}

/// Writes the passport of a host within the caller's transaction.
pub(super) async fn put_passport(
    tx: &mut Transaction<'_, Sqlite>,
    host: &str,
    now: i64,
    passport: &Passport,
) -> Result<(), Error> {
    let operation = "record the passport of a host";
    sqlx::query(
        "INSERT INTO passports (host, taken_ms, passport_json) VALUES (?, ?, ?) \
         ON CONFLICT (host) DO UPDATE SET taken_ms = excluded.taken_ms, \
           passport_json = excluded.passport_json",
    )
    .bind(host)
    .bind(now)
    .bind(serde_json::to_string(passport).map_err(document(operation))?)
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement(operation))
}

/// Forgets what sweeps remember of a host, within the caller's transaction.
pub(super) async fn forget(tx: &mut Transaction<'_, Sqlite>, host: &HostName) -> Result<(), Error> {
    let operation = "forget what sweeps remember of a host";
    for query in [
        "DELETE FROM passports WHERE host = ?",
        "DELETE FROM sweep_memory WHERE host = ?",
        "DELETE FROM alert_marks WHERE host = ?",
    ] {
        sqlx::query(query)
            .bind(host.as_str())
            .execute(&mut **tx)
            .await
            .map_err(statement(operation))?;
    }
    sqlx::query("UPDATE findings SET resolved_ms = ? WHERE host = ? AND resolved_ms IS NULL")
        .bind(now_ms())
        .bind(host.as_str())
        .execute(&mut **tx)
        .await
        .map(|_| ())
        .map_err(statement(operation))
}

/// The reason of a host's last failure: the finding's own word.
#[must_use]
pub fn trouble_of(finding: &Finding) -> (String, String) {
    let message = format!("{}: {}", finding.code.message(), finding.seen);
    (finding.code.name().to_owned(), message)
}

//! What every host of a sweep has written, for many hosts in one statement each: a statement for
//! each host is a way to the database's thread and back, thousands of times in a pass.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{Row as _, Sqlite, Transaction};

use super::super::{Error, document, statement};
use super::HostSweep;
use crate::host_state::HostState;
use crate::sweep::severity_name;

const OPERATION: &str = "record what a sweep found";

/// Makes or refreshes the rows of the hosts, as [`ensure_host`](crate::store::hosts) does for one,
/// and returns the state of each before this sweep. A row that stays as it is costs no write.
pub(super) async fn ensure_hosts(
    tx: &mut Transaction<'_, Sqlite>,
    batch: &[HostSweep],
    now: i64,
) -> Result<HashMap<String, HostState>, Error> {
    let mut declared = Vec::with_capacity(batch.len());
    for host in batch {
        let spec = serde_json::to_string(&host.spec).map_err(document(OPERATION))?;
        declared.push(json!([host.spec.name, spec]));
    }
    sqlx::query(
        "INSERT INTO hosts (name, spec_json, state, state_since_ms, first_seen_ms) \
         SELECT value->>0, value->>1, ?, ?, ? FROM json_each(?) WHERE true \
         ON CONFLICT (name) DO UPDATE SET spec_json = excluded.spec_json, \
           state = CASE WHEN hosts.purged_ms IS NULL THEN hosts.state ELSE excluded.state END, \
           drain_note = CASE WHEN hosts.purged_ms IS NULL THEN hosts.drain_note ELSE NULL END, \
           purged_ms = NULL \
         WHERE hosts.spec_json <> excluded.spec_json OR hosts.purged_ms IS NOT NULL",
    )
    .bind(HostState::Unknown.name())
    .bind(now)
    .bind(now)
    .bind(serde_json::Value::Array(declared).to_string())
    .execute(&mut **tx)
    .await
    .map_err(statement(OPERATION))?;
    let names: Vec<&str> = batch.iter().map(|host| host.spec.name.as_str()).collect();
    let query = "SELECT name, state FROM hosts WHERE name IN (SELECT value FROM json_each(?))";
    let rows = sqlx::query(query)
        .bind(json!(names).to_string())
        .fetch_all(&mut **tx)
        .await
        .map_err(statement(OPERATION))?;
    let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, HostState), sqlx::Error> {
        let state: String = row.try_get("state")?;
        let state = state.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok((row.try_get("name")?, state))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(statement(OPERATION))
}

/// Writes the states of the hosts after this sweep, and one small row for each look.
pub(super) async fn write_looks(
    tx: &mut Transaction<'_, Sqlite>,
    sweep: &str,
    batch: &[HostSweep],
    states: &[(HostState, HostState)],
    now: i64,
) -> Result<(), Error> {
    let looks = batch.iter().zip(states).map(|(host, (_, after))| {
        let worst = host.findings.iter().map(|finding| finding.severity).max();
        json!({
            "host": host.spec.name,
            "state": after.name(),
            "seen_ms": host.reached.then_some(now),
            "sha256": host.runner.as_ref().map(|(sha256, _)| sha256),
            "version": host.runner.as_ref().map(|(_, version)| version),
            "reason": host.trouble.as_ref().map(|(reason, _)| reason),
            "message": host.trouble.as_ref().map(|(_, message)| message),
            "at_ms": host.at_ms,
            "elapsed_ms": i64::try_from(host.elapsed_ms).unwrap_or(i64::MAX),
            "reached": i64::from(host.reached),
            "worst": worst.map(severity_name),
            "celsius": host.celsius,
        })
    });
    let looks = serde_json::Value::Array(looks.collect()).to_string();
    sqlx::query(
        "UPDATE hosts SET state = look.state, \
           state_since_ms = CASE WHEN hosts.state = look.state THEN hosts.state_since_ms ELSE ? END, \
           last_seen_ms = COALESCE(look.seen_ms, hosts.last_seen_ms), \
           runner_sha256 = COALESCE(look.sha256, hosts.runner_sha256), \
           runner_version = COALESCE(look.version, hosts.runner_version), \
           last_reason = look.reason, last_message = look.message \
         FROM (SELECT value->>'host' AS host, value->>'state' AS state, \
             value->>'seen_ms' AS seen_ms, value->>'sha256' AS sha256, \
             value->>'version' AS version, value->>'reason' AS reason, \
             value->>'message' AS message FROM json_each(?)) AS look \
         WHERE hosts.name = look.host",
    )
    .bind(now)
    .bind(&looks)
    .execute(&mut **tx)
    .await
    .map_err(statement(OPERATION))?;
    sqlx::query(
        "INSERT INTO probes (sweep, host, at_ms, elapsed_ms, reached, state, worst, celsius) \
         SELECT ?, value->>'host', value->>'at_ms', value->>'elapsed_ms', value->>'reached', \
           value->>'state', value->>'worst', value->>'celsius' FROM json_each(?)",
    )
    .bind(sweep)
    .bind(&looks)
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement(OPERATION))
}

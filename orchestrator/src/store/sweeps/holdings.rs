//! What a host holds for somebody: leases of containers, and grants, as sweeps look at them.

use serde_json::json;
use sqlx::Row as _;

use super::super::{Error, GrantFilter, GrantRow, NewEvent, Store, audit, statement};
use crate::ids::HostName;
use crate::sweep::HeldLease;

/// More open grants than any limits allow.
const MOST_GRANTS: u32 = 1_000_000;

impl Store {
    /// The live leases of containers on all hosts.
    pub(super) async fn held_leases(&self) -> Result<Vec<(String, HeldLease)>, Error> {
        let query = sqlx::query(
            "SELECT host, id, subject, expires_ms, released_ms FROM leases \
             WHERE released_ms IS NULL AND kind = 'container'",
        );
        self.read_all("read the leases of containers", query, lease).await
    }

    /// The leases of containers on a host that are live, or ended since a time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn held_leases_of(
        &self,
        host: &HostName,
        since_ms: i64,
    ) -> Result<Vec<HeldLease>, Error> {
        let query = sqlx::query(
            "SELECT host, id, subject, expires_ms, released_ms FROM leases \
             WHERE host = ? AND kind = 'container' AND (released_ms IS NULL OR released_ms >= ?)",
        )
        .bind(host.as_str())
        .bind(since_ms);
        let leases = self.read_all("read the leases of a host", query, lease).await?;
        Ok(leases.into_iter().map(|(_, lease)| lease).collect())
    }

    /// The grants on all hosts whose lines may be there.
    pub(super) async fn open_grants(&self) -> Result<Vec<GrantRow>, Error> {
        self.grants(&GrantFilter { open: true, ..GrantFilter::default() }, MOST_GRANTS, 0).await
    }

    /// Notes that the line of a grant that was taken out is back, so that it is taken out again.
    /// `false` if it does not count as gone.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn grant_returned(&self, actor: &str, grant: &GrantRow) -> Result<bool, Error> {
        let operation = "note that a grant is back";
        let mut tx = self.write(operation).await?;
        let query = "UPDATE grants SET state = 'ended' WHERE id = ? AND state = 'gone'";
        let done = sqlx::query(query).bind(&grant.id).execute(&mut *tx).await;
        if done.map_err(statement(operation))?.rows_affected() == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            kind: "grant.returned",
            host: HostName::new(grant.host.as_str()).ok(),
            detail: json!({
                "grant": grant.id, "validator": grant.validator, "fingerprint": grant.fingerprint,
            }),
        };
        audit::append(&mut tx, actor, &[event]).await?;
        tx.commit().await.map_err(statement(operation))?;
        Ok(true)
    }
}

fn lease(row: &sqlx::sqlite::SqliteRow) -> Result<(String, HeldLease), sqlx::Error> {
    let lease = HeldLease {
        id: row.try_get("id")?,
        container: row.try_get("subject")?,
        expires_ms: row.try_get("expires_ms")?,
        released: row.try_get::<Option<i64>, _>("released_ms")?.is_some(),
    };
    Ok((row.try_get("host")?, lease))
}

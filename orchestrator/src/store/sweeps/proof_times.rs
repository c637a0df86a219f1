//! How long proofs took, out of their documents.

use pow_kernels::{Context, Timings};
use runner_protocol::ByteArray;
use runner_protocol::prove::CONTEXT_BYTES;
use serde::Deserialize;
use sqlx::{Row as _, Sqlite, Transaction};

use super::super::{Error, Store, statement};
use crate::ids::HostName;
use crate::sweep::ProofTime;

/// The parts of a signed proof that tell its time; the rest of a document, which may be megabytes,
/// is read over.
#[derive(Deserialize)]
struct Document {
    record: Record,
}

#[derive(Deserialize)]
struct Record {
    challenge: Challenge,
    timings: Timings,
}

#[derive(Deserialize)]
struct Challenge {
    context: Box<ByteArray<CONTEXT_BYTES>>,
}

/// GPU, kind and nanoseconds of a proof; `None` for a document of another form.
fn read(proof_json: &str) -> Option<(String, i64, i64)> {
    let Record { challenge, timings } = serde_json::from_str::<Document>(proof_json).ok()?.record;
    let context = Context::decode(&challenge.context.0).ok()?;
    let sizes = serde_json::to_vec(&context.parameters).ok()?;
    let variant = serde_json::to_vec(&(context.mode, context.variant)).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &[variant, sizes].concat());
    let kind = digest.as_ref().first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes))?;
    let nanos = timings.gemm_ns.iter().fold(timings.chain_ns, |sum, it| sum.saturating_add(*it));
    Some((gpu_name(&context.gpu_uuid), kind, i64::try_from(nanos).ok()?))
}

/// A UUID as the driver writes it; none is the host.
fn gpu_name(uuid: &[u8; 16]) -> String {
    if uuid == &[0; 16] {
        return "host".to_owned();
    }
    let hex = crate::hex::encode(uuid);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let [a, b, c, d, e] = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    format!("GPU-{a}-{b}-{c}-{d}-{e}")
}

/// Adds the time of a proof within the caller's transaction.
pub(in crate::store) async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    challenge: &str,
    at_ms: i64,
    proof_json: &str,
) -> Result<(), Error> {
    let Some((gpu, kind, nanos)) = read(proof_json) else { return Ok(()) };
    sqlx::query(
        "INSERT INTO proof_times (challenge, host, gpu, kind, at_ms, nanos) \
         SELECT id, host, ?, ?, ?, ? FROM challenges WHERE id = ?",
    )
    .bind(gpu)
    .bind(kind)
    .bind(at_ms)
    .bind(nanos)
    .bind(challenge)
    .execute(&mut **tx)
    .await
    .map(|_| ())
    .map_err(statement("record the time of a proof"))
}

impl Store {
    /// The times of the proofs of all hosts since a time, newest first.
    pub(super) async fn proof_times_since(
        &self,
        since_ms: i64,
    ) -> Result<Vec<(String, ProofTime)>, Error> {
        self.proof_times(None, since_ms).await
    }

    /// The times of the proofs of a host since a time, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proof_times_of(
        &self,
        host: &HostName,
        since_ms: i64,
    ) -> Result<Vec<ProofTime>, Error> {
        let times = self.proof_times(Some(host), since_ms).await?;
        Ok(times.into_iter().map(|(_, time)| time).collect())
    }

    async fn proof_times(
        &self,
        host: Option<&HostName>,
        since_ms: i64,
    ) -> Result<Vec<(String, ProofTime)>, Error> {
        let operation = "read the times of proofs";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, ProofTime), sqlx::Error> {
            let time = ProofTime {
                at_ms: row.try_get("at_ms")?,
                gpu: row.try_get("gpu")?,
                kind: row.try_get("kind")?,
                nanos: u64::try_from(row.try_get::<i64, _>("nanos")?).unwrap_or_default(),
            };
            Ok((row.try_get("host")?, time))
        };
        sqlx::query(
            "SELECT host, gpu, kind, at_ms, nanos FROM proof_times \
             WHERE at_ms >= ? AND (? IS NULL OR host = ?) ORDER BY at_ms DESC",
        )
        .bind(since_ms)
        .bind(host.map(HostName::as_str))
        .bind(host.map(HostName::as_str))
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?
        .iter()
        .map(|row| read(row).map_err(statement(operation)))
        .collect()
    }

    /// When each host's last proof was accepted.
    pub(super) async fn last_accepted_proofs(&self) -> Result<Vec<(String, i64)>, Error> {
        let operation = "read the last proofs";
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<(String, i64), sqlx::Error> {
            Ok((row.try_get("host")?, row.try_get("at_ms")?))
        };
        sqlx::query(
            "SELECT challenges.host AS host, MAX(proofs.ended_ms) AS at_ms FROM proofs \
             JOIN challenges ON challenges.id = proofs.challenge \
             WHERE proofs.outcome = 'accepted' GROUP BY challenges.host",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(statement(operation))?
        .iter()
        .map(|row| read(row).map_err(statement(operation)))
        .collect()
    }
}

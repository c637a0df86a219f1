//! Host keys that we trust on our own record, beside the user's `known_hosts`.

use serde::Serialize;
use sqlx::Row as _;

use super::{Error, NewEvent, Store, audit, new_id, now_ms, statement};

/// A host key that was trusted, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustedKey {
    /// Address as in the fleet file.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Key type in SSH's words, for example `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The public key as one OpenSSH line without a comment.
    pub public_key: String,
    /// When it was trusted.
    pub trusted_ms: i64,
    /// Who trusted it.
    pub trusted_by: String,
}

impl Store {
    /// Every key that is trusted now, of every server.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn trusted_keys(&self) -> Result<Vec<TrustedKey>, Error> {
        let operation = "read trusted host keys";
        let query = sqlx::query(
            "SELECT address, port, algorithm, fingerprint, public_key, trusted_ms, trusted_by \
             FROM host_keys WHERE replaced_ms IS NULL ORDER BY address, port, algorithm",
        );
        self.read_all(operation, query, trusted_key).await
    }

    /// Trusts a key on first use. A live key of the same server and type stays: the first of two
    /// concurrent decisions wins, and the next connection is judged by it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn trust_new_key(&self, key: &TrustedKey, event: NewEvent) -> Result<(), Error> {
        let operation = "record a trusted host key";
        let mut tx = self.write(operation).await?;
        let inserted = insert(key)?.execute(&mut *tx).await.map_err(statement(operation))?;
        if inserted.rows_affected() == 1 {
            audit::append(&mut tx, &key.trusted_by, &[event]).await?;
        }
        tx.commit().await.map_err(statement(operation))
    }

    /// Trusts `key` instead of every key of that server that was trusted so far.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn replace_keys(&self, key: &TrustedKey, event: NewEvent) -> Result<(), Error> {
        let operation = "replace a trusted host key";
        let mut tx = self.write(operation).await?;
        sqlx::query(
            "UPDATE host_keys SET replaced_ms = ? WHERE address = ? AND port = ? AND replaced_ms IS NULL",
        )
        .bind(now_ms())
        .bind(&key.address)
        .bind(i64::from(key.port))
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        insert(key)?.execute(&mut *tx).await.map_err(statement(operation))?;
        audit::append(&mut tx, &key.trusted_by, &[event]).await?;
        tx.commit().await.map_err(statement(operation))
    }
}

type SqliteQuery<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn insert(key: &TrustedKey) -> Result<SqliteQuery<'_>, Error> {
    Ok(sqlx::query(
        "INSERT INTO host_keys \
         (id, address, port, algorithm, fingerprint, public_key, trusted_ms, trusted_by) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (address, port, algorithm) WHERE replaced_ms IS NULL DO NOTHING",
    )
    .bind(new_id()?)
    .bind(&key.address)
    .bind(i64::from(key.port))
    .bind(&key.algorithm)
    .bind(&key.fingerprint)
    .bind(&key.public_key)
    .bind(key.trusted_ms)
    .bind(&key.trusted_by))
}

fn trusted_key(row: &sqlx::sqlite::SqliteRow) -> Result<TrustedKey, sqlx::Error> {
    let port: i64 = row.try_get("port")?;
    Ok(TrustedKey {
        address: row.try_get("address")?,
        port: u16::try_from(port).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        algorithm: row.try_get("algorithm")?,
        fingerprint: row.try_get("fingerprint")?,
        public_key: row.try_get("public_key")?,
        trusted_ms: row.try_get("trusted_ms")?,
        trusted_by: row.try_get("trusted_by")?,
    })
}

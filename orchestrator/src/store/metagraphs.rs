//! The last metagraph of each subnet: what serves while the chain does not.

use sqlx::Row as _;

use super::{Error, NewEvent, Store, audit, statement};

/// A metagraph as it is kept. The document's form is its writer's matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetagraphRow {
    /// The network's name.
    pub network: String,
    /// The subnet.
    pub netuid: u16,
    /// The chain's genesis block.
    pub genesis: String,
    /// The block at which it was read.
    pub block: i64,
    /// When it was read, by our clock.
    pub taken_ms: i64,
    /// The metagraph.
    pub json: String,
}

impl Store {
    /// The last metagraph of a subnet.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn metagraph(
        &self,
        network: &str,
        netuid: u16,
    ) -> Result<Option<MetagraphRow>, Error> {
        let operation = "read the metagraph";
        let row = sqlx::query(
            "SELECT genesis, block, taken_ms, metagraph_json FROM metagraphs \
             WHERE network = ? AND netuid = ?",
        )
        .bind(network)
        .bind(i64::from(netuid))
        .fetch_optional(&self.pool)
        .await
        .map_err(statement(operation))?;
        let read = |row: sqlx::sqlite::SqliteRow| {
            Ok(MetagraphRow {
                network: network.to_owned(),
                netuid,
                genesis: row.try_get("genesis")?,
                block: row.try_get("block")?,
                taken_ms: row.try_get("taken_ms")?,
                json: row.try_get("metagraph_json")?,
            })
        };
        row.map(read).transpose().map_err(statement(operation))
    }

    /// Keeps a metagraph instead of the one before it, with an event if there is something to tell.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn keep_metagraph(
        &self,
        row: &MetagraphRow,
        actor: &str,
        event: Option<NewEvent>,
    ) -> Result<(), Error> {
        let operation = "keep the metagraph";
        let mut tx = self.write(operation).await?;
        sqlx::query(
            "INSERT INTO metagraphs (network, netuid, genesis, block, taken_ms, metagraph_json) \
             VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (network, netuid) DO UPDATE SET genesis = excluded.genesis, \
             block = excluded.block, taken_ms = excluded.taken_ms, \
             metagraph_json = excluded.metagraph_json",
        )
        .bind(&row.network)
        .bind(i64::from(row.netuid))
        .bind(&row.genesis)
        .bind(row.block)
        .bind(row.taken_ms)
        .bind(&row.json)
        .execute(&mut *tx)
        .await
        .map_err(statement(operation))?;
        if let Some(event) = event {
            audit::append(&mut tx, actor, &[event]).await?;
        }
        tx.commit().await.map_err(statement(operation))
    }
}

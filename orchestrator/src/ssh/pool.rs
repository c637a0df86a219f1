//! The connections of one host: at most two, opened when first needed and used for everything.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;

use super::connect::server;
use super::{Circuit, Connection, SshContext, connect};
use crate::host_spec::Endpoint;
use crate::transport::{Error, Failure, Hop, Place, Transport};

/// What a connection is for. Two, so that an upload that fills its link does not delay the
/// answers and keepalives of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Short exchanges: probes, the runner's session, the Docker API.
    Control,
    /// Uploads and long streams.
    Bulk,
}

/// A host's two connections.
pub struct HostConnections {
    endpoint: Endpoint,
    jumps: Vec<Endpoint>,
    context: Arc<SshContext>,
    circuit: Circuit,
    /// Each is held while it connects: whoever comes meanwhile shares the outcome.
    control: Mutex<Option<Arc<Connection>>>,
    bulk: Mutex<Option<Arc<Connection>>>,
}

impl HostConnections {
    /// No connection yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, jumps: Vec<Endpoint>, context: Arc<SshContext>) -> Self {
        Self::with_circuit(endpoint, jumps, context, Circuit::default())
    }

    /// As [`HostConnections::new`] with a circuit whose clock is the caller's.
    #[must_use]
    pub fn with_circuit(
        endpoint: Endpoint,
        jumps: Vec<Endpoint>,
        context: Arc<SshContext>,
        circuit: Circuit,
    ) -> Self {
        let (control, bulk) = Default::default();
        Self { endpoint, jumps, context, circuit, control, bulk }
    }

    /// The connection for `lane`, opened if there is none or if it has ended.
    ///
    /// # Errors
    /// As [`connect`]; and, without trying, while the host's circuit is open.
    ///
    /// # Cancel safety
    /// Dropping the future drops a connect that it has begun.
    pub async fn get(&self, lane: Lane) -> Result<Arc<Connection>, Error> {
        let mut slot = self.lane(lane).lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_gone()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let began = Instant::now();
        self.circuit.admit().map_err(|left| {
            let place = Place { server: server(&self.endpoint), hop: Hop::Host };
            Error::new(place, began.elapsed(), Failure::CircuitOpen(left))
        })?;
        match connect(&self.endpoint, &self.jumps, &self.context).await {
            Ok(connection) => {
                self.circuit.succeeded();
                let connection = Arc::new(connection);
                *slot = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                self.circuit.failed();
                Err(error)
            }
        }
    }

    /// Closes both connections, also for those who still hold them.
    pub async fn close(&self) {
        for lane in [Lane::Control, Lane::Bulk] {
            if let Some(connection) = self.lane(lane).lock().await.take() {
                connection.close().await;
            }
        }
    }

    fn lane(&self, lane: Lane) -> &Mutex<Option<Arc<Connection>>> {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }
}

//! Accepting connections, and ending.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::limits::Connections;
use super::replay::Replay;
use super::tls::{Tls, TlsError};
use super::{AxonContext, AxonLimits, party};

/// How long to wait when the system has no more sockets to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Why the axon cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The journal of nonces cannot be opened.
    #[error("cannot open the journal of the axon")]
    Journal(#[source] crate::store::Error),
    /// The certificate cannot be used.
    #[error("cannot serve TLS")]
    Tls(#[source] TlsError),
    /// The system gave no randomness for the axon's uuid.
    #[error("the system's random number generator failed")]
    Random,
}

/// Serves the axon on a bound listener until `cancel` fires; then running requests are finished, up to
/// `drain_timeout`.
///
/// # Errors
/// [`ServeError`]: it did not begin.
pub async fn serve(
    listener: TcpListener,
    context: AxonContext,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let tls = context.tls.as_ref().map(Tls::start).transpose().map_err(ServeError::Tls)?;
    let (replay, journal) = Replay::start(&context.store).await.map_err(ServeError::Journal)?;
    let limits = context.limits.clone();
    let mut watching = JoinSet::new();
    if let (Some(tls), Some(files)) = (tls.clone(), context.tls.clone()) {
        watching.spawn(tls.watch(files));
    }
    let front = Arc::new(Front::new(context, replay, uuid()?));
    let drain = front.drain();
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let places = Connections::new(limits.connections_per_address);
    loop {
        // Before accepting: who comes when all is taken waits in the system's queue.
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = cancel.cancelled() => break,
        };
        // Cancel safety: accept takes no connection unless it completes.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(place) = places.enter(party(address)) else { continue };
        let connection = Connection {
            front: front.clone(),
            tls: tls.clone(),
            limits: limits.clone(),
            cancel: cancel.clone(),
        };
        connections.spawn(async move {
            connection.run(stream, address).await;
            drop((slot, place));
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!("{} connections of the axon were cut off", connections.len());
    }
    connections.shutdown().await;
    front.end_streams().await;
    watching.shutdown().await;
    // The journal's task writes what waits and ends with the last handle to it.
    drop(front);
    let _panicked = journal.await;
    Ok(())
}

/// A caller that has gone again is nothing; without sockets, others must end first.
async fn pause_after(error: &io::Error) {
    if matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    ) {
        tracing::warn!("the axon cannot accept: {error}");
        tokio::time::sleep(EXHAUSTED).await;
    }
}

struct Connection {
    front: Arc<Front>,
    tls: Option<Tls>,
    limits: AxonLimits,
    cancel: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, address: IpAddr) {
        // Answers are one small write: waiting for more would only delay them.
        let _unsupported = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.speak(stream, address).await };
        let handshake = tls.acceptor().accept(stream);
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, handshake);
        // Cancel safety: a handshake that is cut off served nobody.
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = self.cancel.cancelled() => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.speak(stream, address).await,
            Ok(Err(error)) => tracing::debug!(%address, "no TLS handshake: {error}"),
            Err(_) => tracing::debug!(%address, "no TLS handshake in time"),
        }
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin, address: IpAddr) {
        let cut = CancellationToken::new();
        let service = service_fn(|request| {
            let answer = self.front.clone().answer(address, request, cut.clone());
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(self.limits.head_bytes.max(8192));
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        // Cancel safety: the connection is polled on after the signal, until it has answered.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Cancel safety: as above.
                tokio::select! {
                    ended = connection => ended,
                    () = cut.cancelled() => return,
                }
            }
            // Who does not take a stream in time is a broken connection.
            () = cut.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%address, "the connection broke: {error}");
        }
    }
}

/// A random uuid (RFC 9562, version 4).
fn uuid() -> Result<String, ServeError> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| ServeError::Random)?;
    let bits = u128::from_be_bytes(bytes);
    let bits = bits & !(0xf000 << 64) & !(0xc << 60) | (0x4000 << 64) | (0x8 << 60);
    let hex = format!("{bits:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    Ok([part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
}

//! A Unix socket of a host, reached through a runner's session.
//!
//! A task owns the session and passes bytes on in both directions, each with the window that
//! [`runner_protocol::relay`] describes. A reader that pauses pauses the socket and nothing else.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use runner_protocol::relay::{MAX_CHUNK_BYTES, WINDOW_BYTES};
use runner_protocol::{RelayEvent, Reply, RequestId, Round, StreamBytes, ToRunner, Unit};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio::task::JoinSet;

use super::session::UnitEvent;
use super::{Error, Session};

/// For the runner to connect to a socket of its own machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes between the task and its user: two messages.
const BUFFER_BYTES: usize = 2 * MAX_CHUNK_BYTES;

/// Chunks that are gathered before the user is woken: as much as the buffer holds.
const GATHERED_CHUNKS: usize = 2;

/// Taken bytes that are worth a message to say so.
const GRANT_BYTES: u32 = WINDOW_BYTES / 4;

type Broken = Arc<Mutex<Option<String>>>;

/// A stream to a socket on a host. Dropping it ends the session.
pub struct Relay {
    io: DuplexStream,
    broken: Broken,
    _task: JoinSet<()>,
}

impl Relay {
    /// Connects to `socket` through a session, which does nothing else from now on.
    ///
    /// # Errors
    /// The runner cannot connect to the socket (`socket_denied`, `socket_missing`, ...), or failed.
    ///
    /// # Cancel safety
    /// Dropping the future ends the session.
    pub async fn open(mut session: Box<Session>, socket: &str) -> Result<Self, Error> {
        let unit = Unit::Dial { socket: socket.to_owned() };
        let connected = async {
            let id = session.open(unit).await?;
            match session.incoming().await?.event {
                UnitEvent::Reply(Reply::Relay(RelayEvent::Connected {})) => Ok(id),
                UnitEvent::Finished(Err(error)) => Err(error),
                _ => Err(Error::Unexpected { expected: "a connection", found: "something else" }),
            }
        };
        let seconds = CONNECT_TIMEOUT.as_secs();
        let id = tokio::time::timeout(CONNECT_TIMEOUT, connected)
            .await
            .map_err(|_| Error::TimedOut { operation: "connect to a socket", seconds })??;
        let (io, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let broken = Broken::default();
        let mut task = JoinSet::new();
        let note = Arc::clone(&broken);
        task.spawn(async move {
            let (from_user, to_user) = tokio::io::split(theirs);
            let mut carrier = Carrier {
                session,
                id,
                pending: VecDeque::new(),
                unacknowledged: 0,
                taken: 0,
                credit: WINDOW_BYTES,
                user_done: false,
                peer_done: false,
            };
            if let Err(error) = carrier.carry(from_user, to_user).await {
                *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        });
        Ok(Self { io, broken, _task: task })
    }
}

struct Carrier {
    session: Box<Session>,
    id: RequestId,
    /// What came of the socket and the user has not taken: at most a window of it.
    pending: VecDeque<Vec<u8>>,
    /// Bytes that came and were not granted again.
    unacknowledged: u32,
    /// Bytes that the user took since the last grant.
    taken: u32,
    /// Bytes that may be sent.
    credit: u32,
    user_done: bool,
    peer_done: bool,
}

/// What happened first.
enum Woken {
    /// The runner said something.
    Runner(Box<UnitEvent>),
    /// The user took bytes.
    Took(io::Result<usize>),
    /// The user gave bytes.
    Gave(io::Result<usize>),
}

impl Carrier {
    async fn carry(
        &mut self,
        mut from_user: tokio::io::ReadHalf<DuplexStream>,
        mut to_user: tokio::io::WriteHalf<DuplexStream>,
    ) -> Result<(), Error> {
        let mut chunk = vec![0_u8; MAX_CHUNK_BYTES];
        loop {
            if self.peer_done && self.pending.is_empty() {
                // The user may be gone already.
                let _ = to_user.shutdown().await;
            }
            let room = usize::try_from(self.credit).unwrap_or(usize::MAX).min(chunk.len());
            let pending = self.pending.front().map(Vec::as_slice).unwrap_or_default();
            let gives = chunk.get_mut(..room).unwrap_or_default();
            let may_give = room > 0 && !self.user_done;
            // Cancel safety: the session loses no message; of one write and one read, the loser did
            // nothing.
            let woken = tokio::select! {
                incoming = self.session.incoming() => Woken::Runner(Box::new(incoming?.event)),
                took = to_user.write(pending), if !pending.is_empty() => Woken::Took(took),
                gave = from_user.read(gives), if may_give => Woken::Gave(gave),
            };
            match woken {
                Woken::Runner(event) => {
                    let mut event = *event;
                    // An engine sends a log line by line: what has come already wakes the user once.
                    loop {
                        match event {
                            UnitEvent::Finished(end) => return end,
                            event => self.heard(event)?,
                        }
                        if self.pending.len() >= GATHERED_CHUNKS {
                            break;
                        }
                        match self.session.incoming().now_or_never() {
                            Some(incoming) => event = incoming?.event,
                            None => break,
                        }
                    }
                }
                Woken::Took(Ok(count)) => self.took(count).await?,
                Woken::Gave(Ok(0)) => {
                    self.user_done = true;
                    self.proceed(Round::End {}).await?;
                }
                Woken::Gave(Ok(count)) => {
                    let bytes = chunk.get(..count).unwrap_or_default().to_vec();
                    self.credit = self.credit.saturating_sub(small(count));
                    self.proceed(Round::Send { bytes: StreamBytes(bytes) }).await?;
                }
                // The user's end is gone.
                Woken::Took(Err(_)) | Woken::Gave(Err(_)) => return Ok(()),
            }
        }
    }

    async fn proceed(&mut self, round: Round) -> Result<(), Error> {
        self.session.say([ToRunner::Continue { id: self.id, round }]).await.map(|_| ())
    }

    fn heard(&mut self, event: UnitEvent) -> Result<(), Error> {
        let UnitEvent::Reply(Reply::Relay(event)) = event else {
            return Err(Error::Unexpected { expected: "bytes", found: "something else" });
        };
        match event {
            RelayEvent::Data { bytes } if !self.peer_done => {
                self.unacknowledged = self.unacknowledged.saturating_add(small(bytes.0.len()));
                if self.unacknowledged > WINDOW_BYTES {
                    return Err(Error::Unexpected { expected: "bytes", found: "too many" });
                }
                match self.pending.back_mut() {
                    Some(last) if last.len() + bytes.0.len() <= MAX_CHUNK_BYTES => {
                        last.extend_from_slice(&bytes.0);
                    }
                    _ if bytes.0.is_empty() => {}
                    _ => self.pending.push_back(bytes.0),
                }
            }
            RelayEvent::Grant { bytes } => {
                self.credit = self.credit.saturating_add(bytes).min(WINDOW_BYTES);
            }
            RelayEvent::End {} => self.peer_done = true,
            RelayEvent::Data { .. } | RelayEvent::Connected {} => {
                return Err(Error::Unexpected { expected: "the end", found: "more" });
            }
        }
        Ok(())
    }

    async fn took(&mut self, count: usize) -> Result<(), Error> {
        if let Some(front) = self.pending.front_mut() {
            if count < front.len() {
                front.drain(..count);
            } else {
                self.pending.pop_front();
            }
        }
        self.taken = self.taken.saturating_add(small(count));
        if self.taken >= GRANT_BYTES {
            let bytes = std::mem::take(&mut self.taken);
            self.unacknowledged = self.unacknowledged.saturating_sub(bytes);
            self.proceed(Round::Grant { bytes }).await?;
        }
        Ok(())
    }
}

/// A length that is known to be a chunk's.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl AsyncRead for Relay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            // An end that the socket did not mean.
            let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(words) = broken {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, words)));
            }
        }
        read
    }
}

impl AsyncWrite for Relay {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

//! A byte pipe whose writer never waits: it is written from a connection's pump, and a pump that
//! waits for one slow reader would stall every other channel of that connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::bytes::{Buf, Bytes};

/// What a chunk costs besides its bytes (queue slot, header, allocator); counted so that a host
/// that sends single bytes cannot use more memory than one that sends large packets.
const CHUNK_COST: usize = 128;

/// The reader has fallen behind by the whole capacity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    /// Set before the writer is dropped when the end is not a clean one.
    failure: Mutex<Option<(io::ErrorKind, String)>>,
}

/// The writing end.
pub(crate) struct PipeWriter {
    queue: mpsc::UnboundedSender<Bytes>,
    shared: Arc<Shared>,
    capacity: usize,
}

/// The reading end: an [`AsyncRead`] that ends when the writer is dropped.
pub(crate) struct PipeReader {
    queue: mpsc::UnboundedReceiver<Bytes>,
    shared: Arc<Shared>,
    current: Bytes,
}

/// A pipe that holds at most about `capacity` bytes.
pub(crate) fn bounded_pipe(capacity: usize) -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    (
        PipeWriter { queue: sender, shared: Arc::clone(&shared), capacity },
        PipeReader { queue: receiver, shared, current: Bytes::new() },
    )
}

impl PipeWriter {
    /// Appends a chunk. A reader that is gone swallows it.
    pub(crate) fn push(&self, chunk: Bytes) -> Result<(), Overflow> {
        if chunk.is_empty() {
            return Ok(());
        }
        let cost = chunk.len() + CHUNK_COST;
        // Only this side adds, so the check cannot race with another addition.
        if self.shared.queued.load(Ordering::Acquire) + cost > self.capacity {
            return Err(Overflow);
        }
        self.shared.queued.fetch_add(cost, Ordering::AcqRel);
        let _ = self.queue.send(chunk);
        Ok(())
    }

    /// Ends the pipe with an error that the reader sees after the bytes that are queued.
    pub(crate) fn fail(self, kind: io::ErrorKind, message: String) {
        let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some((kind, message));
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.current.is_empty() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(chunk) => {
                    self.shared.queued.fetch_sub(chunk.len() + CHUNK_COST, Ordering::AcqRel);
                    self.current = chunk;
                }
                None => {
                    let failure =
                        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    return Poll::Ready(match failure.as_ref() {
                        Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
                        None => Ok(()),
                    });
                }
            }
        }
        let n = buf.remaining().min(self.current.len());
        self.current.copy_to_slice(buf.initialize_unfilled_to(n));
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_then_end() {
        let (writer, mut reader) = bounded_pipe(4096);
        writer.push(Bytes::from_static(b"one ")).unwrap();
        writer.push(Bytes::from_static(b"two")).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one two");
    }

    #[tokio::test]
    async fn overflow_is_told_and_reading_makes_room() {
        let (writer, mut reader) = bounded_pipe(1000);
        writer.push(Bytes::from(vec![1; 800])).unwrap();
        assert_eq!(writer.push(Bytes::from(vec![2; 100])), Err(Overflow));
        let mut buf = vec![0; 800];
        reader.read_exact(&mut buf).await.unwrap();
        writer.push(Bytes::from(vec![3; 800])).unwrap();
    }

    #[tokio::test]
    async fn single_bytes_are_charged_for_their_chunks() {
        let (writer, _reader) = bounded_pipe(64 * 1024);
        let accepted = std::iter::repeat_with(|| writer.push(Bytes::from_static(b"x")))
            .take_while(Result::is_ok);
        assert_eq!(accepted.count(), 64 * 1024 / (1 + CHUNK_COST));
    }

    #[tokio::test]
    async fn a_failure_comes_after_the_queued_bytes() {
        let (writer, mut reader) = bounded_pipe(4096);
        writer.push(Bytes::from_static(b"kept")).unwrap();
        writer.fail(io::ErrorKind::ConnectionReset, "cut".to_owned());
        let mut bytes = Vec::new();
        let error = reader.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(bytes, b"kept");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

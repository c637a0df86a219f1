//! The byte stream below a connection, with a switch to cut it.
//!
//! The protocol library runs each connection in a task of its own and offers no way to stop it
//! that works in every state; in particular a server that freezes after its greeting holds that
//! task for as long as the socket lives. Cutting the stream under it ends it always.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Bytes of a server's first words that are kept for error messages.
const GREETING_BYTES: usize = 256;

/// What the server said first.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeting(Arc<Mutex<Vec<u8>>>);

impl Greeting {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a complete identification line has come (RFC 4253, 4.2): other lines may precede.
    pub(super) fn is_complete(&self) -> bool {
        let bytes = self.bytes();
        let mut lines = bytes.split_inclusive(|&b| b == b'\n');
        lines.any(|line| line.starts_with(b"SSH-") && line.ends_with(b"\n"))
    }

    fn note(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = GREETING_BYTES.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// A stream that fails at once, in both directions, when its token is cancelled.
pub(super) struct CutStream<S> {
    inner: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    cut_write: Pin<Box<WaitForCancellationFutureOwned>>,
    greeting: Greeting,
    greeted: usize,
}

impl<S> CutStream<S> {
    pub(super) fn new(inner: S, cut: &CancellationToken, greeting: Greeting) -> Self {
        // Reads and writes are polled from two halves, and a future remembers one waker only.
        Self {
            inner,
            cut: Box::pin(cut.clone().cancelled_owned()),
            cut_write: Box::pin(cut.clone().cancelled_owned()),
            greeting,
            greeted: 0,
        }
    }
}

fn was_cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed on this side")
}

impl<S: AsyncRead + Unpin> AsyncRead for CutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(was_cut()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.greeted < GREETING_BYTES {
            let new = buf.filled().get(before..).unwrap_or_default();
            self.greeting.note(new);
            self.greeted += new.len();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut_write.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(was_cut()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut_write.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(was_cut()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown that waits for a dead peer would keep the task that is being ended.
        if self.cut_write.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

//! The two streams of a runner process: bytes in and out, the lease, the last words.
//!
//! One task drives both directions, so writing never waits for a reader that waits for us: while
//! something is to be written, what the host says is taken in, up to a bound.

use std::time::{Duration, Instant};

use runner_protocol::{
    ExitCode, FrameDecoder, FromRunner, LEASE_RENEW_INTERVAL, MAX_FRAME_BYTES, MagicScanner,
    ToRunner, decode, encode_frame,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Interval, MissedTickBehavior};

use crate::printable::last_line;
use crate::runner::Error;
use crate::runner::answer::{self, Answer};
use crate::transport::{ExitStatus, Process};

/// How much of standard error is kept: its end says why a runner died.
const STDERR_KEPT_BYTES: usize = 16 * 1024;

/// Bytes taken from the channel at first; a read that fills it doubles it, up to [`READ_BYTES`]. An
/// answer is small, and hundreds of hosts answer at a time.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Bytes taken from the channel at a time.
const READ_BYTES: usize = 32 * 1024;

/// Bytes that are taken in while something is still to be written. A frame fits; who says more than
/// that unasked waits, as on any full pipe.
const INPUT_LIMIT_BYTES: usize = MAX_FRAME_BYTES + 2 * READ_BYTES;

/// The streams of one process.
pub(super) struct Wire {
    process: Process,
    input: Vec<u8>,
    /// When the last bytes came.
    read_at: Instant,
    chunk: Vec<u8>,
    decoder: FrameDecoder,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    flushed: bool,
    stderr: Vec<u8>,
    stderr_open: bool,
    /// Ticks once there is a runner whose lease wants renewing.
    renewal: Option<Interval>,
}

/// What one wait brought.
enum Turn {
    Read,
    Ended,
    Wrote,
}

impl Wire {
    pub(super) fn new(process: Process) -> Self {
        Self {
            process,
            input: Vec::new(),
            read_at: Instant::now(),
            chunk: vec![0; FIRST_READ_BYTES],
            decoder: FrameDecoder::new(),
            output: Vec::new(),
            written: 0,
            flushed: true,
            stderr: Vec::new(),
            stderr_open: true,
            renewal: None,
        }
    }

    /// From now on the lease is renewed while anything is waited for.
    pub(super) fn renew_lease(&mut self) {
        let mut interval = tokio::time::interval(LEASE_RENEW_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick of an interval is due at once, and a new lease needs no renewing yet.
        interval.reset();
        self.renewal = Some(interval);
    }

    /// Closes the channel, whatever the process does.
    pub(super) async fn close(self) {
        self.process.close().await;
    }

    /// Hands bytes to a process that is not spoken to in frames yet.
    ///
    /// # Cancel safety
    /// None: the stream is of no more use.
    pub(super) async fn feed(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.process.stdin.write_all(bytes).await?;
        self.process.stdin.flush().await
    }

    /// Puts a message at the end of what is to be written.
    pub(super) fn queue(&mut self, message: &impl Serialize) -> Result<(), Error> {
        self.output.extend(encode_frame(message).map_err(Error::Frame)?);
        self.flushed = false;
        Ok(())
    }

    /// Writes all that is queued. Returns when its first byte was handed over.
    ///
    /// # Cancel safety
    /// Safe: what is not written yet stays queued.
    pub(super) async fn write_out(&mut self) -> Result<Instant, Error> {
        let begun = Instant::now();
        while !self.flushed {
            if let Turn::Ended = self.turn().await? {
                return Err(self.ended().await);
            }
        }
        Ok(begun)
    }

    /// The next message and when its last bytes came, renewing the lease while it waits.
    ///
    /// # Cancel safety
    /// Safe: bytes that were read stay.
    pub(super) async fn next_message(&mut self) -> Result<(FromRunner, Instant), Error> {
        loop {
            let mut input = self.input.as_slice();
            let frame = self.decoder.push(&mut input).map_err(Error::Frame)?;
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if let Some(body) = frame {
                return Ok((decode(&body).map_err(Error::Frame)?, self.read_at));
            }
            if !self.read_more().await? {
                return Err(self.ended().await);
            }
        }
    }

    /// Reads one answer of the start script.
    pub(super) async fn answer(&mut self) -> Result<Answer, Error> {
        loop {
            if let Some((answer, end)) = Answer::find(&self.input) {
                self.input.drain(..end);
                return Ok(answer);
            }
            if self.input.len() > answer::MAX_BYTES {
                return Err(Error::NoAnswer {
                    status: "still running".to_owned(),
                    said: "more output than any answer".to_owned(),
                });
            }
            if !self.read_more().await? {
                return Err(self.no_answer().await);
            }
        }
    }

    /// Reads up to the end of the runner's magic line.
    pub(super) async fn await_magic(&mut self) -> Result<(), Error> {
        let mut scanner = MagicScanner::new();
        loop {
            let mut input = self.input.as_slice();
            let found = scanner.push(&mut input).map_err(Error::Magic)?;
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if found {
                return Ok(());
            }
            if !self.read_more().await? {
                return Err(self.ended().await);
            }
        }
    }

    /// Waits for more of standard output and appends it to the input. `false` at its end.
    async fn read_more(&mut self) -> Result<bool, Error> {
        loop {
            match self.turn().await? {
                Turn::Read => return Ok(true),
                Turn::Ended => return Ok(false),
                Turn::Wrote => {}
            }
        }
    }

    /// Waits for the first thing that can be done on any of the streams, and does it.
    async fn turn(&mut self) -> Result<Turn, Error> {
        let mut err = [0_u8; 512];
        loop {
            let unwritten = self.output.get(self.written..).unwrap_or_default();
            let may_read = self.input.len() < INPUT_LIMIT_BYTES || self.flushed;
            // Cancel safety: reads, the write and the tick lose nothing when dropped; what the
            // losing branches would have read stays in the channel, and what was not written is
            // still in `output`.
            tokio::select! {
                read = self.process.stdout.read(&mut self.chunk), if may_read => {
                    let count = read.map_err(|error| Error::Stream {
                        operation: "read from the runner",
                        source: error,
                    })?;
                    self.read_at = Instant::now();
                    self.input.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
                    if count == self.chunk.len() && count < READ_BYTES {
                        self.chunk.resize(count.saturating_mul(2).min(READ_BYTES), 0);
                    }
                    return Ok(if count > 0 { Turn::Read } else { Turn::Ended });
                }
                written = write_some(&mut self.process.stdin, unwritten), if !self.flushed => {
                    let failed =
                        |source| Error::Stream { operation: "write to the runner", source };
                    match written.map_err(failed)? {
                        Some(count) => self.written += count,
                        None => {
                            self.output.clear();
                            self.written = 0;
                            self.flushed = true;
                        }
                    }
                    return Ok(Turn::Wrote);
                }
                read = self.process.stderr.read(&mut err), if self.stderr_open => {
                    let count = read.unwrap_or(0);
                    self.stderr_open = count > 0;
                    self.stderr.extend(err.iter().take(count));
                    let excess = self.stderr.len().saturating_sub(STDERR_KEPT_BYTES);
                    self.stderr.drain(..excess);
                }
                () = tick(&mut self.renewal) => self.queue(&ToRunner::Renew {})?,
            }
        }
    }

    async fn ended(&mut self) -> Error {
        let status = self.process.wait().await.ok();
        let exit = match status {
            Some(ExitStatus::Code(code)) => ExitCode::from_status(code),
            _ => None,
        };
        Error::Ended { exit, said: self.last_words().await }
    }

    async fn no_answer(&mut self) -> Error {
        let status = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(_) => "unknown".to_owned(),
        };
        Error::NoAnswer { status, said: self.last_words().await }
    }

    /// The end of standard error. Standard output is at its end when this is asked, so the rest
    /// of standard error is there or never comes; a short wait covers packets still on the way.
    async fn last_words(&mut self) -> String {
        const LATE_WORDS: Duration = Duration::from_millis(500);
        let mut rest = vec![0_u8; STDERR_KEPT_BYTES];
        while self.stderr_open && self.stderr.len() < STDERR_KEPT_BYTES {
            match tokio::time::timeout(LATE_WORDS, self.process.stderr.read(&mut rest)).await {
                Ok(Ok(count)) if count > 0 => self.stderr.extend(rest.iter().take(count)),
                _ => self.stderr_open = false,
            }
        }
        last_line(&self.stderr)
    }
}

/// Writes some of the bytes, or flushes when there are none; `None` once that is done.
async fn write_some(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<Option<usize>> {
    if bytes.is_empty() {
        stream.flush().await.map(|()| None)
    } else {
        match stream.write(bytes).await? {
            0 => Err(std::io::ErrorKind::WriteZero.into()),
            count => Ok(Some(count)),
        }
    }
}

/// The next tick; never, where there is nothing to renew.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

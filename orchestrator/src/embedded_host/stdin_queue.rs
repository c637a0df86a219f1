//! Bytes on their way from an SSH channel to a command's stdin.
//!
//! The SSH side must never wait (see the parent module), so a command that does not read makes the
//! queue grow: first in memory, then in an unlinked file, then it is full.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes kept in memory before the rest goes to a file: a few channel windows.
const MEMORY_BYTES: usize = 4 << 20;

/// Bytes kept in the file before the command is given up: more than any upload to a host.
const SPILL_BYTES: u64 = 1 << 30;

/// Bytes read back from the file at a time.
const READ_BYTES: usize = 64 << 10;

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    /// The command left [`SPILL_BYTES`] unread.
    #[error("the command does not read its stdin: over {SPILL_BYTES} bytes are waiting")]
    Full,
    /// The file could not be made, written or read.
    #[error("cannot spill stdin to a file")]
    Spill(#[source] io::Error),
}

/// A first-in first-out queue of bytes with one writer that never waits and one reader.
#[derive(Debug)]
pub(super) struct StdinQueue {
    state: Mutex<State>,
    changed: Notify,
    directory: PathBuf,
    memory_limit: usize,
    spill_limit: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Older than everything in the file.
    memory: VecDeque<Vec<u8>>,
    memory_bytes: usize,
    file: Option<File>,
    read_at: u64,
    write_at: u64,
    ended: bool,
    discarding: bool,
}

impl StdinQueue {
    /// An empty queue that spills into `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self::with_limits(directory, MEMORY_BYTES, SPILL_BYTES)
    }

    fn with_limits(directory: &Path, memory_limit: usize, spill_limit: u64) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            directory: directory.to_owned(),
            memory_limit,
            spill_limit,
        }
    }

    /// Adds bytes at the end; drops them when nobody will read them.
    pub(super) fn push(&self, bytes: &[u8]) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.discarding || state.ended || bytes.is_empty() {
            return Ok(());
        }
        let spilling = state.write_at > state.read_at;
        if !spilling && state.memory_bytes.saturating_add(bytes.len()) <= self.memory_limit {
            state.memory_bytes = state.memory_bytes.saturating_add(bytes.len());
            state.memory.push_back(bytes.to_vec());
        } else {
            let end = state.write_at.saturating_add(bytes.len() as u64);
            if end.saturating_sub(state.read_at) > self.spill_limit {
                return Err(QueueError::Full);
            }
            let at = state.write_at;
            let file = match state.file.take() {
                Some(file) => file,
                None => unlinked_file(&self.directory).map_err(QueueError::Spill)?,
            };
            let written = file.write_all_at(bytes, at).map_err(QueueError::Spill);
            state.file = Some(file);
            written?;
            state.write_at = end;
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Says that no more bytes come: the reader sees the end after the last of them.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    /// Says that nobody reads any more: what is queued and what still comes is dropped.
    pub(super) fn discard(&self) {
        *self.state() = State { discarding: true, ..State::default() };
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Cancel safety
    /// Bytes are taken in the same poll that returns them: none are lost.
    pub(super) async fn next(&self) -> Result<Option<Vec<u8>>, QueueError> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(bytes) = state.take()? {
                    return Ok(Some(bytes));
                }
                if state.ended || state.discarding {
                    return Ok(None);
                }
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Result<Option<Vec<u8>>, QueueError> {
        if let Some(bytes) = self.memory.pop_front() {
            self.memory_bytes = self.memory_bytes.saturating_sub(bytes.len());
            return Ok(Some(bytes));
        }
        let (Some(file), true) = (&self.file, self.write_at > self.read_at) else {
            return Ok(None);
        };
        let waiting = usize::try_from(self.write_at - self.read_at).unwrap_or(READ_BYTES);
        let mut bytes = vec![0; waiting.min(READ_BYTES)];
        file.read_exact_at(&mut bytes, self.read_at).map_err(QueueError::Spill)?;
        self.read_at += bytes.len() as u64;
        if self.read_at == self.write_at {
            file.set_len(0).map_err(QueueError::Spill)?;
            (self.read_at, self.write_at) = (0, 0);
        }
        Ok(Some(bytes))
    }
}

/// A file without a name: it goes away with its last handle, also when this process is killed.
fn unlinked_file(directory: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("stdin-{}-{number}", std::process::id()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte differs from its neighbours, so that a lost or doubled chunk shows.
    fn numbered(count: u32) -> Vec<u8> {
        (0..count).flat_map(u32::to_le_bytes).collect()
    }

    #[tokio::test]
    async fn bytes_keep_their_order_through_memory_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let queue = StdinQueue::with_limits(directory.path(), 1000, 1 << 20);
        let sent = numbered(50_000);
        let (first, second) = sent.split_at(100_000);
        let mut received = Vec::new();
        for chunk in first.chunks(333) {
            queue.push(chunk).unwrap();
        }
        // Drained half way, so that later bytes must not overtake those in the file.
        while received.len() < 60_000 {
            received.extend(queue.next().await.unwrap().unwrap());
        }
        for chunk in second.chunks(777) {
            queue.push(chunk).unwrap();
        }
        queue.end();
        while let Some(bytes) = queue.next().await.unwrap() {
            received.extend(bytes);
        }
        assert!(received == sent);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no file is left");
    }

    #[tokio::test]
    async fn an_emptied_file_is_used_again_from_its_start() {
        let directory = tempfile::tempdir().unwrap();
        let queue = StdinQueue::with_limits(directory.path(), 4, 64);
        for round in 0..100_u8 {
            queue.push(&[round; 4]).unwrap();
            queue.push(&[round; 60]).unwrap();
            assert_eq!(queue.next().await.unwrap().unwrap(), vec![round; 4]);
            assert_eq!(queue.next().await.unwrap().unwrap(), vec![round; 60]);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let queue = StdinQueue::with_limits(directory.path(), 10, 20);
        queue.push(&[1; 10]).unwrap();
        queue.push(&[2; 20]).unwrap();
        assert!(matches!(queue.push(&[3]), Err(QueueError::Full)));
        queue.discard();
        queue.push(&[4; 1000]).unwrap();
        assert_eq!(queue.next().await.unwrap(), None);
    }
}

//! A command's input, cut into chunks, with its length held to what was promised.

use std::io;

use tokio::io::AsyncReadExt;
use tokio_util::bytes::{Bytes, BytesMut};

use super::{Failure, Input, ProgressFn};

/// The size of an SSH data packet; a larger chunk would only be split again.
const CHUNK_BYTES: usize = 32 * 1024;

/// Yields an input chunk by chunk.
pub(crate) struct Feed {
    input: Input,
    progress: Option<ProgressFn>,
    /// Bytes that were read from the input.
    taken: u64,
    /// Bytes that the link took.
    sent: u64,
}

impl Feed {
    pub(crate) fn new(input: Input, progress: Option<ProgressFn>) -> Self {
        // A `Vec` becomes `Bytes` without a copy, and slices of it are free.
        Self { input, progress, taken: 0, sent: 0 }
    }

    /// The next chunk, or `None` when exactly the promised input has been yielded.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.input {
            Input::Empty => Ok(None),
            Input::Bytes(bytes) => {
                let rest = std::mem::take(bytes);
                self.input = Input::Empty;
                self.taken = rest.len() as u64;
                Ok((!rest.is_empty()).then(|| Bytes::from(rest)))
            }
            Input::Reader { reader, len } => {
                let left = *len - self.taken;
                // One byte more than is left, to notice a reader that has more.
                let want = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
                let mut chunk = BytesMut::with_capacity(want.min(CHUNK_BYTES));
                let mut limited = reader.take(want.min(CHUNK_BYTES) as u64);
                let read = limited.read_buf(&mut chunk).await;
                let read = read.map_err(|source| Failure::Input { sent: self.sent, source })?;
                if read as u64 > left || (read == 0 && left > 0) {
                    let source = io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the input is not {len} bytes long as promised"),
                    );
                    return Err(Failure::Input { sent: self.sent, source });
                }
                self.taken += read as u64;
                Ok((read > 0).then(|| chunk.freeze()))
            }
        }
    }

    /// Notes that the link took `bytes` more.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if let Some(progress) = &mut self.progress {
            progress(self.sent);
        }
    }

    /// Bytes that the link took so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drain(input: Input) -> Result<Vec<u8>, Failure> {
        let mut feed = Feed::new(input, None);
        let mut all = Vec::new();
        while let Some(chunk) = feed.next().await? {
            feed.took(chunk.len());
            all.extend_from_slice(&chunk);
        }
        assert_eq!(feed.sent(), all.len() as u64);
        Ok(all)
    }

    fn reader(bytes: &'static [u8], len: u64) -> Input {
        Input::Reader { reader: Box::new(bytes), len }
    }

    #[tokio::test]
    async fn exactly_the_promised_bytes_pass() {
        assert_eq!(drain(Input::Empty).await.unwrap(), b"");
        assert_eq!(drain(Input::Bytes(b"abc".to_vec())).await.unwrap(), b"abc");
        assert_eq!(drain(reader(b"abc", 3)).await.unwrap(), b"abc");
        assert_eq!(drain(reader(b"", 0)).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_reader_that_is_shorter_or_longer_is_an_error() {
        for (bytes, len) in [(&b"ab"[..], 3), (b"abcd", 3), (b"x", 0)] {
            let failure = drain(reader(bytes, len)).await.unwrap_err();
            assert!(matches!(failure, Failure::Input { .. }), "{failure}");
        }
    }
}

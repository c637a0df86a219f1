//! Output kept up to a cap; what is beyond it is counted and forgotten.

/// Bytes of output beyond its cap that are read and thrown away before the command is ended. A
/// host that writes without end would otherwise use the whole link until the deadline.
pub(crate) const DISCARD_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A command wrote far more than anyone wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flood;

/// The kept part of one output stream.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Vec<u8>,
    cap: usize,
    discarded: u64,
}

impl Capture {
    pub(crate) fn new(cap: usize) -> Self {
        Self { kept: Vec::new(), cap, discarded: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let room = self.cap.saturating_sub(self.kept.len()).min(bytes.len());
        let (keep, discard) = bytes.split_at(room);
        self.kept.extend_from_slice(keep);
        self.discarded += discard.len() as u64;
        if self.discarded > DISCARD_LIMIT_BYTES { Err(Flood) } else { Ok(()) }
    }

    /// The kept bytes and whether there were more.
    pub(crate) fn finish(self) -> (Vec<u8>, bool) {
        (self.kept, self.discarded > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_bytes_and_says_that_there_were_more() {
        let mut capture = Capture::new(5);
        capture.push(b"abc").unwrap();
        capture.push(b"defg").unwrap();
        assert_eq!(capture.finish(), (b"abcde".to_vec(), true));

        let mut exact = Capture::new(3);
        exact.push(b"abc").unwrap();
        assert_eq!(exact.finish(), (b"abc".to_vec(), false));
    }

    #[test]
    fn an_endless_stream_is_a_flood() {
        let mut capture = Capture::new(0);
        let block = vec![0; 1024 * 1024];
        let blocks = (0..).take_while(|_| capture.push(&block).is_ok()).count() as u64;
        assert_eq!(blocks, DISCARD_LIMIT_BYTES / block.len() as u64);
    }
}

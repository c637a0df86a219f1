//! Telling a command's output from the noise of a login.
//!
//! sshd runs commands through the user's login shell, whose rc files may print anything on
//! either stream. The command line therefore prints a marker first, on both streams, and what
//! comes before the marker is noise.

use std::hash::{BuildHasher, Hasher, RandomState};

use tokio_util::bytes::{Buf, Bytes};

/// Bytes of noise kept for the debug log and for errors.
const KEPT_NOISE_BYTES: usize = 1024;

/// A fresh marker, crossing shells unquoted. It keeps accidents apart, not attackers: the host
/// reads it in the command line, and a host that lies may lie in the output just as well. So the
/// randomness of the standard library's hash keys is enough.
pub(super) fn new_marker() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("orchestrator-{:016x}{:016x}", half(), half())
}

/// A login wrote more than the limit before the marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooNoisy;

/// Finds the marker in one stream and passes on what follows it.
#[derive(Debug)]
pub(super) struct Deframer {
    marker: Vec<u8>,
    limit: usize,
    /// The end of the noise, in which a marker may have begun.
    tail: Vec<u8>,
    noise: Vec<u8>,
    skipped: usize,
    found: bool,
}

impl Deframer {
    pub(super) fn new(marker: &str, limit: usize) -> Self {
        let mut marker = marker.as_bytes().to_vec();
        marker.push(b'\n');
        Self { marker, limit, tail: Vec::new(), noise: Vec::new(), skipped: 0, found: false }
    }

    /// Whether the marker has been seen.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// The first bytes of what came before the marker.
    pub(super) fn noise(&self) -> &[u8] {
        &self.noise
    }

    /// Takes bytes from the stream and returns those that belong to the command.
    pub(super) fn push(&mut self, mut bytes: Bytes) -> Result<Bytes, TooNoisy> {
        if self.found {
            return Ok(bytes);
        }
        let carried = self.tail.len();
        self.tail.extend_from_slice(&bytes);
        let at = self.tail.windows(self.marker.len()).position(|window| window == self.marker);
        let noise = at.unwrap_or_else(|| {
            // Everything but what may still become a marker.
            self.tail.len().saturating_sub(self.marker.len() - 1)
        });
        let room = KEPT_NOISE_BYTES.saturating_sub(self.noise.len()).min(noise);
        self.noise.extend(self.tail.iter().take(room));
        self.skipped += noise;
        if self.skipped > self.limit {
            return Err(TooNoisy);
        }
        if at.is_some() {
            self.found = true;
            // The marker ends within `bytes`, or it would have been found before.
            bytes.advance((noise + self.marker.len()).saturating_sub(carried).min(bytes.len()));
            self.tail = Vec::new();
            Ok(bytes)
        } else {
            self.tail.drain(..noise);
            Ok(Bytes::new())
        }
    }

    /// The stream has ended: a tail without marker was noise too.
    pub(super) fn end(&mut self) {
        let room = KEPT_NOISE_BYTES.saturating_sub(self.noise.len());
        self.noise.extend(self.tail.drain(..).take(room));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deframe(marker: &str, stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Deframer) {
        let mut deframer = Deframer::new(marker, 1 << 20);
        let mut out = Vec::new();
        let mut rest = Bytes::copy_from_slice(stream);
        for cut in cuts {
            let part = rest.split_to((*cut).min(rest.len()));
            out.extend_from_slice(&deframer.push(part).unwrap());
        }
        out.extend_from_slice(&deframer.push(rest).unwrap());
        deframer.end();
        (out, deframer)
    }

    proptest! {
        #[test]
        fn noise_and_output_are_told_apart_wherever_packets_are_cut(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            output in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(0_usize..40, 0..12),
        ) {
            let marker = new_marker();
            let stream = [&noise[..], marker.as_bytes(), b"\n", &output].concat();
            let (out, deframer) = deframe(&marker, &stream, &cuts);
            prop_assert!(deframer.found());
            prop_assert_eq!(out, output);
            prop_assert_eq!(deframer.noise(), &noise[..]);
        }
    }

    #[test]
    fn without_a_marker_everything_is_noise() {
        let (out, deframer) = deframe(&new_marker(), b"This account is not available.\n", &[5]);
        assert!(!deframer.found());
        assert_eq!(out, b"");
        assert_eq!(deframer.noise(), b"This account is not available.\n");
    }

    #[test]
    fn a_command_that_prints_its_own_marker_is_not_cut_twice() {
        let marker = new_marker();
        let stream = format!("{marker}\n{marker}\n");
        assert_eq!(deframe(&marker, stream.as_bytes(), &[]).0, format!("{marker}\n").into_bytes());
    }

    #[test]
    fn endless_noise_is_refused() {
        let mut deframer = Deframer::new(&new_marker(), 10_000);
        let block = Bytes::from_static(&[b'x'; 1000]);
        let blocks = (0..).take_while(|_| deframer.push(block.clone()).is_ok()).count();
        assert_eq!(blocks, 10);
    }

    #[test]
    fn markers_differ() {
        assert_ne!(new_marker(), new_marker());
    }
}

//! Finding where the runner starts to speak.

use crate::MAGIC;

/// How much a login shell may print before the magic line, in bytes (64 KiB): a long message of
/// the day is 4 KiB; a shell that prints more will not stop.
pub const MAX_NOISE_BYTES: usize = 64 * 1024;

/// Why the magic line was not found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagicError {
    /// More noise than [`MAX_NOISE_BYTES`].
    #[error("no magic line of a runner in the first {MAX_NOISE_BYTES} bytes")]
    TooMuchNoise,
}

/// Skips what a login shell prints before the runner's [`MAGIC`], and keeps it for the debug log.
///
/// The magic is looked for anywhere, not only at the start of a line: a shell's start-up file may
/// print text with no newline at its end.
#[derive(Debug, Default)]
pub struct MagicScanner {
    noise: Vec<u8>,
    found: bool,
}

impl MagicScanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input`, up to the end of the magic line. `Ok(true)` means
    /// that it was found, and what is left in `input` are frames. `Ok(false)` means that `input`
    /// is used up.
    ///
    /// # Errors
    ///
    /// [`MagicError::TooMuchNoise`]; then every call gives it again.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<bool, MagicError> {
        while !self.found {
            if self.noise.len() >= MAX_NOISE_BYTES.saturating_add(MAGIC.len()) {
                return Err(MagicError::TooMuchNoise);
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
            *input = rest;
            self.noise.push(byte);
            if self.noise.ends_with(MAGIC.as_bytes()) {
                self.noise.truncate(self.noise.len().saturating_sub(MAGIC.len()));
                self.found = true;
            }
        }
        Ok(true)
    }

    /// Everything before the magic line, as it came: untrusted bytes.
    #[must_use]
    pub fn noise(&self) -> &[u8] {
        &self.noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(stream: &[u8], chunk: usize) -> (Result<bool, MagicError>, Vec<u8>, Vec<u8>) {
        let mut scanner = MagicScanner::new();
        let mut rest = Vec::new();
        let mut last = Ok(false);
        for mut part in stream.chunks(chunk) {
            last = scanner.push(&mut part);
            rest.extend_from_slice(part);
            if last.is_err() {
                break;
            }
        }
        (last, scanner.noise().to_vec(), rest)
    }

    #[test]
    fn noise_is_kept_and_frames_are_left() {
        let stream = b"Welcome!\nremote-runner 2\nno newlineremote-runner 1\n\x01\x00\x00\x00";
        for chunk in 1..stream.len() {
            let (found, noise, rest) = scan(stream, chunk);
            assert_eq!(found, Ok(true));
            assert_eq!(noise, b"Welcome!\nremote-runner 2\nno newline");
            assert_eq!(rest, b"\x01\x00\x00\x00");
        }
    }

    #[test]
    fn a_started_magic_that_is_none_does_not_hide_the_real_one() {
        let (found, noise, rest) = scan(b"remote-runner remote-runner 1\nx", 3);
        assert_eq!(
            (found, noise.as_slice(), rest.as_slice()),
            (Ok(true), &b"remote-runner "[..], &b"x"[..])
        );
    }

    #[test]
    fn the_largest_noise_passes_and_one_byte_more_does_not() {
        let mut stream = vec![b'x'; MAX_NOISE_BYTES];
        stream.extend_from_slice(MAGIC.as_bytes());
        assert_eq!(scan(&stream, 4096).0, Ok(true));
        stream.insert(0, b'x');
        assert_eq!(scan(&stream, 4096).0, Err(MagicError::TooMuchNoise));
    }
}

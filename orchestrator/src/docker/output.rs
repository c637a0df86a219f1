//! The output of a container: both streams in one, told apart by headers.
//!
//! A header is `[stream, 0, 0, 0, length as u32 big-endian]`, then come so many bytes (Docker
//! Engine API, "Attach to a container"). Bytes are passed on as they come: a header that claims
//! 4 GiB costs nothing.

use std::pin::Pin;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::Error;
use super::http::{Driver, Opened};

/// Bytes taken at a time.
const READ_BYTES: usize = 32 * 1024;

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The output of a container while it comes.
pub struct Output {
    source: Source,
    frames: Frames,
    operation: &'static str,
}

enum Source {
    Body(Incoming, Driver),
    Stream(Pin<Box<dyn AsyncRead + Send>>),
}

impl Output {
    pub(super) fn of_body(opened: Opened, operation: &'static str) -> Self {
        let source = Source::Body(opened.response.into_body(), opened.driver);
        Self { source, frames: Frames::default(), operation }
    }

    pub(super) fn of_upgraded(upgraded: Upgraded, operation: &'static str) -> Self {
        let stream = Box::pin(TokioIo::new(upgraded));
        Self { source: Source::Stream(stream), frames: Frames::default(), operation }
    }

    /// The next bytes; `None` at the end. Nothing is read ahead of what is asked for here.
    ///
    /// # Errors
    /// The stream broke off, or is not of the engine's form.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Option<(OutputStream, Bytes)>, Error> {
        let operation = self.operation;
        loop {
            if let Some(piece) = self.frames.next() {
                return piece.map(Some).map_err(|header| Error::Answer {
                    operation,
                    detail: format!("a stream's header of {header:?}"),
                });
            }
            let more = match &mut self.source {
                Source::Body(body, driver) => match driver.drive(body.frame()).await {
                    None => None,
                    Some(Err(source)) => return Err(Error::Http { operation, source }),
                    Some(Ok(frame)) => Some(frame.into_data().unwrap_or_default()),
                },
                Source::Stream(stream) => {
                    let mut chunk = Vec::with_capacity(READ_BYTES);
                    match stream.read_buf(&mut chunk).await {
                        Ok(0) => None,
                        Ok(_) => Some(chunk.into()),
                        Err(source) => return Err(Error::Stream { operation, source }),
                    }
                }
            };
            match more {
                Some(bytes) => self.frames.push(bytes),
                None if self.frames.is_between() => return Ok(None),
                None => {
                    let source = std::io::ErrorKind::UnexpectedEof.into();
                    return Err(Error::Stream { operation, source });
                }
            }
        }
    }
}

/// Takes bytes in, gives pieces of both streams out.
#[derive(Default)]
struct Frames {
    input: Bytes,
    header: Vec<u8>,
    /// The stream of the piece that is under way and how much of it is to come.
    current: Option<(OutputStream, usize)>,
}

impl Frames {
    /// More input; the last one must have been used up.
    fn push(&mut self, bytes: Bytes) {
        self.input = bytes;
    }

    fn is_between(&self) -> bool {
        self.header.is_empty() && self.current.is_none()
    }

    /// The next piece of what was pushed; an error is a header that makes no sense.
    fn next(&mut self) -> Option<Result<(OutputStream, Bytes), [u8; 8]>> {
        loop {
            if let Some((stream, left)) = self.current {
                if self.input.is_empty() && left > 0 {
                    return None;
                }
                let piece = self.input.split_to(left.min(self.input.len()));
                let left = left - piece.len();
                self.current = (left > 0).then_some((stream, left));
                if !piece.is_empty() {
                    return Some(Ok((stream, piece)));
                }
            }
            let missing = 8_usize.saturating_sub(self.header.len()).min(self.input.len());
            self.header.extend_from_slice(&self.input.split_to(missing));
            let Ok(header) = <[u8; 8]>::try_from(self.header.as_slice()) else { return None };
            self.header.clear();
            let [kind, 0, 0, 0, a, b, c, d] = header else { return Some(Err(header)) };
            let stream = match kind {
                // 0 is standard input, which is echoed nowhere; old engines used it for output.
                0 | 1 => OutputStream::Stdout,
                2 => OutputStream::Stderr,
                _ => return Some(Err(header)),
            };
            let length = u32::from_be_bytes([a, b, c, d]);
            self.current = Some((stream, usize::try_from(length).unwrap_or(usize::MAX)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, content].concat()
    }

    /// Feeds `input` in pieces of `size` and collects both streams.
    fn split(input: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut frames = Frames::default();
        for piece in input.chunks(size) {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(piece) = frames.next() {
                match piece.unwrap() {
                    (OutputStream::Stdout, bytes) => out.extend_from_slice(&bytes),
                    (OutputStream::Stderr, bytes) => err.extend_from_slice(&bytes),
                }
            }
        }
        assert!(frames.is_between());
        (out, err)
    }

    #[test]
    fn streams_are_told_apart_however_the_bytes_are_cut() {
        let input =
            [frame(1, b"one"), frame(2, b"two"), frame(1, b""), frame(1, b"three")].concat();
        for size in 1..=input.len() {
            assert_eq!(split(&input, size), (b"onethree".to_vec(), b"two".to_vec()), "{size}");
        }
    }

    #[test]
    fn a_huge_claim_is_passed_on_in_pieces_and_nonsense_is_refused() {
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'x']));
        assert_eq!(frames.next().unwrap().unwrap().1, "x");
        assert!(frames.next().is_none());
        assert!(!frames.is_between());
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(b"HTTP/1.1 200 OK"));
        assert_eq!(frames.next().unwrap().unwrap_err(), *b"HTTP/1.1");
    }
}

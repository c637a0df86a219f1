//! One HTTP request over a Unix socket, with a deadline and a largest answer.
//!
//! HTTP/1.0, so that the answer ends with the connection and is never chunked.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most that is read of an answer, in bytes: `/info` of a busy Docker host is 6 KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// Asks for `path` and returns the body of an answer of status 200.
///
/// # Errors
///
/// The socket cannot be reached, the deadline passed, or the answer is something else.
pub(crate) fn get(socket: &Path, path: &str, limit: Duration) -> io::Result<String> {
    match call(socket, "GET", path, limit)? {
        (200, body) => Ok(body),
        (code, _) => Err(invalid(&format!("HTTP status {code}"))),
    }
}

/// Sends a request without a body and returns the status and the body of its answer. `path` is of
/// this program's own making: it is not escaped.
///
/// # Errors
///
/// The socket cannot be reached, the deadline passed, or the answer is no HTTP.
pub(crate) fn call(
    socket: &Path,
    method: &str,
    path: &str,
    limit: Duration,
) -> io::Result<(u16, String)> {
    let end = Instant::now().checked_add(limit);
    let left = || match end.map(|end| end.saturating_duration_since(Instant::now())) {
        None | Some(Duration::ZERO) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        Some(left) => Ok(left),
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let length = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What a read timeout reads as on Linux.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        };
        if answer.len().saturating_add(length) > MAX_ANSWER {
            return Err(invalid("the answer is too large"));
        }
        answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
    parse(&String::from_utf8_lossy(&answer))
}

/// The status and the body of an answer.
fn parse(answer: &str) -> io::Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("no HTTP answer"))?;
    let mut status = head.lines().next().unwrap_or_default().split(' ');
    let is_http = status.next().is_some_and(|version| version.starts_with("HTTP/1."));
    match status.next().and_then(|code| code.parse().ok()) {
        Some(code) if is_http && (100..600).contains(&code) => Ok((code, body.to_owned())),
        _ => Err(invalid("no HTTP answer")),
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_of_answers_that_are_http() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), (200, "{}".into()));
        assert_eq!(parse("HTTP/1.1 500 Error\r\n\r\n{}").unwrap().0, 500);
        for other in ["SSH-2.0-x\r\n\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 99999\r\n\r\n", ""] {
            assert!(parse(other).is_err(), "{other}");
        }
    }
}

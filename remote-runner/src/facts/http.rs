//! One HTTP question over a Unix socket, with a deadline and a largest answer.
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
pub(super) fn get(socket: &Path, path: &str, limit: Duration) -> io::Result<String> {
    let end = Instant::now().checked_add(limit);
    let left = || match end.map(|end| end.saturating_duration_since(Instant::now())) {
        None | Some(Duration::ZERO) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        Some(left) => Ok(left),
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(left()?))?;
    // `path` is a constant of this program.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
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
    body(&String::from_utf8_lossy(&answer))
}

/// The body of an answer.
fn body(answer: &str) -> io::Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("no HTTP answer"))?;
    let mut status = head.lines().next().unwrap_or_default().split(' ');
    match (status.next().map(|version| version.starts_with("HTTP/1.")), status.next()) {
        (Some(true), Some("200")) => Ok(body.to_owned()),
        (Some(true), Some(code)) if code.len() == 3 => Err(invalid(&format!("HTTP status {code}"))),
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
    fn bodies_of_good_answers_only() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        assert_eq!(
            body("HTTP/1.1 500 Error\r\n\r\n{}").unwrap_err().to_string(),
            "HTTP status 500"
        );
        assert!(body("SSH-2.0-x\r\n\r\n").is_err());
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
        assert!(body("").is_err());
    }
}

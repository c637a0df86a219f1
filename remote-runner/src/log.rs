//! JSON log lines on standard error.
//!
//! A log line must never block the session: if nobody drains standard error and its pipe is full,
//! the line is dropped.

use std::io;
use std::panic;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use runner_protocol::ExitCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::os;

/// The longest line, in bytes: a pipe that polls as writable has room for at least this much
/// (PIPE_BUF, pipe(7)), so the write does not block.
const MAX_LINE: usize = 4096;

/// One writer at a time, so that lines do not mix and the poll stays true for the write after it.
static LINE: Mutex<()> = Mutex::new(());

/// Logs something that went as it should.
pub(crate) fn info(message: &str, detail: &str) {
    write("info", message, detail);
}

/// Logs something that did not.
pub(crate) fn error(message: &str, detail: &str) {
    write("error", message, detail);
}

/// Milliseconds since the Unix epoch by the host's clock; 0 if that is set before it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Makes a panic a log line and an exit status.
pub(crate) fn install_panic_hook() {
    panic::set_hook(Box::new(|panic| {
        write("error", "bug: the runner panicked", &panic.to_string());
        os::exit(ExitCode::Bug);
    }));
}

fn write(level: &str, message: &str, detail: &str) {
    // Escapes may make six bytes of one; the rest of the line is short.
    let cut = detail.char_indices().nth(MAX_LINE / 8).map_or(detail.len(), |(index, _)| index);
    let detail = detail.get(..cut).unwrap_or_default();
    let line = line(unix_ms(), level, message, detail);
    let _guard = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let stderr = io::stderr();
    let mut waiting = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let writable = poll(&mut waiting, Some(&now)).is_ok_and(|ready| ready == 1)
        && waiting.iter().all(|fd| fd.revents().contains(PollFlags::OUT));
    if writable && line.len() <= MAX_LINE {
        // There is nowhere left to report a failure to.
        let _ = rustix::io::write(&stderr, &line);
    }
}

/// One line, written by hand: a serializer for it would be a hundredth of the binary.
fn line(unix_ms: u64, level: &str, message: &str, detail: &str) -> Vec<u8> {
    let mut line = format!("{{\"unix_ms\":{unix_ms}");
    for (name, text) in [("level", level), ("message", message), ("detail", detail)] {
        if name == "detail" && text.is_empty() {
            continue;
        }
        line.push_str(",\"");
        line.push_str(name);
        line.push_str("\":\"");
        for character in text.chars() {
            match character {
                '"' | '\\' => line.extend(['\\', character]),
                // RFC 8259 section 7: these alone must not stand for themselves.
                '\0'..='\x1f' => line.push_str(&format!("\\u{:04x}", u32::from(character))),
                other => line.push(other),
            }
        }
        line.push('"');
    }
    line.push_str("}\n");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let detail = "a \"quoted\" path\\ with\nlines,\ttabs, \u{1b}[31m, \0 and \u{1f4a5}";
        let written = line(7, "error", "x", detail);
        let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(read["unix_ms"], 7);
        assert_eq!((&read["level"], &read["message"]), (&"error".into(), &"x".into()));
        assert_eq!(read["detail"], detail);
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(!String::from_utf8(line(7, "info", "x", "")).unwrap().contains("detail"));
    }
}

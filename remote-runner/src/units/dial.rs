//! The unit `dial`: a Unix socket of the host through the session, with a window for each
//! direction, so that neither end ever holds more than [`WINDOW_BYTES`] of the other's.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use runner_protocol::relay::{MAX_CHUNK_BYTES, WINDOW_BYTES};
use runner_protocol::{RelayEvent, Reply, Round, StreamBytes};

use super::{Replier, Request, Stop, UnitEvent};

/// Connects and passes bytes on until released or cancelled.
pub(super) fn run(request: &Request, socket: &str) -> Result<(), Stop> {
    if !Path::new(socket).is_absolute() {
        return Err(Stop::failed("socket", "a socket needs an absolute path"));
    }
    let failed = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => "socket_denied",
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "socket_missing",
            _ => "socket",
        };
        Stop::failed(code, format!("{socket}: {error}"))
    };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    let reader = stream.try_clone().map_err(failed)?;
    request.reply(Reply::Relay(RelayEvent::Connected {}))?;
    let credit = Arc::new(Credit::new(WINDOW_BYTES));
    let replier = request.replier();
    thread::Builder::new()
        .name("socket".into())
        .spawn({
            let credit = Arc::clone(&credit);
            move || read(reader, &replier, &credit)
        })
        .map_err(failed)?;
    let ended = write(request, &stream, &credit);
    // Whichever way it ended, the reader ends too.
    credit.close();
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Both);
    ended
}

/// Passes on what the orchestrator sends.
fn write(request: &Request, mut stream: &UnixStream, credit: &Credit) -> Result<(), Stop> {
    loop {
        match request.events.recv() {
            Ok(UnitEvent::Round(Round::Send { bytes })) => {
                // A peer that takes nothing more says so at the other direction's end.
                if stream.write_all(&bytes.0).is_err() {
                    continue;
                }
                let bytes = u32::try_from(bytes.0.len()).unwrap_or(u32::MAX);
                request.reply(Reply::Relay(RelayEvent::Grant { bytes }))?;
            }
            Ok(UnitEvent::Round(Round::Grant { bytes })) => credit.add(bytes),
            Ok(UnitEvent::Round(Round::End {})) => {
                let _ = stream.shutdown(Shutdown::Write);
            }
            Ok(UnitEvent::Round(Round::Release {})) => return Ok(()),
            Ok(UnitEvent::Round(round)) => return Err(Stop::unexpected(&round)),
            Ok(UnitEvent::Cancel) | Err(_) => return Err(Stop::Cancelled),
            Ok(UnitEvent::Host(_) | UnitEvent::Child(_) | UnitEvent::ChildEnded) => {}
        }
    }
}

/// Passes on what the socket sends, as far as the orchestrator has room for it.
fn read(mut stream: UnixStream, replier: &Replier, credit: &Credit) {
    let mut chunk = vec![0; MAX_CHUNK_BYTES];
    while let Some(most) = credit.take(MAX_CHUNK_BYTES) {
        let room = chunk.get_mut(..most).unwrap_or_default();
        let length = match stream.read(room) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => break,
        };
        credit.give_back(most.saturating_sub(length));
        if length == 0 {
            continue;
        }
        let bytes = StreamBytes(chunk.get(..length).unwrap_or_default().to_vec());
        if replier.reply(Reply::Relay(RelayEvent::Data { bytes })).is_err() {
            return;
        }
    }
    // A message without content is always encoded; the writer is gone only with the session.
    let _ = replier.reply(Reply::Relay(RelayEvent::End {}));
}

/// Bytes that may still be sent.
struct Credit {
    left: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Credit {
    fn new(bytes: u32) -> Self {
        Self { left: Mutex::new(Some(u64::from(bytes))), changed: Condvar::new() }
    }

    fn add(&self, bytes: u32) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.map(|left| left.saturating_add(u64::from(bytes)));
        self.changed.notify_all();
    }

    /// Ends every wait.
    fn close(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_all();
    }

    /// Waits for credit and takes at most so much of it. `None` once closed.
    fn take(&self, most: usize) -> Option<usize> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *left {
                None => return None,
                Some(0) => {
                    left = self.changed.wait(left).unwrap_or_else(PoisonError::into_inner);
                }
                Some(some) => {
                    let taken = usize::try_from(some).unwrap_or(usize::MAX).min(most);
                    *left = Some(some.saturating_sub(taken as u64));
                    return Some(taken);
                }
            }
        }
    }

    /// Gives back what was taken and not used.
    fn give_back(&self, bytes: usize) {
        self.add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_taken_waited_for_and_closed() {
        let credit = Arc::new(Credit::new(10));
        assert_eq!(credit.take(4), Some(4));
        assert_eq!(credit.take(100), Some(6));
        let waiting = thread::spawn({
            let credit = Arc::clone(&credit);
            move || (credit.take(3), credit.take(3))
        });
        credit.add(3);
        credit.close();
        // Closed before or after the first take: never a wait without end.
        assert!(matches!(waiting.join().unwrap(), (Some(3) | None, None)));
    }
}

//! Standard output: the magic line, then frames.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;

use runner_protocol::MAGIC;
use rustix::io::Errno;

use super::Event;

/// Starts the writer. It ends when every sender of frames is gone, or standard output is.
pub(super) fn start(frames: Receiver<Vec<u8>>, events: SyncSender<Event>) -> io::Result<()> {
    thread::Builder::new().name("stdout".into()).spawn(move || {
        let written = write_all(MAGIC.as_bytes())
            .and_then(|()| frames.iter().try_for_each(|frame| write_all(&frame)));
        // The main thread is gone only when the process is.
        let _ = events.send(match written {
            Ok(()) => Event::Drained,
            Err(_) => Event::StdoutClosed,
        });
    })?;
    Ok(())
}

/// Writes without the standard library's buffer and its lock.
fn write_all(mut bytes: &[u8]) -> Result<(), Errno> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(&stdout, bytes) {
            Ok(0) => return Err(Errno::PIPE),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

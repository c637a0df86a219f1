//! Standard input: bytes to messages.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;

use runner_protocol::{FrameDecoder, FrameError, decode};
use rustix::io::Errno;

use super::Event;

/// How much is read at once, in bytes: requests are far smaller.
const CHUNK: usize = 16 * 1024;

/// Starts the reader. It ends with the stream.
pub(super) fn start(events: SyncSender<Event>) -> io::Result<()> {
    thread::Builder::new().name("stdin".into()).spawn(move || {
        // The main thread is gone only when the process is.
        let _ = events.send(match read(&events) {
            Ok(()) => Event::StdinClosed,
            Err(error) => Event::StdinBroken(error.to_string()),
        });
    })?;
    Ok(())
}

/// Sends each message until the stream ends. A stream that ends inside a frame, or in a read
/// error, has ended: its peer is gone.
fn read(events: &SyncSender<Event>) -> Result<(), FrameError> {
    let stdin = io::stdin();
    let mut decoder = FrameDecoder::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match rustix::io::read(&stdin, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(_) => return Ok(()),
        };
        let mut bytes = chunk.get(..length).unwrap_or_default();
        while let Some(body) = decoder.push(&mut bytes)? {
            if events.send(Event::Message(decode(&body)?)).is_err() {
                return Ok(());
            }
        }
    }
}

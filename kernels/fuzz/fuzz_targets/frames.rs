//! The byte stream of either direction: no panic, and the same frames however it is cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner_protocol::{FrameDecoder, FromRunner, MagicScanner, ToRunner, decode};

fn frames(stream: &[u8], read: usize) -> Vec<Vec<u8>> {
    let mut decoder = FrameDecoder::new();
    let mut found = Vec::new();
    for mut piece in stream.chunks(read) {
        loop {
            match decoder.push(&mut piece) {
                Ok(Some(body)) => found.push(body),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fuzz_target!(|input: (u8, &[u8])| {
    let (read, stream) = input;
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(whole, frames(stream, usize::from(read).max(1)));
    for body in whole {
        let _ = decode::<ToRunner>(&body);
        let _ = decode::<FromRunner>(&body);
    }
    let _ = MagicScanner::new().push(&mut &*stream);
});

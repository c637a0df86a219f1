//! What a runner that lies writes to its stdout.

use runner_protocol::message::Progress;
use runner_protocol::{
    FromRunner, Hello, MAGIC, MAX_FRAME_BYTES, Outcome, PROTOCOL_VERSION, RequestId, encode_frame,
};

/// An honest start of a session: the magic line and a hello of the protocol version.
pub fn opening() -> Vec<u8> {
    [MAGIC.as_bytes(), &frame(&FromRunner::Hello(hello(PROTOCOL_VERSION)))].concat()
}

/// A hello of a later protocol version.
pub fn another_protocol_version() -> Vec<u8> {
    [MAGIC.as_bytes(), &frame(&FromRunner::Hello(hello(PROTOCOL_VERSION + 1)))].concat()
}

/// The magic line of another runner.
pub fn another_magic() -> Vec<u8> {
    [b"remote-runner 2\n".as_slice(), &opening()[MAGIC.len()..]].concat()
}

/// More noise than a login shell may make, then an honest start.
pub fn noise(bytes: usize) -> Vec<u8> {
    [b"motd\n".repeat(bytes.div_ceil(5)), opening()].concat()
}

/// A second hello in the middle of a session.
pub fn hello_twice() -> Vec<u8> {
    [opening(), opening()[MAGIC.len()..].to_vec()].concat()
}

/// A frame that announces 4 GiB less one byte.
pub fn four_gibibytes() -> Vec<u8> {
    announcing(u32::MAX, b"")
}

/// A frame that announces the largest length allowed and holds ten bytes of it.
pub fn cut_short() -> Vec<u8> {
    announcing(u32::try_from(MAX_FRAME_BYTES).unwrap(), &[0xa1; 10])
}

/// A frame that announces nothing.
pub fn empty() -> Vec<u8> {
    announcing(0, b"")
}

/// A frame that is no CBOR map.
pub fn not_a_map() -> Vec<u8> {
    announcing(5, b"\x64nope")
}

/// A frame whose CBOR breaks off inside.
pub fn broken_cbor() -> Vec<u8> {
    announcing(8, b"\xa1\x65hello\xbf")
}

/// A frame of deeply nested CBOR, to exhaust a parser's stack.
pub fn nested_cbor() -> Vec<u8> {
    let body = [b"\xa1\x65later".as_slice(), &vec![0x81; 1 << 20], &[0xf6]].concat();
    announcing(u32::try_from(body.len()).unwrap(), &body)
}

/// A message that nobody has heard of.
pub fn unknown_message() -> Vec<u8> {
    announcing(8, b"\xa1\x65later\xa0")
}

/// Progress and an end for requests that were never made.
pub fn unknown_ids(id: RequestId) -> Vec<u8> {
    let other = RequestId(id.0 ^ u64::MAX);
    [progress(other), finished(other)].concat()
}

/// The end of a request, twice.
pub fn finished_twice(id: RequestId) -> Vec<u8> {
    [finished(id), finished(id)].concat()
}

/// Progress of a request after its end.
pub fn progress_after_the_end(id: RequestId) -> Vec<u8> {
    [finished(id), progress(id)].concat()
}

/// Progress of a request that never ends.
pub fn never_finished(id: RequestId) -> Vec<u8> {
    progress(id)
}

/// The end of a request that brought no reply.
pub fn finished_without_reply(id: RequestId) -> Vec<u8> {
    finished(id)
}

/// A failure whose words would drive a terminal.
pub fn failure_with_escapes(id: RequestId) -> Vec<u8> {
    let message = String::from_utf8_lossy(super::script::ESCAPES).into_owned();
    let code = "\u{1b}]0;owned\u{7}".to_owned();
    frame(&FromRunner::Finished { id, outcome: Outcome::Failed { code, message } })
}

/// The end of a request, honestly.
pub fn finished(id: RequestId) -> Vec<u8> {
    frame(&FromRunner::Finished { id, outcome: Outcome::Ok {} })
}

fn progress(id: RequestId) -> Vec<u8> {
    let stage = "probing".to_owned();
    frame(&FromRunner::Progress(Progress { id, stage, done: 1, total: 2 }))
}

fn hello(protocol_version: u32) -> Hello {
    Hello {
        protocol_version,
        build: "0".repeat(64),
        runner_version: "0.1.0".into(),
        capabilities: vec!["facts".into(), "health".into()],
        pid: 1,
        boot_id: "00000000-0000-0000-0000-000000000000".into(),
    }
}

fn frame(message: &FromRunner) -> Vec<u8> {
    encode_frame(message).unwrap()
}

/// An honest start, then a length and a body that need not fit each other.
fn announcing(length: u32, body: &[u8]) -> Vec<u8> {
    [opening().as_slice(), &length.to_le_bytes(), body].concat()
}

//! What commands on a hostile host do.

use std::net::Shutdown;
use std::process::Stdio;
use std::sync::Arc;

use runner_protocol::FrameDecoder;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::{Act, Seen, Stream, next_message, next_request};

/// Lines on stdout without end.
pub fn endless_stdout() -> Vec<Act> {
    vec![Act::Repeat(Stream::Out, b"all is well\n".repeat(1000), u64::MAX)]
}

/// Lines on stderr without end.
pub fn endless_stderr() -> Vec<Act> {
    vec![Act::Repeat(Stream::Err, b"all is well\n".repeat(1000), u64::MAX)]
}

/// One line of 1 GiB that has no newline, then success.
pub fn gibibyte_line() -> Vec<Act> {
    line_of(1 << 30)
}

/// One line of `bytes` (rounded down to 32 KiB) that has no newline, then success.
pub fn line_of(bytes: u64) -> Vec<Act> {
    vec![
        Act::Repeat(Stream::Out, vec![b'a'; 32 << 10], bytes >> 15),
        Act::Exit(0),
        Act::Eof,
        Act::Close,
    ]
}

/// Every way for bytes not to be UTF-8, on both streams, then success.
pub fn invalid_utf8() -> Vec<Act> {
    let bytes = [
        b"lone continuation \x80, overlong \xc0\xaf, surrogate \xed\xa0\x80, ".as_slice(),
        b"over U+10FFFF \xf4\x90\x80\x80, never valid \xff\xfe, cut short \xe2\x82\n",
    ]
    .concat();
    prints_and_succeeds(bytes)
}

/// Text that would retitle, clear or answer for the operator's terminal, on both streams.
pub fn escape_sequences() -> Vec<Act> {
    prints_and_succeeds(ESCAPES.to_vec())
}

/// What [`escape_sequences`] prints: CSI and OSC with both terminators, DCS, a link, the clipboard,
/// a request for an answer, C1 controls as UTF-8, backspaces, a carriage return, a bell, and
/// characters that turn the direction of text.
pub const ESCAPES: &[u8] = b"\x1b[2J\x1b[31mok\x1b[0m \x1b]0;owned\x07 \x1b]52;c;cm0gLXJm\x1b\\ \
    \x1b]8;;http://example.invalid\x1b\\link\x1b]8;;\x1b\\ \x1bP+q544e\x1b\\ \x1b[6n \xc2\x9b31m \
    no\x08\x08yes \rhidden\x07 \xe2\x80\xaefdp.exe\n";

/// Nothing, for ever.
pub fn never_answers() -> Vec<Act> {
    vec![Act::Hang]
}

/// The channel closes without output and without a status.
pub fn closes_at_once() -> Vec<Act> {
    vec![Act::Close]
}

/// The TCP connection ends.
pub fn cuts_at_once() -> Vec<Act> {
    vec![Act::Cut]
}

/// A status and nothing else.
pub fn status_without_output(status: u32) -> Vec<Act> {
    vec![Act::Exit(status), Act::Eof, Act::Close]
}

/// Output and no status.
pub fn output_without_status() -> Vec<Act> {
    vec![Act::Write(Stream::Out, b"all is well\n".to_vec()), Act::Eof, Act::Close]
}

/// A status first, output only then.
pub fn status_before_output() -> Vec<Act> {
    vec![Act::Exit(0), Act::Write(Stream::Out, b"late\n".to_vec()), Act::Eof, Act::Close]
}

/// A runner that says these bytes (see [`super::frames`]) and then waits.
pub fn runner(bytes: Vec<u8>) -> Vec<Act> {
    vec![Act::Write(Stream::Out, bytes), Act::Hang]
}

/// A runner that says these bytes and is gone.
pub fn dying_runner(bytes: Vec<u8>) -> Vec<Act> {
    vec![Act::Write(Stream::Out, bytes), Act::Killed, Act::Eof, Act::Close]
}

/// A runner that opens the session well and meets the first request with these bytes.
pub fn runner_replying(reply: fn(runner_protocol::RequestId) -> Vec<u8>) -> Vec<Act> {
    vec![Act::Write(Stream::Out, super::frames::opening()), Act::Reply(reply), Act::Hang]
}

fn prints_and_succeeds(bytes: Vec<u8>) -> Vec<Act> {
    vec![
        Act::Write(Stream::Out, bytes.clone()),
        Act::Write(Stream::Err, bytes),
        Act::Exit(0),
        Act::Eof,
        Act::Close,
    ]
}

/// A command that is being acted.
pub(super) struct Running {
    pub(super) line: Vec<u8>,
    pub(super) acts: Vec<Act>,
    pub(super) writer: ChannelWriteHalf<Msg>,
    pub(super) session: Handle,
    pub(super) stdin: mpsc::UnboundedReceiver<Vec<u8>>,
    pub(super) record: watch::Sender<Seen>,
    pub(super) cut: Arc<std::net::TcpStream>,
}

impl Running {
    /// Acts until the end of the script, or until the client is gone.
    pub(super) async fn run(mut self) {
        let mut decoder = FrameDecoder::new();
        let mut unread = Vec::new();
        for act in std::mem::take(&mut self.acts) {
            let done = match act {
                Act::Write(stream, bytes) => self.write(stream, &bytes).await,
                Act::Repeat(stream, bytes, count) => self.repeat(stream, &bytes, count).await,
                Act::Reply(reply) => {
                    match next_request(&mut self.stdin, &mut decoder, &mut unread).await {
                        Some(id) => self.write(Stream::Out, &reply(id)).await,
                        None => Err(()),
                    }
                }
                Act::Talk(begin) => {
                    let mut answer = begin();
                    let mut said = Ok(());
                    while let Some(message) =
                        next_message(&mut self.stdin, &mut decoder, &mut unread).await
                    {
                        said = self.write(Stream::Out, &answer(message)).await;
                        if said.is_err() {
                            break;
                        }
                    }
                    said
                }
                Act::ReadAll => {
                    while self.stdin.recv().await.is_some() {}
                    Ok(())
                }
                Act::Run(home) => self.run_for_real(&home).await,
                Act::Exit(status) => self.writer.exit_status(status).await.map_err(drop),
                Act::Killed => {
                    let (id, none) = (self.writer.id(), String::new());
                    self.session.exit_signal_request(id, Sig::KILL, false, none.clone(), none).await
                }
                Act::Eof => self.writer.eof().await.map_err(drop),
                Act::Close => self.writer.close().await.map_err(drop),
                Act::Cut => self.cut.shutdown(Shutdown::Both).map_err(drop),
                Act::Hang => std::future::pending().await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn write(&self, stream: Stream, bytes: &[u8]) -> Result<(), ()> {
        send(&self.writer, &self.record, stream, bytes).await
    }

    async fn repeat(&self, stream: Stream, bytes: &[u8], count: u64) -> Result<(), ()> {
        for _ in 0..count {
            self.write(stream, bytes).await?;
        }
        Ok(())
    }

    async fn run_for_real(&mut self, home: &std::path::Path) -> Result<(), ()> {
        let line = String::from_utf8(self.line.clone()).unwrap();
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", &line])
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stdin = &mut self.stdin;
        let input = async {
            while let Some(bytes) = stdin.recv().await {
                if pipe.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(pipe);
            std::future::pending::<()>().await;
        };
        let (writer, record) = (&self.writer, &self.record);
        let output = async {
            tokio::join!(
                copy(out, writer, record, Stream::Out),
                copy(err, writer, record, Stream::Err)
            );
        };
        // Cancel safe: stdin matters to nobody once the output has ended.
        tokio::select! {
            () = input => {}
            () = output => {}
        }
        let status = child.wait().await.map_err(drop)?;
        let code = u32::try_from(status.code().unwrap_or(255)).unwrap();
        self.writer.exit_status(code).await.map_err(drop)?;
        self.writer.eof().await.map_err(drop)?;
        self.writer.close().await.map_err(drop)
    }
}

async fn send(
    writer: &ChannelWriteHalf<Msg>,
    record: &watch::Sender<Seen>,
    stream: Stream,
    bytes: &[u8],
) -> Result<(), ()> {
    let sent = match stream {
        Stream::Out => writer.data_bytes(bytes.to_vec()).await,
        Stream::Err => writer.extended_data_bytes(1, bytes.to_vec()).await,
    };
    sent.map_err(drop)?;
    record.send_modify(|seen| seen.output_bytes += bytes.len() as u64);
    Ok(())
}

async fn copy(
    mut pipe: impl AsyncRead + Unpin,
    writer: &ChannelWriteHalf<Msg>,
    record: &watch::Sender<Seen>,
    stream: Stream,
) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        if send(writer, record, stream, &buffer[..read]).await.is_err() {
            return;
        }
    }
}

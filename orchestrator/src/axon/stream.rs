//! Answers that come in lines: one JSON object each, the last of them the answer itself.
//!
//! A caller that accepts [`KIND`] gets every line as it comes; `Dendrite`, and whoever does not ask for
//! it, gets all of them in one answer, under `events`. The work has a task of its own, which ends
//! when the work does, when its time is over, or when the caller has gone; then it sees to it that the
//! last line is taken, or the connection cut. So nobody holds a session longer by reading slowly.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Built, Refusal};
use super::routes::{Answer, Call};

/// What a stream of lines is called.
pub const KIND: &str = "application/x-ndjson";

/// Lines that may wait for the caller to read: who is slower makes the work wait.
const WAITING_LINES: usize = 16;

/// The most lines of an answer that is gathered.
const MOST_LINES: usize = 4096;

/// The caller takes no more lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller takes no more lines")]
pub struct Gone;

/// Where a handler says its lines.
#[derive(Debug, Clone)]
pub struct Lines(mpsc::Sender<Map<String, Value>>);

impl Lines {
    /// Says a line; waits while the caller has many to read.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn say(&self, line: Map<String, Value>) -> Result<(), Gone> {
        self.0.send(line).await.map_err(|_| Gone)
    }
}

/// Whether a caller wants lines as they come.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|text| text.split(',')).any(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(KIND)
    })
}

/// A call whose answer comes in lines.
pub struct Streamed<'h> {
    pub handler: &'h (dyn Fn(Call, Lines) -> BoxFuture<'static, Answer> + Send + Sync),
    pub call: Call,
    pub patience: Duration,
}

/// What a stream that has begun holds on to.
pub struct Begun<'t> {
    pub tasks: &'t TaskTracker,
    pub session: OwnedSemaphorePermit,
    pub cut: CancellationToken,
    /// For what is left of the stream to be taken when its time is over.
    pub rest: Duration,
}

impl Streamed<'_> {
    fn start(self) -> (BoxFuture<'static, Answer>, mpsc::Receiver<Map<String, Value>>) {
        let (sender, lines) = mpsc::channel(WAITING_LINES);
        let work = (self.handler)(self.call, Lines(sender));
        let timed = async move {
            let answer = tokio::time::timeout(self.patience, work).await;
            answer.unwrap_or_else(|_| Err(Refusal::too_slow()))
        };
        (Box::pin(timed), lines)
    }

    /// All lines and the answer at once.
    pub async fn gathered(self) -> Answer {
        let (mut work, mut lines) = self.start();
        let mut events = Vec::new();
        let answer = loop {
            // Cancel safety: the work is kept, and a line is taken or stays.
            tokio::select! {
                biased;
                Some(line) = lines.recv() => {
                    if events.len() >= MOST_LINES {
                        return Err(too_many());
                    }
                    events.push(Value::Object(line));
                }
                answer = &mut work => break answer,
            }
        };
        // The work has ended, and its end of the channel with it.
        drop(work);
        while let Some(line) = lines.recv().await {
            events.push(Value::Object(line));
        }
        let mut answer = answer?;
        answer.insert("events".to_owned(), Value::Array(events));
        Ok(answer)
    }

    /// The answer as a stream. One that fails before its first line is an ordinary refusal.
    pub async fn begin(self, begun: Begun<'_>) -> Result<Built, Refusal> {
        let patience = self.patience;
        let (mut work, mut lines) = self.start();
        // Cancel safety: nothing is lost when the caller has gone.
        let (first, ended) = tokio::select! {
            biased;
            Some(line) = lines.recv() => (line, None),
            // What it said in its last breath comes before the answer.
            answer = &mut work => match lines.try_recv() {
                Ok(line) => (line, Some(answer)),
                Err(_) => return answer.map(only_line),
            },
        };
        let (sender, bytes) = mpsc::channel(1);
        let relay = Relay { lines, bytes: sender, first };
        let Begun { tasks, session, cut, rest } = begun;
        tasks.spawn(async move {
            let bytes = relay.bytes.clone();
            let whole = async {
                // Cancel safety: who has gone needs no answer, and the work is dropped whole.
                tokio::select! {
                    () = relay.run(work, ended) => {}
                    () = bytes.closed() => {}
                }
                // The body is dropped when its last line was taken.
                bytes.closed().await;
            };
            if tokio::time::timeout(patience + rest, whole).await.is_err() {
                cut.cancel();
            }
            drop(session);
        });
        Ok(response(bytes))
    }
}

/// Passes lines on.
struct Relay {
    lines: mpsc::Receiver<Map<String, Value>>,
    bytes: mpsc::Sender<Option<Bytes>>,
    first: Map<String, Value>,
}

impl Relay {
    async fn run(self, work: BoxFuture<'static, Answer>, ended: Option<Answer>) {
        let Self { mut lines, bytes, first } = self;
        let pass = async {
            let mut next = Some(first);
            while let Some(line) = next {
                if bytes.send(Some(line_of(&line))).await.is_err() {
                    return;
                }
                next = lines.recv().await;
            }
        };
        // Both at once: the work says its lines into a channel that is being emptied, and the channel
        // ends with the work.
        let work = async {
            match ended {
                Some(answer) => answer,
                None => work.await,
            }
        };
        let (answer, ()) = tokio::join!(work, pass);
        let last = answer.unwrap_or_else(|refusal| error_of(&refusal));
        if bytes.send(Some(line_of(&last))).await.is_ok() {
            let _gone = bytes.send(None).await;
        }
    }
}

fn response(bytes: mpsc::Receiver<Option<Bytes>>) -> Built {
    let frames = stream::unfold(bytes, |mut bytes| async move {
        let next = bytes.recv().await.flatten()?;
        Some((Ok::<_, Infallible>(Frame::data(next)), bytes))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(KIND));
    response
}

fn only_line(answer: Map<String, Value>) -> Built {
    let (sender, bytes) = mpsc::channel(2);
    // There is room for both.
    let _room = sender.try_send(Some(line_of(&answer)));
    response(bytes)
}

fn line_of(line: &Map<String, Value>) -> Bytes {
    let mut text = json!(line).to_string();
    text.push('\n');
    Bytes::from(text)
}

/// A refusal when the status has been sent.
fn error_of(refusal: &Refusal) -> Map<String, Value> {
    Map::from_iter([
        ("event".to_owned(), Value::from("error")),
        ("status".to_owned(), Value::from(refusal.status.as_u16())),
        ("code".to_owned(), Value::from(refusal.code)),
        ("detail".to_owned(), Value::from(refusal.detail.as_str())),
    ])
}

fn too_many() -> Refusal {
    let detail = "the answer has more lines than one answer may have";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_those_who_name_it() {
        let wanted = |text: &'static str| {
            is_wanted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(text))]))
        };
        for text in
            [KIND, "application/json, application/X-NDJSON;q=0.5", "a/b,application/x-ndjson"]
        {
            assert!(wanted(text), "{text}");
        }
        for text in ["*/*", "application/json", "application/x-ndjson2", ""] {
            assert!(!wanted(text), "{text}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}

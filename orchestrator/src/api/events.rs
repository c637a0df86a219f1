//! The audit chain: as pages, or as a stream of server-sent events that goes on.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::paging::{Named, Page, Parameters};
use super::{ApiState, Problem, ProblemCode};
use crate::store::Event;

/// How often the chain is looked at for a stream: other processes write to it, too, and nothing
/// tells of that.
const POLL: Duration = Duration::from_millis(500);

/// Events that are read at a time.
const BATCH: i64 = 200;

/// An event as the API shows it.
#[derive(Debug, Serialize)]
struct EventView {
    seq: i64,
    at_ms: i64,
    actor: String,
    kind: String,
    host: Option<String>,
    detail: serde_json::Value,
    hash: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        // What the chain holds was JSON when it was written; damage is `audit verify`'s to find.
        let detail = serde_json::from_str(&event.detail).unwrap_or_default();
        let Event { seq, at_ms, actor, kind, host, hash, .. } = event;
        Self { seq, at_ms, actor, kind, host, detail, hash }
    }
}

/// `GET /api/v1/events`.
pub(super) async fn events(
    State(state): State<ApiState>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let named = Named::read(parameters, &["limit", "after", "host"])?;
    let host = named.host()?;
    let number = |name: &str, text: &str| {
        // As the document has it: no sign, no space, and a number that fits.
        let plain = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|_| plain);
        number.ok_or_else(|| Problem::parameter(name, "must be the number of an event"))
    };
    let after = named.get("after").map(|text| number("after", text)).transpose()?;
    let seen = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let seen = seen.map(|text| number("Last-Event-ID", text)).transpose()?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        let limit = named.limit()?;
        let rows = state
            .store()
            .events_after(after.unwrap_or(0), host.as_ref(), i64::from(limit) + 1)
            .await?;
        let full = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > full;
        let items: Vec<EventView> = rows.into_iter().take(full).map(Into::into).collect();
        let next = items.last().map(|event| event.seq.to_string()).filter(|_| more);
        return Ok(Json(Page { items, next }).into_response());
    }
    // A browser that reconnects says what it has seen; that wins.
    let from = match seen.or(after) {
        Some(seq) => seq,
        None => state.store().last_event().await?,
    };
    let permit = state.0.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(ProblemCode::TooManyStreams, "close one: `max_event_streams` limits them")
    })?;
    let stream = stream::unfold(
        Follow { state, host, seq: from, waiting: Vec::new().into_iter(), _permit: permit },
        Follow::next,
    );
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// One open stream.
struct Follow {
    state: ApiState,
    host: Option<crate::ids::HostName>,
    /// The last event that was read.
    seq: i64,
    waiting: std::vec::IntoIter<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event, once there is one; `None` at the end of the service.
    async fn next(mut self) -> Option<(Result<SseEvent, Infallible>, Self)> {
        loop {
            if let Some(event) = self.waiting.next() {
                let (seq, kind) = (event.seq, event.kind.clone());
                let sent = SseEvent::default().id(seq.to_string()).event(kind);
                // A view of strings and numbers always has a JSON form.
                let sent = sent.json_data(EventView::from(event)).unwrap_or_default();
                return Some((Ok(sent), self));
            }
            let batch = self.state.store().events_after(self.seq, self.host.as_ref(), BATCH).await;
            match batch {
                Ok(batch) if !batch.is_empty() => {
                    self.seq = batch.last().map_or(self.seq, |event| event.seq);
                    self.waiting = batch.into_iter();
                }
                Ok(_) => {
                    // Cancel safety: both are plain waits.
                    tokio::select! {
                        () = tokio::time::sleep(POLL) => {}
                        () = self.state.0.cancel.cancelled() => return None,
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "an event stream ends: the chain cannot be read");
                    return None;
                }
            }
        }
    }
}

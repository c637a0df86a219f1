//! Metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::{ApiState, Problem, ProblemCode};
use crate::config::MetricsConfig;
use crate::host_state::HostState;
use crate::store::{Error, Store, now_ms};

/// What is counted, and the numbers of the database as of the last look.
pub struct Metrics {
    store: Store,
    labels: String,
    max_age: Duration,
    started_ms: i64,
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    /// Held while it is renewed: scrapes at the same time look once.
    gathered: tokio::sync::Mutex<Option<(Instant, String)>>,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(store: Store, config: &MetricsConfig) -> Self {
        let labels = config.default_labels.iter();
        let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        Self {
            store,
            labels: labels.collect::<Vec<_>>().join(","),
            max_age: config.collection_interval,
            started_ms: now_ms(),
            requests: Mutex::default(),
            gathered: tokio::sync::Mutex::default(),
        }
    }

    /// Counts a request that was answered. `route` is one of ours, not what the client wrote.
    pub fn count(&self, method: &str, route: &str, status: u16) {
        // An unknown method is the client's word, and there is no end of those.
        let method = if matches!(method, "GET" | "HEAD" | "POST") { method } else { "other" };
        let key = (method.to_owned(), route.to_owned(), status);
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    async fn text(&self) -> Result<String, Error> {
        let mut gathered = self.gathered.lock().await;
        let database = match gathered.as_ref() {
            Some((at, text)) if at.elapsed() < self.max_age => text.clone(),
            _ => {
                let text = self.gather().await?;
                *gathered = Some((Instant::now(), text.clone()));
                text
            }
        };
        drop(gathered);
        let mut out = Text { out: database, labels: &self.labels };
        for (name, help, value) in crate::metrics::all() {
            out.family(name, "counter", help);
            out.sample(name, "", value);
        }
        if let Some(read_ms) = crate::metrics::METAGRAPH_READ.value() {
            let name = "orchestrator_metagraph_age_seconds";
            out.family(name, "gauge", "How long ago the metagraph that is served was read.");
            out.sample(name, "", now_ms().saturating_sub(read_ms).max(0) / 1000);
        }
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        out.family("orchestrator_http_requests_total", "counter", "Requests to the operator API.");
        for ((method, route, status), count) in requests {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            out.sample("orchestrator_http_requests_total", &labels, count);
        }
        Ok(out.out)
    }

    async fn gather(&self) -> Result<String, Error> {
        let mut out = Text { out: String::new(), labels: &self.labels };
        let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
        out.family("orchestrator_build_info", "gauge", "The version that runs.");
        out.sample("orchestrator_build_info", version, 1);
        let name = "orchestrator_start_time_seconds";
        out.family(name, "gauge", "When the service started, seconds since the Unix epoch.");
        out.sample(name, "", self.started_ms / 1000);
        let hosts = self.store.count_hosts().await?;
        out.family("orchestrator_hosts", "gauge", "Hosts by state.");
        for state in HostState::ALL {
            let count = hosts.iter().find(|(word, _)| word == state.name());
            let labels = format!("state=\"{}\"", state.name());
            out.sample("orchestrator_hosts", &labels, count.map_or(0, |(_, count)| *count));
        }
        let name = "orchestrator_proofs_total";
        out.family(name, "counter", "Proofs of GPUs by outcome.");
        for (outcome, count) in self.store.count_proofs().await? {
            out.sample(name, &format!("outcome=\"{}\"", escaped(&outcome)), count);
        }
        out.family("orchestrator_grants", "gauge", "SSH grants by state.");
        for (state, count) in self.store.count_grants().await? {
            out.sample("orchestrator_grants", &format!("state=\"{}\"", escaped(&state)), count);
        }
        out.family("orchestrator_audit_events_total", "counter", "Events of the audit chain.");
        out.sample("orchestrator_audit_events_total", "", self.store.last_event().await?);
        Ok(out.out)
    }
}

struct Text<'a> {
    out: String,
    labels: &'a str,
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let all: Vec<&str> =
            [labels, self.labels].into_iter().filter(|labels| !labels.is_empty()).collect();
        let _infallible = match all.is_empty() {
            true => writeln!(self.out, "{name} {value}"),
            false => writeln!(self.out, "{name}{{{}}} {value}", all.join(",")),
        };
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `GET /metrics`.
pub(super) async fn scrape(State(state): State<ApiState>) -> Result<Response, Problem> {
    let metrics =
        state.0.metrics.as_ref().ok_or_else(|| {
            Problem::new(ProblemCode::NotFound, "`enabled` of [metrics] is false")
        })?;
    let text = metrics.text().await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

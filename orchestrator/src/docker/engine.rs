//! What is asked of an engine.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use runner_protocol::labels;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth::RegistryAuth;
use super::dial::{Dial, Lane};
use super::error::Error;
use super::http::{ANSWER_TIMEOUT, Ask, Http, Opened};
use super::image::ImageName;
use super::model::{ContainerSummary, Created, Info, Inspected, PullLine, Version, Waited};
use super::output::Output;
use super::plan::RuledPlan;
use crate::printable::printable;

/// The version of the API that this is written for: Docker Engine 25 and later have it. An engine
/// that is older is asked in its own.
const API_VERSION: (u32, u32) = (1, 44);

/// Between two lines of a pull: extracting a layer of many gigabytes on a slow disk says nothing
/// for minutes.
const PULL_STALL: Duration = Duration::from_secs(600);

/// The longest line of a pull, in bytes.
const MAX_PULL_LINE: usize = 256 * 1024;

/// Beyond the grace time, for the engine to kill and clean up.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// A client of one engine.
pub struct Engine {
    http: Http,
    prefix: String,
}

/// Which part of a container's log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Whether to wait for more.
    pub follow: bool,
    /// From when, seconds since the Unix epoch.
    pub since_secs: Option<i64>,
    /// How many of the last lines; `None` is all.
    pub tail: Option<u64>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Layers that are spoken of.
    pub layers: usize,
    /// Layers that are complete.
    pub complete: usize,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// Bytes in all, as far as is known.
    pub total_bytes: u64,
}

impl Engine {
    /// Asks the engine for its version, and is ready.
    ///
    /// # Errors
    /// It is not reached, or does not answer as an engine does.
    pub async fn connect(dial: Arc<dyn Dial>) -> Result<Self, Error> {
        let operation = "ask the engine for its version";
        let http = Http::new(dial);
        let ask = Ask::new(operation, "GET", "/version".to_owned());
        let answer = http.succeed(ask, ANSWER_TIMEOUT).await?;
        let version: Version = read(operation, &answer)?;
        let theirs = number(&version.api_version).ok_or_else(|| Error::Answer {
            operation,
            detail: format!("version {:?}", printable(&version.api_version)),
        })?;
        let least = number(&version.min_api_version).unwrap_or((0, 0));
        let (major, minor) = theirs.min(API_VERSION).max(least);
        Ok(Self { http, prefix: format!("/v{major}.{minor}") })
    }

    /// The containers of `owner`, running or not.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn list(&self, owner: &str) -> Result<Vec<ContainerSummary>, Error> {
        let operation = "list containers";
        let filters = json!({ "label": [format!("{}={owner}", labels::OWNER)] }).to_string();
        let path = format!("{}/containers/json?all=true&filters={}", self.prefix, escape(&filters));
        let answer = self.http.succeed(Ask::new(operation, "GET", path), ANSWER_TIMEOUT).await?;
        let mut all: Vec<ContainerSummary> = read(operation, &answer)?;
        // Not left to the engine: what is not ours is not touched.
        all.retain(|one| {
            one.labels.get(labels::OWNER).is_some_and(|label| label == owner) && is_id(&one.id)
        });
        Ok(all)
    }

    /// Looks at a container.
    ///
    /// # Errors
    /// The engine failed, or there is no such container.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        read("find the container", &self.inspect_bytes(id).await?)
    }

    /// All that the engine knows of a container.
    ///
    /// # Errors
    /// As [`Engine::inspect`].
    pub async fn inspect_whole(&self, id: &str) -> Result<Value, Error> {
        read("find the container", &self.inspect_bytes(id).await?)
    }

    async fn inspect_bytes(&self, id: &str) -> Result<Bytes, Error> {
        let operation = "find the container";
        let path = self.path(operation, id, "/json")?;
        self.http.succeed(Ask::new(operation, "GET", path), ANSWER_TIMEOUT).await
    }

    /// Whether limits of memory and processors hold. An engine without control groups takes them
    /// and says nothing.
    async fn holds_limits(&self) -> Result<(), Error> {
        let operation = "ask the engine how it is set up";
        let ask = Ask::new(operation, "GET", format!("{}/info", self.prefix));
        let answer = self.http.succeed(ask, ANSWER_TIMEOUT).await?;
        match read::<Info>(operation, &answer)?.cgroup_driver.as_deref() {
            Some("none") => Err(Error::NoControlGroups),
            _ => Ok(()),
        }
    }

    /// Creates a container and returns its id. It does not run yet.
    ///
    /// # Errors
    /// The engine failed or refused; without the image, [`Error::is_not_found`].
    pub async fn create(
        &self,
        plan: &RuledPlan,
        labels: &BTreeMap<&str, String>,
        gpus: &[String],
    ) -> Result<String, Error> {
        let operation = "create the container";
        let name = match &plan.plan().name {
            Some(name) => format!("?name={}", escape(name)),
            None => String::new(),
        };
        if plan.plan().memory_bytes.is_some() || plan.plan().cpus_milli.is_some() {
            self.holds_limits().await?;
        }
        let path = format!("{}/containers/create{name}", self.prefix);
        let mut ask = Ask::new(operation, "POST", path);
        ask.body = Some(plan.body(labels, gpus).to_string().into());
        // Creating unpacks nothing, and still waits for the storage driver.
        let answer = self.http.succeed(ask, 2 * ANSWER_TIMEOUT).await?;
        let created: Created = read(operation, &answer)?;
        for warning in created.warnings.unwrap_or_default() {
            tracing::warn!(warning = %printable(&warning), "the engine warns");
        }
        if is_id(&created.id) {
            Ok(created.id)
        } else {
            Err(Error::Answer { operation, detail: "no id".to_owned() })
        }
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The engine failed or the container cannot be started.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let operation = "start the container";
        let path = self.path(operation, id, "/start")?;
        // Preparing GPUs takes seconds each.
        self.act(Ask::new(operation, "POST", path), 2 * ANSWER_TIMEOUT).await
    }

    /// TERM, `grace`, KILL. A container that has ended or is gone is as good.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let operation = "stop the container";
        let path = self.path(operation, id, &format!("/stop?t={}", grace.as_secs()))?;
        match self.act(Ask::new(operation, "POST", path), grace + STOP_MARGIN).await {
            Err(error) if error.is_not_found() => Ok(()),
            stopped => stopped,
        }
    }

    /// Removes a container with its anonymous volumes; with `force` also one that runs. One that
    /// is gone, or going, is as good.
    ///
    /// # Errors
    /// The engine failed, or the container runs.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), Error> {
        let operation = "remove the container";
        let path = self.path(operation, id, &format!("?v=true&force={force}"))?;
        match self.act(Ask::new(operation, "DELETE", path), 2 * ANSWER_TIMEOUT).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(Error::Refused { status: 409, message, .. })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            removed => removed,
        }
    }

    /// Waits until a container does not run, however long that takes.
    ///
    /// # Errors
    /// The connection or the engine failed.
    pub async fn wait(&self, id: &str) -> Result<Waited, Error> {
        /// A year: longer than anything waits.
        const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);
        let operation = "wait for the container";
        let path = self.path(operation, id, "/wait?condition=not-running")?;
        let answer = self.http.succeed(Ask::new(operation, "POST", path), NO_LIMIT).await?;
        read(operation, &answer)
    }

    /// The output of a container from now on.
    ///
    /// # Errors
    /// The connection or the engine failed.
    pub async fn attach(&self, id: &str) -> Result<Output, Error> {
        let operation = "attach to the container";
        let path = self.path(operation, id, "/attach?stream=true&stdout=true&stderr=true")?;
        let mut ask = Ask::new(operation, "POST", path);
        ask.headers = vec![("connection", "Upgrade".into()), ("upgrade", "tcp".into())];
        let mut opened = self.http.open(ask, Lane::Output, ANSWER_TIMEOUT).await?;
        if opened.response.status().as_u16() != 101 {
            return Ok(Output::of_body(opened, operation));
        }
        let upgrade = hyper::upgrade::on(opened.response);
        let upgraded = opened.driver.drive(upgrade).await;
        let upgraded = upgraded.map_err(|source| Error::Http { operation, source })?;
        Ok(Output::of_upgraded(upgraded, operation))
    }

    /// What a container has written.
    ///
    /// # Errors
    /// The connection or the engine failed; the container's log driver keeps nothing.
    pub async fn logs(&self, id: &str, query: &LogQuery) -> Result<Output, Error> {
        let operation = "read the log of the container";
        let tail = query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let mut options = format!(
            "/logs?stdout=true&stderr=true&follow={}&timestamps={}&tail={tail}",
            query.follow, query.timestamps
        );
        if let Some(since) = query.since_secs {
            let _always = write!(options, "&since={since}");
        }
        let ask = Ask::new(operation, "GET", self.path(operation, id, &options)?);
        let opened = self.http.open(ask, Lane::Output, ANSWER_TIMEOUT).await?;
        Ok(Output::of_body(opened, operation))
    }

    /// Whether the host has an image.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn has_image(&self, image: &ImageName) -> Result<bool, Error> {
        let operation = "look for the image";
        let ask = Ask::new(operation, "GET", format!("{}/images/{image}/json", self.prefix));
        match self.http.succeed(ask, ANSWER_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// The registry or the engine refused or failed.
    pub async fn pull(
        &self,
        image: &ImageName,
        auth: Option<&RegistryAuth>,
        on_progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), Error> {
        let operation = "pull the image";
        let failed = |message: String| Error::Pull { image: image.to_string(), message };
        let path = format!("{}/images/create?fromImage={}", self.prefix, escape(image.as_str()));
        let mut ask = Ask::new(operation, "POST", path);
        if let Some(auth) = auth {
            ask.headers.push(("x-registry-auth", auth.header().to_owned()));
        }
        // The head comes with the first line, after the registry has answered.
        let Opened { response, mut driver } =
            match self.http.open(ask, Lane::Control, PULL_STALL).await {
                Err(Error::Refused { message, .. }) => return Err(failed(message)),
                opened => opened?,
            };
        let mut body = response.into_body();
        let mut lines = Lines::default();
        let mut layers = Layers::default();
        loop {
            let frame = tokio::time::timeout(PULL_STALL, driver.drive(body.frame())).await;
            let seconds = PULL_STALL.as_secs();
            let frame = frame.map_err(|_| Error::TimedOut { operation, seconds })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|source| Error::Http { operation, source })?;
            let Some(data) = frame.data_ref() else { continue };
            lines.push(data).map_err(|limit| Error::TooLarge { operation, limit })?;
            while let Some(line) = lines.next() {
                let line: PullLine = read(operation, &line)?;
                if let Some(error) = line.error {
                    return Err(failed(printable(&error)));
                }
                layers.note(line);
            }
            on_progress(layers.progress());
        }
        Ok(())
    }

    async fn act(&self, ask: Ask, limit: Duration) -> Result<(), Error> {
        let operation = ask.operation;
        match self.http.ask(ask, limit).await? {
            // 304: it was so already.
            (200..=299 | 304, _) => Ok(()),
            (status, body) => Err(Error::refused(operation, status, &body)),
        }
    }

    fn path(&self, operation: &'static str, id: &str, rest: &str) -> Result<String, Error> {
        if !is_id(id) {
            return Err(Error::Request { operation });
        }
        Ok(format!("{}/containers/{id}{rest}", self.prefix))
    }
}

/// Whether a text is the id of a container, whole.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read<T: DeserializeOwned>(operation: &'static str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Answer { operation, detail: error.to_string() })
}

/// `1.44` as numbers.
fn number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Percent-encoding (RFC 3986) of everything but the unreserved characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _always = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Lines of a stream, each of at most [`MAX_PULL_LINE`].
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), usize> {
        if self.0.len() + bytes.len() > MAX_PULL_LINE && !bytes.contains(&b'\n') {
            return Err(MAX_PULL_LINE);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.0.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.0.drain(..=end).collect();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

/// The layers of a pull. An engine that speaks of more than [`Layers::MOST`] is not followed.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64, bool)>);

impl Layers {
    /// Images have at most 127 layers.
    const MOST: usize = 1_000;

    fn note(&mut self, line: PullLine) {
        let (Some(id), Some(status)) = (line.id, line.status) else { return };
        // The first line names the tag and no layer.
        if status.starts_with("Pulling from")
            || (self.0.len() >= Self::MOST && !self.0.contains_key(&id))
        {
            return;
        }
        let layer = self.0.entry(id).or_default();
        if let (true, Some(progress)) = (status == "Downloading", line.progress) {
            layer.0 = progress.current.unwrap_or(layer.0);
            layer.1 = progress.total.unwrap_or(layer.1);
        }
        if matches!(status.as_str(), "Pull complete" | "Already exists") {
            *layer = (layer.1, layer.1, true);
        }
    }

    fn progress(&self) -> PullProgress {
        let mut progress = PullProgress { layers: self.0.len(), ..PullProgress::default() };
        for (bytes, total, complete) in self.0.values() {
            progress.complete += usize::from(*complete);
            progress.bytes = progress.bytes.saturating_add(*bytes);
            progress.total_bytes = progress.total_bytes.saturating_add(*total);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_and_ids_are_ids() {
        assert_eq!(escape("{\"a\":[\"b=c\"]}"), "%7B%22a%22%3A%5B%22b%3Dc%22%5D%7D");
        assert!(is_id(&"0a".repeat(32)));
        for text in ["", "../x", &"0a".repeat(31), &"0g".repeat(32)] {
            assert!(!is_id(text), "{text}");
        }
    }

    #[test]
    fn the_progress_of_a_pull_is_the_sum_of_its_layers() {
        let mut layers = Layers::default();
        for text in [
            r#"{"status":"Pulling from library/x","id":"latest"}"#,
            r#"{"status":"Downloading","id":"a","progressDetail":{"current":10,"total":100}}"#,
            r#"{"status":"Already exists","id":"b"}"#,
            r#"{"status":"Downloading","id":"c","progressDetail":{"current":5,"total":20}}"#,
            r#"{"status":"Pull complete","id":"c","progressDetail":{}}"#,
            r#"{"status":"Status: Downloaded"}"#,
        ] {
            layers.note(serde_json::from_str(text).unwrap());
        }
        let expected = PullProgress { layers: 3, complete: 2, bytes: 30, total_bytes: 120 };
        assert_eq!(layers.progress(), expected);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(b"{}\n\r\n{\"a\":").unwrap();
        assert_eq!(lines.next().unwrap(), b"{}\n");
        assert_eq!(lines.next(), None);
        assert!(lines.push(&vec![b'x'; MAX_PULL_LINE]).is_err());
    }
}

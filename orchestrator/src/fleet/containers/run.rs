//! Run a container: lease, image, create, start, and for one in the foreground its whole life.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::choose::Wish;
use super::error::ContainerError;
use super::host::HostEngine;
use super::reconcile::reconcile;
use crate::docker::{
    self, ContainerPlan, ImageName, Output, OutputStream, PullProgress, RegistryAuth, RuledPlan,
    State, labels,
};
use crate::error_chain::causes;
use crate::fleet::link::Fleet;
use crate::host_spec::HostSpec;
use crate::ids::HostName;
use crate::metrics;
use crate::printable::printable;
use crate::runner::{Artifact, HoldEnd};
use crate::store::{Lease, LeaseError, LeaseKind, NewEvent, NewLease, Store, now_ms};

/// How long a lease lives without renewal while its holder works. Longer than the runner's own,
/// so that the container is gone when the lease is overdue.
const LEASE: Duration = Duration::from_secs(60);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(20);

/// How much later than we the runner stops a container whose time is over, so that the two do not
/// race while we are alive.
const HOLD_MARGIN: Duration = Duration::from_secs(15);

/// How much of what has come already is written at once, in bytes: more does not make it faster.
const GATHERED_BYTES: usize = 64 * 1024;

/// For output that is still on its way when the container was stopped.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Pull {
    /// If the host does not have it.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the user may choose.
pub struct RunOptions {
    /// What the container shall be.
    pub plan: ContainerPlan,
    /// Its GPUs.
    pub wish: Wish,
    /// When the image is pulled.
    pub pull: Pull,
    /// Credentials of the image's registry.
    pub auth: Option<RegistryAuth>,
    /// Between TERM and KILL.
    pub grace: Duration,
    /// The validator that it is run for.
    pub client: Option<Client>,
}

/// Somebody else than the operator, for whom a container runs.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its hotkey.
    pub hotkey: String,
    /// How long the container is kept after its time.
    pub keep: Duration,
}

/// Where a container's output goes.
pub trait Sink: Send {
    /// Takes some output. What follows is not read before this has returned.
    fn write(&mut self, stream: OutputStream, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;
}

/// What a run is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// Reaching the host and its engine.
    Connecting(HostName),
    /// Pulling the image.
    Pulling(PullProgress),
    /// It runs.
    Started(Started),
    /// It is being stopped, and why.
    Stopping(Stop),
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The user wants it.
    Interrupted,
    /// Its time is over.
    TimedOut,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The host.
    pub host: HostName,
    /// Our id: that of its lease.
    pub id: String,
    /// The engine's id.
    pub container: String,
    /// The UUIDs of its GPUs.
    pub gpus: Vec<String>,
    /// When it must have ended.
    pub deadline_ms: Option<i64>,
}

/// A container that has ended, or that runs on by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The container.
    pub started: Started,
    /// Its exit code; `None` while it runs on.
    pub exit_code: Option<i64>,
    /// How the engine says that it ended.
    pub state: Option<State>,
    /// Why it was stopped, if it was.
    pub stopped: Option<Stop>,
    /// From its start to its end.
    pub elapsed: Duration,
}

/// Runs a container on a host. Without a `sink` it is detached: this returns once it runs.
///
/// # Errors
/// It did not run, or what became of it is not known. A container's own exit code is no error.
///
/// # Cancel safety
/// When `cancel` fires the container is stopped: TERM, the grace time, KILL. Dropping the future
/// ends the session that holds a container in the foreground, and the runner stops it; the lease
/// lapses, and the next contact with the host clears up.
pub async fn run(
    fleet: &Arc<Fleet>,
    spec: &HostSpec,
    artifact: Option<Arc<Artifact>>,
    options: &RunOptions,
    sink: Option<&mut dyn Sink>,
    on_event: &(dyn Fn(RunEvent) + Sync),
    cancel: &CancellationToken,
) -> Result<Ended, ContainerError> {
    let ruled = options.plan.under(&spec.containers)?;
    on_event(RunEvent::Connecting(spec.name.clone()));
    let open = HostEngine::open(fleet, spec, artifact);
    let host = unless_cancelled(cancel, open).await??;
    let attempt = Attempt { fleet, host: &host, ruled: &ruled, options, on_event, cancel };
    let foreground = sink.is_some();
    let mut attempt = pin!(attempt.run(sink));
    // Its output has a connection of its own, which is made while the container is. Cancel safe:
    // the attempt is kept, and makes the connection itself if this one was given up.
    let ended = tokio::select! {
        biased;
        ended = &mut attempt => ended,
        () = host.prepare_output(), if foreground => attempt.await,
    };
    host.close().await;
    if ended.is_err() {
        metrics::CONTAINERS_FAILED.increment();
    }
    ended
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, ContainerError> {
    // Cancel safety: the work that loses is dropped whole.
    tokio::select! {
        done = work => Ok(done),
        () = cancel.cancelled() => Err(ContainerError::Cancelled),
    }
}

struct Attempt<'a> {
    fleet: &'a Arc<Fleet>,
    host: &'a HostEngine,
    ruled: &'a RuledPlan,
    options: &'a RunOptions,
    on_event: &'a (dyn Fn(RunEvent) + Sync),
    cancel: &'a CancellationToken,
}

/// What a failed attempt leaves on the host.
enum Left {
    Nothing,
    /// A container that may still be running: its lease stays until a later contact.
    Unknown,
}

impl Attempt<'_> {
    async fn run(&self, sink: Option<&mut dyn Sink>) -> Result<Ended, ContainerError> {
        let store = &self.fleet.store;
        let name = &self.host.spec.name;
        reconcile(self.fleet, self.host).await?;
        let facts = store.facts_history(name, 1).await?;
        let gpus = self.options.wish.on(name, facts.first().map(|record| &record.facts))?;
        let expires_ms = Some(in_ms(LEASE));
        let wanted = NewLease { host: name.clone(), kind: LeaseKind::Container, gpus, expires_ms };
        let lease = store.acquire_lease(&self.fleet.actor, &wanted).await.inspect_err(|error| {
            if matches!(error, LeaseError::Held(_) | LeaseError::TooFew { .. }) {
                metrics::LEASES_REFUSED.increment();
            }
        })?;
        let mut heartbeat = JoinSet::new();
        heartbeat.spawn(renew(store.clone(), lease.id.clone()));
        let made = self.with_lease(&lease, sink).await;
        heartbeat.shutdown().await;
        match made {
            Ok(ended) if ended.exit_code.is_none() => {
                store.renew_lease(&lease.id, ended.started.deadline_ms).await?;
                Ok(ended)
            }
            Ok(ended) => {
                self.release(&lease, "the container has ended").await?;
                Ok(ended)
            }
            Err((error, Left::Nothing)) => {
                self.record(&lease, None, "container.failed", &words(&error)).await?;
                self.release(&lease, "the container did not run").await?;
                Err(error)
            }
            Err((error, Left::Unknown)) => {
                self.record(&lease, None, "container.lost", &words(&error)).await?;
                Err(error)
            }
        }
    }

    async fn release(&self, lease: &Lease, why: &str) -> Result<(), ContainerError> {
        self.fleet.store.release_lease(&self.fleet.actor, &lease.id, why).await?;
        Ok(())
    }

    async fn with_lease(
        &self,
        lease: &Lease,
        sink: Option<&mut dyn Sink>,
    ) -> Result<Ended, (ContainerError, Left)> {
        let nothing = |error: ContainerError| (error, Left::Nothing);
        if sink.is_some() && !self.host.has_runner() {
            return Err(nothing(ContainerError::NoRunner));
        }
        unless_cancelled(self.cancel, self.image()).await.map_err(nothing)?.map_err(nothing)?;
        let plan = self.ruled.plan();
        let timeout = plan.timeout_secs.map(Duration::from_secs);
        let deadline_ms = timeout.map(in_ms);
        let owner = self.fleet.store.identity().await.map_err(|error| nothing(error.into()))?;
        let mut marks = labels_of(&owner, lease, plan, deadline_ms);
        if let Some(client) = &self.options.client {
            let keep = client.keep.saturating_add(timeout.unwrap_or_default());
            marks.insert(labels::VALIDATOR, client.hotkey.clone());
            marks.insert(labels::KEEP, in_ms(keep).to_string());
        }
        // Not to be cancelled: a container whose id nobody knows is found by its label alone.
        let created = self.host.engine.create(self.ruled, &marks, &lease.gpus).await;
        let container = match created {
            Err(error) if error.is_not_found() && self.options.pull == Pull::Never => {
                let image = plan.image.to_string();
                return Err(nothing(docker::Error::ImageMissing(image).into()));
            }
            created => created.map_err(|error| nothing(error.into()))?,
        };
        let started = Started {
            host: self.host.spec.name.clone(),
            id: lease.id.clone(),
            container,
            gpus: lease.gpus.clone(),
            deadline_ms,
        };
        let mut ran = false;
        let ended = self.created(lease, &started, timeout, sink, &mut ran).await;
        let cleared = self.clear(&started, ended.is_err(), ran).await;
        if let Err(error) = cleared {
            tracing::warn!(error = %words(&error.into()), "what is left of the container stays");
            return ended.map_err(|error| (error, Left::Unknown));
        }
        ended.map_err(nothing)
    }

    /// Takes away what shall not stay: a container that never ran, and one that was to be removed.
    /// After a failure none is left running.
    async fn clear(&self, started: &Started, failed: bool, ran: bool) -> Result<(), docker::Error> {
        let (engine, plan) = (&self.host.engine, self.ruled.plan());
        if failed && ran {
            engine.stop(&started.container, self.options.grace).await?;
        }
        if (failed && !ran) || (plan.remove && !plan.detached) {
            engine.remove(&started.container, failed).await?;
        }
        Ok(())
    }

    async fn created(
        &self,
        lease: &Lease,
        started: &Started,
        timeout: Option<Duration>,
        sink: Option<&mut dyn Sink>,
        ran: &mut bool,
    ) -> Result<Ended, ContainerError> {
        let engine = &self.host.engine;
        let bound = self.fleet.store.bind_lease(&lease.id, &started.container, Some(in_ms(LEASE)));
        bound.await?;
        if self.cancel.is_cancelled() {
            return Err(ContainerError::Cancelled);
        }
        let Some(sink) = sink else {
            engine.start(&started.container).await?;
            *ran = true;
            self.started(lease, started).await?;
            return Ok(Ended {
                started: started.clone(),
                exit_code: None,
                state: None,
                stopped: None,
                elapsed: Duration::ZERO,
            });
        };
        let plan = self.ruled.plan();
        let held_for = timeout.map(|timeout| timeout + HOLD_MARGIN);
        let grace = self.options.grace;
        let hold = self.host.hold(&started.container, plan.remove, grace, held_for).await?;
        let output = engine.attach(&started.container).await?;
        let began = Instant::now();
        if let Err(error) = engine.start(&started.container).await {
            hold.release().await;
            return Err(error.into());
        }
        *ran = true;
        self.started(lease, started).await?;
        let mut life = Life { attempt: self, lease, started, stopped: None, hold: Some(hold) };
        let exit_code = life.live(output, sink, timeout).await?;
        let (stopped, hold) = (life.stopped, life.hold.take());
        let state = engine.inspect(&started.container).await.ok().map(|found| found.state);
        if let Some(hold) = hold {
            hold.release().await;
        }
        let ended = Ended {
            started: started.clone(),
            exit_code: Some(exit_code),
            state,
            stopped,
            elapsed: began.elapsed(),
        };
        let kind = match stopped {
            None => "container.ended",
            Some(Stop::Interrupted) => "container.stopped",
            Some(Stop::TimedOut) => "container.expired",
        };
        self.record(lease, Some(&started.container), kind, &format!("exit code {exit_code}"))
            .await?;
        Ok(ended)
    }

    async fn started(&self, lease: &Lease, started: &Started) -> Result<(), ContainerError> {
        metrics::CONTAINERS_STARTED.increment();
        let image = self.ruled.plan().image.to_string();
        self.record(lease, Some(&started.container), "container.started", &image).await?;
        (self.on_event)(RunEvent::Started(started.clone()));
        Ok(())
    }

    /// Sees to it that the host has the image.
    async fn image(&self) -> Result<(), ContainerError> {
        let engine = &self.host.engine;
        let image: &ImageName = &self.ruled.plan().image;
        let wanted = match self.options.pull {
            Pull::Always => true,
            Pull::Never => false,
            Pull::Missing => !engine.has_image(image).await?,
        };
        if wanted {
            let mut tell = |progress| (self.on_event)(RunEvent::Pulling(progress));
            tell(PullProgress::default());
            engine.pull(image, self.options.auth.as_ref(), &mut tell).await?;
        }
        Ok(())
    }

    async fn record(
        &self,
        lease: &Lease,
        container: Option<&str>,
        kind: &'static str,
        words: &str,
    ) -> Result<(), ContainerError> {
        let detail = json!({
            "lease": lease.id,
            "container": container,
            "gpus": lease.gpus,
            "image": self.ruled.plan().image.as_str(),
            "words": words,
        });
        let event = NewEvent { kind, host: Some(self.host.spec.name.clone()), detail };
        Ok(self.fleet.store.append_events(&self.fleet.actor, &[event]).await?)
    }
}

/// A container in the foreground, from its start to its end.
struct Life<'a> {
    attempt: &'a Attempt<'a>,
    lease: &'a Lease,
    started: &'a Started,
    stopped: Option<Stop>,
    hold: Option<crate::runner::Hold>,
}

impl Life<'_> {
    /// Passes its output on until it has ended, and returns its exit code.
    async fn live(
        &mut self,
        output: Output,
        sink: &mut dyn Sink,
        timeout: Option<Duration>,
    ) -> Result<i64, ContainerError> {
        let engine = &self.attempt.host.engine;
        let id = self.started.container.as_str();
        let mut hold = self.hold.take();
        let mut pump = pin!(pump(output, sink));
        let mut wait = pin!(engine.wait(id));
        let mut over = pin!(after(timeout));
        let mut late = pin!(after(None));
        let mut stopping: Option<BoxFuture<'_, Result<(), docker::Error>>> = None;
        let (mut pumped, mut hurried, mut exit_code) = (false, false, None);
        let mut broken = None;
        while exit_code.is_none() || !pumped {
            // Cancel safety: every branch is kept, or a plain wait.
            tokio::select! {
                result = &mut pump, if !pumped => {
                    pumped = true;
                    if let Err(error) = result {
                        // Nobody is left to read: as with any program whose pipe is closed.
                        broken = Some(error);
                        if exit_code.is_none() && stopping.is_none() {
                            stopping = Some(engine.stop(id, self.attempt.options.grace).boxed());
                        }
                    }
                }
                result = &mut wait, if exit_code.is_none() => {
                    exit_code = Some(result?.status_code);
                    if self.stopped.is_some() || broken.is_some() {
                        late.set(after(Some(LAST_OUTPUT)));
                        hurried = true;
                    }
                }
                // It has ended, and the user wants no more of what it wrote.
                () = self.attempt.cancel.cancelled(), if exit_code.is_some() && !hurried => {
                    late.set(after(Some(Duration::ZERO)));
                    hurried = true;
                }
                () = self.attempt.cancel.cancelled(), if self.stopped.is_none() && exit_code.is_none() => {
                    self.stop(Stop::Interrupted).await?;
                    stopping = Some(engine.stop(id, self.attempt.options.grace).boxed());
                }
                () = &mut over, if self.stopped.is_none() && exit_code.is_none() => {
                    self.stop(Stop::TimedOut).await?;
                    stopping = Some(engine.stop(id, self.attempt.options.grace).boxed());
                }
                result = poll(&mut stopping), if stopping.is_some() => {
                    stopping = None;
                    result?;
                }
                end = held(&mut hold), if hold.is_some() => {
                    hold = None;
                    match end {
                        HoldEnd::Expired => self.stopped = Some(Stop::TimedOut),
                        HoldEnd::Lost(error) if exit_code.is_none() => {
                            return Err(ContainerError::HoldLost(error));
                        }
                        HoldEnd::Lost(_) | HoldEnd::Released => {}
                    }
                }
                () = &mut late => break,
            }
        }
        self.hold = hold;
        match (broken, self.stopped) {
            (Some(error), None) => Err(error),
            // A stopped container's output may end anyhow.
            _ => Ok(exit_code.unwrap_or_default()),
        }
    }

    async fn stop(&mut self, why: Stop) -> Result<(), ContainerError> {
        self.stopped = Some(why);
        let counter = match why {
            Stop::Interrupted => &metrics::CONTAINERS_STOPPED,
            Stop::TimedOut => &metrics::CONTAINERS_EXPIRED,
        };
        counter.increment();
        (self.attempt.on_event)(RunEvent::Stopping(why));
        let words = match why {
            Stop::Interrupted => "interrupted",
            Stop::TimedOut => "its time was over",
        };
        self.attempt
            .record(self.lease, Some(&self.started.container), "container.stopping", words)
            .await
    }
}

async fn poll(
    stopping: &mut Option<BoxFuture<'_, Result<(), docker::Error>>>,
) -> Result<(), docker::Error> {
    match stopping {
        Some(stopping) => stopping.await,
        None => std::future::pending().await,
    }
}

async fn held(hold: &mut Option<crate::runner::Hold>) -> HoldEnd {
    match hold {
        Some(hold) => hold.ended().await,
        None => std::future::pending().await,
    }
}

async fn after(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Passes output on as fast as it is taken: what is not taken is not read.
///
/// # Errors
/// The stream broke off, or the sink takes nothing more.
pub async fn pump(mut output: Output, sink: &mut dyn Sink) -> Result<(), ContainerError> {
    let mut next = output.next().await?;
    while let Some((stream, piece)) = next {
        let mut gathered = Vec::from(piece);
        // An engine sends a log line by line, and each write is a journey: what is there already
        // goes with it. Cancel safe: `next` loses nothing when it is not ready.
        let following = loop {
            match output.next().now_or_never() {
                Some(Ok(Some((same, piece))))
                    if same == stream && gathered.len() < GATHERED_BYTES =>
                {
                    gathered.extend_from_slice(&piece);
                }
                other => break other,
            }
        };
        sink.write(stream, gathered.into()).await.map_err(ContainerError::Output)?;
        next = match following {
            Some(next) => next?,
            None => output.next().await?,
        };
    }
    Ok(())
}

/// Renews a lease until it is dropped.
async fn renew(store: Store, lease: String) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = store.renew_lease(&lease, Some(in_ms(LEASE))).await {
            tracing::warn!(%error, "the lease was not renewed");
        }
    }
}

/// So far from now, as the store keeps it.
fn in_ms(from_now: Duration) -> i64 {
    now_ms().saturating_add(i64::try_from(from_now.as_millis()).unwrap_or(i64::MAX))
}

fn labels_of(
    owner: &str,
    lease: &Lease,
    plan: &ContainerPlan,
    deadline_ms: Option<i64>,
) -> BTreeMap<&'static str, String> {
    let mode = if plan.detached { "detached" } else { labels::FOREGROUND };
    let mut all = BTreeMap::from([
        (labels::OWNER, owner.to_owned()),
        (labels::LEASE, lease.id.clone()),
        (labels::MODE, mode.to_owned()),
        (labels::REMOVE, plan.remove.to_string()),
        (labels::GPUS, lease.gpus.join(",")),
    ]);
    if let Some(deadline_ms) = deadline_ms {
        all.insert(labels::DEADLINE, deadline_ms.to_string());
    }
    all
}

fn words(error: &ContainerError) -> String {
    let chain = std::iter::once(error.to_string()).chain(causes(error));
    printable(&chain.collect::<Vec<_>>().join(": "))
}

//! Containers that validators run on the hosts that are assigned to them.
//!
//! Each is detached, within a lease of the validator (`validator:HOTKEY`), with a time limit, from an
//! image that the operator allows, and with the limits of the configuration and of the fleet file,
//! the narrower of both. A validator's container is found by its own lease alone, so that another's is
//! as unknown as none. What must *not* be here: how containers are run, which is
//! [`crate::fleet::containers`]; what ends them when this process is gone is there, too.

mod asked;
mod docs;
mod told;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex as Turn, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::asked::{Asked, tail};
use self::told::{told_error, view};
use super::requests::required;
use super::{Validators, actor, failed, internal};
use crate::axon::{Answer, Call, Lines, Refusal, Route, Routes, handler, streaming};
use crate::config::{PullPolicy, ValidatorContainers};
use crate::docker::{ContainerPlan, LogQuery, Network, OutputStream};
use crate::fleet::Fleet;
use crate::fleet::containers::{
    Client, ContainerError, HostEngine, Pull, RunEvent, RunOptions, inspect_container, logs,
    remove_container, run, stop_container,
};
use crate::hotkey::Hotkey;
use crate::ids::HostName;
use crate::runner::Artifact;
use crate::store::{HostRecord, Lease, LeaseKind, now_ms};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);

/// The most of its own containers that one is told of.
const MOST_LISTED: u32 = 100;

/// The most of a log that is handed on, from its end, in bytes.
const LOG_BYTES: usize = 256 * 1024;

/// The most of a log that is read for that, in bytes: an engine's line is 16 KiB at most, and a
/// thousand of them are asked for.
const LOG_READ_BYTES: usize = 16 * 1024 * 1024;

/// The containers of validators.
#[derive(Clone)]
pub struct Containers(Arc<Shared>);

struct Shared {
    validators: Validators,
    config: ValidatorContainers,
    artifact: Arc<Artifact>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// One start at a time of one validator, so that two do not pass the same limit.
    starting: Mutex<BTreeMap<Hotkey, Arc<Turn<()>>>>,
}

impl Containers {
    /// Containers on the hosts that are assigned to validators. What is being started is given up
    /// when `cancel` fires; what runs goes on.
    #[must_use]
    pub fn new(
        validators: Validators,
        config: ValidatorContainers,
        artifact: Arc<Artifact>,
        cancel: CancellationToken,
    ) -> Self {
        let (tasks, starting) = (TaskTracker::new(), Mutex::default());
        Self(Arc::new(Shared { validators, config, artifact, cancel, tasks, starting }))
    }

    /// Adds what can be called.
    #[must_use]
    pub fn routes(&self, routes: Routes) -> Routes {
        let own: &[&str] = &["name", "container"];
        let (start, list, inspect, read, stop) =
            (self.clone(), self.clone(), self.clone(), self.clone(), self.clone());
        routes
            .with(Route::post(
                "RunContainer",
                "/v1/containers",
                asked::HASH_FIELDS,
                docs::run(),
                streaming(move |call, lines| {
                    let this = start.clone();
                    async move { this.run(&call, &lines).await }
                }),
            ))
            .with(Route::post(
                "ListContainers",
                "/v1/containers/list",
                &["name"],
                docs::list(),
                handler(move |call| {
                    let this = list.clone();
                    async move { this.list(&call).await }
                }),
            ))
            .with(Route::post(
                "InspectContainer",
                "/v1/containers/inspect",
                own,
                docs::inspect(),
                handler(move |call| {
                    let this = inspect.clone();
                    async move { this.inspect(&call).await }
                }),
            ))
            .with(Route::post(
                "ContainerLogs",
                "/v1/containers/logs",
                &["name", "container", "tail"],
                docs::logs(),
                handler(move |call| {
                    let this = read.clone();
                    async move { this.logs(&call).await }
                }),
            ))
            .with(Route::post(
                "StopContainer",
                "/v1/containers/stop",
                own,
                docs::stop(),
                handler(move |call| {
                    let this = stop.clone();
                    async move { this.stop(call).await }
                }),
            ))
    }

    /// Waits for what was begun.
    pub async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn run(&self, call: &Call, lines: &Lines) -> Answer {
        let config = &self.0.config;
        let asked = Asked::of(call, config)?;
        let host = self.0.validators.assigned_host(call, &asked.host).await?;
        let fleet = Arc::new(self.0.validators.fleet()?.acting_for(actor(&call.hotkey)));
        let turn = {
            let mut starting = self.0.starting.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(starting.entry(call.hotkey).or_default())
        };
        let turn = turn.lock_owned().await;
        self.within_limits(&fleet).await?;
        let mut spec = host.spec;
        let facts = fleet.store.facts_history(&spec.name, 1).await.map_err(failed)?.pop();
        let facts = facts.as_ref().map(|record| &record.facts);
        spec.containers = asked::narrower(&spec.containers, config, facts);
        let options = options(asked, config, call);
        let (tell, mut told) = mpsc::channel(16);
        let cancel = self.0.cancel.child_token();
        // Who hangs up before it runs gives it up; the task clears up after itself.
        let ends_it = cancel.clone().drop_guard();
        let artifact = Arc::clone(&self.0.artifact);
        let task = self.0.tasks.spawn(async move {
            let _turn = turn;
            // A line that finds no room is one of progress, which another follows.
            let on_event = |event| drop(tell.try_send(event));
            let run = run(&fleet, &spec, Some(artifact), &options, None, &on_event, &cancel);
            run.await.inspect_err(|error| {
                let causes = error.causes();
                tracing::warn!(host = %spec.name, %error, ?causes, "a validator's container");
            })
        });
        while let Some(event) = told.recv().await {
            if let Some(Value::Object(line)) = line(event) {
                lines.say(line).await.map_err(|_| internal())?;
            }
        }
        let ended = task.await.map_err(|_| internal())?.map_err(|error| told_error(&error))?;
        ends_it.disarm();
        let started = ended.started;
        Ok(fields(json!({
            "event": "result",
            "container": started.id,
            "host": started.host,
            "gpus": started.gpus,
            "deadline_ms": started.deadline_ms,
        })))
    }

    async fn list(&self, call: &Call) -> Answer {
        let store = &self.0.validators.0.store;
        let leases = store.leases_of(&actor(&call.hotkey), MOST_LISTED).await.map_err(failed)?;
        let rows: Vec<Value> = leases
            .iter()
            .filter(|lease| lease.kind == LeaseKind::Container)
            .map(|lease| {
                json!({
                    "container": lease.id,
                    "host": lease.host,
                    "gpus": lease.gpus,
                    "created_ms": lease.created_ms,
                    "deadline_ms": lease.expires_ms,
                    "ended_ms": lease.released_ms,
                })
            })
            .collect();
        Ok(fields(json!({ "containers": rows })))
    }

    async fn inspect(&self, call: &Call) -> Answer {
        let lease = self.own(call).await?;
        let (fleet, host) = self.reach(call, &lease).await?;
        let seen = async {
            let (found, _) = inspect_container(&fleet, &host, &lease.id).await?;
            let state = host.engine.inspect(&found.container.id).await?.state;
            Ok::<_, ContainerError>(view(&lease, &found, &state))
        };
        let seen = seen.await;
        host.close().await;
        seen.map(fields).map_err(|error| told_error(&error))
    }

    async fn logs(&self, call: &Call) -> Answer {
        let tail = tail(call)?;
        let lease = self.own(call).await?;
        let (fleet, host) = self.reach(call, &lease).await?;
        let query =
            LogQuery { follow: false, since_secs: None, tail: Some(tail), timestamps: false };
        let read = async {
            let (_, mut output) = logs(&fleet, &host, &lease.id, &query).await?;
            let mut log = told::Log::new(LOG_BYTES);
            let mut read = 0;
            while let Some((stream, piece)) = output.next().await? {
                read += piece.len();
                log.take(stream == OutputStream::Stderr, &piece);
                if read > LOG_READ_BYTES {
                    log.cut();
                    break;
                }
            }
            Ok::<_, ContainerError>(log.told())
        };
        let read = read.await;
        host.close().await;
        read.map(fields).map_err(|error| told_error(&error))
    }

    /// Stops and removes it, also when the caller has gone meanwhile.
    async fn stop(&self, call: Call) -> Answer {
        let this = self.clone();
        let task = self.0.tasks.spawn(async move {
            let lease = this.own(&call).await?;
            let (fleet, host) = this.reach(&call, &lease).await?;
            let stopped = async {
                let found = stop_container(&fleet, &host, &lease.id, GRACE).await?;
                let state = host.engine.inspect(&found.container.id).await?.state;
                remove_container(&fleet, &host, &lease.id, true).await?;
                Ok::<_, ContainerError>(json!({ "stopped": true, "exit_code": state.exit_code }))
            };
            let stopped = stopped.await;
            host.close().await;
            stopped.map(fields).map_err(|error| told_error(&error))
        });
        task.await.unwrap_or_else(|_| Err(internal()))
    }

    /// Whether the caller may have one more. The turn to start is its own meanwhile.
    async fn within_limits(&self, fleet: &Fleet) -> Result<(), Refusal> {
        let config = &self.0.config;
        let window = i64::try_from(config.rate_limit_window.as_millis()).unwrap_or(i64::MAX);
        let since = now_ms().saturating_sub(window);
        let counted = fleet.store.count_leases(&fleet.actor, LeaseKind::Container, since);
        let (live, taken) = counted.await.map_err(failed)?;
        let full = |count: u64, most: usize| usize::try_from(count).is_ok_and(|n| n >= most);
        if full(live, config.max_per_validator) || full(taken, config.rate_limit) {
            let detail = "this hotkey has, or has started, as many containers as it may";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "limit", detail));
        }
        Ok(())
    }

    /// The lease of the caller's own container, by its whole id.
    async fn own(&self, call: &Call) -> Result<Lease, Refusal> {
        let id = required(call, "container")?;
        let store = &self.0.validators.0.store;
        let leases = store.leases_by_prefix(id, 1).await.map_err(failed)?;
        let actor = actor(&call.hotkey);
        let own = |lease: &Lease| {
            lease.id == id && lease.kind == LeaseKind::Container && lease.actor == actor
        };
        leases.into_iter().find(own).ok_or_else(told::no_container)
    }

    /// The engine of the host that a container is on.
    async fn reach(&self, call: &Call, lease: &Lease) -> Result<(Arc<Fleet>, HostEngine), Refusal> {
        let host = self.record(&lease.host).await?;
        let fleet = Arc::new(self.0.validators.fleet()?.acting_for(actor(&call.hotkey)));
        let artifact = Arc::clone(&self.0.artifact);
        let opened = HostEngine::open(&fleet, &host.spec, Some(artifact)).await;
        let engine = opened.map_err(|error| {
            let causes = error.causes();
            tracing::warn!(host = %lease.host, %error, ?causes, "a validator's container");
            told_error(&error)
        })?;
        Ok((fleet, engine))
    }

    async fn record(&self, name: &HostName) -> Result<HostRecord, Refusal> {
        let host = self.0.validators.0.store.host(name).await.map_err(failed)?;
        host.ok_or_else(told::no_container)
    }
}

fn options(asked: Asked, config: &ValidatorContainers, call: &Call) -> RunOptions {
    let plan = ContainerPlan {
        name: None,
        image: asked.image,
        command: asked.command,
        environment: asked.environment,
        mounts: Vec::new(),
        publish: Vec::new(),
        network: if config.network { Network::Bridge } else { Network::None },
        user: None,
        workdir: None,
        cpus_milli: asked.cpus_milli,
        memory_bytes: asked.memory_bytes,
        pids: None,
        shm_bytes: None,
        read_only: false,
        privileged: false,
        remove: false,
        detached: true,
        timeout_secs: asked.timeout_secs,
    };
    let pull = match config.pull {
        PullPolicy::Missing => Pull::Missing,
        PullPolicy::Always => Pull::Always,
        PullPolicy::Never => Pull::Never,
    };
    let client = Client { hotkey: call.hotkey.to_string(), keep: config.keep_ended };
    RunOptions { plan, wish: asked.gpus, pull, auth: None, grace: GRACE, client: Some(client) }
}

fn line(event: RunEvent) -> Option<Value> {
    match event {
        RunEvent::Connecting(_) => Some(json!({ "event": "phase", "phase": "connecting" })),
        RunEvent::Pulling(progress) => Some(json!({
            "event": "phase",
            "phase": "pulling",
            "layers": progress.layers,
            "complete": progress.complete,
            "bytes": progress.bytes,
            "total_bytes": progress.total_bytes,
        })),
        RunEvent::Started(started) => {
            Some(json!({ "event": "phase", "phase": "started", "container": started.id }))
        }
        RunEvent::Stopping(_) => None,
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

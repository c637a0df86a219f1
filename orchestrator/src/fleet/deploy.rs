//! Deploy: reach each host, put the runner there if it is missing, ask it for facts, compare them
//! with the claim, record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runner_protocol::HostFacts;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{driver_version, gpu_summary, mismatch};
use super::link::{Fleet, Link, LinkError};
use super::outcome::{Change, FleetEvent, HostOutcome, Step};
use crate::error_chain::causes;
use crate::host_spec::{HostMode, HostSpec};
use crate::host_state::HostEvent;
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner::{self, Artifact, Session, Started, install};
use crate::store::{HostContact, NewEvent};
use crate::transport::ProgressFn;

/// For one host, all its steps and retries included. A host that is alive and slow (an upload
/// over a bad line) fits; one that is neither alive nor dead does not hold up the end for longer.
const HOST_DEADLINE: Duration = Duration::from_secs(900);

/// What the user may choose.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// The runner that hosts shall have.
    pub artifact: Arc<Artifact>,
    /// How many hosts at a time.
    pub parallel: usize,
    /// Say what would change, and change nothing.
    pub dry_run: bool,
}

/// Where a host's task tells what it does. A receiver that is gone is no concern of the task.
pub type Events = mpsc::UnboundedSender<FleetEvent>;

/// Deploys to every host and returns their outcomes in the order in which they ended.
///
/// When `cancel` fires, tasks are dropped where they are; hosts that had not ended come out as
/// `cancelled`.
pub async fn deploy(
    fleet: Arc<Fleet>,
    specs: Vec<HostSpec>,
    options: DeployOptions,
    events: Events,
    cancel: CancellationToken,
) -> Vec<HostOutcome> {
    let slots = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut tasks = JoinSet::new();
    for spec in specs {
        let (fleet, slots, options) = (fleet.clone(), slots.clone(), options.clone());
        let (events, cancel) = (events.clone(), cancel.clone());
        tasks.spawn(async move {
            // Cancel safety: each branch that loses is dropped whole, see the module's essay.
            let outcome = tokio::select! {
                outcome = in_turn(&fleet, &spec, &options, &slots, &events) => outcome,
                () = cancel.cancelled() => HostOutcome::stopped(
                    spec.name.clone(),
                    Reason::Cancelled,
                    "stopped before it ended",
                    Duration::ZERO,
                ),
            };
            let _nobody_listens = events.send(FleetEvent::Done(Box::new(outcome.clone())));
            outcome
        });
    }
    let mut outcomes = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        // A task can end without an outcome only by a panic, which the runtime has reported.
        outcomes.extend(ended);
    }
    outcomes
}

/// Waits for a slot; the deadline counts from then, so that a long queue fails no host.
async fn in_turn(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &DeployOptions,
    slots: &Semaphore,
    events: &Events,
) -> HostOutcome {
    // The semaphore is never closed; without a permit the host would merely go first.
    let _slot = slots.acquire().await;
    let started = Instant::now();
    let work = one_host(fleet, spec, options, events, started);
    match tokio::time::timeout(HOST_DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_) => HostOutcome::stopped(
            spec.name.clone(),
            Reason::Deadline,
            &format!("not done within {} s", HOST_DEADLINE.as_secs()),
            started.elapsed(),
        ),
    }
}

/// What a host's task found out, before it is judged and recorded.
struct Visit {
    change: Change,
    facts: Option<HostFacts>,
    runner_version: Option<String>,
}

async fn one_host(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &DeployOptions,
    events: &Events,
    started: Instant,
) -> HostOutcome {
    let step = |step: Step| {
        let _nobody_listens = events.send(FleetEvent::Step { host: spec.name.clone(), step });
    };
    step(Step::Connecting);
    let link = match fleet.connect(spec, options.dry_run).await {
        Ok(link) => link,
        Err(error) => return end(fleet, spec, options, started, None, Err(error), &step).await,
    };
    let visit = visit(spec, options, &link, events, &step).await;
    link.close().await;
    end(fleet, spec, options, started, Some(&link), visit.map_err(LinkError::Runner), &step).await
}

/// The host's side of the work: the warm path is one command.
async fn visit(
    spec: &HostSpec,
    options: &DeployOptions,
    link: &Link,
    events: &Events,
    step: &(dyn Fn(Step) + Sync),
) -> Result<Visit, runner::Error> {
    let transport = link.transport();
    let artifact = &options.artifact;
    let work_dir = spec.work_dir.as_deref();
    step(Step::Checking);
    let mut change = Change::None;
    let session = match Session::start(transport, work_dir, &artifact.sha256).await? {
        Started::Running(session) => session,
        Started::NotThere(host) if options.dry_run && spec.mode != HostMode::Manual => {
            install::check_fit(&host, artifact)?;
            return Ok(Visit { change: Change::WouldUpload, facts: None, runner_version: None });
        }
        Started::NotThere(host) => {
            change = Change::Uploaded;
            let total = artifact.gzip.len() as u64;
            step(Step::Uploading { sent: 0, total });
            let (events, name) = (events.clone(), spec.name.clone());
            let progress = Box::new(move |sent| {
                // The last byte is out: what comes is the start.
                let step =
                    if sent < total { Step::Uploading { sent, total } } else { Step::Starting };
                let _nobody_listens = events.send(FleetEvent::Step { host: name.clone(), step });
            });
            place_runner(spec, artifact, link, &host, Some(progress)).await?
        }
    };
    step(Step::Facts);
    let mut session = session;
    let runner_version = Some(printable(&session.hello().runner_version));
    let facts = session.facts().await;
    session.close().await;
    Ok(Visit { change, facts: Some(facts?), runner_version })
}

/// Puts the runner on a host that said it has none, and starts it. Refuses where the operator places
/// it by hand.
pub(super) async fn place_runner(
    spec: &HostSpec,
    artifact: &Artifact,
    link: &Link,
    host: &runner::answer::Answer,
    progress: Option<ProgressFn>,
) -> Result<Box<Session>, runner::Error> {
    if spec.mode == HostMode::Manual {
        return Err(runner::Error::NotPlaced {
            sha256: artifact.sha256.clone(),
            base: host.get("base").to_owned(),
        });
    }
    let (transport, work_dir) = (link.transport(), spec.work_dir.as_deref());
    install::upload(transport, work_dir, artifact, host, progress).await?;
    match Session::start(transport, work_dir, &artifact.sha256).await? {
        Started::Running(session) => Ok(session),
        Started::NotThere(_) => Err(runner::Error::Damaged {
            detail: "the runner was installed and is not there any more".to_owned(),
        }),
    }
}

/// Judges what was found, records it, and makes the outcome.
async fn end(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &DeployOptions,
    started: Instant,
    link: Option<&Link>,
    visit: Result<Visit, LinkError>,
    step: &(dyn Fn(Step) + Sync),
) -> HostOutcome {
    let mut outcome = HostOutcome {
        ok: true,
        reason: None,
        host_key: link.map(Link::host_key_words),
        ..HostOutcome::stopped(spec.name.clone(), Reason::Bug, "", Duration::ZERO)
    };
    let mut facts = None;
    let mut runner_version = None;
    let event = match visit {
        Ok(visit) => {
            outcome.change = visit.change;
            outcome.runner = Some(options.artifact.sha256.clone());
            outcome.gpus = visit.facts.as_ref().map(gpu_summary);
            outcome.driver = visit.facts.as_ref().and_then(driver_version);
            let trouble =
                visit.facts.as_ref().and_then(|facts| mismatch(spec.gpus.as_ref(), facts));
            facts = visit.facts;
            runner_version = visit.runner_version;
            match trouble {
                Some((reason, message)) => {
                    outcome.ok = false;
                    outcome.reason = Some(reason);
                    outcome.hint = Some(claim_hint(reason).to_owned());
                    outcome.message = message;
                    HostEvent::FoundFaulty
                }
                None => {
                    outcome.message = words(outcome.change).to_owned();
                    HostEvent::FoundWell
                }
            }
        }
        Err(error) => {
            outcome.ok = false;
            outcome.reason = Some(error.reason());
            outcome.message = printable(&error.to_string());
            outcome.causes = error.causes().iter().map(|cause| printable(cause)).collect();
            outcome.hint = error.hint();
            if link.is_some() { HostEvent::FoundFaulty } else { HostEvent::NotReached }
        }
    };
    if !options.dry_run {
        step(Step::Recording);
        let contact = HostContact {
            spec: spec.clone(),
            event,
            runner: runner_version.map(|version| (options.artifact.sha256.clone(), version)),
            facts,
            trouble: outcome.reason.map(|reason| (reason, outcome.message.clone())),
            events: vec![audit_event(spec, &outcome)],
        };
        match fleet.store.record_contact(&fleet.actor, &contact).await {
            Ok(state) => outcome.state = Some(state),
            Err(error) => {
                outcome.ok = false;
                outcome.reason = Some(Reason::Store);
                outcome.message = error.to_string();
                outcome.causes = causes(&error);
            }
        }
    }
    outcome.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome
}

fn words(change: Change) -> &'static str {
    match change {
        Change::None => "up to date",
        Change::Uploaded => "runner uploaded",
        Change::WouldUpload => "runner would be uploaded",
    }
}

fn claim_hint(reason: Reason) -> &'static str {
    match reason {
        Reason::NoDriver => {
            "install the NVIDIA driver on the host, or take `gpus` out of the fleet file"
        }
        _ => "correct `gpus` in the fleet file, or find out where the GPUs went",
    }
}

fn audit_event(spec: &HostSpec, outcome: &HostOutcome) -> NewEvent {
    NewEvent {
        kind: if outcome.ok { "deploy.succeeded" } else { "deploy.failed" },
        host: Some(spec.name.clone()),
        detail: json!({
            "address": spec.endpoint.address,
            "port": spec.endpoint.port,
            "user": spec.endpoint.user,
            "host_key": outcome.host_key,
            "change": outcome.change,
            "runner": outcome.runner,
            "reason": outcome.reason,
            "message": outcome.message,
        }),
    }
}

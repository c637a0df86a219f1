//! Deploy: reach each host, put the runner there if it is missing, ask it for facts, compare them
//! with the claim, record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runner_protocol::facts::DriverState;
use runner_protocol::{FactsQuery, HostFacts};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{driver_version, gpu_summary, mismatch};
use super::containers::reconcile_if_held;
use super::ledger;
use super::link::{Fleet, Link, LinkError};
use super::outcome::{Change, FleetEvent, HostOutcome, Step};
use crate::error_chain::causes;
use crate::host_spec::{HostMode, HostSpec};
use crate::host_state::{HostEvent, HostState};
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner::answer::Answer;
use crate::runner::session::UploadProgress;
use crate::runner::{self, Artifact, Session, Started, install};
use crate::store::{self, Duplicate, HostContact, NewEvent, SeenBy};

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
        let (fleet, options) = (fleet.clone(), options.clone());
        let (events, cancel) = (events.clone(), cancel.clone());
        // Taken here, so that hosts begin in the order in which they are written. Cancel safety:
        // a slot that is not had is not lost; the task then has nothing to do but to say so.
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot.ok(),
            () = cancel.cancelled() => None,
        };
        tasks.spawn(async move {
            let _slot = slot;
            // Cancel safety: each branch that loses is dropped whole, see the module's essay.
            let outcome = tokio::select! {
                // First, so that a host without a slot does not begin.
                biased;
                () = cancel.cancelled() => HostOutcome::stopped(
                    spec.name.clone(),
                    Reason::Cancelled,
                    "stopped before it ended",
                    Duration::ZERO,
                ),
                outcome = in_time(&fleet, &spec, &options, &events) => outcome,
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

/// The deadline counts from a host's own beginning, so that a long queue fails no host.
async fn in_time(
    fleet: &Arc<Fleet>,
    spec: &HostSpec,
    options: &DeployOptions,
    events: &Events,
) -> HostOutcome {
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
    fleet: &Arc<Fleet>,
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
    let visit = visit(spec, options, &link, &step).await;
    link.close().await;
    if visit.is_ok() && !options.dry_run {
        // Containers whose time is over are no reason to fail a deploy.
        let artifact = Some(Arc::clone(&options.artifact));
        if let Err(error) = reconcile_if_held(fleet, spec, artifact).await {
            let (host, causes) = (&spec.name, error.causes());
            tracing::warn!(%host, %error, ?causes, "cannot look after the containers");
        }
    }
    end(fleet, spec, options, started, Some(&link), visit.map_err(LinkError::Runner), &step).await
}

/// The host's side of the work: one command, with or without an upload.
async fn visit(
    spec: &HostSpec,
    options: &DeployOptions,
    link: &Link,
    step: &(dyn Fn(Step) + Sync),
) -> Result<Visit, runner::Error> {
    let artifact = &options.artifact;
    step(Step::Checking);
    let mut tell = |sent, total| step(Step::Uploading { sent, total });
    let upload: Option<&mut UploadProgress<'_>> = (!options.dry_run).then_some(&mut tell);
    let (mut session, change) = match start_runner(spec, artifact, link, upload).await? {
        Started::Running { session, uploaded: true } => (session, Change::Uploaded),
        Started::Running { session, uploaded: false } => (session, Change::None),
        Started::NotThere(host) => {
            install::check_fit(&host, artifact)?;
            return Ok(Visit { change: Change::WouldUpload, facts: None, runner_version: None });
        }
    };
    step(Step::Facts);
    let runner_version = Some(printable(&session.hello().runner_version));
    let socket = spec.containers.socket.clone();
    let facts = session.facts(FactsQuery { socket, ..FactsQuery::default() }).await;
    session.close().await;
    Ok(Visit { change, facts: Some(facts?), runner_version })
}

/// Starts the runner, uploading it first where it is missing and `upload` allows it. A host whose
/// runner the operator places by hand is never written to.
pub(super) async fn start_runner(
    spec: &HostSpec,
    artifact: &Artifact,
    link: &Link,
    upload: Option<&mut UploadProgress<'_>>,
) -> Result<Started, runner::Error> {
    let by_hand = spec.mode == HostMode::Manual;
    let upload = upload.filter(|_| !by_hand);
    let work_dir = spec.work_dir.as_deref();
    match Session::start(link.transport(), work_dir, artifact, upload).await? {
        Started::NotThere(host) if by_hand => Err(not_placed(artifact, &host)),
        started => Ok(started),
    }
}

/// The error for a host that lacks the runner and gets no upload.
pub(super) fn not_placed(artifact: &Artifact, host: &Answer) -> runner::Error {
    let (sha256, base) = (artifact.sha256.clone(), host.get("base").to_owned());
    runner::Error::NotPlaced { sha256, base }
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
            trouble: outcome.reason.map(|reason| (reason, outcome.whole_message())),
            events: vec![audit_event(spec, &outcome)],
        };
        match record(fleet, &contact).await {
            Ok((state, duplicates)) => {
                outcome.state = Some(state);
                // An alarm, and no failure of the deploy: which of the two lies is not known.
                for duplicate in &duplicates {
                    outcome.message += "; ";
                    outcome.message += &printable(&ledger::words(duplicate));
                }
            }
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

/// The contact, and which of its GPUs other hosts show too.
async fn record(
    fleet: &Fleet,
    contact: &HostContact,
) -> Result<(HostState, Vec<Duplicate>), store::Error> {
    let state = fleet.store.record_contact(&fleet.actor, contact).await?;
    // A driver that fails says nothing of the GPUs; one that is not there, that there are none.
    let seen = contact
        .facts
        .as_ref()
        .filter(|facts| !matches!(facts.gpus.driver, DriverState::Failed { .. }));
    let Some(facts) = seen else { return Ok((state, Vec::new())) };
    let (host, uuids) = (&contact.spec.name, ledger::shown_uuids(facts));
    let sightings = fleet.store.record_sightings(&fleet.actor, host, SeenBy::Deploy, &uuids);
    Ok((state, sightings.await?))
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
            "message": outcome.whole_message(),
        }),
    }
}

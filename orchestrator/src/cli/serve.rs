//! `orchestrator serve`.

mod front;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use self::front::{Dials, Front};
use super::app::App;
use super::config::{findings, tell};
use super::failure::{Exit, Failure};
use super::settings;
use crate::api::{Access, ApiParts, ApiState, Health, ListenLimits, metrics_router, router};
use crate::fleet::Fleet;
use crate::fleet::sweep::{SweepOptions, SweepStatus, Sweeper, sweep_loop};
use crate::host_spec::HostSpec;
use crate::ids::HostName;
use crate::runner::Artifact;
use crate::service::{Instance, InstanceError, reconcile_all, reconcile_containers};
use crate::store::{NewEvent, TrustedKey};

/// Connections of the operator API at a time: a few people and their tools.
const API_CONNECTIONS: usize = 256;

/// Run as a service: for validators and the operator, with sweeps and the care for SSH grants
///
/// Stops at SIGTERM or Ctrl-C, after open requests have ended. At SIGHUP it reads the
/// configuration again and takes over log levels, the rate limits of `[validator_comms.rate_limit]`
/// and `allowed_validators`. One process serves a database; a second one
/// says who does and ends with exit status 6.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a systemd unit for this command, and serve nothing
    #[arg(long)]
    print_unit: bool,
    /// The runner that hosts shall have; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    if args.print_unit {
        return print_unit(app);
    }
    let findings = findings::of(&app.settings);
    tell(app, &findings);
    if findings.iter().any(|finding| finding.severity == findings::Severity::Error) {
        return Err(Failure::user("the configuration cannot be served")
            .hint("`orchestrator config validate` looks at it again"));
    }
    // Before anybody is told that it is ready: without it the signal ends the process.
    let hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::user("cannot listen for SIGHUP").because(error))?;
    let store = app.store().await?.clone();
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let instance = Instance::take(&store, &machine).await.map_err(instance_failure)?;
    let (health, published) = watch::channel(Health::default());
    let sweeps = super::sweep::for_service(app, args.runner.as_deref())?;
    tell_undeployed(app).await?;
    let config = &app.config;
    let (fleet, reachable) = watch::channel(None);
    let front = Front::prepare(app, reachable, &sweeps.artifact).await?;
    let (host, port) = (config.operator_api.host, config.operator_api.port);
    let api = bind(host, port, "operator_api.port").await?;
    let state = ApiState::new(ApiParts {
        store: store.clone(),
        access: access(app)?,
        metrics: config.metrics.clone(),
        health: published,
        max_event_streams: config.operator_api.max_event_streams,
        cancel: app.cancel.clone(),
    });
    let metrics = match &config.metrics.prometheus {
        Some(own) if config.metrics.enabled => {
            let listener = bind(own.host, own.port, "metrics.prometheus.port").await?;
            Some((listener, metrics_router(state.clone(), &own.path)))
        }
        _ => None,
    };
    let addresses = json!({
        "axon": front.as_ref().map(Front::addresses),
        "hotkey": front.as_ref().map(Front::hotkey),
        "operator_api": address(&api.1),
        "metrics": metrics.as_ref().map(|(listener, _)| address(&listener.1)),
    });
    let event = |kind| NewEvent { kind, host: None, detail: addresses.clone() };
    store.append_events(&app.actor, &[event("serve.started")]).await?;
    app.report.json(&json!({ "event": "ready", "listeners": addresses }));
    app.report.note(&format!("operator API and dashboard: http://{}/", address(&api.1)));
    if let Some((listener, _)) = &metrics {
        app.report.note(&format!("metrics: http://{}", address(&listener.1)));
    }
    if let Some(front) = &front {
        let (hotkey, addresses) = (front.hotkey(), front.addresses().join(", "));
        app.report.note(&format!("service for validators, as {hotkey}: {addresses}"));
    }
    let limits = ListenLimits { connections: API_CONNECTIONS };
    let serve_api = crate::api::serve(api.0, router(state), limits, app.cancel.clone());
    let serve_metrics = async {
        if let Some((listener, router)) = metrics {
            crate::api::serve(listener.0, router, limits, app.cancel.clone()).await;
        }
    };
    // Each ends with the token; the lease ends the rest when somebody else has it.
    let mut lost = false;
    let keep = async {
        // Cancel safety: both are waits and single statements.
        tokio::select! {
            () = app.cancel.cancelled() => {}
            () = instance.keep() => {
                lost = true;
                app.cancel.cancel();
            }
        }
    };
    let grants = look_after_grants(app, &health);
    let containers = look_after_containers(app, sweeps.artifact.clone(), &health);
    let sweeps = sweep_again_and_again(app, sweeps, &fleet, &health);
    let reload = reload_at_hangup(app, hangup, front.as_ref().map(Front::dials));
    let validators = async {
        if let Some(front) = front {
            front.run(app, &health).await;
        }
    };
    let care = async { tokio::join!(grants, containers, sweeps) };
    let listening = async { tokio::join!(serve_api, serve_metrics, validators) };
    let (_, _, (), ()) = tokio::join!(listening, care, keep, reload);
    store.append_events(&app.actor, &[event("serve.stopped")]).await?;
    instance.give_back().await;
    if lost {
        return Err(Failure::locked("another process has taken over this database")
            .hint("one `orchestrator serve` is enough for a database"));
    }
    app.report.note("stopped");
    Ok(Exit::Ok)
}

/// Ends containers whose time is over, again and again.
async fn look_after_containers(
    app: &App<'_>,
    artifact: Arc<Artifact>,
    health: &watch::Sender<Health>,
) {
    const NAME: &str = "containers";
    let round = async || -> Result<Vec<String>, Failure> {
        let records = app.store().await?.hosts().await?;
        let specs: Vec<HostSpec> = records.into_iter().map(|record| record.spec).collect();
        let fleet = Arc::new(app.fleet(&specs, false).await?);
        Ok(reconcile_containers(&fleet, &specs, &artifact).await)
    };
    loop {
        // Cancel safety: what was begun on a host is done by the next round, or the next service.
        let done = tokio::select! {
            done = round() => done,
            () = app.cancel.cancelled() => return,
        };
        health.send_modify(|health| match &done {
            Ok(failed) if failed.is_empty() => health.set(NAME, true, "looked after"),
            Ok(failed) => {
                let hosts = crate::fleet_file::range::compress(failed.iter().map(String::as_str));
                health.set(NAME, false, format!("not looked after on {hosts}"));
            }
            Err(failure) => health.set(NAME, false, failure.what.clone()),
        });
        rest(app, app.config.executor_management.health_check_interval).await;
    }
}

/// Says which executors of the configuration were never deployed to: nothing can be done on them.
async fn tell_undeployed(app: &App<'_>) -> Result<(), Failure> {
    let Some(file) = app.executors()? else { return Ok(()) };
    let known = app.store().await?.hosts().await?;
    let is_new = |name: &HostName| !known.iter().any(|record| record.spec.name == *name);
    let new: Vec<&HostName> =
        file.hosts.iter().map(|host| &host.name).filter(|name| is_new(name)).collect();
    if !new.is_empty() {
        let names = crate::fleet_file::range::compress(new.iter().map(|name| name.as_str()));
        app.report.warning(&format!(
            "{names} of the configuration: not deployed to yet; run `orchestrator deploy`, with \
             --accept-new-host-keys where their host keys are not known"
        ));
    }
    Ok(())
}

/// How often it is looked whether hosts or trusted keys have changed by another command.
const LOOK: Duration = Duration::from_secs(5);

/// Sweeps over the hosts that are known, at once and then every `health_check_interval`, or by the `schedule` of `[sweep]`. When
/// another command has changed hosts or trusted keys, it begins anew with those.
async fn sweep_again_and_again(
    app: &App<'_>,
    options: SweepOptions,
    reachable: &watch::Sender<Option<Arc<Fleet>>>,
    health: &watch::Sender<Health>,
) {
    const NAME: &str = "sweeps";
    let trouble = |what: &str| health.send_modify(|health| health.set(NAME, false, what));
    while !app.cancel.is_cancelled() {
        let prepared = async {
            let known = inventory(app).await?;
            let fleet = Arc::new(app.fleet(&known.0, false).await?);
            let (pace, channels) = (super::sweep::pace(app)?, super::sweep::channels(app)?);
            Ok::<_, Failure>((known, fleet, pace, channels))
        };
        let (known, fleet, pace, channels) = match prepared.await {
            Ok(prepared) => prepared,
            Err(failure) => {
                trouble(&failure.what);
                rest(app, LOOK).await;
                continue;
            }
        };
        reachable.send_replace(Some(fleet.clone()));
        let round = app.cancel.child_token();
        let (sender, mut status) = watch::channel(SweepStatus::default());
        let specs = known.0.clone();
        let sweeper = Sweeper::new(fleet, specs, options.clone(), true);
        let alerts = (channels, app.config.alerts.clone());
        let sweeping = async {
            if known.0.is_empty() {
                health.send_modify(|health| health.set(NAME, true, "there are no hosts yet"));
                round.cancelled().await;
            } else {
                let jitter = app.config.sweep.jitter;
                sweep_loop(sweeper, pace, jitter, false, alerts, sender, round.clone()).await;
            }
        };
        let publishing = async {
            while status.changed().await.is_ok() {
                let status = status.borrow_and_update().clone();
                health.send_modify(|health| match (&status.problem, &status.counts) {
                    (Some(problem), _) => health.set(NAME, false, problem.clone()),
                    (None, Some(counts)) => {
                        let (well, troubled) = (counts.well, counts.troubled);
                        let unreached = counts.unreached;
                        let detail =
                            format!("{well} hosts well, {troubled} not, {unreached} not reached");
                        health.set(NAME, true, detail);
                    }
                    (None, None) => {
                        let due = status.next_ms.filter(|at| *at > crate::store::now_ms());
                        let detail = due.map_or_else(
                            || "the first has begun".to_owned(),
                            |at| format!("the first is due {}", super::app::utc(at)),
                        );
                        health.set(NAME, true, detail);
                    }
                });
            }
        };
        let watching = async {
            loop {
                rest(app, LOOK).await;
                let changed = inventory(app).await.is_ok_and(|now| now != known);
                if changed || app.cancel.is_cancelled() {
                    round.cancel();
                    return;
                }
            }
        };
        // The loop ends by the round's token, and its status with it.
        let ((), (), ()) = tokio::join!(sweeping, publishing, watching);
    }
}

/// The hosts that are known and the keys that are trusted, for comparison.
async fn inventory(app: &App<'_>) -> Result<(Vec<HostSpec>, Vec<TrustedKey>), Failure> {
    let store = app.store().await?;
    let specs = store.hosts().await?.into_iter().map(|record| record.spec).collect();
    Ok((specs, store.trusted_keys().await?))
}

/// Waits, or until the end.
async fn rest(app: &App<'_>, pause: Duration) {
    // Cancel safety: both are plain waits.
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = app.cancel.cancelled() => {}
    }
}

/// Takes expired and revoked grants out of the hosts, again and again.
async fn look_after_grants(app: &App<'_>, health: &watch::Sender<Health>) {
    const NAME: &str = "grants";
    let round = async || -> Result<(usize, Vec<String>), Failure> {
        let records = app.store().await?.hosts().await?;
        let specs: Vec<HostSpec> = records.into_iter().map(|record| record.spec).collect();
        let fleet = app.fleet(&specs, false).await?;
        Ok(reconcile_all(&fleet, &specs).await)
    };
    loop {
        // Cancel safety: what was begun on a host is done by the next round, or the next service.
        let done = tokio::select! {
            done = round() => done,
            () = app.cancel.cancelled() => return,
        };
        health.send_modify(|health| match &done {
            Ok((due, failed)) if failed.is_empty() => {
                health.set(NAME, true, format!("{due} hosts had grants to end"));
            }
            Ok((_, failed)) => {
                let hosts = crate::fleet_file::range::compress(failed.iter().map(String::as_str));
                health.set(NAME, false, format!("grants are still on {hosts}"));
            }
            Err(failure) => health.set(NAME, false, failure.what.clone()),
        });
        rest(app, app.config.ssh_session.key_cleanup_interval).await;
    }
}

/// Reads the configuration again at each SIGHUP. One that is wrong changes nothing.
async fn reload_at_hangup(app: &App<'_>, mut hangup: Signal, dials: Option<Dials>) {
    loop {
        // Cancel safety: the receiver keeps a signal that came meanwhile.
        tokio::select! {
            _ = hangup.recv() => {}
            () = app.cancel.cancelled() => return,
        }
        match settings::read(app.config_file.clone(), &app.environment.home) {
            Ok(settings) => {
                app.logs.reload(&settings.config().logging);
                if let Some(dials) = &dials
                    && let Err(failure) = dials.set(app, settings.config()).await
                {
                    let what = failure.what;
                    tracing::error!(what, "sessions of those who are not let in have not ended");
                }
                tracing::info!(
                    "the configuration was read again: log levels, rate limits and allowed \
                     validators were taken over"
                );
            }
            Err(failure) => {
                let cause = failure.source.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::error!(cause, "the configuration was read again and is not used");
            }
        }
    }
}

fn access(app: &App<'_>) -> Result<Access, Failure> {
    let required = findings::token_required(&app.settings);
    let secret = findings::secret(&app.settings)
        .map_err(|error| Failure::user("cannot use the secret of tokens").because(error))?;
    Ok(Access::new(secret, required))
}

async fn bind(host: IpAddr, port: u16, key: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let wanted = SocketAddr::new(host, port);
    let bound = async {
        let listener = TcpListener::bind(wanted).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    bound.await.map_err(|error| {
        Failure::user(format!("cannot listen on {wanted}"))
            .because(error)
            .hint(format!("`{key}` of the configuration says where"))
    })
}

/// The address as a client writes it: one that stands for all is this machine.
fn address(bound: &SocketAddr) -> String {
    bound.to_string()
}

fn instance_failure(error: InstanceError) -> Failure {
    match error {
        InstanceError::HeldHere { .. } | InstanceError::HeldElsewhere(_) => {
            Failure::locked("cannot serve").because(error).hint(
                "stop that process first; the lease of one that died ends within half a minute",
            )
        }
        error => Failure::user("cannot serve").because(error),
    }
}

fn print_unit(app: &App<'_>) -> Result<Exit, Failure> {
    let failed = |error| Failure::user("cannot make the unit").because(error);
    let program = std::env::current_exe().map_err(failed)?;
    let directory = std::env::current_dir().map_err(failed)?;
    let config = app.config_file.as_ref().map(std::path::absolute).transpose().map_err(failed)?;
    let unit = crate::render::render(
        crate::render::SERVE_UNIT,
        json!({
            "program": program.to_string_lossy(),
            "config": config.as_deref().map(std::path::Path::to_string_lossy),
            "directory": directory.to_string_lossy().replace('%', "%%"),
        }),
    )
    .map_err(|error| Failure::user("cannot make the unit").because(error))?;
    app.report.raw(&unit);
    Ok(Exit::Ok)
}

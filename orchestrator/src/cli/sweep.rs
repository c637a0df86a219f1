//! `orchestrator sweep`.

mod alerts;
mod history;
mod install;
mod show;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use super::failure::{Exit, Failure};
use crate::alerts::Channels;
use crate::config::duration;
use crate::fleet::Fleet;
use crate::fleet::sweep::{Pace, SweepError, SweepOptions, SweepReport, Sweeper};
use crate::fleet::verify::VerifyOptions;
use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::reason::Reason;
use crate::runner::Artifact;
use crate::signing_key::SigningKey;
use crate::sweep::Code;

/// Look at every host once: health, GPUs, runner; record, tell what changed, mend what is safe
///
/// One SSH connection and one command a host. Ends by its deadline, whatever the hosts do. With
/// --quiet only hosts in trouble are printed, so that cron mails only trouble.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    pass: PassArgs,
}

const EXIT_CODES: &str = "\
Exit status:
  0  the sweep came to its end, and no host is in a state that --fail-on names
  1  the user's input or the configuration is wrong
  3  hosts are in such a state, or their turn did not come
  5  the sweep was stopped on the way by the loss of its lock
  6  another sweep holds the lock
130  stopped by Ctrl-C or SIGTERM";

#[derive(Debug, clap::Args)]
struct PassArgs {
    /// The fleet file; without it the hosts of the last deploys
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// Ask each host that has GPUs for a proof too
    #[arg(long)]
    pow: bool,
    /// With --pow: ask the CPU reference, which proves nothing of a GPU
    #[arg(long, requires = "pow")]
    allow_reference: bool,
    /// How many hosts at a time; without it `parallel` of [sweep]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// The whole sweep, for example 90s or 5m; without it `timeout` of [sweep]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Which states of hosts make the exit status 3
    #[arg(long, value_name = "STATE", default_value = "degraded")]
    fail_on: FailOn,
    /// The runner that hosts shall have; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

/// `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Degraded, unreachable or quarantined.
    Degraded,
    /// Unreachable or quarantined.
    Unreachable,
    /// None.
    Never,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Install(install::Args),
    Uninstall(install::UninstallArgs),
    History(history::Args),
    NotifyTest(alerts::Args),
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        None => pass(app, args.pass).await,
        Some(Action::Install(args)) => install::run(app, args).await,
        Some(Action::Uninstall(args)) => install::uninstall(app, args).await,
        Some(Action::History(args)) => history::run(app, args).await,
        Some(Action::NotifyTest(args)) => alerts::test(app, args).await,
    }
}

async fn pass(app: &App<'_>, args: PassArgs) -> Result<Exit, Failure> {
    let limit = args.limit.as_deref();
    let specs: Vec<HostSpec> = match &args.hosts {
        Some(path) => app.fleet_file(path, limit).await?,
        None => {
            let known = app.known_hosts(limit).await?;
            known.into_iter().map(|record| record.spec).collect()
        }
    };
    if specs.is_empty() {
        return Err(Failure::user("there are no hosts to sweep")
            .hint("deploy first: orchestrator deploy --hosts fleet.toml"));
    }
    check_codes(app)?;
    let channels = alerts::channels(app)?;
    let options = options(app, &args)?;
    raise_open_files();
    let fleet = Arc::new(app.fleet(&specs, false).await?);
    let report = swept(app, &fleet, specs, options).await?;
    alerts::tell(app, &fleet, &report, &channels).await;
    Ok(exit(&report, args.fail_on))
}

/// One pass over these hosts, and what it found.
pub async fn swept(
    app: &App<'_>,
    fleet: &Arc<Fleet>,
    specs: Vec<HostSpec>,
    options: SweepOptions,
) -> Result<SweepReport, Failure> {
    let sweeper = Sweeper::new(Arc::clone(fleet), specs, options, false);
    let report = sweeper.pass(&app.cancel).await.map_err(failed)?;
    show::report(app, &report);
    Ok(report)
}

fn options(app: &App<'_>, args: &PassArgs) -> Result<SweepOptions, Failure> {
    let artifact = Arc::new(app.artifact(args.runner.as_deref())?);
    let pow = if args.pow {
        let key = SigningKey::load_or_create(&super::verify::state_folder(app))
            .map_err(super::verify::no_key)?;
        let allow_reference = args.allow_reference;
        Some(VerifyOptions {
            allow_reference,
            ..VerifyOptions::new(Arc::clone(&artifact), Arc::new(key))
        })
    } else {
        None
    };
    Ok(SweepOptions {
        parallel: args.parallel.map_or(app.config.sweep.parallel, usize::from),
        timeout: args.timeout.unwrap_or(app.config.sweep.timeout),
        pow,
        ..configured(app, artifact)
    })
}

/// A sweep as the configuration says, without proofs.
pub fn configured(app: &App<'_>, artifact: Arc<Artifact>) -> SweepOptions {
    let (config, hosts) = (&app.config.sweep, &app.config.executor_management);
    SweepOptions {
        artifact,
        parallel: config.parallel,
        timeout: config.timeout,
        probe_timeout: hosts.health_check_timeout,
        max_retry_attempts: hosts.max_retry_attempts,
        auto_recovery: hosts.auto_recovery,
        keys_file: app.config.ssh_session.authorized_keys_file.clone(),
        config: config.clone(),
        pow: None,
    }
}

/// What the sweeps of a service need. The files of the process are made enough for them.
pub fn for_service(
    app: &App<'_>,
    runner: Option<&std::path::Path>,
) -> Result<SweepOptions, Failure> {
    check_codes(app)?;
    let (_pace, _channels) = (pace(app)?, channels(app)?);
    raise_open_files();
    Ok(configured(app, Arc::new(app.artifact(runner)?)))
}

/// When the sweeps of a service are due.
pub fn pace(app: &App<'_>) -> Result<Pace, Failure> {
    let schedule = app.config.sweep.schedule.as_str();
    if schedule.is_empty() {
        return Ok(Pace::Every(app.config.executor_management.health_check_interval));
    }
    match schedule.parse() {
        Ok(schedule) => Ok(Pace::Schedule(Box::new(schedule))),
        Err(error) => Err(Failure::user("cannot use `schedule` of [sweep]")
            .because(error)
            .hint("five fields as of cron: minute, hour, day, month, weekday; \"*/10 * * * *\"")),
    }
}

/// The channels of alerts.
pub fn channels(app: &App<'_>) -> Result<Channels, Failure> {
    alerts::channels(app)
}

/// A misspelt code in `ignore` would silence nothing.
fn check_codes(app: &App<'_>) -> Result<(), Failure> {
    for code in &app.config.sweep.ignore {
        if let Err(error) = code.parse::<Code>() {
            return Err(Failure::user("cannot use `ignore` of [sweep]")
                .because(error)
                .hint("docs/sweep.md has all codes"));
        }
    }
    Ok(())
}

/// Each host at work is an open file, and the usual soft limit is 1024.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is not allowed, hosts beyond the limit are told as what they then are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn failed(error: SweepError) -> Failure {
    match error {
        SweepError::Cancelled => Failure::interrupted(),
        SweepError::Store(error) => error.into(),
        SweepError::Locked(held) => {
            let (since, until) = (super::app::ago(held.since_ms), held.expires_ms);
            let left = until.saturating_sub(crate::store::now_ms()).max(0) / 1000;
            let what = format!("another sweep holds the lock: {}, begun {since}", held.holder);
            Failure::locked(what).hint(format!(
                "wait for it; if its process is gone, the lock ends by itself in {left} s"
            ))
        }
        SweepError::LockLost => {
            let what = "the sweep was stopped on the way";
            Failure::remote(what, Reason::Locked).because(error)
        }
    }
}

fn exit(report: &SweepReport, fail_on: FailOn) -> Exit {
    let counts = |state: HostState| match fail_on {
        FailOn::Never => false,
        FailOn::Unreachable => matches!(state, HostState::Unreachable | HostState::Quarantined),
        FailOn::Degraded => {
            matches!(state, HostState::Degraded | HostState::Unreachable | HostState::Quarantined)
        }
    };
    let late = fail_on != FailOn::Never && !report.not_probed.is_empty();
    if late || report.hosts.iter().any(|host| counts(host.state)) {
        Exit::SomeHostsFailed
    } else {
        Exit::Ok
    }
}

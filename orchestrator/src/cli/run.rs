//! `orchestrator run`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;

use super::app::App;
use super::containers::{RunnerArgs, failed, runner_if_there};
use super::failure::{Exit, Failure};
use crate::byte_size;
use crate::config::duration;
use crate::docker::{
    ContainerPlan, ImageName, Mount, Network, Publish, PullProgress, RegistryAuth,
};
use crate::fleet::containers::{
    ContainerError, Ended, HostDoesNotFit, Pull, RunEvent, RunOptions, Sink, Stop, Wish, rank, run,
};
use crate::host_spec::HostSpec;
use crate::reason::Reason;
use crate::store::HostRecord;

/// Run a container on a host, or on whichever host fits
///
/// In the foreground its output is passed on, standard output and standard error apart, and its
/// exit code is this command's. It ends with this command: Ctrl-C sends TERM, then after the grace
/// time KILL, and a lost connection stops it too. With --detach it runs on by itself.
///
/// Exit status in the foreground: the container's own; 124 when its time was over; 125 when it did
/// not run, or what became of it is not known; 130 after Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host, as the last deploy knows it
    #[arg(required_unless_present = "any", conflicts_with = "any")]
    host: Option<String>,
    /// On the least loaded host that is ready and has what is asked for
    #[arg(long)]
    any: bool,
    /// With --any: only these hosts, for example `rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR", requires = "any")]
    limit: Option<String>,
    /// With --any: only hosts with this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "any")]
    labels: Vec<String>,
    /// The image
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    image: ImageName,
    /// So many GPUs, whichever are free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    gpus: Option<u64>,
    /// This GPU, by UUID; may be repeated
    #[arg(long = "gpu", value_name = "UUID", conflicts_with = "gpus")]
    gpu: Vec<String>,
    /// With --gpus: only GPUs of this model, as `hosts show` names it
    #[arg(long, value_name = "MODEL", requires = "gpus")]
    model: Option<String>,
    /// Processors, for example 1.5
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u64>,
    /// Memory, for example 64G; no swap beyond it
    #[arg(long, value_name = "SIZE", value_parser = byte_size::parse)]
    memory: Option<u64>,
    /// Processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids: Option<u64>,
    /// /dev/shm, for example 8G
    #[arg(long, value_name = "SIZE", value_parser = byte_size::parse)]
    shm_size: Option<u64>,
    /// A variable; may be repeated. Other users of this machine can read it: use --env-file for
    /// secrets
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// A file of variables, one KEY=VALUE on each line; # begins a comment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A directory of the host; may be repeated
    #[arg(long, value_name = "SRC:DST[:ro]")]
    mount: Vec<String>,
    /// A TCP port, on the host's loopback address unless another is given; may be repeated
    #[arg(long, value_name = "[IP:]HOST:CONTAINER", value_parser = publish)]
    publish: Vec<Publish>,
    /// Its network
    #[arg(long, value_name = "NETWORK", default_value = "bridge")]
    network: Network,
    /// Its user: name or number, with :group if wanted
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Stop it after this time, for example 2h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Between TERM and KILL
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    grace: Duration,
    /// When to pull the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: Pull,
    /// Credentials of the image's registry: Docker's config.json or a line user:password, mode 0600
    #[arg(long, value_name = "FILE")]
    registry_auth_file: Option<PathBuf>,
    /// Its name
    #[arg(long, value_name = "NAME", value_parser = container_name)]
    name: Option<String>,
    /// Return once it runs
    #[arg(long)]
    detach: bool,
    /// Remove it when it has ended
    #[arg(long)]
    rm: bool,
    /// Its root file system is read-only
    #[arg(long)]
    read_only: bool,
    /// Root on the host; only where the fleet file allows it
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    runner: RunnerArgs,
    /// What it runs; without it what the image says
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub async fn run_container(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let detached = args.detach;
    let ended = attempt(app, args).await;
    // A container's own code must be told from ours.
    let ended = if detached { ended } else { ended.map_err(Failure::around_a_container) };
    let ended = ended?;
    Ok(match (ended.stopped, ended.exit_code) {
        (Some(Stop::Interrupted), _) => Exit::Interrupted,
        (Some(Stop::TimedOut), _) => Exit::TimedOut,
        (None, None) => Exit::Ok,
        (None, Some(code)) => u8::try_from(code).map_or(Exit::AroundContainer, Exit::Passed),
    })
}

async fn attempt(app: &App<'_>, args: Args) -> Result<Ended, Failure> {
    let wish = match (args.gpus, args.gpu.is_empty()) {
        (Some(count), _) => Wish::Count {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            model: args.model.clone(),
        },
        (None, false) => Wish::These(args.gpu.clone()),
        (None, true) => Wish::Nothing,
    };
    let auth = args.registry_auth_file.as_deref().map(|path| RegistryAuth::load(path, &args.image));
    let auth =
        auth.transpose().map_err(|error| failed("cannot run the container", error.into()))?;
    let (specs, mut others) = candidates(app, &args, &wish).await?;
    let fleet = Arc::new(app.fleet(&specs, false).await?);
    let artifact = runner_if_there(app, args.runner.runner.as_deref())?;
    let mut sink: Option<Box<dyn Sink>> = (!args.detach).then(|| app.report.sink());
    let mut options = RunOptions {
        plan: plan(&args, None)?,
        wish,
        pull: args.pull,
        auth,
        grace: args.grace,
        client: None,
    };
    let view = View::new(app);
    for spec in &specs {
        options.plan = plan(&args, spec.containers.socket.as_deref())?;
        let on_event = |event| view.event(event);
        let sink = sink.as_mut().map(|sink| &mut **sink as &mut dyn Sink);
        let ran = run(&fleet, spec, artifact.clone(), &options, sink, &on_event, &app.cancel).await;
        view.done();
        match ran {
            Ok(ended) => {
                tell(app, &ended);
                return Ok(ended);
            }
            Err(error) if args.any && error.is_of_the_host() => {
                let mut chain = vec![error.to_string()];
                chain.extend(error.causes());
                others.push(HostDoesNotFit { host: spec.name.clone(), why: chain.join(": ") });
            }
            Err(error) => {
                return Err(failed(&format!("cannot run the container on {}", spec.name), error));
            }
        }
    }
    Err(failed("cannot run the container on any host", ContainerError::NoHostFits(others)))
}

/// The host, or with --any those that may fit, the best first, and why the others do not.
async fn candidates(
    app: &App<'_>,
    args: &Args,
    wish: &Wish,
) -> Result<(Vec<HostSpec>, Vec<HostDoesNotFit>), Failure> {
    if let Some(host) = &args.host {
        return Ok((vec![app.known_host(host).await?.spec], Vec::new()));
    }
    let store = app.store().await?;
    let mut labels = Vec::new();
    for label in &args.labels {
        let wrong = || Failure::user(format!("--label {label:?} is not KEY=VALUE"));
        labels.push(label.split_once('=').ok_or_else(wrong)?);
    }
    let mut hosts = Vec::new();
    let mut others = Vec::new();
    for record in app.known_hosts(args.limit.as_deref()).await? {
        let HostRecord { spec, .. } = &record;
        let missing = labels
            .iter()
            .find(|(key, value)| spec.labels.get(*key).is_none_or(|found| found != value));
        if let Some((key, value)) = missing {
            let why = format!("it is not labelled {key}={value}");
            others.push(HostDoesNotFit { host: spec.name.clone(), why });
            continue;
        }
        let facts = store.facts_history(&spec.name, 1).await?.pop().map(|record| record.facts);
        hosts.push((record, facts));
    }
    let (fitting, unfit) = rank(wish, &hosts, &store.live_leases(None).await?);
    others.extend(unfit);
    if fitting.is_empty() && others.is_empty() {
        return Err(Failure::user("there are no hosts yet")
            .hint("deploy first: orchestrator deploy --hosts fleet.toml"));
    }
    Ok((fitting, others))
}

fn plan(args: &Args, socket: Option<&str>) -> Result<ContainerPlan, Failure> {
    let mut environment = Vec::new();
    for path in &args.env_file {
        environment.extend(read_environment(path)?);
    }
    for variable in &args.env {
        let wrong = || {
            // The value may be a secret: it is not repeated.
            Failure::user("--env takes KEY=VALUE").hint("a KEY alone is not taken from here")
        };
        let (key, value) = split_variable(variable).ok_or_else(wrong)?;
        environment.push((key.to_owned(), value.to_owned()));
    }
    let mut mounts = Vec::new();
    for mount in &args.mount {
        let refused = |error| Failure::user("cannot mount").because(error);
        mounts.push(Mount::parse(mount, socket).map_err(refused)?);
    }
    Ok(ContainerPlan {
        name: args.name.clone(),
        image: args.image.clone(),
        command: args.command.clone(),
        environment,
        mounts,
        publish: args.publish.clone(),
        network: args.network,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        cpus_milli: args.cpus,
        memory_bytes: args.memory,
        pids: args.pids,
        shm_bytes: args.shm_size,
        read_only: args.read_only,
        privileged: args.privileged,
        remove: args.rm,
        detached: args.detach,
        timeout_secs: args.timeout.map(|timeout| timeout.as_secs().max(1)),
    })
}

fn split_variable(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace))
}

fn read_environment(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let cannot = || format!("cannot use the variables in {}", path.display());
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::user(cannot()).because(error))?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (key, value) = split_variable(line).ok_or_else(|| {
            Failure::user(cannot()).hint(format!("line {} is not KEY=VALUE", index + 1))
        })?;
        variables.push((key.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

fn image(text: &str) -> Result<ImageName, String> {
    ImageName::parse(text).map_err(|error| error.to_string())
}

/// Thousandths of processors.
fn cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number of processors: write for example 2 or 0.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    match whole.checked_mul(1000).and_then(|milli| milli.checked_add(thousandths)) {
        Some(milli) if milli > 0 && milli <= 4_096_000 => Ok(milli),
        _ => Err(wrong()),
    }
}

fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || format!("{text:?} is not a port: write HOST:CONTAINER or IP:HOST:CONTAINER");
    let (rest, container) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => {
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            (bare.parse().map_err(|_| wrong())?, host)
        }
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
    };
    let host = host.parse().map_err(|_| wrong())?;
    let container = container.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    Ok(Publish { address, host, container })
}

/// What Docker takes as a name.
fn container_name(text: &str) -> Result<String, String> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && (2..=128).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("a name is 2 to 128 letters, digits, '_', '.' and '-', the first a letter or digit"
            .to_owned())
    }
}

/// What a person sees until the container runs.
struct View<'a> {
    app: &'a App<'a>,
    bar: Mutex<Option<ProgressBar>>,
}

impl<'a> View<'a> {
    fn new(app: &'a App<'a>) -> Self {
        Self { app, bar: Mutex::new(None) }
    }

    fn event(&self, event: RunEvent) {
        let report = self.app.report;
        match event {
            RunEvent::Connecting(host) => {
                tracing::debug!(%host, "connecting");
            }
            RunEvent::Pulling(progress) => self.pulling(progress),
            RunEvent::Started(started) => {
                self.done();
                report.json(&json!({ "event": "started", "started": started }));
                tracing::debug!(host = %started.host, id = %started.id, "the container runs");
            }
            RunEvent::Stopping(Stop::Interrupted) => {
                report.note("stopping the container; once more to leave it to the host");
            }
            RunEvent::Stopping(Stop::TimedOut) => {
                report.note("its time is over: stopping the container");
            }
        }
    }

    fn pulling(&self, progress: PullProgress) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.app.report.may_draw() {
            if progress == PullProgress::default() {
                self.app.report.note("pulling the image");
            }
            return;
        }
        let bar = bar.get_or_insert_with(ProgressBar::new_spinner);
        let PullProgress { layers, complete, bytes, total_bytes } = progress;
        let (bytes, total) = (byte_size::words(bytes), byte_size::words(total_bytes));
        bar.set_message(format!("pulling: {complete} of {layers} layers, {bytes} of {total}"));
        bar.tick();
    }

    fn done(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// How it ended, or that it runs.
fn tell(app: &App<'_>, ended: &Ended) {
    let state = ended.state.as_ref();
    let oom_killed = state.is_some_and(|state| state.oom_killed);
    let reason = match ended.stopped {
        Some(Stop::TimedOut) => Some(Reason::Deadline),
        Some(Stop::Interrupted) => Some(Reason::Cancelled),
        None => None,
    };
    let started = &ended.started;
    let elapsed_ms = u64::try_from(ended.elapsed.as_millis()).unwrap_or(u64::MAX);
    app.report.json(&json!({
        "event": if ended.exit_code.is_some() { "ended" } else { "detached" },
        "ok": reason.is_none() && ended.exit_code.is_none_or(|code| code == 0),
        "host": started.host,
        "id": started.id,
        "container": started.container,
        "gpus": started.gpus,
        "deadline_ms": started.deadline_ms,
        "exit_code": ended.exit_code,
        "oom_killed": oom_killed,
        "reason": reason,
        "elapsed_ms": elapsed_ms,
    }));
    if ended.exit_code.is_none() {
        app.report.result(&started.id);
        app.report.note(&format!("it runs on {}", started.host));
    } else if oom_killed {
        app.report.warning("the container was out of memory, and the kernel killed it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ports_of_the_command_line() {
        for (text, milli) in [("1", 1000), ("0.5", 500), ("1.25", 1250), ("0.001", 1)] {
            assert_eq!(cpus(text), Ok(milli));
        }
        for text in ["", "0", "-1", "1.", ".5", "1.2345", "1e3", "99999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        let port = publish("8080:80").unwrap();
        assert_eq!(
            (port.address.to_string().as_str(), port.host, port.container),
            ("127.0.0.1", 8080, 80)
        );
        assert_eq!(publish("[::1]:0:80").unwrap().address.to_string(), "::1");
        assert_eq!(publish("0.0.0.0:1:2").unwrap().address.to_string(), "0.0.0.0");
        for text in ["", "80", "a:80", "80:0", "x:1:2", "70000:1"] {
            assert!(publish(text).is_err(), "{text}");
        }
        assert!(container_name("train-1").is_ok());
        for text in ["", "a", "-ab", "a b", "a/b"] {
            assert!(container_name(text).is_err(), "{text}");
        }
    }
}

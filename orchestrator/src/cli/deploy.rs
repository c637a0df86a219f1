//! `orchestrator deploy`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tokio::sync::mpsc;

use super::app::App;
use super::failure::{Exit, Failure};
use super::live;
use super::report::Tone;
use crate::fleet::{self, Change, DeployOptions, HostOutcome};
use crate::reason::Reason;

/// Put the runner on every host of the fleet file, read its facts, compare them with the claim
///
/// A host that already has this runner is not written to. Hosts are independent: a dead one
/// delays and hides no other.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The fleet file; without it the executors of the configuration, else fleet.toml
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// How many hosts at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
    /// Connect and look, say what would change, and change nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// Trust the key of a host that was never seen (a changed key is refused all the same)
    #[arg(long)]
    accept_new_host_keys: bool,
    /// The runner to upload; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let specs = app.declared_hosts(args.hosts.as_deref(), args.limit.as_deref()).await?;
    let artifact = app.artifact(args.runner.as_deref())?;
    let fleet = Arc::new(app.fleet(&specs, args.accept_new_host_keys).await?);
    let parallel = args.parallel.map_or(app.config.executor_management.parallel, usize::from);
    let options = DeployOptions { artifact: Arc::new(artifact), parallel, dry_run: args.dry_run };
    deploy(app, fleet, specs, options).await
}

/// Deploys, shows, and sums up.
pub async fn deploy(
    app: &App<'_>,
    fleet: Arc<fleet::Fleet>,
    specs: Vec<crate::host_spec::HostSpec>,
    options: DeployOptions,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let (sender, receiver) = mpsc::unbounded_channel();
    let view = live::follow(app.report, specs.len(), receiver);
    let work = fleet::deploy(fleet, specs, options, sender, app.cancel.clone());
    let (mut outcomes, ()) = tokio::join!(work, view);
    outcomes.sort_by(|a, b| a.host.cmp(&b.host));
    table(app, &outcomes);
    Ok(sum_up(app, &outcomes, started))
}

fn table(app: &App<'_>, outcomes: &[HostOutcome]) {
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let tone = if outcome.ok { Tone::Good } else { Tone::Bad };
            let state = match (outcome.reason, outcome.state) {
                (Some(reason), _) => reason.code().to_owned(),
                (None, Some(state)) => state.to_string(),
                (None, None) => "ok".to_owned(),
            };
            vec![
                (outcome.host.to_string(), None),
                (state, Some(tone)),
                (outcome.gpus.clone().unwrap_or_else(|| "-".to_owned()), None),
                (outcome.driver.clone().unwrap_or_else(|| "-".to_owned()), None),
                (format!("{:.1} s", outcome.elapsed_ms as f64 / 1000.0), Some(Tone::Dim)),
                (outcome.whole_message(), (!outcome.ok).then_some(Tone::Bad)),
            ]
        })
        .collect();
    app.report.table(&["HOST", "STATE", "GPUS", "DRIVER", "TIME", "OUTCOME"], &rows);
}

fn sum_up(app: &App<'_>, outcomes: &[HostOutcome], started: Instant) -> Exit {
    let count =
        |wanted: &dyn Fn(&HostOutcome) -> bool| outcomes.iter().filter(|o| wanted(o)).count();
    let failed = count(&|outcome| !outcome.ok);
    let uploaded = count(&|outcome| outcome.change == Change::Uploaded);
    let would = count(&|outcome| outcome.change == Change::WouldUpload);
    let cancelled = count(&|outcome| outcome.reason == Some(Reason::Cancelled));
    let elapsed = started.elapsed();
    app.report.json(&json!({
        "event": "summary",
        "ok": failed == 0,
        "hosts": outcomes.len(),
        "failed": failed,
        "uploaded": uploaded,
        "would_upload": would,
        "cancelled": cancelled,
        "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }));
    let done = match (uploaded, would) {
        (0, 0) => "nothing uploaded".to_owned(),
        (0, would) => format!("the runner would be uploaded to {would}"),
        (uploaded, _) => format!("runner uploaded to {uploaded}"),
    };
    let verdict = if failed == 0 {
        app.report.out_tone("all well", Tone::Good)
    } else {
        app.report.out_tone(&format!("{failed} failed"), Tone::Bad)
    };
    app.report.result(&format!(
        "\n{} hosts, {verdict}, {done}, {:.1} s",
        outcomes.len(),
        elapsed.as_secs_f64()
    ));
    // The same advice for many hosts is given once.
    let mut hints: Vec<(&str, Vec<&str>)> = Vec::new();
    for outcome in outcomes {
        if let Some(hint) = &outcome.hint {
            match hints.iter_mut().find(|(known, _)| known == hint) {
                Some((_, hosts)) => hosts.push(outcome.host.as_str()),
                None => hints.push((hint, vec![outcome.host.as_str()])),
            }
        }
    }
    for (hint, hosts) in hints {
        let hosts = crate::fleet_file::range::compress(hosts);
        app.report.note(&format!("{} {hosts}: {hint}", app.report.err_tone("hint:", Tone::Good)));
    }
    match (cancelled, failed) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::SomeHostsFailed,
        _ => Exit::Interrupted,
    }
}

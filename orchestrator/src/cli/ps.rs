//! `orchestrator ps`.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::app::{App, ago, utc};
use super::containers::{RunnerArgs, runner_if_there};
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::fleet::containers::{ContainerRow, HostContainers, list};
use crate::printable::printable;

/// List our containers on every host, as the hosts know them
///
/// Each host is asked; one that does not answer is a row of its own, and the exit status is 3.
/// What outlived its time, or whoever held it, is stopped on the way.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// Also containers that have ended
    #[arg(long, short)]
    all: bool,
    /// How many hosts are asked at a time
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    #[command(flatten)]
    runner: RunnerArgs,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let records = app.known_hosts(args.limit.as_deref()).await?;
    let specs: Vec<_> = records.into_iter().map(|record| record.spec).collect();
    if specs.is_empty() {
        app.report.json(&json!([]));
        app.report.note("no hosts yet: run `orchestrator deploy --hosts fleet.toml`");
        return Ok(Exit::Ok);
    }
    let fleet = Arc::new(app.fleet(&specs, false).await?);
    let artifact = runner_if_there(app, args.runner.runner.as_deref())?;
    let slots = Arc::new(Semaphore::new(usize::from(args.parallel)));
    let mut tasks = JoinSet::new();
    for spec in specs {
        let (fleet, artifact, slots) = (Arc::clone(&fleet), artifact.clone(), Arc::clone(&slots));
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _slot = slots.acquire_owned().await.ok();
            list(&fleet, &spec, artifact).await
        });
    }
    let mut answers: Vec<HostContainers> = app.until_cancelled(tasks.join_all()).await?;
    answers.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(show(app, &answers, args.all))
}

fn show(app: &App<'_>, answers: &[HostContainers], all: bool) -> Exit {
    let mut documents = Vec::new();
    let mut rows = Vec::new();
    let mut failed = 0;
    for answer in answers {
        match &answer.outcome {
            Ok(containers) => {
                for container in containers.iter().filter(|it| all || it.state == "running") {
                    documents.push(json!({ "ok": true, "container": container }));
                    rows.push(cells(container));
                }
            }
            Err(error) => {
                failed += 1;
                let causes = error.causes();
                documents.push(json!({
                    "ok": false,
                    "host": answer.host,
                    "reason": error.reason(),
                    "message": printable(&error.to_string()),
                    "causes": causes,
                    "hint": error.hint(),
                }));
                let words = causes.last().cloned().unwrap_or_else(|| error.to_string());
                let mut row = vec![
                    (answer.host.to_string(), None),
                    (format!("[{}]", error.reason()), Some(Tone::Bad)),
                ];
                row.extend([(); 5].map(|()| ("-".to_owned(), Some(Tone::Dim))));
                row.push((words, Some(Tone::Bad)));
                rows.push(row);
            }
        }
    }
    app.report.json(&documents);
    if rows.is_empty() {
        app.report.note("nothing of ours runs");
    } else {
        let headers = ["HOST", "ID", "NAME", "IMAGE", "GPUS", "CREATED", "UNTIL", "STATUS"];
        app.report.table(&headers, &rows);
    }
    if failed > 0 { Exit::SomeHostsFailed } else { Exit::Ok }
}

fn cells(container: &ContainerRow) -> Vec<(String, Option<Tone>)> {
    let tone = if container.state == "running" { Tone::Good } else { Tone::Dim };
    let until = container.deadline_ms.map_or_else(|| "-".to_owned(), utc);
    let unleased = if container.leased || container.state != "running" { "" } else { " (no lease)" };
    vec![
        (container.host.to_string(), None),
        (container.id.chars().take(12).collect(), Some(Tone::Bold)),
        (container.name.clone(), None),
        (container.image.clone(), None),
        (container.gpus.len().to_string(), None),
        (ago(container.created_ms), None),
        (until, None),
        (format!("{}{unleased}", container.status), Some(tone)),
    ]
}

//! `orchestrator hosts list`.

use serde_json::json;

use crate::cli::app::{App, ago};
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;
use crate::fleet::{driver_version, gpu_summary};
use crate::host_state::HostState;

/// List every host that was deployed to: state, GPUs, driver, last seen, runner
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let store = app.store().await?;
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for host in app.known_hosts(args.limit.as_deref()).await? {
        let facts = store.facts_history(&host.spec.name, 1).await?;
        let facts = facts.first();
        let gpus = facts.map(|record| gpu_summary(&record.facts));
        let driver = facts.and_then(|record| driver_version(&record.facts));
        documents.push(json!({
            "host": host.spec.name,
            "address": host.spec.endpoint.address,
            "port": host.spec.endpoint.port,
            "state": host.state,
            "state_since_ms": host.state_since_ms,
            "gpus": gpus,
            "driver": driver,
            "last_seen_ms": host.last_seen_ms,
            "runner": host.runner_sha256,
            "runner_version": host.runner_version,
            "reason": host.last_reason,
            "message": host.last_message,
            "drain_note": host.drain_note,
            "labels": host.spec.labels,
        }));
        let dash = || "-".to_owned();
        let runner = match (&host.runner_version, &host.runner_sha256) {
            (Some(version), Some(sha256)) => {
                format!("{version} ({})", sha256.chars().take(12).collect::<String>())
            }
            _ => dash(),
        };
        rows.push(vec![
            (host.spec.name.to_string(), None),
            (host.state.to_string(), Some(tone(host.state))),
            (gpus.unwrap_or_else(dash), None),
            (driver.unwrap_or_else(dash), None),
            (host.last_seen_ms.map_or_else(|| "never".to_owned(), ago), None),
            (runner, Some(Tone::Dim)),
            (host.drain_note.or(host.last_message).unwrap_or_default(), Some(Tone::Warn)),
        ]);
    }
    app.report.json(&documents);
    if rows.is_empty() {
        app.report.note("no hosts yet: run `orchestrator deploy --hosts fleet.toml`");
    } else {
        app.report
            .table(&["HOST", "STATE", "GPUS", "DRIVER", "LAST SEEN", "RUNNER", "NOTE"], &rows);
    }
    Ok(Exit::Ok)
}

/// The colour of a state.
pub fn tone(state: HostState) -> Tone {
    match state {
        HostState::Ready | HostState::Leased => Tone::Good,
        HostState::Unknown | HostState::Draining => Tone::Dim,
        HostState::Degraded => Tone::Warn,
        HostState::Unreachable | HostState::Quarantined => Tone::Bad,
    }
}

//! `orchestrator stop`.

use std::time::Duration;

use serde_json::json;

use super::app::App;
use super::containers::{RunnerArgs, failed, reach};
use super::failure::{Exit, Failure};
use crate::config::duration;
use crate::fleet::containers::stop_container;

/// Stop a container: TERM, the grace time, KILL
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST/NAME, HOST/ID, or the beginning of the id that `ps` shows
    container: String,
    /// Between TERM and KILL
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    grace: Duration,
    #[command(flatten)]
    runner: RunnerArgs,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let reached = reach(app, &args.container, args.runner.runner.as_deref()).await?;
    let stop = stop_container(&reached.fleet, &reached.host, &reached.what, args.grace);
    let stopped = app.until_cancelled(stop).await?;
    reached.host.close().await;
    let found = stopped
        .map_err(|error| failed(&format!("cannot stop the container {}", args.container), error))?;
    let host = &reached.host.spec.name;
    app.report.json(&json!({
        "ok": true, "host": host, "id": found.id, "container": found.container.id,
    }));
    app.report.result(&format!("{host}/{} is stopped", found.container.name()));
    Ok(Exit::Ok)
}

//! `orchestrator rm`.

use serde_json::json;

use super::app::App;
use super::containers::{RunnerArgs, failed, reach};
use super::failure::{Exit, Failure};
use crate::fleet::containers::remove_container;

/// Remove a container that has ended
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST/NAME, HOST/ID, or the beginning of the id that `ps` shows
    container: String,
    /// Also one that runs: it is killed
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    runner: RunnerArgs,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let reached = reach(app, &args.container, args.runner.runner.as_deref()).await?;
    let remove = remove_container(&reached.fleet, &reached.host, &reached.what, args.force);
    let removed = app.until_cancelled(remove).await?;
    reached.host.close().await;
    let found = removed.map_err(|error| {
        failed(&format!("cannot remove the container {}", args.container), error)
    })?;
    let host = &reached.host.spec.name;
    app.report.json(&json!({
        "ok": true, "host": host, "id": found.id, "container": found.container.id,
    }));
    app.report.result(&format!("{host}/{} is removed", found.container.name()));
    Ok(Exit::Ok)
}

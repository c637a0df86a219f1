//! `orchestrator inspect`.

use super::app::App;
use super::containers::{RunnerArgs, failed, reach};
use super::failure::{Exit, Failure};
use crate::fleet::containers::inspect_container;

/// Show all that a host's engine knows of a container, as JSON
///
/// Its variables are among it, and with them whatever secrets they carry.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST/NAME, HOST/ID, or the beginning of the id that `ps` shows
    container: String,
    #[command(flatten)]
    runner: RunnerArgs,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let reached = reach(app, &args.container, args.runner.runner.as_deref()).await?;
    let inspect = inspect_container(&reached.fleet, &reached.host, &reached.what);
    let inspected = app.until_cancelled(inspect).await?;
    reached.host.close().await;
    let (_, whole) = inspected.map_err(|error| {
        failed(&format!("cannot look at the container {}", args.container), error)
    })?;
    app.report.json(&whole);
    if !app.report.is_json() {
        // JSON has no control characters of its own in it: they are escaped.
        app.report.result(&serde_json::to_string_pretty(&whole).unwrap_or_default());
    }
    Ok(Exit::Ok)
}

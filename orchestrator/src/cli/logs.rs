//! `orchestrator logs`.

use super::app::App;
use super::containers::{RunnerArgs, failed, reach};
use super::failure::{Exit, Failure};
use crate::config::duration;
use crate::docker::LogQuery;
use crate::fleet::containers::{logs, pump};
use crate::store::now_ms;

/// Show what a container has written, standard output and standard error apart
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HOST/NAME, HOST/ID, or the beginning of the id that `ps` shows
    container: String,
    /// Wait for more, until the container ends
    #[arg(long, short)]
    follow: bool,
    /// From then on: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i64>,
    /// Only so many of the last lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    runner: RunnerArgs,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let reached = reach(app, &args.container, args.runner.runner.as_deref()).await?;
    let query = LogQuery {
        follow: args.follow,
        since_secs: args.since,
        tail: args.tail,
        timestamps: args.timestamps,
    };
    let read = async {
        let (_, output) = logs(&reached.fleet, &reached.host, &reached.what, &query).await?;
        pump(output, app.report.sink().as_mut()).await
    };
    let read = app.until_cancelled(read).await;
    reached.host.close().await;
    read?.map_err(|error| failed(&format!("cannot read the log of {}", args.container), error))?;
    Ok(Exit::Ok)
}

/// A time, or how long ago, in seconds since the Unix epoch.
fn since(text: &str) -> Result<i64, String> {
    if let Ok(ago) = duration::parse(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms().saturating_sub(ago) / 1000);
    }
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_second)
        .map_err(|_| format!("{text:?} is neither a time (2026-01-31T12:00:00Z) nor a duration (10m)"))
}

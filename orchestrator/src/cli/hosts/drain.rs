//! `orchestrator hosts drain` and `resume`.

use serde_json::json;

use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::host_state::HostEvent;
use crate::store::NewEvent;

/// Set a host aside: it takes no new lease until `hosts resume`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    host: String,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Bring a drained or quarantined host back
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// The host
    host: String,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    decide(app, &args.host, HostEvent::Drain, args.note.as_deref(), "host.drained").await
}

pub async fn resume(app: &App<'_>, args: ResumeArgs) -> Result<Exit, Failure> {
    decide(app, &args.host, HostEvent::Resume, None, "host.resumed").await
}

async fn decide(
    app: &App<'_>,
    host: &str,
    decision: HostEvent,
    note: Option<&str>,
    kind: &'static str,
) -> Result<Exit, Failure> {
    let host = app.host_name(host)?;
    let event = NewEvent { kind, host: Some(host.clone()), detail: json!({ "note": note }) };
    let store = app.store().await?;
    let changed = store.apply_decision(&app.actor, &host, decision, note, event).await?;
    let Some((before, after)) = changed else { return Err(app.unknown_host(&host).await) };
    app.report.json(&json!({ "ok": true, "host": host, "before": before, "after": after }));
    let words = if before == after {
        format!("{host} is {after} already")
    } else {
        format!("{host} was {before} and is {after}")
    };
    app.report.result(&words);
    Ok(Exit::Ok)
}

//! `orchestrator audit`.

use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;

/// Rows that are read and printed at a time.
const PAGE_ROWS: i64 = 500;

/// Check or print the audit chain: every host-key decision, deploy and purge
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check every event's hash and link; exit status 4 when the chain is broken
    Verify {
        /// A head hash noted earlier (printed by this command): the chain must contain it, which
        /// shows that nothing was cut off its end
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
    /// Print the events as JSON lines, oldest first
    Export {
        /// Only events after this number
        #[arg(long, default_value_t = 0, value_name = "SEQ")]
        after: i64,
        /// Only events of this host
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::Verify { head } => verify(app, head.as_deref()).await,
        Action::Export { after, host } => export(app, after, host).await,
    }
}

/// Checks the chain and says so.
pub async fn verify(app: &App<'_>, head: Option<&str>) -> Result<Exit, Failure> {
    let store = app.store().await?;
    let report = store.audit_verify(head).await?;
    app.report.json(&json!({
        "ok": report.fault.is_none(),
        "events": report.events,
        "head": report.head,
        "fault": report.fault,
    }));
    if let Some(fault) = &report.fault {
        app.report.trouble(
            &format!("the audit chain of {} is broken", store.path().display()),
            &[fault.to_string()],
            Some("keep a copy of the database, compare it with your backups, and find out who can write to it"),
        );
        return Ok(Exit::Negative);
    }
    app.report.result(&format!(
        "{} {} events, head {}",
        app.report.out_tone("the audit chain is whole:", Tone::Good),
        report.events,
        report.head
    ));
    Ok(Exit::Ok)
}

async fn export(app: &App<'_>, after: i64, host: Option<String>) -> Result<Exit, Failure> {
    let host = host.map(|name| app.host_name(&name)).transpose()?;
    let store = app.store().await?;
    let mut last = after;
    loop {
        let page = store.events_after(last, host.as_ref(), PAGE_ROWS).await?;
        let Some(end) = page.last() else { return Ok(Exit::Ok) };
        last = end.seq;
        for event in &page {
            let line = serde_json::to_string(event)
                .map_err(|error| Failure::user("cannot write the events").because(error))?;
            app.report.raw(&(line + "\n"));
        }
    }
}

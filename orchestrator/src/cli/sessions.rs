//! `orchestrator sessions`.

use serde_json::json;

use super::app::{App, ago, utc};
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::store::{SessionFilter, SessionRow, now_ms};

/// Sessions of validators with the axon: list them, end them
///
/// There are some where `validator_comms.auth.method` is jwt.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the sessions that are live, the newest first
    List {
        /// Only those of this validator
        #[arg(long, value_name = "HOTKEY")]
        validator: Option<String>,
        /// Also those that are over; they are kept for a day
        #[arg(long)]
        all: bool,
        /// How many at most
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u32,
    },
    /// End sessions: their tokens are refused at once, by every process
    Revoke {
        /// The sessions' ids
        #[arg(value_name = "ID", required_unless_present_any = ["validator", "all"])]
        ids: Vec<String>,
        /// All of this validator
        #[arg(long, value_name = "HOTKEY", conflicts_with = "ids")]
        validator: Option<String>,
        /// All there are
        #[arg(long, conflicts_with_all = ["ids", "validator"])]
        all: bool,
    },
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::List { validator, all, limit } => {
            list(app, &SessionFilter { id: None, validator, live: !all }, limit).await
        }
        Action::Revoke { ids, validator, all: _ } => revoke(app, ids, validator).await,
    }
}

async fn list(app: &App<'_>, filter: &SessionFilter, limit: u32) -> Result<Exit, Failure> {
    let sessions = app.store().await?.sessions(filter, limit).await?;
    app.report.json(&sessions);
    if sessions.is_empty() {
        app.report.note("no sessions");
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = sessions.iter().map(row).collect();
    app.report.table(&["SESSION", "VALIDATOR", "FROM", "STATE", "UNTIL", "OPENED"], &rows);
    Ok(Exit::Ok)
}

fn row(session: &SessionRow) -> Vec<(String, Option<Tone>)> {
    let (state, tone) = match (&session.ended_by, session.expires_ms <= now_ms()) {
        (Some(by), _) => (format!("ended by {by}"), Tone::Warn),
        (None, true) => ("expired".to_owned(), Tone::Dim),
        (None, false) => ("live".to_owned(), Tone::Good),
    };
    vec![
        (session.id.clone(), Some(Tone::Bold)),
        (session.validator.clone(), None),
        (session.address.clone(), None),
        (state, Some(tone)),
        (utc(session.expires_ms), None),
        (ago(session.issued_ms), None),
    ]
}

async fn revoke(
    app: &App<'_>,
    ids: Vec<String>,
    validator: Option<String>,
) -> Result<Exit, Failure> {
    let store = app.store().await?;
    let mut filters: Vec<SessionFilter> = Vec::new();
    if ids.is_empty() {
        filters.push(SessionFilter { id: None, validator, live: true });
    } else {
        let of = |id| SessionFilter { id: Some(id), validator: None, live: true };
        filters.extend(ids.into_iter().map(of));
    }
    let (mut ended, mut unknown) = (Vec::new(), Vec::new());
    for filter in filters {
        let now = store.end_sessions(&app.actor, &filter).await?;
        match (now.is_empty(), filter.id) {
            (true, Some(id)) => unknown.push(id),
            _ => ended.extend(now),
        }
    }
    app.report.json(&json!({ "ok": unknown.is_empty(), "ended": ended, "unknown": unknown }));
    for session in &ended {
        app.report.result(&format!("{} of {} has ended", session.id, session.validator));
    }
    if ended.is_empty() && unknown.is_empty() {
        app.report.note("there were no live sessions");
    }
    if !unknown.is_empty() {
        return Err(Failure::user(format!("no live session: {}", unknown.join(", ")))
            .hint("`orchestrator sessions list` shows those there are"));
    }
    Ok(Exit::Ok)
}

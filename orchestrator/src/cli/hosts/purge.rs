//! `orchestrator hosts purge`.

use serde_json::json;

use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::fleet;

/// Take everything of ours off a host and forget it; its history and audit events stay
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    host: String,
    /// Forget the host even if it cannot be reached (nothing is removed there then)
    #[arg(long)]
    forget: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let host = app.known_host(&args.host).await?;
    let name = host.spec.name.clone();
    let question = format!("Remove everything of ours from {name} and forget it?");
    if !args.yes && !app.confirm(&question)? {
        app.report.note("nothing was changed");
        return Ok(Exit::User);
    }
    let fleet = app.fleet(std::slice::from_ref(&host.spec), false).await?;
    let done = app.until_cancelled(fleet::purge(&fleet, &host.spec, args.forget)).await?;
    match done {
        Ok(Some(purged)) => {
            app.report.json(&json!({ "ok": true, "host": name, "purged": purged }));
            app.report.result(&format!(
                "{name}: removed {} runner builds from {}",
                purged.removed, purged.work_dir
            ));
            if purged.foreign_entries > 0 {
                app.report.warning(&format!(
                    "{} other entries in {} are not ours and stay",
                    purged.foreign_entries, purged.work_dir
                ));
            }
            Ok(Exit::Ok)
        }
        Ok(None) => {
            app.report.json(&json!({ "ok": true, "host": name, "purged": null }));
            app.report.result(&format!("{name}: forgotten, not reached; its files stay there"));
            Ok(Exit::Ok)
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_else(|| {
                "bring the host back, or pass --forget to drop it from our records alone".to_owned()
            });
            Err(Failure::remote(format!("cannot purge {name}"), error.reason())
                .because(error)
                .hint(hint))
        }
    }
}

//! Alerts of a sweep, and `orchestrator sweep notify-test`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::alerts::{Alert, Channels};
use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::fleet::Fleet;
use crate::fleet::sweep::{SweepReport, deliver, queue};
use crate::reason::Reason;
use crate::store::now_ms;

/// Send a test alert over every channel of [alerts], and say how each went
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The channels of the configuration.
pub fn channels(app: &App<'_>) -> Result<Channels, Failure> {
    let folder: PathBuf = match app.config_file.as_deref().and_then(Path::parent) {
        Some(folder) => folder.to_owned(),
        None => PathBuf::new(),
    };
    Channels::new(&app.config.alerts, &folder, |name| std::env::var_os(name)).map_err(|error| {
        Failure::user("cannot use [alerts] of the configuration")
            .because(error)
            .hint("docs/sweep.md says what each key wants")
    })
}

/// Queues what changed and delivers what is due. Trouble is a warning: the sweep is done.
pub async fn tell(app: &App<'_>, fleet: &Fleet, report: &SweepReport, channels: &Channels) {
    let config = &app.config.alerts;
    let told = async {
        queue(&fleet.store, &fleet.actor, report, channels, config).await?;
        deliver(&fleet.store, &fleet.actor, channels, config).await
    };
    match app.until_cancelled(told).await {
        Ok(Ok(delivery)) => {
            for error in &delivery.errors {
                app.report.warning(&format!(
                    "{error}; {} alerts wait for the next sweep",
                    delivery.waiting
                ));
            }
            if delivery.given_up > 0 {
                let count = delivery.given_up;
                app.report
                    .warning(&format!("{count} alerts were never delivered and are given up"));
            }
        }
        Ok(Err(error)) => app.report.warning(&format!("cannot tell what changed: {error}")),
        // What waits goes out at the next sweep.
        Err(_) => {}
    }
}

pub async fn test(app: &App<'_>, _args: Args) -> Result<Exit, Failure> {
    let channels = channels(app)?;
    if channels.all().is_empty() {
        return Err(Failure::user("no channel for alerts is set up").hint(
            "set one of webhook_url_env, slack_url_env, discord_url_env (or _file), mail_to in [alerts]",
        ));
    }
    let alert = Alert {
        at_ms: now_ms(),
        from: app.actor.clone(),
        hosts: 0,
        well: 0,
        changes: Vec::new(),
        test: true,
        notice: None,
    };
    let mut failed = 0;
    let mut rows = Vec::new();
    for channel in channels.all() {
        let sent = app.until_cancelled(channels.send(channel, &alert)).await?;
        let message = sent.as_ref().err().map(ToString::to_string);
        rows.push(json!({ "channel": channel.name(), "ok": sent.is_ok(), "message": message }));
        match message {
            None => app.report.result(&format!("{}: delivered", channel.name())),
            Some(message) => {
                failed += 1;
                app.report.result(&format!("{}: not delivered: {message}", channel.name()));
            }
        }
    }
    app.report.json(&rows);
    if failed > 0 {
        let what = format!("{failed} of {} channels did not take the test", channels.all().len());
        return Err(Failure::remote(what, Reason::Alert));
    }
    Ok(Exit::Ok)
}

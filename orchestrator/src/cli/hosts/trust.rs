//! `orchestrator hosts trust`.

use serde_json::json;

use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::fleet::{self, TrustChange};
use crate::reason::Reason;

/// Trust the host key that a re-imaged machine presents now
///
/// Shows the old and the new fingerprint, asks, and records who decided and when. Nothing but the
/// key exchange takes place with the host itself before that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    host: String,
    /// The fleet file, for a host that was never deployed to
    #[arg(long, value_name = "FILE")]
    hosts: Option<std::path::PathBuf>,
    /// Trust without asking, and only this fingerprint (SHA256:...), read at the machine's console
    #[arg(long, value_name = "SHA256:...")]
    fingerprint: Option<String>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let spec = app.spec_of(&args.host, args.hosts.as_deref()).await?;
    let name = spec.name.clone();
    if let Some(pin) = &spec.endpoint.host_key {
        return Err(Failure::user(format!("the fleet file pins the host key of {name} to {pin}"))
            .hint("change or remove its `host_key` in the fleet file and deploy again"));
    }
    let fleet = app.fleet(std::slice::from_ref(&spec), false).await?;
    let change = app.until_cancelled(fleet::inspect(&fleet, &spec)).await?.map_err(|error| {
        let hint = error.hint();
        let failure =
            Failure::remote(format!("cannot read the host key of {name}"), error.reason())
                .because(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    show(app, &name, &change);
    if let Some(expected) = &args.fingerprint
        && *expected != change.fingerprint
    {
        return Err(Failure::remote(
            format!("{name} presents {}, not {expected}", change.fingerprint),
            Reason::HostKey,
        )
        .hint("do not trust it: compare the fingerprint at the machine's console"));
    }
    if change.is_trusted_already() {
        app.report.json(&json!({ "ok": true, "host": name, "changed": false, "key": change }));
        app.report.result("this key is trusted already; nothing was changed");
        return Ok(Exit::Ok);
    }
    let agreed = args.fingerprint.is_some() || app.confirm("Trust the new key?")?;
    if !agreed {
        app.report.note("nothing was changed");
        return Ok(Exit::User);
    }
    fleet::replace(&fleet, &spec, &change).await?;
    app.report.json(&json!({ "ok": true, "host": name, "changed": true, "key": change }));
    app.report.result(&format!("{name}: {} is trusted now", change.fingerprint));
    Ok(Exit::Ok)
}

fn show(app: &App<'_>, name: &crate::ids::HostName, change: &TrustChange) {
    if app.report.is_json() {
        return;
    }
    app.report.note(&format!("host      {name} ({} port {})", change.address, change.port));
    if change.trusted.is_empty() {
        app.report.note("trusted   nothing yet");
    }
    for old in &change.trusted {
        app.report.note(&format!("trusted   {old}"));
    }
    app.report.note(&format!("presented {} {}", change.algorithm, change.fingerprint));
}

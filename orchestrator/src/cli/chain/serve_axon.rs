//! `orchestrator chain serve-axon`.

use std::net::IpAddr;

use serde_json::json;

use super::{ChainArgs, failure, hotkey};
use crate::chain::{AccountId32, Announcement, AnnouncementOptions, AxonAddress};
use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;

/// Show what announcing an axon's address would send to the chain, and what speaks against it
///
/// Nothing is signed or sent, and no key is read. Exit status 0 when the call would be sent, or when
/// the chain has the address already.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// The hotkey whose axon it is, as its SS58 address
    #[arg(long, value_name = "ADDRESS", value_parser = hotkey)]
    hotkey: AccountId32,
    /// The address at which validators reach the axon
    #[arg(long, value_name = "ADDRESS")]
    ip: IpAddr,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 8091)]
    port: u16,
    /// Look at an address that validators cannot reach from outside as if it were any other
    #[arg(long)]
    allow_private: bool,
    /// Show what would be sent, and send nothing
    #[arg(long, required = true)]
    dry_run: bool,
}

pub async fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let cannot = "cannot announce the axon";
    let (client, netuid) = (args.chain.client()?, args.chain.netuid()?);
    let address =
        AxonAddress::new(args.ip, args.port).map_err(|error| failure(cannot, error.into()))?;
    let options = AnnouncementOptions { netuid, address, allow_private: args.allow_private };
    let planned = client.plan_announcement(&args.hotkey, &options);
    let plan = app.until_cancelled(planned).await?.map_err(|error| failure(cannot, error))?;
    let sendable = plan.sendable();
    if app.report.is_json() && sendable.is_ok() {
        app.report.json(&json!({
            "ok": true,
            "dry_run": args.dry_run,
            "would_send": sendable == Ok(true),
            "announcement": plan,
        }));
    }
    describe(app, &plan);
    match sendable {
        Ok(true) => app.report.result("it would be sent"),
        Ok(false) => app.report.result("nothing would be sent"),
        Err(error) => return Err(failure(cannot, error)),
    }
    Ok(Exit::Ok)
}

fn describe(app: &App<'_>, plan: &Announcement) {
    let row = |key: &str, value: String| vec![(key.to_owned(), Some(Tone::Bold)), (value, None)];
    app.report.table(
        &["", ""],
        &[
            row("node", plan.head.endpoint.clone()),
            row("runtime", format!("{}, block {}", plan.head.spec_version, plan.head.block)),
            row("call", format!("{} {}", plan.call, plan.address)),
            row("call data", plan.call_data.clone()),
            row("call hash", plan.call_hash.clone()),
        ],
    );
    app.report.result("");
    let checks: Vec<_> = plan
        .checks
        .iter()
        .map(|check| {
            let (word, tone) = match check.passed {
                true => ("passed", Tone::Good),
                false => ("failed", Tone::Bad),
            };
            let name = serde_json::to_value(check.name).ok();
            let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
            vec![
                (name.to_owned(), Some(Tone::Bold)),
                (word.to_owned(), Some(tone)),
                (check.message.clone(), None),
            ]
        })
        .collect();
    app.report.table(&["CHECK", "", ""], &checks);
}

//! `orchestrator chain serve-axon`.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use super::{ChainArgs, ChainKey, failure, hotkey};
use crate::chain::{
    AccountId32, Announced, Announcement, AnnouncementOptions, AxonAddress, ChainClient,
    Signer as _,
};
use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;
use crate::cli::wallet::{self, WalletArgs};

/// Announce an axon's address on the chain, so that validators find it
///
/// What would be sent is shown first, with what speaks against it; what the chain has already is not
/// sent again. The wallet's hotkey signs; it costs nothing, and the coldkey is never opened. Returns when
/// the chain has the address in a finalized block. With --dry-run nothing is signed or sent, and no key is
/// read. `serve` announces its axon itself. Exit status 0 when the chain has the address, or would be sent
/// it; 1 when something of ours speaks against it, 5 when the chain does or its outcome is not known.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    wallet: WalletArgs,
    /// The hotkey whose axon it is, as its SS58 address; without --dry-run the wallet's must be this one
    #[arg(long, value_name = "ADDRESS", value_parser = hotkey, required_if_eq("dry_run", "true"))]
    hotkey: Option<AccountId32>,
    /// The address at which validators reach the axon
    #[arg(long, value_name = "ADDRESS")]
    ip: IpAddr,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 8091)]
    port: u16,
    /// Announce an address that validators cannot reach from outside as if it were any other
    #[arg(long)]
    allow_private: bool,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before it is sent
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
}

const CANNOT: &str = "cannot announce the axon";

pub async fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let (client, netuid) = (args.chain.client()?, args.chain.netuid()?);
    let address =
        AxonAddress::new(args.ip, args.port).map_err(|error| failure(CANNOT, error.into()))?;
    let options = AnnouncementOptions { netuid, address, allow_private: args.allow_private };
    match &args.hotkey {
        Some(hotkey) if args.dry_run => dry_run(app, &client, hotkey, &options).await,
        wanted => send(app, args, &client, wanted.as_ref(), &options).await,
    }
}

async fn dry_run(
    app: &App<'_>,
    client: &ChainClient,
    hotkey: &AccountId32,
    options: &AnnouncementOptions,
) -> Result<Exit, Failure> {
    let (plan, sendable) = look(app, client, hotkey, options).await?;
    app.report.json(&json!({
        "ok": true, "dry_run": true, "would_send": sendable, "announcement": plan,
    }));
    app.report.result(if sendable { "it would be sent" } else { "nothing would be sent" });
    Ok(Exit::Ok)
}

async fn send(
    app: &App<'_>,
    args: &Args,
    client: &ChainClient,
    wanted: Option<&AccountId32>,
    options: &AnnouncementOptions,
) -> Result<Exit, Failure> {
    let place = args.wallet.place(app)?;
    let key = ChainKey(Arc::new(wallet::unlock(app, &place)?));
    let hotkey = key.hotkey();
    if wanted.is_some_and(|wanted| *wanted != hotkey) {
        let other = format!("the wallet's hotkey is {}, not the one of --hotkey", key.0.hotkey());
        return Err(Failure::user(other).hint("--wallet-name and --wallet-hotkey say which it is"));
    }
    let (plan, sendable) = look(app, client, &hotkey, options).await?;
    if !sendable {
        app.report.json(&json!({
            "ok": true, "dry_run": false, "sent": false, "announcement": plan,
        }));
        app.report.result("nothing was sent: the chain has the address already");
        return Ok(Exit::Ok);
    }
    let question = format!("Announce {} on subnet {}?", plan.address, options.netuid);
    if !args.yes && !app.confirm(&question)? {
        app.report.note("nothing was sent");
        return Ok(Exit::User);
    }
    let sent = super::announce(app, client, &key, options);
    let done = app.until_cancelled(sent).await?.map_err(|error| failure(CANNOT, error))?;
    let sent = done != Announced::Already;
    app.report.json(&json!({
        "ok": true, "dry_run": false, "sent": sent, "outcome": done, "announcement": plan,
    }));
    app.report.result(&match done {
        Announced::Already => "nothing was sent: the chain has the address already".to_owned(),
        Announced::Finalized { block_hash, .. } => {
            format!("the chain has taken {} in block {block_hash}", options.address)
        }
    });
    Ok(Exit::Ok)
}

/// Looks at what would be sent, shows it, and says whether it is to be sent.
async fn look(
    app: &App<'_>,
    client: &ChainClient,
    hotkey: &AccountId32,
    options: &AnnouncementOptions,
) -> Result<(Announcement, bool), Failure> {
    let planned = client.plan_announcement(hotkey, options);
    let plan = app.until_cancelled(planned).await?.map_err(|error| failure(CANNOT, error))?;
    describe(app, &plan);
    let sendable = plan.sendable().map_err(|error| failure(CANNOT, error))?;
    Ok((plan, sendable))
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

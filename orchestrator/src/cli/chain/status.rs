//! `orchestrator chain status`.

use serde_json::json;

use super::{ChainArgs, failure, hotkey};
use crate::chain::{AccountId32, ChainClient, Head, Metagraph, MissingItem, Registration};
use crate::cli::app::{App, ago};
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;
use crate::metagraph_cache::{MetagraphCache, RefreshError};
use crate::store::now_ms;

/// Show what the chain says: its head, the subnet, a hotkey's registration and axon
///
/// Reads the metagraph and keeps it in the database. When no node can be reached, the error says how
/// old the kept one is; exit status 5.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// A hotkey to look up, as its SS58 address
    #[arg(long, value_name = "ADDRESS", value_parser = hotkey)]
    hotkey: Option<AccountId32>,
}

/// What was found.
struct Found {
    head: Head,
    lag: u64,
    missing: Vec<MissingItem>,
    metagraph: std::sync::Arc<Metagraph>,
    registration: Option<Registration>,
}

pub async fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let (client, netuid) = (args.chain.client()?, args.chain.netuid()?);
    let store = app.store().await?.clone();
    let cache = MetagraphCache::open(store, client.clone(), netuid, &app.actor).await?;
    let kept = cache.current();
    let looked = look(&client, &cache, netuid, args.hotkey.as_ref());
    let found = app.until_cancelled(looked).await?.map_err(|error| match error {
        RefreshError::Chain(error) => failure(unreachable(kept.as_deref()), error),
        RefreshError::Store(error) => error.into(),
    })?;
    report_json(app, args, &found);
    report_words(app, args, &found);
    Ok(Exit::Ok)
}

async fn look(
    client: &ChainClient,
    cache: &MetagraphCache,
    netuid: u16,
    hotkey: Option<&AccountId32>,
) -> Result<Found, RefreshError> {
    let (head, lag) = client.head_and_lag().await?;
    let missing = client.missing_items().await?;
    let metagraph = cache.refresh().await?;
    let registration = match hotkey {
        Some(hotkey) => Some(client.registration(netuid, hotkey).await?),
        None => None,
    };
    Ok(Found { head, lag, missing, metagraph, registration })
}

fn unreachable(kept: Option<&Metagraph>) -> String {
    match kept {
        Some(kept) => format!(
            "cannot read the chain; kept is the metagraph of block {}, read {}, with {} neurons",
            kept.block,
            ago(kept.taken_ms),
            kept.neurons.len()
        ),
        None => "cannot read the chain, and no metagraph is kept".to_owned(),
    }
}

fn validators(metagraph: &Metagraph) -> usize {
    metagraph.neurons.iter().filter(|neuron| neuron.validator_permit).count()
}

fn report_json(app: &App<'_>, args: &Args, found: &Found) {
    let Found { head, lag, missing, metagraph, registration } = found;
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    app.report.json(&json!({
        "ok": true,
        "network": args.chain.network.name(),
        "head": head,
        "blocks_not_finalized": lag,
        "missing": missing,
        "metagraph": {
            "netuid": metagraph.netuid,
            "block": metagraph.block,
            "taken_ms": metagraph.taken_ms,
            "age_ms": (now_ms() - metagraph.taken_ms).max(0),
            "source": metagraph.source,
            "neurons": metagraph.neurons.len(),
            "validators": validators(metagraph),
        },
        "registration": registration,
    }));
}

fn report_words(app: &App<'_>, args: &Args, found: &Found) {
    let Found { head, lag, missing, metagraph, registration } = found;
    let row = |key: &str, value: String| vec![(key.to_owned(), Some(Tone::Bold)), (value, None)];
    let mut rows = vec![
        row("network", format!("{} through {}", args.chain.network, head.endpoint)),
        row("genesis", head.genesis.clone()),
        row("runtime", head.spec_version.to_string()),
        row("block", format!("{} finalized, {lag} more that are not", head.block)),
        row(
            "subnet",
            format!(
                "{}: {} neurons, {} of them validators, read {}",
                metagraph.netuid,
                metagraph.neurons.len(),
                validators(metagraph),
                ago(metagraph.taken_ms)
            ),
        ),
    ];
    if let Some(registration) = registration {
        let subnet = &registration.subnet;
        if let Some(time) = subnet.block_time_ms.and_then(|time| i64::try_from(time).ok()) {
            rows.push(row("block time", ago(time)));
        }
        rows.push(row("tempo", format!("{} blocks", subnet.tempo)));
        rows.push(match registration.uid {
            Some(uid) => row("hotkey", format!("registered, slot {uid}")),
            None => vec![
                ("hotkey".to_owned(), Some(Tone::Bold)),
                ("not registered".to_owned(), Some(Tone::Bad)),
            ],
        });
        rows.push(match &registration.axon {
            Some(axon) => row(
                "axon",
                format!(
                    "{}, announced at block {}",
                    std::net::SocketAddr::new(axon.ip, axon.port),
                    axon.block
                ),
            ),
            None => row("axon", "not announced".to_owned()),
        });
    }
    app.report.table(&["", ""], &rows);
    for item in missing {
        app.report.warning(&format!("{item}: look for another release"));
    }
}

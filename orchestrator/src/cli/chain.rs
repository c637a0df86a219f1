//! `orchestrator chain`.

mod serve_axon;
mod status;

use std::sync::Arc;

use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use crate::chain::{
    self, AccountId32, Announced, AnnouncementOptions, ChainClient, ChainOptions, Network,
    Signature, Signer,
};
use crate::reason::Reason;
use crate::store::NewEvent;
use crate::wallet::{Crypto, HotkeyPair};

/// The Bittensor chain: what it says, and what it is told
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Status(status::Args),
    ServeAxon(serve_axon::Args),
}

/// Which chain.
#[derive(Debug, clap::Args)]
struct ChainArgs {
    /// The network: finney, test or local
    #[arg(long, value_name = "NAME", default_value = "finney", value_parser = network)]
    network: Network,
    /// A node of the network, ws:// or wss://; again for more, which are tried in turn. Without it
    /// the network's own
    #[arg(long, value_name = "URL")]
    endpoint: Vec<String>,
    /// Ask a node that is far away without encryption: anyone on the way can invent the chain
    #[arg(long)]
    allow_plaintext: bool,
    /// The subnet; without it the network's usual one
    #[arg(long, value_name = "N")]
    netuid: Option<u16>,
}

impl ChainArgs {
    fn client(&self) -> Result<ChainClient, Failure> {
        let options = ChainOptions::new(self.network, &self.endpoint, self.allow_plaintext)
            .map_err(|error| {
                Failure::user("cannot use the chain endpoint").because(error).hint(
                    "an endpoint is wss://host:port, or ws://host:port for a node of one's own",
                )
            })?;
        Ok(ChainClient::new(options))
    }

    fn netuid(&self) -> Result<u16, Failure> {
        self.netuid.or_else(|| self.network.default_netuid()).ok_or_else(|| {
            Failure::user(format!("the network {} has no usual subnet", self.network))
                .hint("say which with --netuid")
        })
    }
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::Status(args) => status::run(app, &args).await,
        Action::ServeAxon(args) => serve_axon::run(app, &args).await,
    }
}

fn network(text: &str) -> Result<Network, String> {
    Network::named(text).ok_or_else(|| {
        let names: Vec<&str> = Network::ALL.iter().map(|network| network.name()).collect();
        format!("it must be one of {}", names.join(", "))
    })
}

fn hotkey(text: &str) -> Result<AccountId32, String> {
    chain::account(text).map_err(|error| error.to_string())
}

/// An error of the chain on its way to the user.
fn failure(what: impl Into<String>, error: chain::Error) -> Failure {
    let (reason, hint) = (error.reason(), error.hint());
    let failure = match reason {
        Reason::Input | Reason::NotRegistered => {
            let mut failure = Failure::user(what);
            failure.reason = reason;
            failure
        }
        _ => Failure::remote(what, reason),
    };
    failure.because(error).hint(hint)
}

/// The hotkey as the chain's client wants it.
pub struct ChainKey(pub Arc<HotkeyPair>);

impl Signer for ChainKey {
    fn hotkey(&self) -> AccountId32 {
        AccountId32::from(*self.0.hotkey().public_key())
    }

    fn sign(&self, payload: &[u8]) -> Signature {
        let signature = self.0.sign(payload);
        match self.0.crypto() {
            Crypto::Sr25519 => Signature::Sr25519(signature),
            Crypto::Ed25519 => Signature::Ed25519(signature),
        }
    }
}

/// Announces an axon, unless the chain has the address already, and notes in the audit chain what was
/// sent.
pub async fn announce(
    app: &App<'_>,
    client: &ChainClient,
    key: &ChainKey,
    options: &AnnouncementOptions,
) -> Result<Announced, chain::Error> {
    let done = client.announce(key, options).await?;
    if let Announced::Finalized { block_hash, extrinsic_hash, .. } = &done {
        let detail = json!({
            "hotkey": key.0.hotkey().to_string(),
            "netuid": options.netuid,
            "address": options.address.to_string(),
            "block_hash": block_hash,
            "extrinsic_hash": extrinsic_hash,
        });
        let event = NewEvent { kind: "axon.announced", host: None, detail };
        let noted = async {
            app.store().await?.append_events(&app.actor, &[event]).await.map_err(Failure::from)
        };
        if let Err(failure) = noted.await {
            // It is on the chain all the same.
            let what = failure.what;
            tracing::error!(what, "the announcement is not in the audit chain");
        }
    }
    Ok(done)
}

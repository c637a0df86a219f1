//! `orchestrator chain`.

mod serve_axon;
mod status;

use super::app::App;
use super::failure::{Exit, Failure};
use crate::chain::{self, AccountId32, ChainClient, ChainOptions, Network};
use crate::reason::Reason;

/// The Bittensor chain: what it says, and what would be told to it
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

//! `orchestrator hosts`.

mod drain;
mod list;
mod purge;
mod show;
mod trust;

use super::app::App;
use super::failure::{Exit, Failure};
use crate::host_state::HostState;

/// The hosts we know: list, show, trust, drain, resume, purge
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(list::Args),
    Show(show::Args),
    Trust(trust::Args),
    Drain(drain::Args),
    Resume(drain::ResumeArgs),
    Purge(purge::Args),
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::List(args) => list::run(app, args).await,
        Action::Show(args) => show::run(app, args).await,
        Action::Trust(args) => trust::run(app, args).await,
        Action::Drain(args) => drain::run(app, args).await,
        Action::Resume(args) => drain::resume(app, args).await,
        Action::Purge(args) => purge::run(app, args).await,
    }
}

/// The colour of a state.
pub fn state_tone(state: HostState) -> super::report::Tone {
    list::tone(state)
}

/// Shows one host's latest facts, for the demo.
pub async fn show(app: &App<'_>, host: &str) -> Result<Exit, Failure> {
    show::show(app, host, 1).await
}

//! `orchestrator completions`.

use super::app::App;
use super::failure::{Exit, Failure};

/// Print the completion script of a shell
///
/// For bash: orchestrator completions bash > ~/.local/share/bash-completion/completions/orchestrator
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::definition(), "orchestrator", &mut script);
    app.report.raw(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}

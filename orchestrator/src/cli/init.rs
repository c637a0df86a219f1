//! `orchestrator init`.

use std::path::PathBuf;

use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use crate::init::{self, InitError, InitOptions};

/// Write orchestrator.toml and fleet.toml, explained line by line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write them
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Login name on the hosts
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Private key file
    #[arg(long, value_name = "FILE")]
    identity_file: Option<String>,
    /// A host to begin with; repeatable; ranges work: gpu-[01-16]=10.0.0.[1-16]
    #[arg(long = "host", value_name = "NAME=ADDRESS", value_parser = name_and_address)]
    hosts: Vec<(String, String)>,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

fn name_and_address(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .ok_or_else(|| "write NAME=ADDRESS".to_owned())
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let options = InitOptions {
        user: args.user.clone(),
        identity_file: args.identity_file.clone(),
        hosts: args.hosts.clone(),
    };
    let files = init::plan(&args.directory, &options).map_err(failure)?;
    init::write(&files, args.force).map_err(failure)?;
    let paths: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    app.report.json(&json!({ "ok": true, "written": paths }));
    for path in &paths {
        app.report.result(&format!("wrote {path}"));
    }
    app.report.note(
        "\nNext: put your hosts into fleet.toml, then\n  orchestrator check\n  orchestrator deploy --hosts fleet.toml --accept-new-host-keys",
    );
    Ok(Exit::Ok)
}

fn failure(error: InitError) -> Failure {
    let exists = matches!(error, InitError::Exists { .. });
    let failure = Failure::user("cannot write the files").because(error);
    if exists { failure.hint("--force overwrites them") } else { failure }
}

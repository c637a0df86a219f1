//! The command line: one file for each verb, each an `Args` whose doc comments are the help and
//! one function. `report` alone prints; errors become words and exit codes in `failure`.

mod app;
mod audit;
mod calibrate;
mod chain;
mod check;
mod completions;
mod config;
mod containers;
mod demo;
mod deploy;
mod failure;
mod grants;
mod hosts;
mod init;
mod inspect;
mod live;
mod logging;
mod logs;
mod models;
mod new_file;
mod passphrase;
mod ps;
mod report;
mod rm;
mod run;
mod serve;
mod sessions;
mod settings;
mod stop;
mod sweep;
mod token;
mod verify;
mod verify_proof;
mod wallet;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use app::App;
pub use failure::{Exit, Failure};
use report::{ColorChoice, Report};

/// Runs a fleet of GPU hosts over plain SSH.
///
/// Hosts keep no daemon: a small runner is uploaded, works for one session, and is gone.
#[derive(Debug, Parser)]
#[command(name = "orchestrator", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
struct GlobalArgs {
    /// The configuration file; without it $ORCHESTRATOR_CONFIG, ./orchestrator.toml,
    /// ~/.config/orchestrator/orchestrator.toml, or the built-in defaults
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<std::path::PathBuf>,
    /// Machine-readable output: one JSON document or JSON lines on standard output
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// When to use colours; `auto` also obeys NO_COLOR
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    color: ColorChoice,
    /// More log lines on standard error; twice for all of them
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
    /// Only errors and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Args),
    Init(init::Args),
    Check(check::Args),
    Deploy(deploy::Args),
    Hosts(hosts::Args),
    Verify(verify::Args),
    VerifyProof(verify_proof::Args),
    Calibrate(calibrate::Args),
    Sweep(Box<sweep::Args>),
    Run(Box<run::Args>),
    Ps(ps::Args),
    Logs(logs::Args),
    Stop(stop::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Serve(serve::Args),
    Grants(grants::Args),
    Sessions(sessions::Args),
    Wallet(wallet::Args),
    Chain(chain::Args),
    Audit(audit::Args),
    Config(config::Args),
    Token(token::Args),
    Completions(completions::Args),
}

const EXIT_CODES: &str = "\
Exit status:
  0  all is well
  1  the user's input or the configuration is wrong
  2  the command line is wrong
  3  some hosts failed, or are not as the fleet file claims
  4  a verdict is negative: a proof was rejected, or the audit chain is broken
  5  the one host that was asked for could not be reached or did not do it
  6  another operation holds the lock
 70  a defect of this program
124  `run`: the container's time was over
125  `run`: the container did not run, or what became of it is not known
130  stopped by Ctrl-C or SIGTERM
Any other status of `run` in the foreground is the container's own.";

/// Runs the command line and says how the process shall exit.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // --help and --version are "errors" of status 0 to clap.
        Err(error) => {
            let status = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _closed_pipe = error.print();
            return status.into();
        }
    };
    let report = Report::new(cli.global.json, cli.global.quiet, cli.global.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report.error("cannot start the runtime", &error, None);
            return Exit::Bug.into();
        }
    };
    let exit = runtime.block_on(run(cli, &report));
    // Tasks that are still about (a resolver thread, a slow close) must not hold up the exit.
    runtime.shutdown_background();
    exit.into()
}

async fn run(cli: Cli, report: &Report) -> Exit {
    let result = match App::start(&cli.global, report) {
        Ok(app) => {
            let verb = dispatch(&app, cli.verb);
            // Cancel safety: dropping a verb's future ends its host tasks, see `fleet`.
            let result = tokio::select! {
                result = verb => result,
                () = app.second_signal() => Ok(Exit::Interrupted),
            };
            app.close().await;
            result
        }
        Err(failure) => Err(failure),
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            report.failure(&failure);
            failure.exit()
        }
    }
}

async fn dispatch(app: &App<'_>, verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Demo(args) => demo::run(app, args).await,
        Verb::Init(args) => init::run(app, &args),
        Verb::Check(args) => check::run(app, args).await,
        Verb::Deploy(args) => deploy::run(app, args).await,
        Verb::Hosts(args) => hosts::run(app, args).await,
        Verb::Sweep(args) => sweep::run(app, *args).await,
        Verb::Verify(args) => verify::run(app, args).await,
        Verb::VerifyProof(args) => verify_proof::run(app, &args),
        Verb::Serve(args) => serve::run(app, args).await,
        Verb::Token(args) => token::run(app, &args),
        Verb::Grants(args) => grants::run(app, args).await,
        Verb::Sessions(args) => sessions::run(app, args).await,
        Verb::Audit(args) => audit::run(app, args).await,
        Verb::Config(args) => config::run(app, args),
        Verb::Calibrate(args) => calibrate::run(app, args).await,
        Verb::Run(args) => run::run_container(app, *args).await,
        Verb::Ps(args) => ps::run(app, args).await,
        Verb::Logs(args) => logs::run(app, args).await,
        Verb::Stop(args) => stop::run(app, args).await,
        Verb::Rm(args) => rm::run(app, args).await,
        Verb::Inspect(args) => inspect::run(app, args).await,
        Verb::Chain(args) => chain::run(app, args).await,
        Verb::Wallet(args) => wallet::run(app, &args),
        Verb::Completions(args) => completions::run(app, &args),
    }
}

/// The command line's definition, for the completions.
fn definition() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

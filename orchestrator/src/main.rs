//! The `orchestrator` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    orchestrator::cli::main(std::env::args_os())
}

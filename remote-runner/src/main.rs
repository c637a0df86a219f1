//! The remote runner: uploaded to a GPU host, run there for one session, and gone.
//!
//! Standard output carries the magic line and then frames of `runner-protocol`, nothing else;
//! standard error carries JSON log lines; the exit status is an [`ExitCode`].
//!
//! # Threads and owners
//!
//! There is no async runtime. The main thread owns the session's state and blocks only in waiting
//! for its next [`session`] event, so that the lease and the deadline always fire. One thread reads
//! standard input, one writes standard output, one waits for signals, and each request has one of
//! its own. What may hang or crash in foreign code (NVML, CUDA), and what takes a processor for
//! seconds (the reference prover), runs in a child process, see [`subprocess`].
//!
//! # What it must not do
//!
//! Outlive its session: closing SSH does not stop a remote process, so the runner is its own
//! dead-man's switch, and takes every descendant with it. It writes no file and opens no network
//! connection.

mod args;
mod build;
mod deadline;
mod facts;
mod gpu;
mod health;
mod hold;
mod http;
mod log;
mod os;
mod probe;
mod prove;
mod session;
mod subprocess;
mod tree;
mod units;

use std::io::{self, IsTerminal, Write};

use args::Command;
use runner_protocol::ExitCode;

fn main() {
    log::install_panic_hook();
    os::exit(run());
}

/// Does what the command line says.
fn run() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Version) => say(&format!("remote-runner {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Help) => say(args::HELP),
        Ok(Command::SelfCheck) => match build::own_sha256() {
            Ok(hash) => say(&format!("{hash}\n")),
            Err(error) => {
                log::error("cannot read the runner's own executable", &error.to_string());
                ExitCode::Environment
            }
        },
        Ok(Command::Probe(options)) => probe::child::run(&options),
        Ok(Command::Prove(options)) => prove::run(&options),
        Ok(Command::Session(options)) => {
            if io::stdin().is_terminal() || io::stdout().is_terminal() {
                say(args::EXPLANATION);
                return ExitCode::Usage;
            }
            session::run(options)
        }
        Err(error) => {
            log::error("cannot understand the command line", &error.to_string());
            ExitCode::Usage
        }
    }
}

/// Prints text for a person, outside of any session.
fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::Ok,
        Err(_) => ExitCode::StdoutClosed,
    }
}

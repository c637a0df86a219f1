//! Measures fleet operations against real OpenSSH servers on loopback, side by side with the
//! tools one would use otherwise. `scripts/bench-fleet` builds and runs it.
//!
//! Hosts are addresses 127.0.1.1 and up. sshd has at most 16 listening sockets, so every 16
//! addresses have an sshd of their own. `SetEnv` in a `Match LocalAddress` sets `$HOME` by the
//! server's address and a `ForceCommand` wrapper enters it, so that each address is a host with
//! its own files, and root is not needed. The servers' processor time is not in any number: a client's is what
//! wait4(2) says of its process tree.
//!
//! Every operation is checked on the hosts' side afterwards: a tool that skips a host, or leaves a
//! wrong file, has failed and gets no number.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark prints its table, and stops where something is not as it should be"
)]

mod fleet;
mod measure;
mod ours;
mod table;
mod tools;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use fleet::Fleet;
use measure::Usage;
use tools::{Bench, Operation, Tool};

/// Measures fleet operations, side by side with other tools.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the whole benchmark.
    Run(Run),
    /// The library's side of one measurement; run by the benchmark itself.
    Client(ours::Client),
}

#[derive(clap::Args)]
struct Run {
    /// Fleet sizes.
    #[arg(long, value_delimiter = ',', default_value = "20,100,300")]
    hosts: Vec<usize>,
    /// Hosts that a tool works on at a time.
    #[arg(long, default_value_t = 64)]
    parallel: usize,
    /// Rounds of each measurement; the one with the median wall time is shown.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only these tools, by their names in the tables.
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// The runner that every tool deploys.
    #[arg(long)]
    payload: PathBuf,
    /// The `orchestrator` to measure; without it, deploys of the others alone are measured.
    #[arg(long)]
    orchestrator: Option<PathBuf>,
    /// A virtual environment with ansible-core, pyinfra, parallel-ssh and asyncssh.
    #[arg(long)]
    venv: Option<PathBuf>,
    /// Writes every measurement as a JSON line to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() {
    match Args::parse().verb {
        Verb::Run(run) => run_all(&run),
        Verb::Client(client) => client.run(),
    }
}

fn run_all(run: &Run) {
    let mut log = run.json.as_ref().map(|path| std::fs::File::create(path).unwrap());
    for &hosts in &run.hosts {
        let directory = tempfile::tempdir().unwrap();
        let fleet = Fleet::start(directory.path(), hosts);
        let bench = Bench::new(&fleet, run);
        println!("{}", table::heading(&bench));
        for operation in Operation::ALL {
            let mut rows = Vec::new();
            for tool in Tool::ALL {
                if let Some(result) = measured(&bench, tool, operation, run.rounds) {
                    if let Some(log) = &mut log {
                        table::log_line(log, &bench, tool, operation, &result);
                    }
                    rows.push((tool, result));
                }
            }
            println!("{}", table::of(operation, hosts, &rows));
        }
    }
}

/// The median of the rounds by wall time; a failure of one round is a failure of the tool.
fn measured(
    bench: &Bench<'_>,
    tool: Tool,
    operation: Operation,
    rounds: usize,
) -> Option<Result<Usage, String>> {
    let mut usages = Vec::new();
    for _ in 0..rounds.max(1) {
        match bench.measure(tool, operation)? {
            Ok(usage) => usages.push(usage),
            Err(why) => return Some(Err(why)),
        }
    }
    usages.sort_by_key(|usage| usage.wall);
    Some(Ok(usages[usages.len() / 2]))
}

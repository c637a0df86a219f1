//! Measures sweeps. `scripts/bench-sweep` builds and runs it.
//!
//! Two fleets: *simulated* hosts, SSH servers of one other process that answer as the runner would,
//! each on a loopback address of its own, and real sshd with the real runner. The sweep is the whole
//! one: lock, facts of eight GPUs, every probe, hysteresis, passports, facts and probes in an SQLite
//! database on disk, audit events. It runs in a process of its own, whose processor time and memory
//! are what is shown; the servers share the machine, and so the wall time.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark prints its table, and stops where something is not as it should be"
)]

mod client;
#[path = "../bench_fleet/fleet.rs"]
#[allow(dead_code, reason = "what the other benchmark needs besides")]
mod fleet;
#[path = "../bench_fleet/measure.rs"]
#[allow(dead_code, reason = "what the other benchmark needs besides")]
mod measure;
mod simulated;

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Parser, Subcommand};

/// Measures sweeps.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the whole benchmark.
    Run(Run),
    /// The simulated hosts; run by the benchmark itself.
    Serve(simulated::Serve),
    /// The sweeps; run by the benchmark itself.
    Client(client::Client),
}

#[derive(clap::Args)]
struct Run {
    /// Sizes of the simulated fleet.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    simulated: Vec<usize>,
    /// Addresses of the real sshd; 0 for none.
    #[arg(long, default_value_t = 300)]
    sshd: usize,
    /// The runner for the real hosts.
    #[arg(long)]
    runner: Option<PathBuf>,
    /// Warm passes; the one with the median wall time is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() {
    raise_open_files();
    match Args::parse().verb {
        Verb::Run(run) => run_all(&run),
        Verb::Serve(serve) => serve.run(),
        Verb::Client(client) => client.run(),
    }
}

fn run_all(run: &Run) {
    let cpus = std::thread::available_parallelism().unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap();
    println!("{cpus} CPUs shared with the servers, load {load} at the start\n");
    println!("{}", client::HEADING);
    for &hosts in &run.simulated {
        for dead in [false, true] {
            simulate(hosts, dead, run.rounds);
        }
    }
    if let (Some(runner), 1..) = (&run.runner, run.sshd) {
        let directory = tempfile::tempdir().unwrap();
        let fleet = fleet::Fleet::start(directory.path(), run.sshd);
        let addresses: Vec<String> = fleet.addresses.iter().map(ToString::to_string).collect();
        std::fs::write(fleet.file("addresses"), addresses.join("\n")).unwrap();
        run_client(&client::Client {
            label: format!("real sshd, {} addresses", run.sshd),
            directory: fleet.directory.clone(),
            user: fleet.user.clone(),
            port: fleet.port,
            fingerprint: fleet.fingerprint.clone(),
            rounds: run.rounds,
            timeout_secs: 120,
            deploy: Some(runner.clone()),
            expect_well: run.sshd,
        });
    }
}

/// A fleet of simulated hosts, and the sweeps over it.
fn simulate(hosts: usize, dead: bool, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .args(["--hosts", &hosts.to_string()])
        .args(dead.then_some("--dead"))
        .arg("--directory")
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = lines.next().expect("the servers started").unwrap();
    let mut words = ready.split(' ');
    let (port, fingerprint) = (words.next().unwrap(), words.next().unwrap());
    let what = if dead { ", one in ten dead" } else { "" };
    run_client(&client::Client {
        label: format!("simulated, {hosts} hosts{what}"),
        directory: directory.path().to_owned(),
        user: "bench".to_owned(),
        port: port.parse().unwrap(),
        fingerprint: fingerprint.to_owned(),
        rounds,
        timeout_secs: if dead { 10 } else { 120 },
        deploy: None,
        expect_well: if dead { hosts - hosts / 10 } else { hosts },
    });
    // The servers end with their standard input.
    drop(server.stdin.take());
    server.wait().unwrap();
}

fn run_client(client: &client::Client) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("client").args(client.arguments());
    assert!(command.status().unwrap().success(), "{}", client.label);
}

/// A host is an open file on either side.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

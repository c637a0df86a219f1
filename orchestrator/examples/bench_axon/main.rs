//! Measures the axon side by side with the axon of the Python SDK. `scripts/bench-axon` builds and
//! runs it.
//!
//! The server has one processor for itself (`taskset`), ours with one worker thread, the SDK's as it
//! is; this program sends from another one. Requests are signed before the clock starts, each
//! connection is one caller with a uuid of its own and rising nonces. Every answer is read and must
//! be a 200 with the fields of `Ping`; anything else stops the run without a number.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark prints its table, and stops where something is not as it should be"
)]

mod load;
mod server;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use orchestrator::wallet::{Crypto, HotkeyPair};

use load::{Load, Scheme};

/// The seed of the axon's hotkey, and that of the caller's.
const SEEDS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

/// Measures the axon, side by side with the SDK's.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the whole benchmark.
    Run(Run),
    /// Our axon, on a free port that it writes to a file; started by the benchmark itself.
    Server(server::Server),
    /// Signatures checked in a second by one core; started by the benchmark itself.
    Floor,
}

#[derive(clap::Args)]
struct Run {
    /// The interpreter of an environment with SDK 9 or 10.
    #[arg(long)]
    python: Option<PathBuf>,
    /// The program that is the SDK's axon.
    #[arg(long, requires = "python")]
    sdk_axon: Option<PathBuf>,
    /// Requests to our axon in one measurement; the SDK's gets a twentieth.
    #[arg(long, default_value_t = 60_000)]
    requests: usize,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Idle connections for the measurement of memory.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
}

fn pair(at: usize) -> HotkeyPair {
    HotkeyPair::from_seed(Crypto::Sr25519, &SEEDS[at]).unwrap()
}

fn main() {
    match Args::parse().verb {
        Verb::Run(run) => bench(&run),
        Verb::Server(server) => server.run(),
        Verb::Floor => println!("{:.0}", floor()),
    }
}

/// Signatures of a legacy request checked in a second.
fn floor() -> f64 {
    let pair = pair(1);
    let message = [7_u8; 240];
    let signature = pair.sign(&message);
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < Duration::from_secs(3) {
        for _ in 0..100 {
            assert!(Crypto::Sr25519.is_signed(&pair.hotkey(), &message, &signature));
        }
        count += 100;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// A server on processor 0, ended when it is dropped.
struct Running {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(program: &str, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("port");
        let child = Command::new("taskset")
            .args(["-c", "0", program])
            .args(arguments)
            .arg(folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset of util-linux");
        let begun = Instant::now();
        let port = loop {
            let port =
                std::fs::read_to_string(&ready).ok().and_then(|text| text.trim().parse().ok());
            if let Some(port) = port {
                break port;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{program} does not start");
            std::thread::sleep(Duration::from_millis(50));
        };
        Self { child, port, _folder: folder }
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        // utime and stime, in hundredths (USER_HZ is 100 on every Linux).
        (ticks(11) + ticks(12)) / 100.0
    }

    fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

struct Row {
    name: String,
    rate: f64,
    cpu_us: f64,
    p50: Duration,
    p99: Duration,
}

fn measure(name: &str, server: &Running, load: &Load) -> Row {
    let before = server.cpu_seconds();
    let done = load.run(server.port);
    let cpu = server.cpu_seconds() - before;
    let count = done.latencies.len() as f64;
    let at = |share: f64| done.latencies[((count - 1.0) * share) as usize];
    Row {
        name: name.to_owned(),
        rate: count / done.elapsed.as_secs_f64(),
        cpu_us: cpu * 1e6 / count,
        p50: at(0.5),
        p99: at(0.99),
    }
}

fn bench(run: &Run) {
    let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let floor: f64 = {
        let output = Command::new("taskset").args(["-c", "0", &own, "floor"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let load =
        |scheme, requests, rate| Load { scheme, requests, connections: run.connections, rate };
    let mut rows = Vec::new();
    let server = || Running::start(&own, &["server".to_owned()]);
    for (name, scheme) in [("legacy", Scheme::Legacy), ("btauth", Scheme::Btauth)] {
        let server = server();
        // A first round, so that neither side is cold.
        measure("", &server, &load(scheme, run.requests / 10, None));
        let full =
            measure(&format!("orchestrator, {name}"), &server, &load(scheme, run.requests, None));
        let half = full.rate / 2.0;
        rows.push(full);
        let requests = run.requests / 2;
        rows.push(measure(
            &format!("orchestrator, {name}, half load"),
            &server,
            &load(scheme, requests, Some(half)),
        ));
    }
    if let (Some(python), Some(program)) = (&run.python, &run.sdk_axon) {
        let arguments =
            ["-W".to_owned(), "ignore".to_owned(), program.to_string_lossy().into_owned()];
        let server = Running::start(&python.to_string_lossy(), &arguments);
        let requests = run.requests / 20;
        measure("", &server, &load(Scheme::Legacy, requests / 10, None));
        let full = measure("SDK axon, legacy", &server, &load(Scheme::Legacy, requests, None));
        let half = full.rate / 2.0;
        rows.push(full);
        let load = load(Scheme::Legacy, requests / 2, Some(half));
        rows.push(measure("SDK axon, legacy, half load", &server, &load));
    }
    let idle = {
        let server = server();
        measure("", &server, &load(Scheme::Legacy, 1_000, None));
        let before = server.resident_kib();
        let open = load::idle(server.port, run.idle);
        (server.resident_kib() - before) / open.len() as f64
    };
    print(&rows, floor, idle, run);
}

fn print(rows: &[Row], floor: f64, idle: f64, run: &Run) {
    let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let loadavg = loadavg.split(' ').next().unwrap_or_default().to_owned();
    println!(
        "Load at the end {loadavg}; {} connections; server on one processor.\n",
        run.connections
    );
    println!("| server | requests/s | CPU of the server, µs/request | p50 ms | p99 ms |");
    println!("|---|---:|---:|---:|---:|");
    for row in rows {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} |",
            row.name,
            row.rate,
            row.cpu_us,
            ms(row.p50),
            ms(row.p99)
        );
    }
    let of = |name: &str| rows.iter().find(|row| row.name == name);
    println!("\nFloor: {floor:.0} sr25519 signatures checked in a second by one core.");
    for name in ["legacy", "btauth"] {
        if let Some(row) = of(&format!("orchestrator, {name}")) {
            println!("Share of the floor, {name}: {:.0} %.", 100.0 * row.rate / floor);
        }
    }
    if let (Some(ours), Some(theirs)) = (of("orchestrator, legacy"), of("SDK axon, legacy")) {
        println!(
            "Against the SDK's axon on the same core: {:.1} times the requests, {:.1} times less CPU.",
            ours.rate / theirs.rate,
            theirs.cpu_us / ours.cpu_us
        );
    }
    println!("Memory: {idle:.1} KiB for each of {} idle connections.", run.idle);
}

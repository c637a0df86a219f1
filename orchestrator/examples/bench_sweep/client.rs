//! The sweeps of one fleet: the first with no connection and nothing known, the others over kept
//! connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::config::SweepConfig;
use orchestrator::fleet::sweep::{SweepOptions, Sweeper};
use orchestrator::fleet::{DeployOptions, Fleet, deploy};
use orchestrator::host_spec::{AgentSocket, Endpoint, HostMode, HostSpec};
use orchestrator::ids::HostName;
use orchestrator::runner::Artifact;
use orchestrator::ssh::{Limits, SshContext, TrustPolicy};
use orchestrator::store::Store;
use tokio_util::sync::CancellationToken;

use crate::measure::own_cpu;

pub const HEADING: &str = "\
| fleet | pass | wall s | answered by s | client CPU s | well | RSS MiB | KiB for each connection |
|---|---|---:|---:|---:|---:|---:|---:|";

/// Sweeps a fleet and prints its rows.
#[derive(clap::Args)]
pub struct Client {
    #[arg(long)]
    pub label: String,
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long)]
    pub user: String,
    #[arg(long)]
    pub port: u16,
    #[arg(long)]
    pub fingerprint: String,
    #[arg(long)]
    pub rounds: usize,
    #[arg(long)]
    pub timeout_secs: u64,
    /// Deploys this runner first; without it the hosts are simulated.
    #[arg(long)]
    pub deploy: Option<PathBuf>,
    #[arg(long)]
    pub expect_well: usize,
}

struct Row {
    wall: Duration,
    cpu: Duration,
    /// Not the report: what a pass found is no memory of a connection.
    well: usize,
    /// When the last host that answers had done so.
    answered: Duration,
}

impl Client {
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut words: Vec<std::ffi::OsString> = vec![
            "--label".into(),
            self.label.clone().into(),
            "--directory".into(),
            self.directory.clone().into(),
            "--user".into(),
            self.user.clone().into(),
            "--port".into(),
            self.port.to_string().into(),
            "--fingerprint".into(),
            self.fingerprint.clone().into(),
            "--rounds".into(),
            self.rounds.to_string().into(),
            "--timeout-secs".into(),
            self.timeout_secs.to_string().into(),
            "--expect-well".into(),
            self.expect_well.to_string().into(),
        ];
        if let Some(runner) = &self.deploy {
            words.extend(["--deploy".into(), runner.clone().into()]);
        }
        words
    }

    pub fn run(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.sweeps());
        runtime.shutdown_background();
    }

    async fn sweeps(self) {
        let store = Store::open(&self.directory.join("db/orchestrator.db")).await.unwrap();
        let ssh = Arc::new(SshContext::new(Limits::default(), TrustPolicy::default()));
        let fleet = Arc::new(Fleet { store, ssh, actor: "bench".to_owned() });
        let specs = self.specs();
        let file = self.deploy.clone().unwrap_or_else(|| std::env::current_exe().unwrap());
        let artifact = Arc::new(Artifact::read(&file).unwrap());
        if self.deploy.is_some() {
            let options =
                DeployOptions { artifact: Arc::clone(&artifact), parallel: 64, dry_run: false };
            let (events, cancel) = (tokio::sync::mpsc::unbounded_channel().0, Default::default());
            let done = deploy(Arc::clone(&fleet), specs.clone(), options, events, cancel).await;
            assert!(done.iter().all(|outcome| outcome.ok), "{done:?}");
        }
        let options = SweepOptions {
            artifact,
            parallel: 512,
            timeout: Duration::from_secs(self.timeout_secs),
            probe_timeout: Duration::from_secs(30),
            max_retry_attempts: 3,
            auto_recovery: false,
            keys_file: "~/.ssh/authorized_keys".to_owned(),
            config: SweepConfig { ignore: self.ignored(), ..SweepConfig::default() },
            pow: None,
        };
        let sweeper = Sweeper::new(Arc::clone(&fleet), specs, options, true);
        let before = rss_bytes();
        let cold = self.pass(&sweeper, &fleet).await;
        self.print("cold", &cold, before);
        let mut warm = Vec::new();
        for _ in 0..self.rounds.max(1) {
            warm.push(self.pass(&sweeper, &fleet).await);
        }
        warm.sort_by_key(|row| row.wall);
        self.print("warm", &warm[warm.len() / 2], before);
    }

    async fn pass(&self, sweeper: &Sweeper, fleet: &Fleet) -> Row {
        let (started, cpu) = (Instant::now(), own_cpu());
        let started_ms = orchestrator::store::now_ms();
        let report = sweeper.pass(&CancellationToken::new()).await.unwrap();
        let (wall, cpu) = (started.elapsed(), own_cpu().saturating_sub(cpu));
        // From what is recorded, which also shows that it is.
        let mut last_ms = started_ms;
        for host in report.hosts.iter().filter(|host| host.ok) {
            let probes = fleet.store.probes_of(&host.host, started_ms, 1).await.unwrap();
            last_ms = last_ms.max(probes[0].at_ms + probes[0].elapsed_ms);
        }
        let answered = Duration::from_millis(u64::try_from(last_ms - started_ms).unwrap());
        let well = usize::try_from(report.counts.well).unwrap();
        let wrong: Vec<_> = report.hosts.iter().filter(|host| !host.ok).take(3).collect();
        assert_eq!(well, self.expect_well, "{}: {wrong:?}", self.label);
        Row { wall, cpu, well, answered }
    }

    fn print(&self, pass: &str, row: &Row, rss_before: u64) {
        let rss = rss_bytes();
        let kept = u64::try_from(self.expect_well).unwrap();
        println!(
            "| {} | {pass} | {:.2} | {:.2} | {:.2} | {} | {} | {} |",
            self.label,
            row.wall.as_secs_f64(),
            row.answered.as_secs_f64(),
            row.cpu.as_secs_f64(),
            row.well,
            rss >> 20,
            rss.saturating_sub(rss_before) / kept.max(1) / 1024,
        );
    }

    /// What depends on the machine that measures.
    fn ignored(&self) -> Vec<String> {
        if self.deploy.is_none() {
            return Vec::new();
        }
        use orchestrator::sweep::{Code, Severity};
        let is_of_host = |code: &&Code| code.severity() != Severity::Info && !code.is_of_reach();
        Code::ALL.iter().filter(is_of_host).map(ToString::to_string).collect()
    }

    fn specs(&self) -> Vec<HostSpec> {
        let addresses = std::fs::read_to_string(self.directory.join("addresses")).unwrap();
        addresses
            .lines()
            .enumerate()
            .map(|(index, address)| HostSpec {
                name: HostName::new(format!("bench-{index:05}")).unwrap(),
                endpoint: Endpoint {
                    address: address.to_owned(),
                    port: self.port,
                    user: self.user.clone(),
                    identity_files: vec![self.directory.join("client_key")],
                    certificate_files: Vec::new(),
                    agent: AgentSocket::Disabled,
                    host_key: Some(self.fingerprint.clone()),
                    host_key_alias: None,
                    known_hosts_files: Vec::new(),
                },
                proxy_jump: Vec::new(),
                mode: HostMode::Ssh,
                gpus: None,
                labels: Default::default(),
                work_dir: None,
                containers: Default::default(),
            })
            .collect()
    }
}

/// Memory of this process that is in use (proc(5), `VmRSS`).
fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

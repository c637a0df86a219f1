//! Sweeps of a running service: over connections that stay open.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::alerts::Channels;
use orchestrator::config::{AlertsConfig, SweepConfig};
use orchestrator::fleet::Fleet;
use orchestrator::fleet::sweep::{Pace, SweepOptions, SweepStatus, Sweeper, sweep_loop};
use orchestrator::host_spec::{HostMode, HostSpec};
use orchestrator::host_state::HostState;
use orchestrator::ids::HostName;
use orchestrator::runner::Artifact;
use orchestrator::ssh::{SshContext, TrustPolicy};
use orchestrator::store::Store;
use orchestrator::sweep::{Code, Severity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::operator::runner;
use crate::deploy::host::Host;
use crate::sshd::limits;

fn spec(host: &Host) -> HostSpec {
    let mut endpoint = host.sshd.endpoint();
    endpoint.host_key = Some(host.fingerprint());
    HostSpec {
        name: HostName::new("gpu-01").unwrap(),
        endpoint,
        proxy_jump: Vec::new(),
        mode: HostMode::Ssh,
        gpus: None,
        labels: Default::default(),
        work_dir: None,
        containers: Default::default(),
    }
}

async fn sweeper(host: &Host, folder: &Path) -> Sweeper {
    let store = Store::open(&folder.join("o.db")).await.unwrap();
    let ssh = Arc::new(SshContext::new(limits(), TrustPolicy::default()));
    let fleet = Fleet { store, ssh, actor: "ops@desk".to_owned() };
    // What depends on the machine that runs the tests.
    let of_machine = Code::ALL.iter().filter(|code| !code.is_of_reach());
    let of_machine = of_machine.filter(|code| code.severity() != Severity::Info);
    let config = SweepConfig {
        ignore: of_machine.map(ToString::to_string).collect(),
        ..SweepConfig::default()
    };
    let options = SweepOptions {
        artifact: Arc::new(Artifact::read(&runner()).unwrap()),
        parallel: 8,
        timeout: Duration::from_secs(120),
        probe_timeout: Duration::from_secs(100),
        max_retry_attempts: 3,
        auto_recovery: true,
        keys_file: "~/.ssh/authorized_keys".to_owned(),
        config,
        pow: None,
    };
    Sweeper::new(Arc::new(fleet), vec![spec(host)], options, true)
}

/// Waits for the end of one more pass.
async fn next_pass(status: &mut watch::Receiver<SweepStatus>) -> SweepStatus {
    let last = status.borrow_and_update().ended_ms;
    let next = status.wait_for(|status| status.ended_ms != last);
    tokio::time::timeout(crate::cli::operator::STUCK, next).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn passes_share_one_connection_and_the_loop_ends_when_told() {
    let (host, folder) = (Host::start(), tempfile::tempdir().unwrap());
    let sweeper = sweeper(&host, folder.path()).await;
    let store = sweeper.fleet().store.clone();
    let alerts = AlertsConfig::default();
    let channels = Channels::new(&alerts, folder.path(), |_| None).unwrap();
    let (publish, mut status) = watch::channel(SweepStatus::default());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(sweep_loop(
        sweeper,
        Pace::Every(Duration::from_millis(1)),
        Duration::ZERO,
        true,
        (channels, alerts),
        publish,
        cancel.clone(),
    ));
    // Nothing was deployed yet, and the loop follows the deploys.
    assert_eq!(next_pass(&mut status).await.counts.unwrap().well, 0);
    let deployed = orchestrator::store::HostContact {
        spec: spec(&host),
        event: orchestrator::host_state::HostEvent::FoundWell,
        runner: None,
        facts: None,
        trouble: None,
        events: Vec::new(),
    };
    store.record_contact("ops@desk", &deployed).await.unwrap();
    while next_pass(&mut status).await.counts.unwrap().well == 0 {}
    for _ in 0..3 {
        let done = next_pass(&mut status).await;
        assert_eq!((done.counts.unwrap().well, done.problem), (1, None));
    }
    cancel.cancel();
    tokio::time::timeout(crate::cli::operator::STUCK, running).await.unwrap().unwrap();
    let log = host.sshd.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    assert!(log.matches("Starting session: command").count() >= 4, "{log}");
    let record = store.host(&spec(&host).name).await.unwrap().unwrap();
    assert_eq!(record.state, HostState::Ready);
    store.close().await;
}

#[tokio::test]
async fn a_connection_that_is_gone_is_made_again() {
    let (host, folder) = (Host::start(), tempfile::tempdir().unwrap());
    let sweeper = sweeper(&host, folder.path()).await;
    let cancel = CancellationToken::new();
    let first = sweeper.pass(&cancel).await.unwrap();
    // The first look puts the runner there.
    assert_eq!((first.counts.well, first.hosts[0].repairs.len()), (1, 1));
    sweeper.close().await;
    let second = sweeper.pass(&cancel).await.unwrap();
    assert_eq!((second.counts.well, second.hosts[0].repairs.len()), (1, 0));
    cancel.cancel();
    sweeper.pass(&cancel).await.unwrap_err();
    sweeper.close().await;
    assert_eq!(host.sshd.log().matches("Accepted publickey").count(), 2);
}

//! Connections that break and orchestrators that die, at every stage of a deploy: whatever
//! happens, nothing half is runnable, nothing keeps running, and the next deploy converges.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator::reason::Reason;
use rustix::process::Signal;

use super::host::{Host, tree};
use crate::chaos::{ChaosProxy, Cut, Flow, Plan};
use crate::cli::operator::{Deployed, Operator, STUCK, eventually, runner};

/// Ctrl-C takes a goodbye of two seconds at most; a stalled upload alone would take thirty.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A host, a proxy in front of it, and an operator who knows the host through the proxy.
struct Line {
    host: Host,
    operator: Operator,
    proxy: ChaosProxy,
}

impl Line {
    async fn new(plans: impl IntoIterator<Item = Plan>) -> Self {
        let (host, operator) = (Host::start(), Operator::new());
        let server = SocketAddr::from(([127, 0, 0, 1], host.sshd.port));
        let proxy = ChaosProxy::start(server, plans).await;
        operator.fleet(&[host.pinned_through("gpu-01", proxy.address().port())]);
        Self { host, operator, proxy }
    }

    /// Waits until so many bytes have reached the host.
    async fn reached(&self, bytes: u64) {
        let reached = self.proxy.wait_for(|traffic| traffic.bytes_to_server >= bytes);
        tokio::time::timeout(STUCK, reached).await.expect("the bytes never came");
    }

    /// That the broken deploy left nothing, once the host has noticed, and that the next one
    /// does all of it.
    async fn converges(self, what: &str) {
        let Self { host, operator, proxy } = self;
        // What the network still held open is gone too; sshd notices at once.
        drop(proxy);
        let quiet = || host.left_running().is_empty() && !host.has_half_an_upload();
        eventually(&format!("{what}: the host is quiet"), quiet).await;
        let left = tree(&host.home);
        if left.contains("remote-runner") {
            host.assert_installed();
        }
        operator.run(["audit", "verify"]).await.expect(0);
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        host.assert_installed();
        operator.run(["audit", "verify"]).await.expect(0);
        eventually(&format!("{what}: the runner has ended"), || host.left_running().is_empty())
            .await;
    }
}

/// How many bytes go to the host in a deploy that finds the runner there, and in one that does not.
struct Sizes {
    warm: u64,
    cold: u64,
}

impl Sizes {
    async fn measure() -> Self {
        let line = Line::new([Plan::Pass]).await;
        let measure = async || {
            let before = line.proxy.traffic();
            line.operator.deploy([]).await.expect(0);
            let done = line.proxy.wait_for(|now| now.finished > before.finished).await;
            done.bytes_to_server - before.bytes_to_server
        };
        let (cold, warm) = (measure().await, measure().await);
        assert!(cold > warm + 300_000, "{cold} {warm}");
        Self { warm, cold }
    }

    /// Offsets in the greeting, the key exchange, the authentication, the first command, and
    /// throughout the upload up to its last bytes.
    fn offsets(&self) -> Vec<u64> {
        let upload = self.cold - self.warm;
        let early = [0, 10, 600, self.warm / 2, self.warm * 3 / 4];
        let within = [2, 25, 50, 75, 97].map(|percent| self.warm + upload * percent / 100);
        early.into_iter().chain(within).collect()
    }
}

#[track_caller]
fn assert_clean_failure_or_success(deployed: &Deployed, what: &str) {
    let row = deployed.row("gpu-01");
    match deployed.finished.code {
        Some(0) => assert!(row["reason"].is_null(), "{what}: {row}"),
        Some(3) => {
            let reason = row["reason"].as_str().unwrap();
            let documented = Reason::ALL.iter().any(|known| known.code() == reason);
            assert!(documented && reason != "bug", "{what}: {row}");
            assert!(!row["message"].as_str().unwrap().is_empty());
        }
        code => panic!("{what}: exit status {code:?}: {:?}", deployed.finished),
    }
    let stderr = &deployed.finished.stderr;
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
}

fn cut_at(bytes: u64, cut: Cut) -> Plan {
    Plan::to_server(Flow { cut: Some((bytes, cut)), ..Flow::default() })
}

#[tokio::test]
async fn a_reset_at_any_byte_fails_cleanly_and_the_next_deploy_converges() {
    for offset in Sizes::measure().await.offsets() {
        let what = format!("reset at byte {offset}");
        let line = Line::new([cut_at(offset, Cut::Reset), Plan::Pass]).await;
        let deployed = line.operator.deploy([]).await;
        assert_clean_failure_or_success(&deployed, &what);
        line.converges(&what).await;
    }
}

#[tokio::test]
async fn a_reset_of_what_the_host_says_fails_cleanly_and_the_next_deploy_converges() {
    for offset in [0, 20, 500, 1500, 2500, 3500] {
        let what = format!("reset at byte {offset} from the host");
        let line = Line::new([Plan::reset_to_client_at(offset), Plan::Pass]).await;
        let deployed = line.operator.deploy([]).await;
        assert_clean_failure_or_success(&deployed, &what);
        line.converges(&what).await;
    }
}

#[tokio::test]
async fn a_corrupt_byte_is_noticed_and_the_next_deploy_converges() {
    let sizes = Sizes::measure().await;
    for offset in [600, sizes.warm * 3 / 4, sizes.warm + 100_000] {
        let what = format!("corrupt byte {offset}");
        let line = Line::new([Plan::corrupt_to_server_at(offset), Plan::Pass]).await;
        let deployed = line.operator.deploy([]).await;
        assert_clean_failure_or_success(&deployed, &what);
        line.converges(&what).await;
    }
}

/// A link that is neither alive nor dead: the deadlines of the stages end it, all at once here.
#[tokio::test]
async fn a_frozen_link_ends_by_its_deadline_and_the_next_deploy_converges() {
    let sizes = Sizes::measure().await;
    let upload = sizes.cold - sizes.warm;
    let offsets = [10, 600, sizes.warm * 3 / 4, sizes.warm + upload / 2];
    join_all(offsets.map(async |offset| {
        let what = format!("frozen at byte {offset}");
        let line = Line::new([cut_at(offset, Cut::Freeze), Plan::Pass]).await;
        let deployed = line.operator.deploy([]).await;
        assert_clean_failure_or_success(&deployed, &what);
        line.converges(&what).await;
    }))
    .await;
}

#[tokio::test]
async fn an_orchestrator_that_is_killed_anywhere_leaves_nothing_behind() {
    for offset in Sizes::measure().await.offsets() {
        let what = format!("killed at byte {offset}");
        let line = Line::new([cut_at(offset, Cut::Freeze)]).await;
        let running = line.operator.start(["deploy", "--json"]);
        let accepted = line.proxy.wait_for(|traffic| traffic.accepted > 0);
        tokio::time::timeout(STUCK, accepted).await.expect("it never connected");
        line.reached(offset).await;
        running.signal(Signal::KILL);
        assert_eq!(running.end().await.code, None, "{what}");
        line.converges(&what).await;
    }
}

#[tokio::test]
async fn ctrl_c_reports_who_was_not_done_and_leaves_the_database_whole() {
    let sizes = Sizes::measure().await;
    for signal in [Signal::INT, Signal::TERM] {
        let middle = sizes.warm + (sizes.cold - sizes.warm) / 2;
        let line = Line::new([cut_at(middle, Cut::Freeze)]).await;
        let (good, waiting) = (Host::start(), Host::start());
        line.operator.fleet(&[
            good.pinned("gpu-00"),
            line.host.pinned_through("gpu-01", line.proxy.address().port()),
            waiting.pinned("gpu-02"),
        ]);
        // One good host first, so that the interrupted deploy has one that is done and one that
        // has not begun.
        let done = line.operator.deploy(["--limit", "gpu-00"]).await.expect(0);
        assert_eq!(done.rows.len(), 1);
        let arguments = ["deploy", "--json", "--parallel", "1", "--limit", "gpu-01,gpu-02"];
        let running = line.operator.start(arguments);
        line.reached(middle).await;
        running.signal(signal);
        let finished = running.end_within(AT_ONCE).await.expect(130);
        let documents = finished.json_lines();
        let cancelled: Vec<&str> = documents
            .iter()
            .filter(|document| document["reason"] == "cancelled")
            .map(|document| document["host"].as_str().unwrap())
            .collect();
        assert_eq!(cancelled.len(), 2, "{finished:?}");
        assert_eq!(documents.last().unwrap()["cancelled"], 2);
        assert_eq!(tree(&waiting.home), "");
        assert_eq!(line.operator.audit().await, ["deploy.succeeded"]);
        line.converges("ctrl-c").await;
    }
}

#[tokio::test]
async fn a_second_ctrl_c_is_not_needed_and_does_no_harm() {
    let sizes = Sizes::measure().await;
    let line = Line::new([cut_at(sizes.warm / 2, Cut::Freeze)]).await;
    let running = line.operator.start(["deploy"]);
    line.reached(sizes.warm / 2).await;
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    running.end_within(AT_ONCE).await.expect(130);
    line.converges("two ctrl-c").await;
}

#[tokio::test]
async fn the_upload_is_compressed() {
    let sizes = Sizes::measure().await;
    let runner = std::fs::metadata(runner()).unwrap().len();
    assert!(sizes.cold < runner * 2 / 3, "{} of {runner} bytes", sizes.cold);
    assert!(sizes.warm < 16 * 1024, "{}", sizes.warm);
}

//! The same request again: at once, after a kill, to another process, and from a crowd.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use orchestrator::axon::auth::Scheme;
use orchestrator::axon::replay::{Replay, now_ns};
use orchestrator::axon::serve;
use orchestrator::store::Store;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Response, begun, btauth_ping, context, exchange, generous, legacy_ping, pairs, request,
};
use crate::cli::operator::eventually;

/// Set in a process that shall be an axon on this folder and nothing else.
const BE_AN_AXON: &str = "ORCHESTRATOR_TEST_AXON";

/// An axon in a process of its own: this program once more.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let ready = folder.join("port");
        let _none = std::fs::remove_file(&ready);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "axon::again::no_request_is_accepted_again_after_a_kill"])
            .env(BE_AN_AXON, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self { child, port: 0 };
        eventually("the axon listens", || {
            let written = std::fs::read_to_string(&ready).ok();
            process.port = written.and_then(|text| text.parse().ok()).unwrap_or_default();
            process.port != 0
        })
        .await;
        begun(TcpStream::connect(("127.0.0.1", process.port)).await.unwrap()).await;
        process
    }

    async fn send(&self, request: &[u8]) -> Response {
        exchange(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap(), request).await
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGKILL: nothing can be written on the way out.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

async fn be_an_axon(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let context = context(&folder.join("o.db"), generous(), None).await;
    let serving = serve(listener, context, CancellationToken::new());
    let file = tempfile::NamedTempFile::new_in(folder).unwrap();
    std::fs::write(file.path(), port.to_string()).unwrap();
    file.persist(folder.join("port")).unwrap();
    serving.await.unwrap();
}

fn is_replay(answer: &Response) -> bool {
    let told = answer.body["error"].as_str() == Some("ReplayedRequest")
        || answer.body["message"].as_str().is_some_and(|text| text.contains("already accepted"));
    answer.status == 401 && told
}

#[tokio::test]
async fn no_request_is_accepted_again_after_a_kill() {
    if let Some(folder) = std::env::var_os(BE_AN_AXON) {
        return be_an_axon(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let [_, caller, _] = pairs();
    let axon = Process::start(folder.path()).await;
    let accepted = [btauth_ping(&caller, now_ns()), legacy_ping(&caller, "endpoint", now_ns())];
    for request in &accepted {
        let answer = axon.send(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    axon.kill();
    let axon = Process::start(folder.path()).await;
    let beside = Process::start(folder.path()).await;
    for request in &accepted {
        for process in [&axon, &beside] {
            let answer = process.send(request).await;
            assert!(is_replay(&answer), "{answer:?}");
        }
    }
    // Honest requests go on at once, and are known to both.
    let next = [btauth_ping(&caller, now_ns()), legacy_ping(&caller, "endpoint", now_ns())];
    for request in &next {
        let answer = beside.send(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = axon.send(request).await;
        assert!(is_replay(&answer), "{answer:?}");
    }
}

#[tokio::test]
async fn ten_thousand_strangers_leave_the_memory_flat() {
    let folder = tempfile::tempdir().unwrap();
    let axon = Process::start(folder.path()).await;
    let port = axon.port;
    let storm = async |first: u16, count: u16| {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..16 {
            lanes.spawn(async move {
                for number in (first + lane..first + count).step_by(16) {
                    let [high, low] = number.to_be_bytes();
                    // Each from an address of its own.
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind((std::net::Ipv4Addr::new(127, 1, high, low), 0).into()).unwrap();
                    let stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
                    let headers = [("x-bittensor-version", number.to_string())];
                    let answer =
                        exchange(stream, &request("POST", "/v1/ping", &headers, "{}")).await;
                    assert_eq!(answer.status, 401);
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.unwrap();
        }
    };
    storm(0, 2_000).await;
    let before = axon.resident_kib();
    storm(2_000, 10_000).await;
    let after = axon.resident_kib();
    // 10,000 entries of a hundred bytes would be a megabyte.
    assert!(after < before + 1024, "{before} KiB before, {after} KiB after");
}

#[tokio::test]
async fn what_waits_together_is_judged_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let (replay, task) = Replay::start(&store).await.unwrap();
    let now = now_ns();
    let spend = |scheme, key: &str, nonce| {
        let (replay, key) = (replay.clone(), key.to_owned());
        async move { replay.spend(scheme, key, now + nonce).await.unwrap() }
    };
    use Scheme::{Btauth, Legacy};
    // All of a kind are sent before the first is answered.
    let same = futures_util::future::join_all((0..50).map(|_| spend(Btauth, "a", 1))).await;
    assert_eq!(same.iter().filter(|fresh| **fresh).count(), 1);
    let same = futures_util::future::join_all((0..50).map(|_| spend(Legacy, "e", 1))).await;
    assert_eq!(same.iter().filter(|fresh| **fresh).count(), 1);
    let rising =
        futures_util::future::join_all((2..40).map(|nonce| spend(Legacy, "e", nonce))).await;
    assert!(rising.iter().all(|fresh| *fresh), "{rising:?}");
    assert!(!spend(Legacy, "e", 39).await && !spend(Legacy, "e", 20).await);
    // A btauth caller may send out of order; keys of the two schemes are apart.
    assert!(spend(Btauth, "a", 0).await && spend(Btauth, "e", 20).await);
    drop(replay);
    task.await.unwrap();
    let (replay, _task) = Replay::start(&store).await.unwrap();
    assert!(!replay.spend(Legacy, "e".into(), now + 39).await.unwrap());
    assert!(replay.spend(Legacy, "e".into(), now + 40).await.unwrap());
}

#[tokio::test]
async fn another_boot_and_a_clock_set_back_open_no_window() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let journal = store.replay_journal().await.unwrap();
    assert_eq!(journal.begin("first", 1_000, 50).await.unwrap(), 1_000, "a new database");
    assert_eq!(journal.begin("first", 2_000, 50).await.unwrap(), 1_000, "the same boot");
    // After a power cut rows may be missing whose nonce was at most so far ahead.
    assert_eq!(journal.begin("second", 3_000, 50).await.unwrap(), 3_050);
    let spends = [("a".to_owned(), 4_000), ("b".to_owned(), 6_000)];
    journal.spend(&spends, &spends).await.unwrap();
    assert_eq!(journal.count().await.unwrap(), 4);
    assert_eq!(journal.forget(5_000, 10).await.unwrap(), 1);
    assert_eq!(journal.count().await.unwrap(), 2);
    // What was forgotten stays refused, though the clock says 3,500 again.
    assert_eq!(journal.begin("second", 3_500, 50).await.unwrap(), 5_000);
    assert_eq!(journal.begin("third", 3_500, 50).await.unwrap(), 5_000);
}

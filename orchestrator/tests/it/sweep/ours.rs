//! Containers, leases and grants that are over: found on a real Engine and in a real file of keys,
//! told, and ended where that is allowed.

use std::fs;
use std::path::PathBuf;

use orchestrator::store::{GrantFilter, Store};
use serde_json::Value;

use super::lock::change_database;
use super::{codes, operator, row};
use crate::cli::operator::Operator;
use crate::containers::engine::{Engine, IMAGE};
use crate::deploy::host::Host;
use crate::sshd;

const SWEEP: [&str; 4] = ["sweep", "--json", "--fail-on", "never"];

const ENDS_AT_TERM: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// A sweep without `auto_recovery`.
async fn look(operator: &Operator) -> Value {
    let off = operator.file("off.toml");
    let config = fs::read_to_string(operator.file("orchestrator.toml")).unwrap();
    fs::write(&off, format!("{config}[executor_management]\nauto_recovery = false\n")).unwrap();
    let sweep = ["--config", off.to_str().unwrap()].into_iter().chain(SWEEP);
    row(&operator.run(sweep).await.expect(0), "gpu-01")
}

fn finding<'r>(row: &'r Value, code: &str) -> &'r Value {
    let findings = row["findings"].as_array().unwrap();
    findings.iter().find(|it| it["code"] == code).unwrap_or_else(|| panic!("{code}: {row}"))
}

async fn store(operator: &Operator) -> Store {
    Store::open(&operator.database()).await.unwrap()
}

/// A host with the shared Engine and its operator; what is left of it there is removed.
struct Site {
    host: Host,
    operator: Operator,
    owner: String,
}

impl Site {
    async fn new() -> Self {
        let engine = Engine::shared();
        let (host, operator) = (Host::with_docker(engine.socket(), &[], ""), operator("", ""));
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        let store = store(&operator).await;
        let owner = store.identity().await.unwrap();
        store.close().await;
        Self { host, operator, owner }
    }

    /// Starts a detached container and returns the engine's id of it.
    async fn run(&self) -> String {
        let run = ["run", "gpu-01", "--image", IMAGE, "--detach", "--json"];
        let words = run.into_iter().chain(["--", "sh", "-c", ENDS_AT_TERM]);
        let started = self.operator.run(words).await.expect(0);
        let lines = started.json_lines();
        let line = lines.iter().find(|line| line["event"] == "detached").unwrap();
        line["container"].as_str().unwrap().to_owned()
    }

    /// A container that this database has no lease of, made behind its back.
    fn stray(&self, owner: &str, labels: &[&str]) -> String {
        let owner = format!("orchestrator.owner={owner}");
        let mut words = vec!["run", "--detach", "--label", &owner];
        for label in labels {
            words.extend(["--label", label]);
        }
        words.extend([IMAGE, "sh", "-c", ENDS_AT_TERM]);
        Engine::shared().docker_says(words)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for owner in [&self.owner, &self.others()] {
            for id in Engine::shared().labelled(&format!("orchestrator.owner={owner}")) {
                Engine::shared().docker(["rm", "--force", &id]);
            }
        }
    }
}

impl Site {
    /// The identity of a database that is another one's.
    fn others(&self) -> String {
        format!("{}-of-others", self.owner)
    }
}

fn runs(id: &str) -> bool {
    Engine::shared().inspect(id).is_some_and(|found| found["State"]["Running"] == true)
}

#[tokio::test]
async fn containers_that_should_not_run_are_told_and_ended_and_those_of_others_are_not_touched() {
    let site = Site::new().await;
    let over = "orchestrator.deadline-ms=1";
    let others = site.stray(&site.others(), &[over, "orchestrator.mode=foreground"]);
    let well = look(&site.operator).await;
    assert_eq!(codes(&well), Vec::<String>::new());
    // One command is enough to see a stray one on a host that holds nothing by the database.
    let commands = || site.host.sshd.log().matches("Starting session: command").count();
    let before = commands();
    let first = site.stray(&site.owner, &["orchestrator.mode=foreground"]);
    let row = look(&site.operator).await;
    assert_eq!(
        (codes(&row), &row["state"]),
        (vec!["container_abandoned".into()], &"degraded".into())
    );
    assert_eq!(commands(), before + 1);

    // Each `run` ends the strays that it meets.
    let (held, gone) = (site.run().await, site.run().await);
    assert!(!runs(&first));
    Engine::shared().docker(["rm", &first]);
    Engine::shared().docker_says(["rm", "--force", &gone]);
    let abandoned = site.stray(&site.owner, &["orchestrator.mode=foreground"]);
    let overdue = site.stray(&site.owner, &["orchestrator.mode=detached", over]);
    let unleased = site.stray(&site.owner, &["orchestrator.mode=detached"]);
    let left = Engine::shared().docker_says([
        "create",
        "--label",
        &format!("orchestrator.owner={}", site.owner),
        IMAGE,
        "true",
    ]);
    let row = look(&site.operator).await;
    for (code, id) in [
        ("container_abandoned", &abandoned),
        ("container_overdue", &overdue),
        ("container_unleased", &unleased),
        ("container_left_behind", &left),
    ] {
        let found = finding(&row, code);
        assert_eq!(found["subject"], id[..12], "{row}");
        let verb = if code == "container_left_behind" { "rm" } else { "stop" };
        assert_eq!(found["fix"], format!("orchestrator {verb} gpu-01/{}", &id[..12]));
    }
    assert_eq!(
        finding(&row, "lease_outlived")["seen"],
        format!("the container {} is gone", &gone[..12])
    );
    assert_eq!(codes(&row).len(), 5, "{row}");
    for id in [&abandoned, &overdue, &unleased, &held, &others] {
        assert!(runs(id), "nothing is ended where that is not allowed: {id}");
    }

    let mended = super::row(&site.operator.run(SWEEP).await.expect(0), "gpu-01");
    assert_eq!(
        (&mended["repairs"][0]["repair"], &mended["repairs"][0]["ok"]),
        (&"end_containers".into(), &true.into())
    );
    assert_eq!(codes(&mended), ["container_unleased"], "{mended}");
    for (id, still) in
        [(&abandoned, false), (&overdue, false), (&unleased, true), (&held, true), (&others, true)]
    {
        assert_eq!(runs(id), still, "{id}");
    }
    assert_eq!(Engine::shared().inspect(&left), None);
    let store = store(&site.operator).await;
    let live = store.live_leases(None).await.unwrap();
    assert_eq!(
        live.iter().map(|lease| lease.subject.as_deref()).collect::<Vec<_>>(),
        [Some(held.as_str())]
    );
    store.close().await;
    let audit = site.operator.audit().await;
    for kind in ["container.expired", "container.removed", "lease.released", "recovery.succeeded"] {
        assert!(audit.iter().any(|it| it == kind), "{kind}: {audit:?}");
    }
    // The printed command ends the last one, and then all is well.
    site.operator.run(["stop", &format!("gpu-01/{}", &unleased[..12])]).await.expect(0);
    let well = super::row(&site.operator.run(SWEEP).await.expect(0), "gpu-01");
    assert_eq!((codes(&well), &well["state"]), (vec![], &"ready".into()));
    assert!(runs(&held) && runs(&others));
}

#[tokio::test]
async fn an_engine_that_only_the_fleet_file_names_is_looked_at_too() {
    let engine = Engine::shared();
    let nowhere = engine.socket().with_file_name("absent.sock");
    let (host, operator) = (Host::with_docker(&nowhere, &[], ""), operator("", ""));
    let more = format!(
        "host_key = \"{}\"\ndocker_socket = \"{}\"",
        host.fingerprint(),
        engine.socket().display()
    );
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &more)]);
    operator.deploy([]).await.expect(0);
    let run = ["run", "gpu-01", "--image", IMAGE, "--detach", "--json", "--", "sleep", "100000"];
    let started = operator.run(run).await.expect(0).json_lines();
    let id = started.iter().find_map(|line| line["container"].as_str()).unwrap().to_owned();
    assert_eq!(codes(&look(&operator).await), Vec::<String>::new());
    engine.docker_says(["rm", "--force", &id]);
    assert_eq!(codes(&look(&operator).await), ["lease_outlived"]);
    let mended = row(&operator.run(SWEEP).await.expect(0), "gpu-01");
    assert_eq!((codes(&mended), &mended["state"]), (vec![], &"ready".into()));
}

/// A host whose login's file of keys is the one that sshd reads, and one grant in it.
struct Granted {
    operator: Operator,
    keys: PathBuf,
    before: String,
    _host: Host,
}

impl Granted {
    async fn new() -> Self {
        let host = Host::start();
        let keys = host.sshd.dir.path().join("authorized_keys");
        let rest = format!("[ssh_session]\nauthorized_keys_file = \"{}\"\n", keys.display());
        let operator = operator("", &rest);
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        let before = fs::read_to_string(&keys).unwrap();
        sshd::generate_key(&operator.file("validator"), "ed25519", "");
        Self { operator, keys, before, _host: host }
    }

    /// Gives a grant and returns its id.
    async fn give(&self) -> String {
        let key = self.operator.file("validator.pub");
        let words =
            ["grants", "give", "gpu-01", "--validator", "5Validator", "--from", "127.0.0.1"];
        let all = words.into_iter().chain(["--for", "1h", "--key", key.to_str().unwrap()]);
        self.operator.run(all).await.expect(0);
        let store = store(&self.operator).await;
        let open = GrantFilter { open: true, ..GrantFilter::default() };
        let id = store.grants(&open, 1, 0).await.unwrap()[0].id.clone();
        store.close().await;
        id
    }

    fn content(&self) -> String {
        fs::read_to_string(&self.keys).unwrap()
    }
}

#[tokio::test]
async fn lines_of_grants_that_are_over_are_told_and_the_printed_command_takes_them_out() {
    let site = Granted::new().await;
    let id = site.give().await;
    assert_eq!(codes(&look(&site.operator).await), Vec::<String>::new());
    let with_line = site.content();
    for (change, code, severity) in [
        ("UPDATE grants SET expires_ms = 1000", "grant_expired", "warning"),
        (
            "UPDATE grants SET state = 'ended', ended_ms = 1000, end_reason = 'revoked'",
            "grant_revoked",
            "critical",
        ),
        ("UPDATE grants SET state = 'gone'", "grant_revoked", "critical"),
    ] {
        change_database(&site.operator, change).await;
        let row = look(&site.operator).await;
        let found = finding(&row, code);
        assert_eq!(
            (&found["severity"], &found["subject"]),
            (&severity.into(), &id.as_str().into())
        );
        assert_eq!(found["fix"], format!("orchestrator grants revoke {id}"));
        assert_eq!((codes(&row).len(), &row["state"]), (1, &"degraded".into()));
        assert_eq!(site.content(), with_line, "nothing is taken out where that is not allowed");
    }
    assert!(site.operator.audit().await.contains(&"grant.returned".to_owned()));
    // One that nobody here gave stays, and is told.
    let foreign = with_line.lines().last().unwrap().replace(&id, &"f".repeat(32)) + "\n";
    fs::write(&site.keys, format!("{with_line}{foreign}")).unwrap();
    site.operator.run(["grants", "revoke", &id]).await.expect(0);
    assert_eq!(site.content(), format!("{}{foreign}", site.before));
    let row = row(&site.operator.run(SWEEP).await.expect(0), "gpu-01");
    assert_eq!(codes(&row), ["grant_unknown"]);
    assert_eq!(site.content(), format!("{}{foreign}", site.before));
}

#[tokio::test]
async fn a_sweep_takes_out_what_is_over_and_that_is_no_trouble_of_the_host() {
    let site = Granted::new().await;
    for (change, kind) in [
        ("UPDATE grants SET expires_ms = 1000 WHERE state = 'placed'", "grant.expired"),
        (
            "UPDATE grants SET state = 'ended', ended_ms = 1000, end_reason = 'revoked' \
             WHERE state = 'placed'",
            "grant.removed",
        ),
    ] {
        site.give().await;
        let line = site.content();
        change_database(&site.operator, change).await;
        let row = row(&site.operator.run(["sweep", "--json"]).await.expect(0), "gpu-01");
        assert_eq!((codes(&row), &row["state"]), (vec![], &"ready".into()));
        assert_eq!(
            (&row["repairs"][0]["repair"], &row["repairs"][0]["ok"]),
            (&"end_grants".into(), &true.into())
        );
        assert_ne!(site.content(), line);
        assert_eq!(site.content(), site.before);
        let audit = site.operator.audit().await;
        assert!(audit.iter().any(|it| it == kind), "{audit:?}");
        assert_eq!(audit.last().map(String::as_str), Some("recovery.succeeded"), "{audit:?}");
    }
    // Attempts that work are not counted: each of them is a grant's common end.
    let quiet = site.operator.run(["sweep", "--quiet"]).await.expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[tokio::test]
async fn what_cannot_be_ended_is_tried_as_often_as_allowed() {
    let site = Granted::new().await;
    site.give().await;
    let config = fs::read_to_string(site.operator.file("orchestrator.toml")).unwrap();
    site.operator.write(
        "orchestrator.toml",
        &config.replace("[ssh_session]", "recovery_attempts = 2\n[ssh_session]"),
    );
    // The file that the grant is said to be in cannot be made.
    let change = "UPDATE grants SET expires_ms = 1000, keys_file = '/proc/self/keys'";
    change_database(&site.operator, change).await;
    let mut tried = 0;
    for _ in 0..3 {
        let row = row(&site.operator.run(SWEEP).await.expect(0), "gpu-01");
        finding(&row, "grant_expired");
        if let Some(repair) = row["repairs"].as_array().map(|repairs| repairs[0].clone()) {
            assert_eq!(repair["ok"], false, "{row}");
            tried += 1;
        }
    }
    assert_eq!(tried, 2);
    let audit = site.operator.audit().await;
    assert_eq!(audit.iter().filter(|kind| *kind == "recovery.failed").count(), 2, "{audit:?}");
}

//! The store on a real database file: what it keeps, what it refuses, what damage it finds.

use std::path::Path;

use orchestrator::host_spec::{AgentSocket, ContainerRules, Endpoint, HostMode, HostSpec};
use orchestrator::host_state::{HostEvent, HostState};
use orchestrator::ids::HostName;
use orchestrator::reason::Reason;
use orchestrator::store::{
    AuditFault, Duplicate, HostContact, NewEvent, SeenBy, Store, TrustedKey,
};
use runner_protocol::HostFacts;
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn spec(host: &str) -> HostSpec {
    HostSpec {
        name: name(host),
        endpoint: Endpoint {
            address: "192.0.2.1".to_owned(),
            port: 22,
            user: "ubuntu".to_owned(),
            identity_files: vec!["/home/ops/.ssh/id_ed25519".into()],
            certificate_files: Vec::new(),
            agent: AgentSocket::Environment,
            host_key: None,
            host_key_alias: None,
            known_hosts_files: Vec::new(),
        },
        proxy_jump: Vec::new(),
        mode: HostMode::Ssh,
        gpus: None,
        labels: [("rack".to_owned(), "a".to_owned())].into(),
        work_dir: None,
        containers: ContainerRules::default(),
    }
}

fn event(kind: &'static str) -> NewEvent {
    NewEvent { kind, host: Some(name("gpu-01")), detail: json!({ "n": 1 }) }
}

fn contact(host: &str, event_kind: HostEvent) -> HostContact {
    HostContact {
        spec: spec(host),
        event: event_kind,
        runner: Some(("ab".repeat(32), "0.1.0".to_owned())),
        facts: Some(HostFacts { hostname: "box".to_owned(), ..HostFacts::default() }),
        trouble: None,
        events: vec![event("deploy.succeeded")],
    }
}

fn key(fingerprint: &str) -> TrustedKey {
    TrustedKey {
        address: "192.0.2.1".to_owned(),
        port: 22,
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: fingerprint.to_owned(),
        public_key: format!("ssh-ed25519 {fingerprint}"),
        trusted_ms: 1,
        trusted_by: "ops@desk".to_owned(),
    }
}

async fn raw(path: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

async fn execute(path: &Path, statement: &'static str) {
    let mut connection = raw(path).await;
    let done = sqlx::query(statement).execute(&mut connection).await.unwrap();
    assert!(done.rows_affected() > 0, "the damage must hit something");
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_contact_is_kept_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/orchestrator.db");
    let store = Store::open(&path).await.unwrap();
    let state = store.record_contact("ops@desk", &contact("gpu-01", HostEvent::FoundWell)).await;
    assert_eq!(state.unwrap(), HostState::Ready);
    store.close().await;

    let store = Store::open(&path).await.unwrap();
    let host = store.host(&name("gpu-01")).await.unwrap().unwrap();
    assert_eq!(host.spec, spec("gpu-01"));
    assert_eq!(host.state, HostState::Ready);
    assert!(host.last_seen_ms.is_some());
    let facts = store.facts_history(&name("gpu-01"), 10).await.unwrap();
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].facts.hostname, "box");
    assert_eq!(store.audit_verify(None).await.unwrap().events, 1);
}

#[tokio::test]
async fn the_database_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/orchestrator.db");
    let _store = Store::open(&path).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn a_failed_contact_keeps_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    store.record_contact("a", &contact("gpu-01", HostEvent::FoundWell)).await.unwrap();
    let seen = store.host(&name("gpu-01")).await.unwrap().unwrap().last_seen_ms;
    let failed = HostContact {
        runner: None,
        facts: None,
        trouble: Some((Reason::Tcp, "refused".to_owned())),
        ..contact("gpu-01", HostEvent::NotReached)
    };
    assert_eq!(store.record_contact("a", &failed).await.unwrap(), HostState::Unreachable);
    let host = store.host(&name("gpu-01")).await.unwrap().unwrap();
    assert_eq!(host.last_seen_ms, seen);
    assert_eq!(host.runner_version.as_deref(), Some("0.1.0"));
    assert_eq!(host.last_reason.as_deref(), Some("tcp"));
}

#[tokio::test]
async fn a_drained_host_stays_drained_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let host = name("gpu-01");
    let decide = async |decision, note| {
        store.apply_decision("a", &host, decision, note, event("host.decided")).await.unwrap()
    };
    assert_eq!(decide(HostEvent::Drain, None).await, None, "unknown host");
    store.record_contact("a", &contact("gpu-01", HostEvent::FoundWell)).await.unwrap();
    assert_eq!(
        decide(HostEvent::Drain, Some("fan")).await,
        Some((HostState::Ready, HostState::Draining))
    );
    let state = store.record_contact("a", &contact("gpu-01", HostEvent::FoundWell)).await;
    assert_eq!(state.unwrap(), HostState::Draining);
    let record = store.host(&host).await.unwrap().unwrap();
    assert_eq!(record.drain_note.as_deref(), Some("fan"));
    decide(HostEvent::Resume, None).await;
    assert_eq!(store.host(&host).await.unwrap().unwrap().state, HostState::Unknown);
}

#[tokio::test]
async fn a_purged_host_is_gone_and_may_come_back_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let host = name("gpu-01");
    store.record_contact("a", &contact("gpu-01", HostEvent::FoundFaulty)).await.unwrap();
    store.record_purge("a", &host, event("host.purged")).await.unwrap();
    assert_eq!(store.host(&host).await.unwrap(), None);
    assert_eq!(store.hosts().await.unwrap(), vec![]);
    assert_eq!(store.facts_history(&host, 9).await.unwrap().len(), 1, "history stays");
    let state = store.record_contact("a", &contact("gpu-01", HostEvent::FoundWell)).await;
    assert_eq!(state.unwrap(), HostState::Ready);
}

#[tokio::test]
async fn the_first_of_two_new_keys_wins_and_a_replaced_key_keeps_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.db");
    let store = Store::open(&path).await.unwrap();
    store.trust_new_key(&key("SHA256:one"), event("hostkey.accepted")).await.unwrap();
    store.trust_new_key(&key("SHA256:two"), event("hostkey.accepted")).await.unwrap();
    let live = async || {
        let keys = store.trusted_keys().await.unwrap();
        keys.into_iter().map(|key| key.fingerprint).collect::<Vec<_>>()
    };
    assert_eq!(live().await, ["SHA256:one"]);
    assert_eq!(
        store.audit_verify(None).await.unwrap().events,
        1,
        "what changed nothing is no event"
    );
    store.replace_keys(&key("SHA256:three"), event("hostkey.replaced")).await.unwrap();
    assert_eq!(live().await, ["SHA256:three"]);
    let mut connection = raw(&path).await;
    let rows = sqlx::query("SELECT id FROM host_keys").fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn two_processes_append_to_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.db");
    let stores = [Store::open(&path).await.unwrap(), Store::open(&path).await.unwrap()];
    let append = |store: Store| {
        tokio::spawn(async move {
            for _ in 0..20 {
                store.append_events("a", &[event("test.one"), event("test.two")]).await.unwrap();
            }
        })
    };
    let tasks = stores.clone().map(append);
    for task in tasks {
        task.await.unwrap();
    }
    let report = stores[0].audit_verify(None).await.unwrap();
    assert_eq!((report.events, report.fault), (80, None));
}

#[tokio::test]
async fn every_kind_of_damage_to_the_chain_is_found() {
    let cases: [(&'static str, AuditFault); 6] = [
        (
            "UPDATE events SET detail_json = replace(detail_json, '1', '2') WHERE seq = 2",
            AuditFault::Altered { seq: 2 },
        ),
        ("UPDATE events SET actor = 'x' WHERE seq = 3", AuditFault::Altered { seq: 3 }),
        ("UPDATE events SET host = NULL WHERE seq = 1", AuditFault::Altered { seq: 1 }),
        ("UPDATE events SET prev_hash = hash WHERE seq = 2", AuditFault::BrokenLink { seq: 2 }),
        ("DELETE FROM events WHERE seq = 2", AuditFault::Gap { expected: 2, found: 3 }),
        ("DELETE FROM events WHERE seq = 1", AuditFault::Gap { expected: 1, found: 2 }),
    ];
    for (damage, fault) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o.db");
        let store = Store::open(&path).await.unwrap();
        for _ in 0..4 {
            store.append_events("ops@desk", &[event("test.event")]).await.unwrap();
        }
        let whole = store.audit_verify(None).await.unwrap();
        assert_eq!((whole.events, whole.fault), (4, None));
        execute(&path, damage).await;
        assert_eq!(store.audit_verify(None).await.unwrap().fault, Some(fault), "{damage}");
    }
}

#[tokio::test]
async fn a_chain_that_was_cut_off_is_found_by_its_known_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.db");
    let store = Store::open(&path).await.unwrap();
    store.append_events("a", &[event("test.one"), event("test.two")]).await.unwrap();
    let head = store.audit_verify(None).await.unwrap().head;
    store.append_events("a", &[event("test.three")]).await.unwrap();
    assert_eq!(store.audit_verify(Some(&head)).await.unwrap().fault, None);
    execute(&path, "DELETE FROM events WHERE seq > 1").await;
    assert_eq!(store.audit_verify(None).await.unwrap().fault, None, "a shorter chain is whole");
    let fault = store.audit_verify(Some(&head)).await.unwrap().fault;
    assert_eq!(fault, Some(AuditFault::HeadMissing { expected: head }));
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.db");
    Store::open(&path).await.unwrap().close().await;
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', 1, x'00', 0)",
    )
    .await;
    let error = Store::open(&path).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot migrate the database"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "these are my notes, and not a database at all\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    Store::open(&path).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

const CARD: &str = "GPU-11111111-0000-0000-0000-000000000001";

async fn see(store: &Store, host: &str, uuids: &[&str]) -> Vec<Duplicate> {
    let uuids: Vec<String> = uuids.iter().map(|uuid| (*uuid).to_owned()).collect();
    store.record_sightings("ops@desk", &name(host), SeenBy::Deploy, &uuids).await.unwrap()
}

async fn kinds(store: &Store) -> Vec<String> {
    assert_eq!(store.audit_verify(None).await.unwrap().fault, None);
    store.events_after(0, None, 100).await.unwrap().into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_gpu_that_moved_is_told_from_one_that_two_hosts_show() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    assert_eq!(see(&store, "gpu-01", &[CARD]).await, []);
    assert_eq!(see(&store, "gpu-01", &[CARD]).await, [], "a host may show its own again");
    let twice = see(&store, "gpu-02", &[CARD]).await;
    assert_eq!((twice.len(), twice[0].other_host.as_str()), (1, "gpu-01"));
    assert_eq!(twice[0].other_proven_ms, None);
    assert_eq!(kinds(&store).await, ["gpu.duplicate"]);
    // The first host is looked at and has it no more.
    assert_eq!(see(&store, "gpu-01", &[]).await, []);
    assert_eq!(see(&store, "gpu-02", &[CARD]).await, []);
    assert_eq!(kinds(&store).await, ["gpu.duplicate"], "it was here already: nothing moved now");
    // And on to a third, after the second was looked at.
    see(&store, "gpu-02", &[]).await;
    assert_eq!(see(&store, "gpu-03", &[CARD]).await, []);
    assert_eq!(kinds(&store).await, ["gpu.duplicate", "gpu.moved"]);
    let moved = store.events_after(1, None, 1).await.unwrap().remove(0);
    assert_eq!(moved.host.as_deref(), Some("gpu-03"));
    assert!(moved.detail.contains("\"from\":\"gpu-02\""), "{}", moved.detail);
}

#[tokio::test]
async fn a_purged_host_shows_nothing_and_one_that_proved_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    store.record_contact("ops@desk", &contact("gpu-01", HostEvent::FoundWell)).await.unwrap();
    see(&store, "gpu-01", &[CARD]).await;
    store.record_proven(&name("gpu-01"), &[CARD.to_owned()]).await.unwrap();
    let twice = see(&store, "gpu-02", &[CARD]).await;
    assert!(twice[0].other_proven_ms.is_some());
    store.record_purge("ops@desk", &name("gpu-01"), event("host.purged")).await.unwrap();
    assert_eq!(see(&store, "gpu-02", &[CARD]).await, []);
    let rows = store.sightings(&name("gpu-01")).await.unwrap();
    assert_eq!((rows.len(), rows[0].host.as_str()), (1, "gpu-01"), "history stays");
}

#[tokio::test]
async fn one_host_that_shows_a_uuid_twice_is_a_duplicate_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("o.db")).await.unwrap();
    let twice = see(&store, "gpu-01", &[CARD, CARD]).await;
    assert_eq!((twice.len(), twice[0].other_host.as_str()), (1, "gpu-01"));
    assert_eq!(kinds(&store).await, ["gpu.duplicate"]);
}

//! Leases in the store: no GPU is held twice, and none is held for nobody.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::join_all;
use orchestrator::host_spec::{AgentSocket, ContainerRules, Endpoint, HostMode, HostSpec};
use orchestrator::host_state::{HostEvent, HostState};
use orchestrator::ids::HostName;
use orchestrator::store::{
    GpuRequest, HostContact, Lease, LeaseError, LeaseKind, NewEvent, NewLease, Store, now_ms,
};
use serde_json::json;

const OPS: &str = "ops@laptop";

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn contact(host: &str, event: HostEvent) -> HostContact {
    let spec = HostSpec {
        name: name(host),
        endpoint: Endpoint {
            address: "192.0.2.1".to_owned(),
            port: 22,
            user: "ubuntu".to_owned(),
            identity_files: Vec::new(),
            certificate_files: Vec::new(),
            agent: AgentSocket::Disabled,
            host_key: None,
            host_key_alias: None,
            known_hosts_files: Vec::new(),
        },
        proxy_jump: Vec::new(),
        mode: HostMode::Ssh,
        gpus: None,
        labels: [].into(),
        work_dir: None,
        containers: ContainerRules::default(),
    };
    HostContact { spec, event, runner: None, facts: None, trouble: None, events: Vec::new() }
}

async fn store_with(folder: &Path, host: &str, event: HostEvent) -> Store {
    let store = Store::open(&folder.join("orchestrator.db")).await.unwrap();
    store.record_contact(OPS, &contact(host, event)).await.unwrap();
    store
}

fn gpus(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn wanted(kind: LeaseKind, request: GpuRequest) -> NewLease {
    NewLease { host: name("gpu-01"), kind, gpus: request, expires_ms: None }
}

async fn state(store: &Store) -> HostState {
    store.host(&name("gpu-01")).await.unwrap().unwrap().state
}

async fn take(store: &Store, request: GpuRequest) -> Result<Lease, LeaseError> {
    store.acquire_lease(OPS, &wanted(LeaseKind::Container, request)).await
}

#[tokio::test]
async fn a_gpu_is_held_once_and_a_lease_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await;
    let first = take(&store, GpuRequest::These(gpus(&["GPU-b"]))).await.unwrap();
    assert_eq!(state(&store).await, HostState::Leased);

    let error = take(&store, GpuRequest::These(gpus(&["GPU-a", "GPU-b"]))).await.unwrap_err();
    let words = error.to_string();
    let LeaseError::Held(held) = error else { panic!("{error}") };
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].gpu.as_str(), &held[0].lease), ("GPU-b", &first.id));
    assert!(words.contains("GPU-b is held by ops@laptop (container"), "{words}");

    // Nothing of the refused lease is left: the other GPU is free.
    let of = gpus(&["GPU-a", "GPU-b", "GPU-c"]);
    let any = GpuRequest::Any { count: 2, of: of.clone() };
    let second = take(&store, any).await.unwrap();
    assert_eq!(second.gpus, ["GPU-a", "GPU-c"]);
    let error = take(&store, GpuRequest::Any { count: 1, of }).await.unwrap_err();
    assert!(matches!(error, LeaseError::TooFew { wanted: 1, free: 0, of: 3 }), "{error}");

    assert_eq!(store.live_leases(None).await.unwrap(), [first.clone(), second.clone()]);
    assert!(store.release_lease(OPS, &first.id, "the container ended").await.unwrap());
    assert_eq!(state(&store).await, HostState::Leased);
    assert!(store.release_lease(OPS, &second.id, "the container ended").await.unwrap());
    assert_eq!(state(&store).await, HostState::Ready);
    assert!(!store.release_lease(OPS, &second.id, "again").await.unwrap());
    assert_eq!(store.live_leases(None).await.unwrap(), []);

    let ended = store.leases_by_prefix(&second.id[..12], 2).await.unwrap();
    assert_eq!(ended[0].released_why.as_deref(), Some("the container ended"));
    assert_eq!(ended[0].gpus, ["GPU-a", "GPU-c"]);
    assert_eq!(store.audit_verify(None).await.unwrap().fault, None);
}

/// Several processes are several pools on one file.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_the_gpus_without_overlap() {
    let folder = tempfile::tempdir().unwrap();
    store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await.close().await;
    let of: Vec<String> = (0..8).map(|number| format!("GPU-{number}")).collect();
    let attempts = (0..12).map(|_| {
        let (path, of) = (folder.path().join("orchestrator.db"), of.clone());
        tokio::spawn(async move {
            let store = Store::open(&path).await.unwrap();
            let lease = take(&store, GpuRequest::Any { count: 2, of }).await;
            store.close().await;
            lease
        })
    });
    let outcomes: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
    let taken: Vec<&Lease> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(taken.len(), 4);
    let distinct: BTreeSet<&String> = taken.iter().flat_map(|lease| &lease.gpus).collect();
    assert_eq!(distinct.len(), 8);
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(refused, LeaseError::TooFew { free: 0, .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_host_that_is_set_aside_takes_no_lease_but_may_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await;
    let drained =
        NewEvent { kind: "host.drained", host: Some(name("gpu-01")), detail: json!({}) };
    store
        .apply_decision(OPS, &name("gpu-01"), HostEvent::Drain, Some("new fans"), drained)
        .await
        .unwrap();
    for request in [GpuRequest::none(), GpuRequest::These(gpus(&["GPU-a"]))] {
        let error = take(&store, request).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "gpu-01 is draining and takes no new lease (new fans)"
        );
    }
    let request = GpuRequest::These(gpus(&["GPU-a"]));
    store.acquire_lease(OPS, &wanted(LeaseKind::Verify, request)).await.unwrap();
    assert_eq!(state(&store).await, HostState::Draining);
}

#[tokio::test]
async fn a_faulty_host_takes_leases_without_gpus_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundFaulty).await;
    assert!(take(&store, GpuRequest::These(gpus(&["GPU-a"]))).await.is_err());
    let lease = take(&store, GpuRequest::none()).await.unwrap();
    assert_eq!(state(&store).await, HostState::Degraded);
    store.release_lease(OPS, &lease.id, "done").await.unwrap();
    assert_eq!(state(&store).await, HostState::Degraded);

    let unknown = NewLease { host: name("gpu-99"), ..wanted(LeaseKind::Verify, GpuRequest::none()) };
    let error = store.acquire_lease(OPS, &unknown).await.unwrap_err();
    assert!(matches!(error, LeaseError::UnknownHost(_)), "{error}");
}

#[tokio::test]
async fn a_holder_that_died_before_its_container_frees_the_gpus_and_one_with_a_container_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await;
    let take_overdue = |gpu: &str| {
        let request = GpuRequest::These(gpus(&[gpu]));
        let overdue =
            NewLease { expires_ms: Some(now_ms() - 1), ..wanted(LeaseKind::Container, request) };
        let store = store.clone();
        async move { store.acquire_lease(OPS, &overdue).await }
    };
    let without = take_overdue("GPU-a").await.unwrap();
    // The next one that asks gets it.
    let with = take_overdue("GPU-a").await.unwrap();
    assert_eq!(store.live_leases(None).await.unwrap(), std::slice::from_ref(&with));
    let lapsed = store.leases_by_prefix(&without.id, 1).await.unwrap();
    assert_eq!(lapsed[0].released_why.as_deref(), Some("its holder did not renew it"));
    assert!(!store.renew_lease(&without.id, None).await.unwrap());

    assert!(store.bind_lease(&with.id, "c0ffee", Some(now_ms() - 1)).await.unwrap());
    assert!(matches!(take_overdue("GPU-a").await.unwrap_err(), LeaseError::Held(_)));
    let overdue = store.overdue_leases(Some(&name("gpu-01"))).await.unwrap();
    assert_eq!(overdue[0].subject.as_deref(), Some("c0ffee"));
    // A deadline that was moved is not over.
    assert!(store.renew_lease(&with.id, Some(now_ms() + 1_000_000)).await.unwrap());
    assert_eq!(store.overdue_leases(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_held_host_that_comes_back_is_still_held() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await;
    let lease = take(&store, GpuRequest::These(gpus(&["GPU-a"]))).await.unwrap();
    for (event, then) in [
        (HostEvent::NotReached, HostState::Unreachable),
        (HostEvent::FoundWell, HostState::Leased),
    ] {
        let next = store.record_contact(OPS, &contact("gpu-01", event)).await.unwrap();
        assert_eq!(next, then);
    }
    store.release_lease(OPS, &lease.id, "done").await.unwrap();
    assert_eq!(state(&store).await, HostState::Ready);
}

#[tokio::test]
async fn a_database_keeps_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_with(folder.path(), "gpu-01", HostEvent::FoundWell).await;
    let id = store.identity().await.unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(store.identity().await.unwrap(), id);
    store.close().await;
    let again = Store::open(&folder.path().join("orchestrator.db")).await.unwrap();
    assert_eq!(again.identity().await.unwrap(), id);
}

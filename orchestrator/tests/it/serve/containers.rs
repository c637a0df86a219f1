//! Containers of validators, through `serve`: a real sshd, a real Docker Engine, GPUs by a fake NVML.

use orchestrator::ids::HostName;
use orchestrator::store::{LeaseKind, Store};
use orchestrator::sweep::Code;
use orchestrator::wallet::HotkeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::challenges::stream;
use super::validators::{axon, call, miner, pair};
use super::{Answer, Service, until};
use crate::cli::operator::{Operator, eventually};
use crate::containers::engine::{Engine, IMAGE};
use crate::containers::{fake_gpus, labels_of};
use crate::deploy::host::{Host, fake_nvml};
use crate::python;

const RUN: &str = "/v1/containers";
const LIST: &str = "/v1/containers/list";
const INSPECT: &str = "/v1/containers/inspect";
const LOGS: &str = "/v1/containers/logs";
const STOP: &str = "/v1/containers/stop";

struct Site {
    operator: Operator,
    host: Host,
    service: Service,
}

impl Site {
    /// A host with the Engine and two (fake) GPUs, and a service that lets these in.
    async fn start(validators: &[&HotkeyPair], more: &str) -> Self {
        Self::with(validators, "orch-it/allowed/*", more).await
    }

    /// The same, with these images allowed, too.
    async fn with(validators: &[&HotkeyPair], images: &str, more: &str) -> Self {
        let gpus = format!("LD_LIBRARY_PATH={} FAKE_NVML=honest", fake_nvml().display());
        let host = Host::with_docker(Engine::shared().socket(), &[], &gpus);
        let section = format!(
            "enabled = false\n[validator_containers]\nenabled = true\nimages = [\"{IMAGE}\", \"{images}\"]\n{more}\
             [validator_comms.rate_limit]\nenabled = false\n[sweep]\nignore = [{}]\n",
            // What sweeps say of a fake's host is no matter here; a faulty one gives no GPUs.
            Code::ALL
                .iter()
                .map(|code| format!("{:?}", code.name()))
                .collect::<Vec<_>>()
                .join(", ")
        );
        let operator = miner(validators, &section);
        operator.fleet(&[format!(
            "{}containers = {{ memory = \"64M\", allow_privileged = true }}\n",
            host.pinned("gpu-01")
        )]);
        operator.deploy([]).await.expect(0);
        let service = Service::start(&operator).await;
        let site = Self { operator, host, service };
        until("it knows its fleet", async || {
            let answer =
                call(&site.service, validators[0], STOP, json!({ "container": "00" })).await;
            (answer.status == 404).then_some(())
        })
        .await;
        site
    }

    async fn run(&self, who: &HotkeyPair, more: Value) -> Answer {
        let mut body = json!({ "host": "gpu-01", "image": IMAGE, "command": ["sleep", "100000"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&self.service, who, RUN, body).await
    }

    /// Runs one that must run: its id.
    async fn ran(&self, who: &HotkeyPair, more: Value) -> String {
        // A fleet that is being read anew has none for a moment.
        let answer = until("it runs", async || {
            let answer = self.run(who, more.clone()).await;
            (answer.status != 503).then_some(answer)
        })
        .await;
        let gpu_01 = HostName::new("gpu-01").unwrap();
        let record = self.store().await.host(&gpu_01).await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}\n{record:?}");
        answer.json()["container"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, who: &HotkeyPair, path: &str, container: &str) -> Answer {
        call(&self.service, who, path, json!({ "container": container })).await
    }

    async fn refused(&self, who: &HotkeyPair, more: Value) -> (u16, String) {
        let answer = self.run(who, more).await;
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn store(&self) -> Store {
        Store::open(&self.operator.database()).await.unwrap()
    }

    /// The Engine's own record of a container.
    fn engine(&self, id: &str) -> Option<Value> {
        let found = Engine::shared().labelled(&format!("orchestrator.lease={id}"));
        found.first().and_then(|container| Engine::shared().inspect(container))
    }
}

#[tokio::test]
async fn a_validator_runs_a_container_within_its_lease_reads_it_and_stops_it() {
    let (validator, other) = (pair(7), pair(8));
    let site = Site::start(&[&validator, &other], "").await;
    let command = json!(["sh", "-c", "echo $WORDS; echo to-stderr >&2; sleep 100000"]);
    let env = json!({ "WORDS": "it's $HOME; `id`" });
    let body = json!({ "command": command, "env": env, "gpu_count": 1, "timeout_secs": 600 });
    let id = site.ran(&validator, body).await;
    // What the Engine was asked for.
    let container = site.engine(&id).unwrap();
    let host = &container["HostConfig"];
    assert_eq!((&host["Privileged"], &host["NetworkMode"]), (&json!(false), &json!("none")));
    assert_eq!(host["Memory"], 64 << 20, "the fleet file's limit, which is the narrower");
    let gpu_01 = HostName::new("gpu-01").unwrap();
    let facts = site.store().await.facts_history(&gpu_01, 1).await.unwrap().remove(0).facts;
    let cpus = u64::from(facts.cpu.threads).min(8);
    assert_eq!(host["NanoCpus"], cpus * 1_000_000_000, "no more than the host has");
    assert_eq!(host["PidsLimit"], 1024);
    assert_eq!((&host["Mounts"], &host["PortBindings"]), (&Value::Null, &json!({})));
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    let engines = container["Id"].as_str().unwrap();
    assert_eq!(labels_of(engines, "orchestrator.validator"), validator.hotkey().to_string());
    // Its lease.
    let leases = site.store().await.live_leases(None).await.unwrap();
    assert_eq!((leases.len(), leases[0].kind), (1, LeaseKind::Container));
    assert_eq!(leases[0].actor, format!("validator:{}", validator.hotkey()));
    assert_eq!((&leases[0].id, leases[0].gpus.len()), (&id, 1));

    // What it is told, and nobody else.
    let told = site.ask(&validator, INSPECT, &id).await.expect(200).json();
    assert_eq!((&told["state"], &told["running"]), (&json!("running"), &json!(true)), "{told}");
    assert!(fake_gpus().contains(&told["gpus"][0].as_str().unwrap()), "{told}");
    assert!(told["deadline_ms"].as_i64().unwrap() > told["created_ms"].as_i64().unwrap());
    let log = until("it has written", async || {
        let log = site.ask(&validator, LOGS, &id).await.expect(200).json();
        (log["log"].as_array().unwrap().len() == 2).then_some(log)
    })
    .await;
    let of = |stream: &str| {
        let rows = log["log"].as_array().unwrap();
        rows.iter().find(|row| row["stream"] == stream).unwrap()["text"].clone()
    };
    assert_eq!((of("stdout"), of("stderr")), (json!("it's $HOME; `id`\n"), json!("to-stderr\n")));
    for path in [INSPECT, LOGS, STOP] {
        let refused = site.ask(&other, path, &id).await.expect(404);
        assert_eq!(refused.json()["code"], "no_container", "{path}");
        // The beginning of an id is none.
        site.ask(&validator, path, &id[..12]).await.expect(404);
    }
    let listed = call(&site.service, &validator, LIST, json!({})).await.expect(200).json();
    assert_eq!(
        (&listed["containers"][0]["container"], &listed["containers"][0]["ended_ms"]),
        (&json!(id), &Value::Null)
    );
    let listed = call(&site.service, &other, LIST, json!({})).await.expect(200).json();
    assert_eq!(listed["containers"], json!([]));

    let stopped = site.ask(&validator, STOP, &id).await.expect(200).json();
    assert_eq!(stopped["stopped"], true);
    assert_eq!(site.engine(&id), None);
    assert!(site.store().await.live_leases(None).await.unwrap().is_empty());
    site.ask(&validator, STOP, &id).await.expect(404);
    site.service.stop().await;
    let events = Store::open(&site.operator.database()).await.unwrap();
    let events = events.events_after(0, None, 999).await.unwrap();
    for kind in ["container.started", "container.stopped", "container.removed"] {
        let event = events.iter().find(|event| event.kind == kind).unwrap();
        assert_eq!(event.actor, format!("validator:{}", validator.hotkey()), "{kind}");
        assert!(!event.detail.contains("WORDS"), "variables are nobody's: {event:?}");
    }
    eventually("no runner is left", || site.host.left_running().is_empty()).await;
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_before_anything_is_done() {
    let (validator, other) = (pair(7), pair(8));
    let site =
        Site::start(&[&validator, &other], "max_per_validator = 1\nrate_limit = 2\ngpus = 2\n")
            .await;
    let long = "x".repeat(70_000);
    for (more, expected) in [
        (json!({ "image": "orch-it/other:1" }), (403, "image_not_allowed")),
        (
            json!({ "image": format!("{IMAGE}@sha256:{}", "0".repeat(64)) }),
            (403, "image_not_allowed"),
        ),
        (json!({ "image": "../x" }), (400, "bad_request")),
        (json!({ "image": null }), (400, "bad_request")),
        (json!({ "host": "gpu-02" }), (404, "no_host")),
        (json!({ "command": "sh" }), (400, "bad_request")),
        (json!({ "command": ["a\u{0}b"] }), (400, "bad_request")),
        (json!({ "command": [long] }), (400, "bad_request")),
        (json!({ "env": { "A=B": "c" } }), (400, "bad_request")),
        (json!({ "env": { "A": 1 } }), (400, "bad_request")),
        (json!({ "env": { "NVIDIA_VISIBLE_DEVICES": "all" } }), (400, "bad_request")),
        (json!({ "env": { "nvidia_driver_capabilities": "all" } }), (400, "bad_request")),
        (json!({ "gpus": ["all"] }), (400, "bad_request")),
        (json!({ "gpus": [fake_gpus()[0]], "gpu_count": 1 }), (400, "bad_request")),
        (json!({ "gpus": ["GPU-99999999-0000-0000-0000-000000000009"] }), (404, "no_gpu")),
        (json!({ "gpu_count": 3 }), (400, "over_limit")),
        (json!({ "memory_bytes": 65 << 20 }), (400, "over_limit")),
        (json!({ "cpus_milli": 8001 }), (400, "over_limit")),
        (json!({ "timeout_secs": 3601 }), (400, "over_limit")),
        (json!({ "timeout_secs": 0 }), (400, "bad_request")),
    ] {
        let refused = site.refused(&validator, more.clone()).await;
        assert_eq!((refused.0, refused.1.as_str()), expected, "{:.100}", more.to_string());
    }
    // An image that is allowed and not to be had.
    let missing = site.refused(&validator, json!({ "image": "orch-it/allowed/none:1" })).await;
    assert_eq!(missing, (502, "image_failed".to_owned()));
    assert!(site.store().await.live_leases(None).await.unwrap().is_empty());
    // As many as there may be, and GPUs that are held.
    let id = site.ran(&validator, json!({ "gpu_count": 2 })).await;
    assert_eq!(site.refused(&validator, json!({})).await, (429, "limit".to_owned()));
    assert_eq!(
        site.refused(&other, json!({ "gpu_count": 1 })).await,
        (409, "gpus_leased".to_owned())
    );
    // Without GPUs of its own a container sees none, whatever its image asks for.
    let plain = site.ran(&other, json!({})).await;
    let variables = site.engine(&plain).unwrap()["Config"]["Env"].clone();
    assert!(variables.as_array().unwrap().contains(&json!("NVIDIA_VISIBLE_DEVICES=void")));
    for (who, id) in [(&validator, &id), (&other, &plain)] {
        site.ask(who, STOP, id).await.expect(200);
    }
    // Those that have ended count for a while, too: one that had no image, and one that ran.
    assert_eq!(site.refused(&validator, json!({})).await, (429, "limit".to_owned()));
    site.operator.run(["hosts", "drain", "gpu-01"]).await.expect(0);
    assert_eq!(site.refused(&other, json!({})).await, (409, "host_unavailable".to_owned()));
    site.service.stop().await;
}

#[tokio::test]
async fn one_that_has_ended_is_kept_for_a_while_and_its_gpus_are_free() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "keep_ended = \"1s\"\n").await;
    let body = json!({ "command": ["sh", "-c", "echo done; exit 3"], "gpu_count": 2, "timeout_secs": 3600 });
    let id = site.ran(&validator, body.clone()).await;
    let told = until("it has ended", async || {
        let told = site.ask(&validator, INSPECT, &id).await.expect(200).json();
        (told["running"] == false).then_some(told)
    })
    .await;
    assert_eq!(told["exit_code"], 3, "{told}");
    // The next one may have the GPUs at once, and the log of the first is still there.
    let next = site.ran(&validator, body).await;
    let log = site.ask(&validator, LOGS, &id).await.expect(200).json();
    assert_eq!(log["log"], json!([{ "stream": "stdout", "text": "done\n" }]));
    for id in [&id, &next] {
        site.ask(&validator, STOP, id).await.expect(200);
    }
    site.service.stop().await;
}

#[tokio::test]
async fn who_hangs_up_before_it_runs_gives_it_up() {
    let validator = pair(7);
    // A registry that says nothing.
    let registry = Engine::shared().listen();
    let address = registry.local_addr().unwrap();
    let site = Site::with(&[&validator], &format!("{address}/*"), "").await;
    let body = json!({ "host": "gpu-01", "image": format!("{address}/x:1"), "gpu_count": 2 });
    let mut lines = stream(&site.service, &validator, RUN, body).await;
    loop {
        let (line, _) = lines.next().await.expect("it goes on");
        if line["phase"] == "pulling" {
            break;
        }
    }
    assert_eq!(site.store().await.live_leases(None).await.unwrap().len(), 1);
    drop(lines);
    until("the GPUs are free", async || {
        site.store().await.live_leases(None).await.unwrap().is_empty().then_some(())
    })
    .await;
    let id = site.ran(&validator, json!({ "gpu_count": 2 })).await;
    site.ask(&validator, STOP, &id).await.expect(200);
    site.service.stop().await;
}

#[tokio::test]
async fn dendrite_of_sdk_10_runs_a_container() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "").await;
    let (port, hotkey) = (axon(&site.service).port().to_string(), pair(1).hotkey().to_string());
    let seed = format!("0x{}", "07".repeat(32));
    let arguments = [port.as_str(), &hotkey, &seed, "gpu-01", IMAGE];
    let results = python::run("sdk10", "container_calls.py", &arguments).await;
    for name in ["run", "inspect", "logs", "list", "stop"] {
        assert_eq!(results[name]["status"], 200, "{name} of {results}");
    }
    assert_eq!(results["over"]["status"], 404, "{results}");
    assert_eq!((&results["exit_code"], &results["stopped"]), (&json!(7), &json!(true)));
    assert_eq!(results["log"], json!([{ "stream": "stdout", "text": "it's\n" }]));
    assert_eq!(results["gpus"].as_array().unwrap().len(), 1, "{results}");
    assert_eq!((&results["listed"], &results["phases"][0]), (&json!([true]), &json!("connecting")));
    site.service.stop().await;
}

#[tokio::test]
async fn a_time_limit_outlives_the_service() {
    let validator = pair(7);
    let site = Site::start(&[&validator], "keep_ended = \"1s\"\n").await;
    let id = site.ran(&validator, json!({ "timeout_secs": 1 })).await;
    // Killed: nobody is left who could have noted anything.
    site.service.running.signal(Signal::KILL);
    let _killed = site.service.running.end().await;
    let operator = &site.operator;
    until("the next contact ends it and takes it away", async || {
        operator.run(["ps"]).await.expect(0);
        let found = Engine::shared().labelled(&format!("orchestrator.lease={id}"));
        found.is_empty().then_some(())
    })
    .await;
    let store = Store::open(&operator.database()).await.unwrap();
    assert!(store.live_leases(None).await.unwrap().is_empty());
    assert!(operator.audit().await.contains(&"container.expired".to_owned()));
}

#[tokio::test]
async fn without_the_operators_word_there_are_no_containers() {
    let validator = pair(7);
    let operator = miner(&[&validator], "");
    let service = Service::start(&operator).await;
    let refused = until("it answers", async || {
        let refused = call(&service, &validator, RUN, json!({})).await;
        (refused.status == 404).then_some(refused)
    })
    .await;
    assert_eq!(refused.json()["code"], "unknown_route");
    service.stop().await;
    // And without images there is nothing to allow.
    operator.write("orchestrator.toml", "[validator_containers]\nenabled = true\n");
    let refused = operator.run(["config", "validate"]).await;
    assert!(refused.code != Some(0) && refused.stderr.contains("`images`"), "{refused:?}");
}

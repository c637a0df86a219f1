//! GPUs of a host are held by one container at a time. The GPUs are those that the host's (fake)
//! NVML reports, and the Engine's hook is a fake: what is checked is who asks for which.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::engine::{Engine, GpuHook};
use super::site::{HOST, Site, at, name};
use crate::cli::operator::Operator;
use crate::deploy::host::{Host, fake_nvml};

/// The devices that the Engine was asked for.
fn devices(container: &Value) -> Vec<String> {
    let requests = container["HostConfig"]["DeviceRequests"].as_array().unwrap();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0]["Capabilities"], json!([["gpu"]]));
    let ids = requests[0]["DeviceIDs"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_container_gets_gpus_by_uuid_and_only_those() {
    let site = Site::with_gpus().await;
    let name = name("one-gpu");
    let print = ["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"];
    let ran = site.run(&["--name", &name, "--gpus", "1"], &print).await.expect(0);
    let asked = devices(&site.engine.inspect(&name).unwrap());
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("GPU-"), "{asked:?}");
    assert_eq!(ran.stdout.trim_end(), asked[0]);
    // A container without GPUs asks for none.
    let plain = super::site::name("no-gpu");
    site.run(&["--name", &plain], &["true"]).await.expect(0);
    let found = site.engine.inspect(&plain).unwrap();
    assert!(found["HostConfig"]["DeviceRequests"].as_array().is_none_or(Vec::is_empty), "{found}");
}

#[tokio::test]
async fn of_those_who_want_the_last_gpu_exactly_one_gets_it() {
    let site = Site::with_gpus().await;
    let first = name("first");
    site.run(&["--detach", "--name", &first, "--gpus", "1"], &["sleep", "100000"]).await.expect(0);
    let names: Vec<String> = (0..4).map(|_| name("racer")).collect();
    let racers = names.iter().map(async |name: &String| {
        site.run(&["--detach", "--name", name, "--gpus", "1"], &["sleep", "100000"]).await
    });
    let ended = join_all(racers).await;
    let won = ended.iter().filter(|one| one.code == Some(0)).count();
    assert_eq!(won, 1, "{ended:#?}");
    let running: Vec<&String> = names.iter().filter(|name| site.runs(name)).collect();
    assert_eq!(running.len(), 1, "{running:?}");
    let of = |name: &str| devices(&site.engine.inspect(name).unwrap());
    assert_ne!(of(&first), of(running[0]));
    for lost in names.iter().filter(|name| *name != running[0]) {
        assert_eq!(site.engine.inspect(lost), None, "a loser leaves no container");
    }
    // Both are given back when their containers are gone.
    for name in [&first, running[0]] {
        site.operator.run(["stop", "--grace", "0s", &at(name)]).await.expect(0);
    }
    site.run(&["--rm", "--gpus", "2"], &["true"]).await.expect(0);
}

#[tokio::test]
async fn more_gpus_than_there_are_is_said() {
    let site = Site::with_gpus().await;
    let refused = site.run(&["--rm", "--gpus", "3"], &["true"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("GPU"), "{refused:?}");
}

/// An Engine without NVIDIA's container toolkit takes the container and cannot start it.
#[tokio::test]
async fn an_engine_without_nvidias_toolkit_is_said_and_the_gpu_is_given_back() {
    let engine = Engine::start(GpuHook::None);
    let environment = format!("LD_LIBRARY_PATH={} FAKE_NVML=honest", fake_nvml().display());
    let host = Host::with_docker(engine.socket(), &[], &environment);
    let operator = Operator::new();
    operator.fleet(&[host.pinned(HOST)]);
    operator.deploy([]).await.expect(0);
    for _ in 0..2 {
        let arguments = Site::arguments(&["--rm", "--name", "bare", "--gpus", "2"], &["true"]);
        let refused = operator.run(arguments).await;
        assert_ne!(refused.code, Some(0), "{refused:?}");
        let said = &refused.stderr;
        assert!(said.contains("could not select device driver"), "{said}");
        assert!(said.contains("NVIDIA Container Toolkit"), "{said}");
        assert_eq!(engine.inspect("bare"), None, "what never started is not left");
    }
}

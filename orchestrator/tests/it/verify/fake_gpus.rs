//! The whole way with the runner's CUDA backend, a real sshd, and a stand-in for the NVIDIA driver that
//! runs the kernels' own source on a CPU core. Its proofs are right and its times mean nothing, which
//! is what the tests' table says of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use orchestrator::ids::HostName;
use orchestrator::store::Store;
use serde_json::Value;

use super::table::{self, ANY};
use crate::cli::operator::{Finished, Operator, Running, eventually};
use crate::deploy::host::Host;
use crate::sshd::succeed;

pub const ONE: &str = "GPU-11111111-0000-0000-0000-000000000001";
pub const TWO: &str = "GPU-22222222-0000-0000-0000-000000000002";

/// The folder of the fake libraries, built once.
fn fake_gpu() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_gpu");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-fake-gpu");
        succeed(Command::new(script).arg(&folder));
        folder
    })
}

/// What the runner finds in its environment: the libraries and these devices of them.
fn environment(devices: &[String], faults: &str) -> Vec<(&'static str, String)> {
    let devices: Vec<String> = devices.iter().map(|uuid| format!("{uuid}:64:9.0")).collect();
    vec![
        ("LD_LIBRARY_PATH", fake_gpu().display().to_string()),
        ("FAKE_GPUS", devices.join(";")),
        ("FAKE_CUDA_FAULT", faults.to_owned()),
    ]
}

/// A host that has these devices, with these faults.
pub fn host(devices: &[String], faults: &str) -> Host {
    let variables: Vec<String> = environment(devices, faults)
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}={value}\""))
        .collect();
    Host::with(&[], &variables.join(" "))
}

struct Site {
    operator: Operator,
    host: Host,
}

impl Site {
    fn start() -> Self {
        Self::with(&[ONE.to_owned(), TWO.to_owned()], "")
    }

    fn with(devices: &[String], faults: &str) -> Self {
        let host = host(devices, faults);
        let operator = Operator::new();
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.write("models.toml", &table::with_products(ANY, 1));
        Self { operator, host }
    }

    async fn verify(&self, more: &[&str]) -> (Finished, Value) {
        let usual =
            ["verify", "gpu-01", "--json", "--hosts", "fleet.toml", "--models", "models.toml"];
        let finished = self.operator.run(usual.into_iter().chain(more.iter().copied())).await;
        let json = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|_| panic!("no document: {finished:?}"));
        (finished, json)
    }
}

#[tokio::test]
async fn two_fake_gpus_are_proven_by_the_real_runner_over_a_real_sshd() {
    let site = Site::start();
    let (finished, json) = site.verify(&["--proof-out", "proofs"]).await;
    assert_eq!(finished.code, Some(0), "{json}\n{finished:?}");
    for (gpu, uuid) in json["gpus"].as_array().unwrap().iter().zip([ONE, TWO]) {
        assert_eq!((&gpu["uuid"], &gpu["outcome"]), (&uuid.into(), &"accepted".into()), "{gpu}");
        assert_eq!(gpu["name"], "FAKE GPU (SIMT shim)", "it says what it is");
    }
    let check = ["verify-proof", "proofs", "--models", "models.toml"];
    site.operator.run(check).await.expect(0);
    eventually("the runner is gone", || site.host.left_running().is_empty()).await;
}

/// Each failure as the runner tells it, of a GPU each, and the one that is well is proven all the same.
#[tokio::test]
async fn fake_gpus_that_fail_do_not_hide_the_one_that_is_well() {
    // CUresult: 2 out of memory, 209 no binary for this GPU, 214 an error that ECC cannot correct.
    let faults = [
        ("alloc=2", "out_of_memory"),
        ("load=209", "no_kernels"),
        ("selftest", "selftest_failed"),
        ("launch=214@2", "ecc_error"),
        ("crash@2", "runner"),
    ];
    let uuid = |place: usize| format!("GPU-{place}0000000-0000-0000-0000-000000000000");
    let named: Vec<String> = faults
        .iter()
        .enumerate()
        .map(|(place, (fault, _))| format!("{}/{fault}", uuid(place)))
        .collect();
    let devices: Vec<String> = (0..faults.len()).map(uuid).chain([ONE.to_owned()]).collect();
    let site = Site::with(&devices, &named.join(","));
    let (finished, json) = site.verify(&[]).await;
    assert_eq!(finished.code, Some(5), "{json}");
    for (place, (fault, reason)) in faults.iter().enumerate() {
        let gpu = &json["gpus"][place];
        assert_eq!(
            (&gpu["ok"], &gpu["reason"]),
            (&false.into(), &(*reason).into()),
            "{fault}: {gpu}"
        );
    }
    assert_eq!(json["gpus"][faults.len()]["outcome"], "accepted", "{json}");
}

/// The built-in table's times are for hardware: no fake passes it, also where its name was a model's.
#[tokio::test]
async fn a_fake_gpu_is_too_slow_for_a_table_that_judges() {
    let site = Site::start();
    let judging = table::Times { expected_us: 2, floor_us: 1 };
    site.operator.write("models.toml", &table::with_products(judging, 1));
    let (finished, json) = site.verify(&["--tries", "1", "--gpu", ONE]).await;
    assert_eq!((finished.code, &json["reason"]), (Some(4), &"rejected".into()), "{json}");
    let failed = json["gpus"][0]["failed_check"].as_str().unwrap();
    assert!(["residency_timing", "gemm_timing"].contains(&failed), "{json}");
}

#[tokio::test]
async fn this_machine_is_verified_without_ssh_and_without_the_ledger() {
    let operator = Operator::new();
    operator.write("models.toml", &table::with_products(ANY, 1));
    let mut command = operator.command(["verify", "--local", "--json", "--models", "models.toml"]);
    // The start script's programs are this machine's.
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(environment(&[ONE.to_owned(), TWO.to_owned()], ""));
    let finished = Running::start(command).end().await.expect(0);
    let json = finished.json_lines().remove(0);
    assert_eq!(json["host"], "localhost");
    let gpus = json["gpus"].as_array().unwrap();
    assert!(gpus.len() == 2 && gpus.iter().all(|gpu| gpu["outcome"] == "accepted"), "{json}");
    let checks = gpus[0]["checks"].as_array().unwrap();
    assert!(checks.iter().all(|row| row["check"] != "identity"), "{checks:?}");
    let store = Store::open(&operator.database()).await.unwrap();
    let localhost = HostName::new("localhost").unwrap();
    assert_eq!(store.host(&localhost).await.unwrap(), None);
    assert_eq!(store.sightings(&localhost).await.unwrap(), []);
    assert_eq!(store.challenges(&localhost, 9).await.unwrap().len(), 2);
    assert_eq!(operator.audit().await, ["verify.passed"]);
}

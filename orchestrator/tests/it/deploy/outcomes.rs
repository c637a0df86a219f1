//! What a deploy does and says when nothing is in its way, and when the host is not what it
//! should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::host::{Host, stamped_tree, tree};
use crate::cli::operator::Operator;
use crate::sshd::free_port;

#[tokio::test]
async fn a_cold_deploy_uploads_and_a_warm_one_writes_nothing() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);

    let cold = operator.run(["deploy", "--hosts", "fleet.toml"]).await.expect(0);
    assert!(cold.stdout.contains("1 hosts, all well, runner uploaded to 1"), "{}", cold.stdout);
    host.assert_installed();

    let before = stamped_tree(&host.home);
    let warm = operator.run(["deploy"]).await.expect(0);
    assert!(warm.stdout.contains("1 hosts, all well, nothing uploaded"), "{}", warm.stdout);
    assert!(warm.stdout.contains("up to date"), "{}", warm.stdout);
    assert_eq!(stamped_tree(&host.home), before);
    assert_eq!(operator.audit().await, ["deploy.succeeded", "deploy.succeeded"]);
    assert_eq!(host.left_running(), [""; 0]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_on_the_host_in_the_store_or_in_the_audit_chain() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    let before = stamped_tree(&host.home);

    let dry = operator.deploy(["--dry-run"]).await.expect(0);
    assert_eq!(dry.change("gpu-01"), "would_upload");
    assert_eq!(dry.summary["would_upload"], 1);
    assert_eq!(dry.summary["uploaded"], 0);
    assert_eq!(stamped_tree(&host.home), before);
    assert_eq!(operator.audit().await, [""; 0]);
    let listed = operator.run(["hosts", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json_lines(), [serde_json::json!([])]);

    operator.deploy([]).await.expect(0);
    let (installed, recorded) = (stamped_tree(&host.home), operator.audit().await);
    let dry = operator.deploy(["--dry-run"]).await.expect(0);
    assert_eq!(dry.change("gpu-01"), "none");
    assert_eq!(stamped_tree(&host.home), installed);
    assert_eq!(operator.audit().await, recorded);
}

#[tokio::test]
async fn a_dry_run_records_no_host_key() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.unknown("gpu-01")]);
    let dry = operator.deploy(["--dry-run", "--accept-new-host-keys"]).await.expect(0);
    assert_eq!(dry.change("gpu-01"), "would_upload");
    assert_eq!(operator.audit().await, [""; 0]);
    let refused = operator.deploy([]).await.expect(3);
    assert_eq!(refused.reason("gpu-01"), "hostkey");
}

#[tokio::test]
async fn a_dead_host_neither_hides_nor_stops_the_others() {
    let (one, two, operator) = (Host::start(), Host::start(), Operator::new());
    let dead = one.entry("gpu-02", free_port(), "");
    operator.fleet(&[one.pinned("gpu-01"), dead, two.pinned("gpu-03")]);

    let deployed = operator.deploy([]).await.expect(3);
    assert_eq!(deployed.rows.len(), 3);
    assert_eq!(deployed.reason("gpu-02"), "tcp");
    for row in &deployed.rows {
        let dead = row["host"] == "gpu-02";
        assert_eq!(row["ok"], !dead);
        assert_eq!(row["reason"].is_null(), !dead);
        assert_eq!(row["state"], if dead { "unreachable" } else { "ready" });
        assert!(!row["message"].as_str().unwrap().is_empty());
        assert!(row["elapsed_ms"].is_u64());
    }
    let summary = &deployed.summary;
    assert_eq!((&summary["ok"], &summary["hosts"]), (&false.into(), &3.into()));
    assert_eq!((&summary["failed"], &summary["uploaded"]), (&1.into(), &2.into()));
    one.assert_installed();
    two.assert_installed();
    let hint = "check that the host is up";
    assert!(deployed.finished.stderr.contains(hint), "{}", deployed.finished.stderr);
}

#[tokio::test]
async fn a_limit_leaves_the_other_hosts_alone() {
    let (one, two, operator) = (Host::start(), Host::start(), Operator::new());
    operator.fleet(&[one.pinned("gpu-01"), two.pinned("gpu-02")]);
    let deployed = operator.deploy(["--limit", "!gpu-02"]).await.expect(0);
    assert_eq!(deployed.rows.len(), 1);
    one.assert_installed();
    assert_eq!(tree(&two.home), "");
    assert!(!two.sshd.log().contains("Connection from"), "{}", two.sshd.log());
}

#[tokio::test]
async fn a_claim_of_gpus_on_a_host_without_driver_is_no_driver() {
    let (host, operator) = (Host::start(), Operator::new());
    let claim = "gpus = { model = \"NVIDIA H100 80GB HBM3\", count = 8 }";
    let pin = format!("host_key = \"{}\"\n{claim}", host.fingerprint());
    // Where a driver is there, the claim is wrong all the same; the library path hides it.
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &pin)]);
    let deployed = operator.deploy([]).await.expect(3);
    let reason = deployed.reason("gpu-01").as_str().unwrap();
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        assert!(["no_driver", "claim_mismatch"].contains(&reason), "{reason}");
    } else {
        assert_eq!(reason, "no_driver");
        assert_eq!(deployed.row("gpu-01")["message"], "No NVIDIA driver found");
    }
    assert_eq!(deployed.row("gpu-01")["state"], "degraded");
    host.assert_installed();
}

#[tokio::test]
async fn other_gpus_than_claimed_are_a_mismatch() {
    let library = super::host::fake_nvml();
    let environment = format!("LD_LIBRARY_PATH={} FAKE_NVML=honest", library.display());
    let (host, operator) = (Host::with(&[], &environment), Operator::new());
    let claim = "gpus = { model = \"NVIDIA H100 80GB HBM3\", count = 2 }";
    let pin = format!("host_key = \"{}\"\n{claim}", host.fingerprint());
    operator.fleet(&[host.entry("gpu-01", host.sshd.port, &pin)]);
    let deployed = operator.deploy([]).await.expect(3);
    assert_eq!(deployed.reason("gpu-01"), "claim_mismatch");
    assert_eq!(
        deployed.row("gpu-01")["message"],
        "claimed 2 x NVIDIA H100 80GB HBM3, found 1 x NVIDIA H100 80GB HBM3, \
         1 x NVIDIA GeForce GT 1030"
    );
    assert_eq!(deployed.row("gpu-01")["driver"], "550.54.15");
}

#[tokio::test]
async fn a_damaged_runner_on_the_host_is_replaced() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let installed = tree(&host.home);
    let bytes = fs::read(crate::cli::operator::runner()).unwrap();
    let path = host.runner(&super::host::sha256(&bytes));
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&path, damaged).unwrap();

    let deployed = operator.deploy([]).await.expect(0);
    assert_eq!(deployed.change("gpu-01"), "uploaded");
    assert_eq!(tree(&host.home), installed);

    // Whole, and not executable any more.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let deployed = operator.deploy([]).await.expect(0);
    assert_eq!(deployed.change("gpu-01"), "uploaded");
    assert_eq!(tree(&host.home), installed);
}

#[tokio::test]
async fn two_deploys_at_the_same_time_both_succeed() {
    let host = Host::start();
    let (one, two) = (Operator::new(), Operator::new());
    one.fleet(&[host.pinned("gpu-01")]);
    two.fleet(&[host.pinned("gpu-01")]);
    let (first, second) = tokio::join!(one.deploy([]), two.deploy([]));
    first.expect(0);
    second.expect(0);
    host.assert_installed();
}

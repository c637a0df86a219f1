//! `hosts` and `audit` by the built binary, on real SSH servers.

use std::fs;

use serde_json::{Value, json};

use crate::cli::operator::Operator;
use crate::deploy::host::{Host, tree};

/// A host that was deployed to, and its operator.
async fn deployed() -> (Host, Operator) {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    (host, operator)
}

#[tokio::test]
async fn an_unknown_key_is_refused_before_any_authentication() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.unknown("gpu-01")]);
    let refused = operator.deploy([]).await.expect(3);
    assert_eq!(refused.reason("gpu-01"), "hostkey");
    assert!(refused.row("gpu-01").to_string().contains(&host.fingerprint()));
    assert!(refused.row("gpu-01")["hint"].as_str().unwrap().contains("--accept-new-host-keys"));
    let log = host.sshd.log();
    assert!(log.contains("Connection from") && !log.contains("publickey"), "{log}");
    assert_eq!(operator.audit().await, ["hostkey.refused", "deploy.failed"]);
}

#[tokio::test]
async fn a_new_key_is_accepted_when_asked_for_and_trusted_from_then_on() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.unknown("gpu-01")]);
    let first = operator.deploy(["--accept-new-host-keys"]).await.expect(0);
    let key = format!("{} (accepted on first use)", host.fingerprint());
    assert_eq!(first.row("gpu-01")["host_key"], key);
    assert_eq!(operator.audit().await, ["hostkey.accepted", "deploy.succeeded"]);
    let export = operator.run(["audit", "export", "--host", "gpu-01"]).await.expect(0);
    let accepted = &export.json_lines()[0];
    // The text that the chain's hash covers, as it is.
    let detail: Value = serde_json::from_str(accepted["detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail["fingerprint"], host.fingerprint());
    assert_eq!(detail["port"], host.sshd.port);
    let second = operator.deploy([]).await.expect(0);
    let key = format!("{} (trusted before)", host.fingerprint());
    assert_eq!(second.row("gpu-01")["host_key"], key);
}

#[tokio::test]
async fn a_changed_key_is_refused_until_its_fingerprint_is_trusted() {
    let (host, operator) = (Host::start(), Operator::new());
    operator.fleet(&[host.unknown("gpu-01")]);
    operator.deploy(["--accept-new-host-keys"]).await.expect(0);
    let old = host.fingerprint();
    host.reimage().await;
    let new = host.fingerprint();
    assert_ne!(old, new);

    for arguments in [&[][..], &["--accept-new-host-keys"]] {
        let refused = operator.deploy(arguments.iter().copied()).await.expect(3);
        assert_eq!(refused.reason("gpu-01"), "hostkey");
        let hint = refused.row("gpu-01")["hint"].as_str().unwrap();
        assert!(hint.contains("orchestrator hosts trust"), "{hint}");
    }
    // The old key is not the new one, and neither is one that nobody has.
    for wrong in [old.as_str(), "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let trust = ["hosts", "trust", "gpu-01", "--fingerprint", wrong, "--json"];
        let failed = operator.run(trust).await.expect(5);
        assert_eq!(failed.json_lines()[0]["reason"], "hostkey", "{failed:?}");
        operator.deploy([]).await.expect(3);
    }
    // Without a terminal nobody can say yes.
    operator.run(["hosts", "trust", "gpu-01"]).await.expect(1);

    let trust = ["hosts", "trust", "gpu-01", "--fingerprint", &new];
    let trusted = operator.run(trust).await.expect(0);
    assert!(trusted.stderr.contains(&old) && trusted.stderr.contains(&new), "{trusted:?}");
    operator.deploy([]).await.expect(0);
    let again = operator.run(trust).await.expect(0);
    assert!(again.stdout.contains("trusted already"), "{again:?}");
    let kinds = operator.audit().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "hostkey.replaced").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn a_pin_in_the_fleet_file_is_not_for_trust_to_change() {
    let (host, operator) = deployed().await;
    let trust = ["hosts", "trust", "gpu-01", "--fingerprint", &host.fingerprint()];
    let refused = operator.run(trust).await.expect(1);
    assert!(refused.stderr.contains("the fleet file pins the host key"), "{refused:?}");
}

#[tokio::test]
async fn a_purge_leaves_the_home_as_it_was() {
    for (occupied, removes_cache) in [(false, true), (true, false)] {
        let (host, operator) = (Host::start(), Operator::new());
        fs::write(host.home.join(".bashrc"), "# mine\n").unwrap();
        if occupied {
            fs::create_dir_all(host.home.join(".cache/pip")).unwrap();
            fs::write(host.home.join(".cache/pip/wheel"), "theirs").unwrap();
        }
        let before = tree(&host.home);
        operator.fleet(&[host.pinned("gpu-01")]);
        operator.deploy([]).await.expect(0);
        assert_ne!(tree(&host.home), before);

        let purged = operator.run(["hosts", "purge", "gpu-01", "--yes", "--json"]).await.expect(0);
        assert_eq!(purged.json_lines()[0]["purged"]["removed"], 1);
        assert_eq!(tree(&host.home), before);
        assert_eq!(host.home.join(".cache").exists(), !removes_cache);
        let listed = operator.run(["hosts", "list", "--json"]).await.expect(0);
        assert_eq!(listed.json_lines(), [json!([])]);
        assert_eq!(operator.audit().await, ["deploy.succeeded", "host.purged"]);
    }
}

#[tokio::test]
async fn a_purge_keeps_what_is_not_ours() {
    let (host, operator) = deployed().await;
    let foreign = host.home.join(".cache/orchestrator/notes");
    fs::write(&foreign, "theirs").unwrap();
    let purged = operator.run(["hosts", "purge", "gpu-01", "--yes"]).await.expect(0);
    assert!(purged.stderr.contains("1 other entries"), "{purged:?}");
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "theirs");
    assert_eq!(fs::read_dir(foreign.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_purge_of_a_dead_host_forgets_it_only_when_told_to() {
    let (host, operator) = (Host::start(), Operator::new());
    // The key outlives the host.
    let key = operator.file("key");
    fs::copy(host.user_key(), &key).unwrap();
    let entry = host.pinned("gpu-01");
    operator.fleet(&[entry.replace(host.user_key().to_str().unwrap(), key.to_str().unwrap())]);
    operator.deploy([]).await.expect(0);
    drop(host);
    let failed = operator.run(["hosts", "purge", "gpu-01", "--yes", "--json"]).await.expect(5);
    assert_eq!(failed.json_lines()[0]["reason"], "tcp");
    operator.run(["hosts", "show", "gpu-01"]).await.expect(0);
    operator.run(["hosts", "purge", "gpu-01", "--yes", "--forget"]).await.expect(0);
    operator.run(["hosts", "show", "gpu-01"]).await.expect(1);
}

#[tokio::test]
async fn a_drained_host_stays_drained_over_deploys() {
    let (_host, operator) = deployed().await;
    let state = async || {
        let shown = operator.run(["hosts", "list", "--json"]).await.expect(0);
        let mut host = shown.json_lines().remove(0)[0].take();
        (host["state"].as_str().unwrap().to_owned(), host["drain_note"].take())
    };
    assert_eq!(state().await.0, "ready");
    operator.run(["hosts", "drain", "gpu-01", "--note", "fan is loud"]).await.expect(0);
    assert_eq!(state().await, ("draining".to_owned(), json!("fan is loud")));
    let deployed = operator.deploy([]).await.expect(0);
    assert_eq!(deployed.row("gpu-01")["state"], "draining");
    assert_eq!(state().await.0, "draining");
    operator.run(["hosts", "resume", "gpu-01"]).await.expect(0);
    operator.deploy([]).await.expect(0);
    assert_eq!(state().await, ("ready".to_owned(), Value::Null));
    let kinds = operator.audit().await;
    let expected = [
        "deploy.succeeded",
        "host.drained",
        "deploy.succeeded",
        "host.resumed",
        "deploy.succeeded",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn list_and_show_say_what_was_found() {
    let library = crate::deploy::host::fake_nvml();
    let environment = format!("LD_LIBRARY_PATH={} FAKE_NVML=honest", library.display());
    let (host, operator) = (Host::with(&[], &environment), Operator::new());
    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);

    let list = operator.run(["hosts", "list"]).await.expect(0);
    let rows: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(rows.len(), 2, "{list:?}");
    for word in ["gpu-01", "ready", "1 x NVIDIA H100 80GB HBM3", "550.54.15", "s ago"] {
        assert!(rows[1].contains(word), "{word}: {}", rows[1]);
    }
    let show = operator.run(["hosts", "show", "gpu-01"]).await.expect(0);
    for words in ["127.0.0.1 port", "NVIDIA GeForce GT 1030", "GPU-11111111-", "550.54.15"] {
        assert!(show.stdout.contains(words), "{words}: {}", show.stdout);
    }
    let document = operator.run(["hosts", "show", "gpu-01", "--json"]).await.expect(0);
    let document = document.json_lines().remove(0);
    assert_eq!(document["host"]["spec"]["name"], "gpu-01");
    assert_eq!(document["facts"].as_array().unwrap().len(), 1);
    let none = operator.run(["hosts", "list", "--limit", "gpu-02", "--json"]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
}

#[tokio::test]
async fn a_flipped_byte_breaks_the_audit_chain() {
    let (_host, operator) = deployed().await;
    let whole = operator.run(["audit", "verify", "--json"]).await.expect(0);
    let head = whole.json_lines()[0]["head"].as_str().unwrap().to_owned();
    operator.run(["audit", "verify", "--head", &head]).await.expect(0);
    operator.run(["audit", "verify", "--head", &"f".repeat(64)]).await.expect(4);

    // The programs that had the database open have ended in order, so all of it is in one file.
    let path = operator.database();
    let mut bytes = fs::read(&path).unwrap();
    let kind = b"deploy.succeeded";
    let at = bytes.windows(kind.len()).rposition(|window| window == kind).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let broken = operator.run(["audit", "verify", "--json"]).await.expect(4);
    let report = &broken.json_lines()[0];
    assert_eq!(report["ok"], false);
    assert!(!report["fault"].is_null());
    assert!(broken.stderr.contains("is broken"), "{broken:?}");
}

#[tokio::test]
async fn commands_that_make_the_database_at_the_same_time_all_succeed() {
    for _ in 0..4 {
        let operator = Operator::new();
        let commands = [0; 8].map(|_| operator.run(["hosts", "list", "--json"]));
        for finished in futures_util::future::join_all(commands).await {
            finished.expect(0);
        }
    }
}

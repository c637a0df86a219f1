//! What `check` notices on this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use orchestrator::fleet_file::{CheckReport, Environment, Selector, SshConfig, check};

fn environment(home: &Path) -> Environment {
    Environment {
        home: home.to_owned(),
        local_user: Some("me".to_owned()),
        ssh_config: SshConfig::Ignored,
        ssh_program: PathBuf::from("ssh"),
    }
}

fn run(home: &Path, fleet: &str, selector: Option<&str>) -> CheckReport {
    let path = home.join("fleet.toml");
    std::fs::write(&path, fleet).unwrap();
    let selector = selector.map(|text| Selector::parse(text).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(&path, &environment(home), selector.as_ref())).unwrap()
}

fn key(path: &Path, mode: u32) {
    std::fs::write(path, "key").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn lines(report: &CheckReport, home: &Path) -> String {
    let lines = report.findings.iter().map(|finding| {
        let hint = finding.hint.as_deref().unwrap_or("-");
        format!(
            "{:?} {:?} [{}] {} | {hint}",
            finding.severity, finding.code, finding.hosts, finding.message
        )
    });
    lines.collect::<Vec<_>>().join("\n").replace(home.to_str().unwrap(), "HOME")
}

const FLEET: &str = r#"
[defaults]
identity_file = "~/good"
[jumps.b1]
address = "bastion.example.com"
identity_file = "~/group"
[[hosts]]
name = "gpu-[01-03]"
address = "10.0.0.[1-3]"
[[hosts]]
name = "gpu-04"
address = "10.0.0.4"
identity_file = ["~/missing", "~/open"]
certificate_file = "~/missing-cert.pub"
[[hosts]]
name = "jumped"
address = "10.0.0.3"
proxy_jump = "b1"
[[hosts]]
name = "twin"
address = "10.0.0.3"
[[hosts]]
name = "keyless"
identity_file = []
agent = false
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"#;

#[test]
fn every_finding_names_its_hosts() {
    let home = tempfile::tempdir().unwrap();
    key(&home.path().join("good"), 0o600);
    key(&home.path().join("group"), 0o640);
    key(&home.path().join("open"), 0o644);
    let report = run(home.path(), FLEET, None);
    assert!(!report.is_ok());
    assert_eq!(report.hosts.len(), 7);
    insta::assert_snapshot!(lines(&report, home.path()));
}

#[test]
fn a_fleet_in_order_has_no_findings() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::fs::write(home.path().join(".ssh/known_hosts"), "").unwrap();
    key(&home.path().join("good"), 0o600);
    key(&home.path().join("open"), 0o600);
    key(&home.path().join("group"), 0o600);
    let report = run(home.path(), FLEET, Some("gpu-[01-02]"));
    // The two hosts at one address are the file's affair, whatever is selected.
    assert!(report.is_ok());
    assert_eq!(report.hosts.len(), 2);
    assert_eq!(report.findings.len(), 1, "{}", lines(&report, home.path()));
}

#[test]
fn the_report_is_one_json_document() {
    let home = tempfile::tempdir().unwrap();
    let report = run(home.path(), "[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n", None);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["hosts"][0]["endpoint"]["address"], "10.0.0.1");
    assert_eq!(json["findings"][0]["code"], "no_known_hosts");
    assert_eq!(json["findings"][0]["severity"], "warning");
}

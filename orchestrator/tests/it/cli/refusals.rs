//! What the user reads when something is wrong: each error with its cause and a hint.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::operator::{Finished, Operator, Running};
use crate::deploy::host::Host;
use crate::sshd::{self, Sshd, free_port, generate_key};

/// Transcripts under their titles, for one snapshot.
#[derive(Default)]
struct Transcripts(String);

impl Transcripts {
    fn add(&mut self, title: &str, operator: &Operator, finished: &Finished) {
        self.0 += &format!("## {title}\n{}\n", operator.transcript(finished));
    }
}

macro_rules! assert_transcripts {
    ($transcripts:expr) => {
        insta::with_settings!({ filters => vec![
            (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
            (r"port \d+", "port PORT"),
            (r"SHA256:[A-Za-z0-9+/]{43}", "SHA256:KEY"),
            (r"\b\d+\.\d s\b", "T s"),
            (r"/[^ ]*/\.tmp[A-Za-z0-9]+/", "HOST/"),
            (r"\b[0-9a-f]{64}\b", "SHA256"),
        ]}, { insta::assert_snapshot!($transcripts.0) });
    };
}

#[tokio::test]
async fn files_and_arguments() {
    let operator = Operator::new();
    let mut all = Transcripts::default();
    let mut case = async |title: &str, arguments: &[&str], code: i32| {
        let finished = operator.run(arguments.iter().copied()).await.expect(code);
        all.add(title, &operator, &finished);
    };
    case("no fleet file", &["deploy"], 1).await;
    case("no fleet file, as JSON", &["deploy", "--json"], 1).await;
    operator.write("broken.toml", "[[hosts]]\nname = \"gpu-01\"\nadress = \"10.0.0.1\"\n");
    case("a fleet file with a misspelled key", &["deploy", "--hosts", "broken.toml"], 1).await;
    operator.write("empty.toml", "");
    case("an empty fleet", &["deploy", "--hosts", "empty.toml"], 1).await;
    operator.write("fleet.toml", "[[hosts]]\nname = \"gpu-[01-04]\"\naddress = \"10.0.0.[1-4]\"\n");
    case("a selector that does not parse", &["deploy", "--limit", "gpu-["], 1).await;
    case("a selector for nobody", &["deploy", "--limit", "gpu-09"], 1).await;
    operator.write("odd.toml", "[ssh]\nconect_timeout = \"5s\"\n");
    case("an unknown configuration key", &["--config", "odd.toml", "hosts", "list"], 1).await;
    case("no configuration file", &["--config", "none.toml", "hosts", "list"], 1).await;
    case("a host of no deploy", &["hosts", "show", "nope"], 1).await;
    case("not a host name", &["hosts", "show", "no/pe"], 1).await;
    case("no hosts yet", &["hosts", "list"], 0).await;
    case("an unknown verb", &["hosts", "lst"], 2).await;
    fs::create_dir_all(operator.home().join(".ssh/known_hosts")).unwrap();
    case("known_hosts that is a directory", &["deploy"], 1).await;
    assert_transcripts!(all);
}

#[tokio::test]
async fn places_that_are_missing() {
    let operator = Operator::new();
    let mut all = Transcripts::default();
    let mut command = operator.command(["hosts", "list"]);
    command.env("XDG_STATE_HOME", "/dev/null");
    let finished = Running::start(command).end().await.expect(1);
    all.add("a database that cannot be made", &operator, &finished);
    let mut command = operator.command(["hosts", "list"]);
    command.env("HOME", "relative");
    let finished = Running::start(command).end().await.expect(1);
    all.add("a home that is no absolute path", &operator, &finished);
    assert_transcripts!(all);
}

/// An entry for a host with another key file than its own.
fn with_key(host: &Host, key: &std::path::Path) -> String {
    format!(
        "[[hosts]]\nname = \"gpu-01\"\naddress = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
         identity_file = \"{}\"\nhost_key = \"{}\"\n",
        host.sshd.port,
        sshd::current_user(),
        key.display(),
        host.fingerprint(),
    )
}

#[tokio::test]
async fn keys() {
    let (host, operator) = (Host::start(), Operator::new());
    let mut all = Transcripts::default();
    let key = operator.file("key");
    operator.fleet(&[with_key(&host, &key)]);
    let deploy = async || operator.run(["deploy"]).await.expect(3);
    all.add("a key file that is missing", &operator, &deploy().await);

    generate_key(&key, "ed25519", "");
    all.add("a key that the host does not know", &operator, &deploy().await);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    all.add("a key that others can read", &operator, &deploy().await);

    fs::remove_file(&key).unwrap();
    generate_key(&key, "ed25519", "right");
    all.add("an encrypted key and nobody to ask", &operator, &deploy().await);

    let deploy = async |code: i32| {
        let mut command = operator.command(["deploy"]);
        command.env("ORCHESTRATOR_KEY_PASSPHRASE_FILE", "passphrase");
        Running::start(command).end().await.expect(code)
    };
    let passphrase = operator.write("passphrase", "wrong\n");
    all.add("a passphrase file that others can read", &operator, &deploy(3).await);
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    all.add("a wrong passphrase", &operator, &deploy(3).await);
    assert_transcripts!(all);

    // The right one lets in, and is in no log.
    operator.write("passphrase", "a-secret-of-ours\n");
    fs::remove_file(&key).unwrap();
    fs::remove_file(key.with_extension("pub")).unwrap();
    generate_key(&key, "ed25519", "a-secret-of-ours");
    let authorized = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(host.sshd.dir.path().join("authorized_keys"), authorized).unwrap();
    let mut command = operator.command(["deploy"]);
    command.env("ORCHESTRATOR_KEY_PASSPHRASE_FILE", "passphrase").env("RUST_LOG", "trace");
    let finished = Running::start(command).end().await.expect(0);
    assert!(!finished.stderr.contains("a-secret-of-ours"), "it is in the log");
}

#[tokio::test]
async fn hosts_that_are_not_reached() {
    let operator = Operator::new();
    let mut all = Transcripts::default();
    let host = Host::start();
    operator.fleet(&[host.entry("gpu-01", free_port(), "")]);
    all.add("nothing listens", &operator, &operator.run(["deploy"]).await.expect(3));

    operator.fleet(&[host.unknown("gpu-01")]);
    all.add("an unknown key", &operator, &operator.run(["deploy"]).await.expect(3));

    let rsa = Sshd::with_host_keys(&["rsa"], &[]);
    operator.fleet(&[host.entry("gpu-01", rsa.port, "")]);
    all.add("an RSA key only", &operator, &operator.run(["deploy"]).await.expect(3));

    operator.fleet(&[host.pinned("gpu-01")]);
    operator.deploy([]).await.expect(0);
    let purge = operator.run(["hosts", "purge", "gpu-01"]).await.expect(1);
    all.add("a purge without a terminal to ask on", &operator, &purge);
    let unknown = operator.run(["hosts", "show", "nope"]).await.expect(1);
    all.add("a host that is not among the known", &operator, &unknown);
    assert_transcripts!(all);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let operator = Operator::new();
    generate_key(&operator.file("key"), "ed25519", "");
    let key = operator.file("key").display().to_string();
    operator.fleet(&[format!(
        "[[hosts]]\nname = \"gpu-01\"\naddress = \"name.invalid\"\nidentity_file = \"{key}\"\n"
    )]);
    let deployed = operator.deploy([]).await.expect(3);
    assert_eq!(deployed.reason("gpu-01"), "resolve");
    assert!(deployed.row("gpu-01")["message"].as_str().unwrap().contains("name.invalid"));
    assert!(deployed.row("gpu-01")["hint"].as_str().unwrap().contains("DNS"));
}

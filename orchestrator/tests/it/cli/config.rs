//! `config validate|show|migrate` by the built binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use orchestrator::config::Config;
use orchestrator::fleet_file::FleetFile;

use super::operator::Operator;

/// A miner's configuration of the guide's kind, whose executors have SSH data.
const MINER: &str = r#"
[server]
host = "0.0.0.0"
port = 8092
max_connections = 100
advertised_host = "203.0.113.7"

[database]
url = "sqlite:./miner.db"
max_connections = 5
min_connections = 1
run_migrations = true

[database.connect_timeout]
secs = 20
nanos = 0

[bittensor]
wallet_name = "miner"
hotkey_name = "default"
network = "test"
netuid = 387
coldkey_name = "default"
weight_interval_secs = 300
axon_port = 8091

[executor_management]
health_check_interval = { secs = 30, nanos = 0 }

[[executor_management.executors]]
id = "550e8400-e29b-41d4-a716-446655440001"
name = "executor-1"
grpc_address = "198.51.100.1:50051"
host = "198.51.100.1"
port = 50051
ssh_username = "root"
ssh_port = 2222
enabled = true

[[executor_management.executors]]
grpc_address = "198.51.100.2:50051"
host = "198.51.100.2"
ssh_username = "root"
enabled = true

[[executor_management.executors]]
host = "198.51.100.3"
enabled = false

[validator_comms.auth]
enabled = true
method = "bittensor_signature"

[validator_comms.rate_limit]
requests_per_second = 5
window_duration = { secs = 60, nanos = 0 }

[security]
enable_mtls = false
jwt_secret = "SECRET"
token_expiration = { secs = 3600, nanos = 0 }
allowed_validators = []
verify_signatures = true

[logging]
level = "debug"
format = "pretty"
stdout = true

[metrics.prometheus]
enabled = true
port = 9091

[ssh_session]
miner_executor_key_path = "~/.ssh/miner_executor_key"
default_executor_username = "executor"
max_session_duration = 3600

[validator_assignment]
strategy = "round_robin"

[advertised_addresses]
grpc_endpoint = "http://203.0.113.7:8080"
"#;

const GOOD: &str = "b1c0e47fa92d5583641e0a7cc8d3f29b5e76014da8b9c2f3";

#[tokio::test]
async fn a_miners_configuration_is_read_as_it_is() {
    let operator = Operator::new();
    let path = operator.write("miner.toml", &MINER.replace("SECRET", GOOD));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let checked = operator.run(["--config", "miner.toml", "config", "validate"]).await.expect(0);
    for key in [
        "server.advertised_host",
        "bittensor.coldkey_name",
        "bittensor.weight_interval_secs",
        "executors[0].grpc_address",
        "validator_comms.rate_limit.window_duration",
        "advertised_addresses",
    ] {
        let ignored = format!("`{key}` is ignored: ");
        assert!(checked.stderr.contains(&ignored), "{key}: {checked:?}");
    }
    // The hosts are those of the executors: a fleet file is not even looked for.
    let nobody = ["--config", "miner.toml", "deploy", "--limit", "executor-9"];
    let refused = operator.run(nobody).await.expect(1);
    assert!(
        refused.stderr.contains("executor-9") && !refused.stderr.contains("fleet.toml"),
        "{refused:?}"
    );
    operator.run(["--config", "miner.toml", "hosts", "list"]).await.expect(0);
    assert!(operator.file("miner.db").exists());
}

#[tokio::test]
async fn a_placeholder_is_refused_with_the_command_that_makes_a_secret() {
    let operator = Operator::new();
    operator.write("miner.toml", &MINER.replace("SECRET", "your-secure-secret-key"));
    let refused = operator.run(["--config", "miner.toml", "config", "validate"]).await.expect(1);
    assert!(refused.stderr.contains("placeholder of an example"), "{refused:?}");
    assert!(refused.stderr.contains("head -c 32 /dev/urandom"), "{refused:?}");
    assert!(!refused.stderr.contains("your-secure"), "{refused:?}");
}

#[tokio::test]
async fn show_says_where_each_value_comes_from_and_hides_secrets() {
    let operator = Operator::new();
    operator.write("miner.toml", &MINER.replace("SECRET", GOOD));
    let mut command = operator.command(["--config", "miner.toml", "config", "show", "--json"]);
    let shown = super::operator::Running::start({
        command.env("ORCHESTRATOR_JWT_SECRET", "from-the-environment-0123456789abcdef");
        command
    })
    .end()
    .await
    .expect(0);
    assert!(!shown.stdout.contains(GOOD) && !shown.stdout.contains("from-the-env"), "{shown:?}");
    let document = &shown.json_lines()[0];
    let entry = |key: &str| {
        let entries = document["entries"].as_array().unwrap();
        entries.iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key}")).clone()
    };
    assert_eq!(entry("bittensor.netuid")["value"], "387");
    assert_eq!(entry("bittensor.chain_endpoint")["source"]["from"], "default");
    assert_eq!(
        entry("bittensor.chain_endpoint")["value"],
        "[\"wss://test.finney.opentensor.ai:443\"]"
    );
    assert_eq!(entry("database.connect_timeout")["value"], "\"20s\"");
    assert_eq!(entry("security.jwt_secret")["source"]["variable"], "ORCHESTRATOR_JWT_SECRET");
    assert_eq!(entry("bittensor.coldkey_name")["source"]["from"], "ignored");
    let line = entry("logging.level")["source"]["line"].as_u64().unwrap();
    let text = MINER.lines().nth(usize::try_from(line).unwrap() - 1).unwrap();
    assert_eq!(text, "level = \"debug\"");
    // The table for people, too.
    let shown =
        operator.run(["--config", "miner.toml", "config", "show", "--changed"]).await.expect(0);
    assert!(shown.stdout.contains("miner.toml:") && !shown.stdout.contains(GOOD), "{shown:?}");
    assert!(!shown.stdout.contains("ssh.connect_attempts"), "{shown:?}");
}

#[tokio::test]
async fn a_migration_writes_files_that_mean_the_same() {
    let operator = Operator::new();
    let old = MINER.replace("SECRET", GOOD);
    // An executor of the first guide, with a gRPC address alone.
    let old = old.replace("host = \"198.51.100.2\"\nssh_username = \"root\"\n", "");
    operator.write("miner.toml", &old);
    operator.run(["--config", "miner.toml", "deploy"]).await.expect(1);
    let migrated =
        operator.run(["config", "migrate", "miner.toml", "new", "--json"]).await.expect(0);
    assert_eq!(migrated.json_lines()[0]["hosts"], 2);
    let new = fs::read_to_string(operator.file("new/orchestrator.toml")).unwrap();
    assert!(new.contains("# coldkey_name is left out: the coldkey is never opened"), "{new}");
    assert!(!new.contains(GOOD), "{new}");
    let config = Config::load(&operator.file("new/orchestrator.toml")).unwrap();
    assert_eq!((config.bittensor.netuid, config.server.max_connections), (387, 100));
    assert_eq!(config.validator_comms.rate_limit.requests_per_second, 5);
    assert!(config.executor_management.executors.is_empty());
    let secret = operator.file("new/jwt-secret");
    assert_eq!(fs::read_to_string(&secret).unwrap().trim(), GOOD);
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let fleet = FleetFile::load(&operator.file("new/fleet.toml")).unwrap();
    let hosts: Vec<_> = fleet
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.server.address.as_str(), host.server.settings.port))
        .collect();
    assert_eq!(
        hosts,
        [("executor-1", "198.51.100.1", Some(2222)), ("executor-2", "198.51.100.2", None)]
    );
    let valid = ["--config", "new/orchestrator.toml", "config", "validate"];
    operator.run(valid).await.expect(0);
    // Nothing is overwritten.
    operator.run(["config", "migrate", "miner.toml", "new"]).await.expect(1);
    operator.run(["config", "migrate", "miner.toml", "new", "--force"]).await.expect(0);
}

#[tokio::test]
async fn what_a_configuration_names_is_looked_at() {
    let operator = Operator::new();
    operator.write("secret", GOOD);
    operator.write(
        "orchestrator.toml",
        "[operator_api]\nhost = \"0.0.0.0\"\nport = 8091\n\
         [security]\njwt_secret_file = \"secret\"\ncert_path = \"c.pem\"\nkey_path = \"k.pem\"\n",
    );
    let found = operator.run(["config", "validate"]).await.expect(1);
    for words in ["readable by others", "`cert_path`", "`key_path`", "are both 8091", "chmod 600"] {
        assert!(found.stderr.contains(words), "{words}: {found:?}");
    }
    // Logs go to a file that is named relative to the configuration.
    operator.write("orchestrator.toml", "[logging]\nfile = \"logs/o.log\"\nstdout = false\n");
    operator.run(["config", "validate"]).await.expect(0);
    assert!(operator.file("logs/o.log").exists());
}

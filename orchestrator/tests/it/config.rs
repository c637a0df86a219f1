//! The configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator::config::{Config, LogFormat, LogLevel, SearchPlaces, locate};

const MANUAL: &str = include_str!("../../../config/orchestrator.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("orchestrator.toml"), text).map_err(|error| error.to_string())
}

/// The manual with every key switched on.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    MANUAL.lines().map(line).collect()
}

#[test]
fn the_manual_is_the_default_configuration() {
    assert_eq!(parse(MANUAL).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse(&uncommented()).unwrap(), Config::default());
}

/// Each key of the manual is changed in turn. That some field then differs shows that the key is
/// read; that none of the known keys is missing shows in the hint for an unknown one.
#[test]
fn every_key_of_the_manual_is_read_and_every_known_key_is_in_the_manual() {
    let mut section = String::new();
    let mut keys: Vec<(String, String)> = Vec::new();
    for line in uncommented().lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            // What stands beside a key that alone would be an error, or nothing.
            let beside = match (section.as_str(), key) {
                ("[security]", "enable_mtls") => {
                    "cert_path = \"/c\"\nkey_path = \"/k\"\nca_cert_path = \"/a\"\n"
                }
                ("[security]", "cert_path") => "key_path = \"/k\"\n",
                ("[security]", "key_path") => "cert_path = \"/c\"\n",
                ("[validator_containers]", "enabled") => "images = [\"busybox\"]\n",
                ("[logging]", "stdout") => "file = \"/f\"\n",
                ("[ssh_session]", "default_session_duration") => "max_session_duration = \"2h\"\n",
                ("[metrics.prometheus]", "host" | "port" | "path") => "enabled = true\n",
                _ => "",
            };
            let with = |value: &str| {
                let text = format!("{section}\n{beside}{key} = {value}\n");
                parse(&text).unwrap_or_else(|error| panic!("{text}{error}"))
            };
            // A certificate without its key, and the other way round, is an error.
            let pair = section == "[security]" && matches!(key, "cert_path" | "key_path");
            let unchanged = if pair { Config::default() } else { with(value) };
            assert_ne!(with(&changed(key, value)), unchanged, "{section} {key}");
            keys.push((section.clone(), key.to_owned()));
        }
    }
    let uncommented = uncommented();
    let sections: Vec<&str> = uncommented.lines().filter(|line| line.starts_with('[')).collect();
    for section in &sections {
        let error = parse(&format!("{section}\nzzzzzz = 1\n")).unwrap_err();
        let known = error.rsplit("known here: ").next().unwrap().to_owned();
        let nested = |key: &&str| {
            let inner = format!("{}.{key}]", section.trim_end_matches(']'));
            !sections.contains(&inner.as_str())
        };
        let documented: Vec<&str> =
            keys.iter().filter(|(s, _)| s == section).map(|(_, key)| key.as_str()).collect();
        let known: Vec<&str> =
            known.split(", ").filter(nested).filter(|key| *key != "jwt_secret").collect();
        assert_eq!(known, documented, "{section}");
    }
}

/// Another value of the same kind.
fn changed(key: &str, value: &str) -> String {
    let words = [
        ("\"finney\"", "\"test\""),
        ("\"info\"", "\"debug\""),
        ("\"pretty\"", "\"json\""),
        ("\"bittensor_signature\"", "\"jwt\""),
        ("\"highest_stake\"", "\"round_robin\""),
        ("[\"wss://entrypoint-finney.opentensor.ai:443\"]", "\"ws://127.0.0.1:1\""),
        ("{}", "{ orchestrator = \"debug\" }"),
        ("\"0.0.0.0\"", "\"127.0.0.2\""),
        ("\"127.0.0.1\"", "\"127.0.0.2\""),
        ("true", "false"),
        ("false", "true"),
        ("6000.0", "0.5"),
        ("\"~/.ssh/authorized_keys\"", "\"/etc/keys\""),
        ("\"/metrics\"", "\"/m\""),
        ("\"missing\"", "\"never\""),
        ("\"none\"", "\"bridge\""),
        ("\"16G\"", "\"17G\""),
    ];
    if let Some((_, other)) = words.iter().find(|(known, _)| *known == value) {
        return (*other).to_owned();
    }
    match (key, value) {
        ("external_ip", _) => "\"203.0.113.7\"".to_owned(),
        ("executors", _) => "[{ host = \"10.0.0.1\" }]".to_owned(),
        ("allowed_validators", _) => {
            "[\"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\"]".to_owned()
        }
        ("validator_hotkey", _) => {
            "\"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\"".to_owned()
        }
        (_, "[]") => "[\"x\"]".to_owned(),
        ("default_session_duration", _) => "\"17m\"".to_owned(),
        ("max_session_duration", _) => "\"2h\"".to_owned(),
        (_, value) if value.starts_with("\"sqlite:") => "\"sqlite:/x.db\"".to_owned(),
        (_, value) if value.ends_with("s\"") && value.len() < 8 => "\"7s\"".to_owned(),
        (_, "\"10m\"" | "\"1h\"" | "\"5m\"" | "\"1m\"" | "\"2m\"" | "\"2h\"") => {
            "\"90s\"".to_owned()
        }
        (_, "\"1d\"" | "\"7d\"" | "\"14d\"" | "\"12h\"") => "\"3h\"".to_owned(),
        (_, value) if value.starts_with('"') => "\"other\"".to_owned(),
        (_, number) => (number.parse::<u64>().unwrap() + 1).to_string(),
    }
}

#[test]
fn durations_are_read_in_both_forms() {
    let text =
        "[ssh]\nauth_timeout = { secs = 2, nanos = 500000000 }\nconnect_timeout = \"1m30s\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.ssh.auth_timeout, Duration::from_millis(2500));
    assert_eq!(config.ssh.connect_timeout, Duration::from_secs(90));
}

#[test]
fn words_are_read() {
    let config = parse("[logging]\nlevel = \"trace\"\nformat = \"json\"\n").unwrap();
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Trace, LogFormat::Json));
}

const CASES: &[(&str, &str)] = &[
    ("a misspelt section", "[excutor_management]\nparallel = 1\n"),
    ("a misspelt key", "[ssh]\nconect_timeout = \"5s\"\n"),
    ("a section of nobody", "[quux]\nenabled = true\n"),
    ("a key without its section", "parallel = 3\n"),
    ("a section that is a value", "ssh = 3\n"),
    ("no host at a time", "[executor_management]\nparallel = 0\n"),
    ("a negative number", "[executor_management]\nparallel = -1\n"),
    ("a duration without a unit", "[ssh]\nauth_timeout = \"30\"\n"),
    ("a duration as a number", "[ssh]\nauth_timeout = 30\n"),
    ("a duration out of bounds", "[ssh]\nauth_timeout = \"30h\"\n"),
    ("a duration with an unknown part", "[ssh]\nauth_timeout = { seconds = 3 }\n"),
    ("an unknown level", "[logging]\nlevel = \"warning\"\n"),
    ("an unknown format", "[logging]\nformat = \"xml\"\n"),
    ("PostgreSQL", "[database]\nurl = \"postgres://user:secret@db/orchestrator\"\n"),
    ("a database that is no URL", "[database]\nurl = \"data/o.db\"\n"),
    (
        "an executor of the guide's time",
        "[[executor_management.executors]]\nid = \"executor-1\"\ngrpc_address = \"10.0.0.1:50051\"\n",
    ),
    (
        "two executors of one name",
        "[executor_management]\nexecutors = [{ host = \"a\" }, { host = \"a\" }]\n",
    ),
    ("an executor without an address", "[[executor_management.executors]]\nid = \"executor-1\"\n"),
    ("the guide's secret", "[security]\njwt_secret = \"your-secure-secret-key\"\n"),
    ("a short secret", "[security]\njwt_secret = \"hunter2\"\n"),
    (
        "unsigned requests",
        "[security]\nverify_signatures = false\n[validator_comms.auth]\nenabled = false\nmethod = \"none\"\n",
    ),
    ("a key without a certificate", "[security]\nkey_path = \"/k\"\n"),
    ("an unknown network", "[bittensor]\nnetwork = \"mainnet\"\n"),
    ("a wallet that is a path", "[bittensor]\nwallet_name = \"../other\"\n"),
    ("an endpoint that is no web socket", "[bittensor]\nchain_endpoint = \"https://node\"\n"),
    ("an address that is a name", "[operator_api]\nhost = \"example.com\"\n"),
    ("a stake that is no number", "[validator_assignment]\nmin_stake_threshold = \"much\"\n"),
    ("nobody to assign to", "[validator_assignment]\nstrategy = \"fixed\"\n"),
    ("logs that go nowhere", "[logging]\nstdout = false\n"),
    ("a level of no module", "[logging.targets]\n\"a b\" = \"debug\"\n"),
    ("a section of the guide's time", "[remote_executor_deployment]\nauto_deploy = true\n"),
    ("more connections kept than open", "[database]\nmin_connections = 9\n"),
    ("a number where a switch is", "[executor_management]\nauto_recovery = 1\n"),
    ("a URL in the place of a name", "[alerts]\nslack_url_env = \"https://h/secret\"\n"),
    ("a line break in an address", "[alerts]\nmail_to = \"a@b\\nBcc: c@d\"\n"),
    ("several errors", "[ssh]\nauth_timeout = 1\n[logging]\nlevel = 2\nformat = 3\n"),
];

#[test]
fn every_error_reads_as_recorded() {
    let mut all = String::new();
    for (title, text) in CASES {
        let error = parse(text).expect_err(title);
        write!(all, "## {title}\n{error}\n\n").unwrap();
    }
    for secret in ["user:secret", "hunter2", "your-secure", "h/secret"] {
        assert!(!all.contains(secret), "a secret is quoted");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_file_is_looked_for_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut places = SearchPlaces {
        environment: None,
        working_directory: root.join("work"),
        config_home: root.join("config"),
    };
    std::fs::create_dir_all(root.join("work")).unwrap();
    std::fs::create_dir_all(root.join("config/orchestrator")).unwrap();
    assert_eq!(locate(None, &places), None);

    let home = root.join("config/orchestrator/orchestrator.toml");
    std::fs::write(&home, "").unwrap();
    assert_eq!(locate(None, &places), Some(home));

    let work = root.join("work/orchestrator.toml");
    std::fs::write(&work, "").unwrap();
    assert_eq!(locate(None, &places), Some(work));

    // What was asked for is not skipped when it is missing: that must be an error.
    places.environment = Some(PathBuf::from("/nonexistent/env.toml"));
    assert_eq!(locate(None, &places), places.environment);
    assert_eq!(locate(Some(Path::new("a.toml")), &places), Some(PathBuf::from("a.toml")));
    assert!(Config::load(Path::new("/nonexistent/env.toml")).is_err());
}

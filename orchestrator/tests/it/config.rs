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
fn every_key_of_the_manual_has_an_effect_and_every_known_key_is_in_the_manual() {
    let changed = |value: &str| match value {
        "\"info\"" => "\"debug\"".to_owned(),
        "\"text\"" => "\"json\"".to_owned(),
        sqlite if sqlite.starts_with("\"sqlite:") => "\"sqlite:/x.db\"".to_owned(),
        "[]" => "[\"gpu_hot\"]".to_owned(),
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        duration if orchestrator::config::duration::parse(duration.trim_matches('"')).is_ok() => {
            "\"7s\"".to_owned()
        }
        text if text.starts_with('"') => format!("\"x{}", &text[1..]),
        number => (number.parse::<u64>().unwrap() + 1).to_string(),
    };
    let mut section = String::new();
    let mut keys: Vec<(String, String)> = Vec::new();
    for line in uncommented().lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            let text = format!("{section}\n{key} = {}\n", changed(value));
            assert_ne!(parse(&text).unwrap(), Config::default(), "{text}");
            keys.push((section.clone(), key.to_owned()));
        }
    }
    let sections =
        ["[database]", "[executor_management]", "[ssh]", "[sweep]", "[alerts]", "[logging]"];
    for section in sections {
        let error = parse(&format!("{section}\nzzzzzz = 1\n")).unwrap_err();
        let known = error.rsplit("known here: ").next().unwrap().to_owned();
        let documented: Vec<&str> =
            keys.iter().filter(|(s, _)| s == section).map(|(_, key)| key.as_str()).collect();
        assert_eq!(known.split(", ").collect::<Vec<_>>(), documented, "{section}");
    }
    let known = "database, executor_management, ssh, sweep, alerts, logging";
    assert!(parse("zzzzzz = 1").unwrap_err().ends_with(known));
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
    ("a section of a later version", "[metrics]\nenabled = true\n"),
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
    assert!(!all.contains("secret"), "a password is quoted");
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

#[test]
fn the_thresholds_and_alerts_are_documented() {
    let document = include_str!("../../../docs/sweep.md");
    let mut section = "";
    for line in MANUAL.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let key = line.strip_prefix('#').and_then(|line| line.split_once(" = "));
        // Where alerts come from and go to is told by channel, and the rest by key.
        let told = ["sendmail", "timeout", "parallel"];
        if let (Some((key, _)), "[sweep]" | "[alerts]") = (key, section)
            && !key.starts_with(' ')
            && !told.contains(&key)
        {
            assert!(document.contains(&format!("`{key}`")), "{key} of {section}");
        }
    }
}

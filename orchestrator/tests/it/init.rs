//! The first configuration files.

use std::path::Path;

use orchestrator::config::Config;
use orchestrator::fleet_file::FleetFile;
use orchestrator::init::{InitError, InitOptions, plan, write};

fn options() -> InitOptions {
    InitOptions {
        user: Some("ubuntu".to_owned()),
        identity_file: Some("~/.ssh/k\"ey".to_owned()),
        hosts: vec![("gpu-[1-2]".to_owned(), "10.0.0.[1-2]".to_owned())],
    }
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("new");
    write(&plan(&target, &options()).unwrap(), false).unwrap();

    assert_eq!(Config::load(&target.join("orchestrator.toml")).unwrap(), Config::default());
    let fleet = FleetFile::load(&target.join("fleet.toml")).unwrap();
    assert_eq!(fleet.hosts.len(), 2);
    let settings = &fleet.hosts[1].server.settings;
    assert_eq!(settings.user.as_deref(), Some("ubuntu"));
    assert_eq!(settings.identity_files.as_deref(), Some(["~/.ssh/k\"ey".to_owned()].as_slice()));
    let mut names: Vec<_> =
        std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fleet.toml", "orchestrator.toml"]);
}

#[test]
fn the_fleet_file_without_hosts_explains_itself() {
    let files = plan(Path::new("/nonexistent"), &InitOptions::default()).unwrap();
    let fleet = &files[1].content;
    insta::assert_snapshot!(fleet);
    // It lacks only a host, and every commented key is one that the parser knows.
    let error = FleetFile::parse(Path::new("fleet.toml"), fleet).unwrap_err().to_string();
    assert!(error.contains("At least one executor must be configured"), "{error}");
    let switched_on: String = fleet
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let pin = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let switched_on = switched_on.replace("SHA256:...", pin);
    let fleet = FleetFile::parse(Path::new("fleet.toml"), &switched_on).unwrap();
    assert_eq!(fleet.hosts.len(), 16);
}

#[test]
fn nothing_is_overwritten_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = directory.path().join("fleet.toml");
    std::fs::write(&fleet, "mine").unwrap();
    let files = plan(directory.path(), &options()).unwrap();
    let error = write(&files, false).unwrap_err();
    assert_eq!(error.to_string(), format!("a file is already there: {}", fleet.display()));
    assert_eq!(std::fs::read_to_string(&fleet).unwrap(), "mine");
    assert!(!directory.path().join("orchestrator.toml").exists());

    write(&files, true).unwrap();
    assert_eq!(FleetFile::load(&fleet).unwrap().hosts.len(), 2);
}

#[test]
fn a_file_that_appears_after_the_plan_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let files = plan(directory.path(), &options()).unwrap();
    let fleet = directory.path().join("fleet.toml");
    std::fs::write(&fleet, "mine").unwrap();
    assert!(matches!(write(&files, false).unwrap_err(), InitError::Exists { .. }));
    assert_eq!(std::fs::read_to_string(&fleet).unwrap(), "mine");
}

#[test]
fn a_host_that_no_fleet_file_could_hold_is_refused() {
    let hosts = vec![("a b".to_owned(), "10.0.0.1".to_owned())];
    let error = plan(Path::new("."), &InitOptions { hosts, ..InitOptions::default() }).unwrap_err();
    assert!(matches!(error, InitError::Fleet(_)));
}

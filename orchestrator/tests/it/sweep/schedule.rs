//! `sweep install`: what is written is run, as cron and systemd would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::deployed;
use crate::cli::operator::{Operator, Running};
use crate::deploy::host::Host;
use crate::sshd::{need, succeed};

/// A `crontab` that keeps the table in a file, and complains as the real one where there is none.
const CRONTAB: &str = "#!/bin/sh\ncase $1 in\n-l) /bin/cat \"$HOME/table\" 2>/dev/null || \
    { echo 'no crontab for ops' >&2; exit 1; } ;;\n-) exec /bin/cat >\"$HOME/table\" ;;\n\
    *) exit 64 ;;\nesac\n";

/// A host that was deployed to, and its operator, whose files have names that are hard to write down.
async fn awkward() -> (Host, Operator) {
    let (host, operator) = deployed("", "").await;
    let crontab = operator.write("../bin/crontab", CRONTAB);
    fs::set_permissions(crontab, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(operator.file("100% it's $HOME")).unwrap();
    let fleet = fs::read_to_string(operator.file("fleet.toml")).unwrap();
    operator.write("100% it's $HOME/fleet \"a\".toml", &fleet);
    let config = fs::read_to_string(operator.file("orchestrator.toml")).unwrap();
    operator.write("100% it's $HOME/o.toml", &config);
    (host, operator)
}

const INSTALL: [&str; 6] = [
    "--config",
    "100% it's $HOME/o.toml",
    "sweep",
    "install",
    "--hosts",
    "100% it's $HOME/fleet \"a\".toml",
];

async fn sweeps(operator: &Operator) -> usize {
    let history = operator.run(["sweep", "history", "--json"]).await.expect(0);
    history.json_lines()[0]["sweeps"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_line_of_the_crontab_runs_in_the_environment_of_cron() {
    let (_host, operator) = awkward().await;
    let table = operator.home().join("table");
    fs::write(&table, "MAILTO=ops\n0 1 * * * true\n").unwrap();
    let install = || INSTALL.into_iter().chain(["--cron", "--schedule", "*/7 * * * *"]);
    // Nothing is written unasked.
    operator.run(install()).await.expect(1);
    operator.run(install().chain(["--print"])).await.expect(0);
    assert_eq!(fs::read_to_string(&table).unwrap().lines().count(), 2);
    for _ in 0..2 {
        operator.run(install().chain(["--yes"])).await.expect(0);
    }
    let written = fs::read_to_string(&table).unwrap();
    assert!(written.starts_with("MAILTO=ops\n0 1 * * * true\n"), "{written}");
    let lines: Vec<&str> = written.lines().filter(|line| line.starts_with("*/7 ")).collect();
    assert_eq!(lines.len(), 1, "installed twice, there once: {written}");

    // What crontab(5) does: five fields, and a percent sign is a newline without its backslash.
    let command = lines[0].splitn(6, ' ').nth(5).unwrap();
    assert_eq!(command.matches('%').count(), command.matches("\\%").count(), "{command}");
    let mut cron = Command::new("/bin/sh");
    cron.arg("-c").arg(command.replace("\\%", "%"));
    cron.env_clear()
        .env("HOME", operator.home())
        .env("LOGNAME", "ops")
        .env("SHELL", "/bin/sh")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(operator.home());
    let ran = Running::start(cron).end().await.expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "nothing to mail");
    assert_eq!(sweeps(&operator).await, 1);

    operator.run(["sweep", "uninstall", "--cron", "--yes"]).await.expect(0);
    assert_eq!(fs::read_to_string(&table).unwrap(), "MAILTO=ops\n0 1 * * * true\n");
    operator.run(["sweep", "uninstall", "--cron", "--yes"]).await.expect(0);
}

#[tokio::test]
async fn the_units_are_what_systemd_takes_and_their_command_runs() {
    let analyze = need("/usr/bin/systemd-analyze", "systemd");
    let (_host, operator) = awkward().await;
    let units = operator.file("units");
    let place = ["--systemd", "--unit-dir", "units", "--schedule", "0,30 8-18 1 * mon", "--yes"];
    operator.run(INSTALL.into_iter().chain(place)).await.expect(0);
    let (service, timer) =
        (units.join("orchestrator-sweep.service"), units.join("orchestrator-sweep.timer"));
    let verified = succeed(Command::new(&analyze).arg("verify").args([&service, &timer]));
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(!said.contains("orchestrator-sweep"), "{said}");
    let timer_text = fs::read_to_string(&timer).unwrap();
    let times: Vec<&str> =
        timer_text.lines().filter_map(|line| line.strip_prefix("OnCalendar=")).collect();
    assert_eq!(times.len(), 2, "either of the day and the weekday");
    for time in times {
        succeed(Command::new(&analyze).arg("calendar").arg(time));
    }

    let service_text = fs::read_to_string(&service).unwrap();
    let line = |key| service_text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let words = systemd_words(line("ExecStart="));
    let mut run = Command::new(&words[0]);
    run.args(&words[1..]).env_clear().current_dir("/");
    for variable in service_text.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let word = systemd_words(variable).remove(0);
        let (name, value) = word.split_once('=').unwrap();
        run.env(name, value);
    }
    let ran = Running::start(run).end().await.expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(sweeps(&operator).await, 1);

    let uninstall = ["sweep", "uninstall", "--systemd", "--unit-dir", "units", "--yes"];
    operator.run(uninstall).await.expect(0);
    assert_eq!(fs::read_dir(&units).unwrap().count(), 0);
}

/// Words of a unit file: in double quotes, with backslashes, doubled percent and dollar signs.
fn systemd_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = line.chars();
    while characters.by_ref().find(|c| *c != ' ') == Some('"') {
        let mut word = String::new();
        while let Some(c) = characters.next().filter(|c| *c != '"') {
            word.push(match c {
                '\\' => characters.next().unwrap(),
                '%' | '$' => {
                    assert_eq!(characters.next(), Some(c), "expanded by systemd: {line}");
                    c
                }
                c => c,
            });
        }
        words.push(word);
    }
    words
}

#[tokio::test]
async fn a_schedule_that_cron_does_not_know_is_refused() {
    let (_host, operator) = awkward().await;
    for schedule in ["@daily", "* * * *", "99 * * * *", "0 0 L * *"] {
        let install = ["sweep", "install", "--cron", "--yes", "--schedule", schedule];
        let refused = operator.run(install).await.expect(1);
        assert!(refused.stderr.contains("is no schedule"), "{refused:?}");
    }
    let missing = ["sweep", "install", "--cron", "--print", "--hosts", "nowhere.toml"];
    operator.run(missing).await.expect(1);
    assert!(!operator.home().join("table").exists());
    // More often than a sweep may take.
    let often = ["sweep", "install", "--cron", "--print", "--schedule", "* * * * *"];
    assert!(operator.run(often).await.expect(0).stderr.contains("warning"));
}

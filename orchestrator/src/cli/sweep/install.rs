//! `orchestrator sweep install` and `uninstall`: a systemd timer or a line of the crontab.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::render::{self, SWEEP_CRONTAB, SWEEP_SERVICE, SWEEP_TIMER};
use crate::store::now_ms;
use crate::sweep::Schedule;
use crate::transport::RemoteCommand;

const SERVICE: &str = "orchestrator-sweep.service";
const TIMER: &str = "orchestrator-sweep.timer";
const BEGIN: &str = "# BEGIN orchestrator sweep";
const END: &str = "# END orchestrator sweep";

/// Time beyond the sweep's own deadline for what is written and told after it, in seconds.
const AFTER_SECS: u64 = 120;

/// Variables that say where configuration and database are: a timer has none of the caller's.
const VARIABLES: [&str; 2] = ["XDG_CONFIG_HOME", "XDG_STATE_HOME"];

/// Sweep on a schedule: write a systemd timer or a line of the crontab, after showing it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// When, in the five fields of cron, in the machine's own time zone
    #[arg(long, value_name = "CRON", default_value = "*/5 * * * *")]
    schedule: String,
    #[command(flatten)]
    place: Place,
    /// The fleet file; without it the hosts of the last deploys
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// Ask each host that has GPUs for a proof too
    #[arg(long)]
    pow: bool,
    /// The runner that hosts shall have; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    print: bool,
}

/// Take the schedule away again
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    place: Place,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// A systemd timer: of the system for root, else of the user
    #[arg(long, conflicts_with = "cron")]
    systemd: bool,
    /// A line of the user's crontab
    #[arg(long)]
    cron: bool,
    /// Put the units into this directory, and leave starting them to you
    #[arg(long, value_name = "DIR", requires = "systemd")]
    unit_dir: Option<PathBuf>,
}

impl Place {
    /// Without a wish: systemd where it runs (sd_booted(3)).
    fn is_systemd(&self) -> bool {
        self.systemd || (!self.cron && Path::new("/run/systemd/system").exists())
    }

    fn unit_folder(&self, app: &App<'_>) -> PathBuf {
        match &self.unit_dir {
            Some(folder) => folder.clone(),
            None if is_root() => PathBuf::from("/etc/systemd/system"),
            None => app.environment.home.join(".config/systemd/user"),
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let schedule: Schedule = args.schedule.parse().map_err(|error| {
        Failure::user("cannot use --schedule")
            .because(error)
            .hint("for example `*/5 * * * *` (every five minutes) or `0 4 * * mon`")
    })?;
    if let Some(limit) = &args.limit {
        crate::cli::app::selector(limit)?;
    }
    let command = command(app, &args)?;
    let interval = schedule.shortest_interval(now_ms());
    if interval.is_some_and(|interval| interval < app.config.sweep.timeout) {
        app.report.warning(
            "a sweep may take longer than the time between two: the later one then ends with status 6",
        );
    }
    let files = if args.place.is_systemd() {
        units(app, &args.place, &schedule, &command)?
    } else {
        vec![(PathBuf::from("crontab"), crontab(&schedule, &command)?)]
    };
    for (path, text) in &files {
        app.report.result(&format!("{}:\n{text}", path.display()));
    }
    let shown: Vec<_> =
        files.iter().map(|(path, text)| json!({ "path": path, "text": text })).collect();
    app.report.json(&json!({ "ok": true, "written": !args.print, "files": shown }));
    if args.print {
        return Ok(Exit::Ok);
    }
    if !args.yes && !app.confirm("Write this?")? {
        return Ok(Exit::Ok);
    }
    if !args.place.is_systemd() {
        let [(_, block)] = files.as_slice() else { return Ok(Exit::Ok) };
        let rest = without_block(&read_crontab()?);
        write_crontab(&format!("{rest}{block}"))?;
        app.report.result("the crontab has it");
        return Ok(Exit::Ok);
    }
    for (path, text) in &files {
        write_unit(path, text)?;
    }
    if args.place.unit_dir.is_none() {
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", TIMER])?;
        app.report.result(&format!("{TIMER} is started"));
    }
    Ok(Exit::Ok)
}

pub async fn uninstall(app: &App<'_>, args: UninstallArgs) -> Result<Exit, Failure> {
    if !args.place.is_systemd() {
        let old = read_crontab()?;
        let rest = without_block(&old);
        if rest == old {
            app.report.note("the crontab has no line of ours");
        } else {
            let asked = args.yes || app.confirm("Take the sweep out of the crontab?")?;
            if asked {
                write_crontab(&rest)?;
                app.report.result("the crontab has no line of ours any more");
            }
        }
        app.report.json(&json!({ "ok": true }));
        return Ok(Exit::Ok);
    }
    let folder = args.place.unit_folder(app);
    let units: Vec<PathBuf> = [TIMER, SERVICE]
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    if units.is_empty() {
        app.report.note(&format!("{} has no unit of ours", folder.display()));
    } else if args.yes || app.confirm("Take the timer away?")? {
        if args.place.unit_dir.is_none() {
            systemctl(&["disable", "--now", TIMER])?;
        }
        for path in &units {
            std::fs::remove_file(path).map_err(|error| {
                Failure::user(format!("cannot remove {}", path.display())).because(error)
            })?;
            app.report.result(&format!("removed {}", path.display()));
        }
        if args.place.unit_dir.is_none() {
            systemctl(&["daemon-reload"])?;
        }
    }
    app.report.json(&json!({ "ok": true }));
    Ok(Exit::Ok)
}

/// The whole command, every path absolute: neither cron nor systemd starts where the user is.
fn command(app: &App<'_>, args: &Args) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::user("cannot find out where this program lies").because(error))?;
    let mut words = vec![text(&program)?];
    if let Some(config) = &app.config_file {
        words.extend(["--config".to_owned(), absolute(config)?]);
    }
    words.extend(["sweep".to_owned(), "--quiet".to_owned()]);
    if let Some(hosts) = &args.hosts {
        words.extend(["--hosts".to_owned(), absolute(hosts)?]);
    }
    if let Some(limit) = &args.limit {
        words.push(format!("--limit={limit}"));
    }
    if args.pow {
        words.push("--pow".to_owned());
    }
    if let Some(runner) = &args.runner {
        words.extend(["--runner".to_owned(), absolute(runner)?]);
    }
    if words.iter().any(|word| word.chars().any(char::is_control)) {
        return Err(Failure::user("a path has a control character, which no crontab can hold"));
    }
    Ok(words)
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::user(format!("{} is not UTF-8", path.display())))
}

/// The path of a file that must be there now: at 4 in the morning nobody reads the error.
fn absolute(path: &Path) -> Result<String, Failure> {
    let found = std::fs::metadata(path).and_then(|_| std::path::absolute(path));
    let found = found
        .map_err(|error| Failure::user(format!("cannot use {}", path.display())).because(error))?;
    text(&found)
}

/// The caller's variables that matter, where they are set.
fn variables() -> Vec<(String, String)> {
    VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .filter(|(_, value)| Path::new(value).is_absolute() && !value.contains(char::is_control))
        .collect()
}

fn units(
    app: &App<'_>,
    place: &Place,
    schedule: &Schedule,
    command: &[String],
) -> Result<Vec<(PathBuf, String)>, Failure> {
    let bug = |error| Failure::user("cannot write the units").because(error);
    let mut environment = vec![format!("HOME={}", text(&app.environment.home)?)];
    environment.extend(variables().into_iter().map(|(name, value)| format!("{name}={value}")));
    let timeout_secs = app.config.sweep.timeout.as_secs().saturating_add(AFTER_SECS);
    let service = render::render(
        SWEEP_SERVICE,
        json!({ "environment": environment, "command": command, "timeout_secs": timeout_secs }),
    );
    let timer = render::render(
        SWEEP_TIMER,
        json!({ "schedule": schedule.to_string(), "on_calendar": schedule.on_calendar() }),
    );
    let folder = place.unit_folder(app);
    Ok(vec![
        (folder.join(SERVICE), service.map_err(bug)?),
        (folder.join(TIMER), timer.map_err(bug)?),
    ])
}

fn crontab(schedule: &Schedule, command: &[String]) -> Result<String, Failure> {
    let mut words = command.iter().cloned();
    let program = words.next().unwrap_or_default();
    let set: Vec<String> =
        variables().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line = if set.is_empty() {
        RemoteCommand::argv(&program, words)
    } else {
        RemoteCommand::argv("/usr/bin/env", set.into_iter().chain([program]).chain(words))
    };
    let line = line.map_err(|error| Failure::user("cannot write the line").because(error))?.line();
    // crontab(5): a percent sign is a newline unless it has a backslash, which cron takes away.
    let command = line.replace('%', "\\%");
    render::render(SWEEP_CRONTAB, json!({ "schedule": schedule.to_string(), "command": command }))
        .map_err(|error| Failure::user("cannot write the line").because(error))
}

/// A crontab without our block.
fn without_block(crontab: &str) -> String {
    let mut inside = false;
    let mut rest = String::new();
    for line in crontab.lines() {
        inside = inside || line.starts_with(BEGIN);
        if !inside {
            rest += line;
            rest.push('\n');
        }
        inside = inside && !line.starts_with(END);
    }
    rest
}

fn read_crontab() -> Result<String, Failure> {
    let output = Command::new("crontab")
        .arg("-l")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| no_program("crontab", error))?;
    // A user without a crontab gets an error from `crontab -l`, with no word on which.
    Ok(if output.status.success() {
        String::from_utf8_lossy(&output.stdout).into_owned()
    } else {
        String::new()
    })
}

fn write_crontab(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut child = Command::new("crontab")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| no_program("crontab", error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A crontab that ends early has said why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| Failure::user("cannot wait for crontab").because(error))?;
    check("crontab", &output)
}

fn write_unit(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::user(format!("cannot write {}", path.display())).because(error)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let user: &[&str] = if is_root() { &[] } else { &["--user"] };
    let output = Command::new("systemctl")
        .args(user)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| no_program("systemctl", error))?;
    check("systemctl", &output)
}

fn check(program: &str, output: &std::process::Output) -> Result<(), Failure> {
    if output.status.success() {
        return Ok(());
    }
    let said = crate::printable::last_line(&output.stderr);
    Err(Failure::user(format!("{program} failed ({}): {said}", output.status)))
}

fn no_program(program: &str, error: std::io::Error) -> Failure {
    Failure::user(format!("cannot run {program}"))
        .because(error)
        .hint("choose the other of --systemd and --cron, or --print and install it by hand")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_block_comes_and_goes_and_the_rest_stays() {
        let rest = "MAILTO=ops\n0 1 * * * true\n";
        let schedule: Schedule = "*/5 * * * *".parse().unwrap();
        let block = crontab(&schedule, &["/a b/100%/orchestrator".to_owned()]).unwrap();
        assert!(block.contains("*/5 * * * * '/a b/100\\%/orchestrator'\n"), "{block}");
        let whole = format!("{rest}{block}");
        assert_eq!(without_block(&whole), rest);
        assert_eq!(without_block(rest), rest);
        assert_eq!(
            without_block(&format!("{whole}5 5 * * * true\n")),
            format!("{rest}5 5 * * * true\n")
        );
    }
}

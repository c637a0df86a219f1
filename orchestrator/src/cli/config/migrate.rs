//! `orchestrator config migrate`.

use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::app::App;
use crate::cli::failure::{Exit, Failure};
use crate::config::{Entry, Reading, SecretSource, Source};
use crate::init::{self, InitError, PlannedFile};

/// Write orchestrator.toml and fleet.toml from a miner's configuration
///
/// The executors become hosts of fleet.toml. A key that changes nothing here is left out, with a
/// comment that says why. A secret goes into a file of its own, jwt-secret, mode 0600.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The miner's configuration
    #[arg(value_name = "MINER.TOML")]
    file: PathBuf,
    /// Where to write
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let failed = || Failure::user(format!("cannot migrate {}", args.file.display()));
    let reading = Reading::for_migration(&args.file).map_err(|error| failed().because(error))?;
    if let Some(errors) = reading.errors {
        // A placeholder of a secret is named with the rest: it has to be replaced in any case.
        return Err(failed().because(crate::config::ConfigError::Invalid(errors)));
    }
    let executors = &reading.config.executor_management.executors;
    let fleet = match executors.is_empty() {
        true => None,
        false => Some(
            crate::import::executors(executors, &reading.config.ssh_session)
                .map_err(|error| failed().because(error))?,
        ),
    };
    let secret = match &reading.config.security.jwt_secret {
        Some(SecretSource::Inline(secret)) => Some(secret),
        _ => None,
    };
    let planned = |name: &str, content: String| {
        let path = args.directory.join(name);
        PlannedFile { exists: path.symlink_metadata().is_ok(), path, content }
    };
    let mut files =
        vec![planned("orchestrator.toml", toml(&args.file, &reading.entries, secret.is_some()))];
    files.extend(fleet.as_ref().map(|fleet| planned("fleet.toml", fleet.toml.clone())));
    let secret_path = args.directory.join("jwt-secret");
    if secret.is_some() && secret_path.exists() && !args.force {
        return Err(init_failure(InitError::Exists { paths: vec![secret_path] }));
    }
    init::write(&files, args.force).map_err(init_failure)?;
    let mut written: Vec<String> =
        files.iter().map(|file| file.path.display().to_string()).collect();
    if let Some(secret) = secret {
        write_secret(&secret_path, secret.expose()).map_err(|error| failed().because(error))?;
        written.push(secret_path.display().to_string());
    }
    let ignored: Vec<&Entry> = reading
        .entries
        .iter()
        .filter(|entry| matches!(entry.source, Source::Ignored { .. }))
        .collect();
    app.report.json(&json!({
        "ok": true,
        "written": written,
        "hosts": fleet.as_ref().map_or(0, |fleet| fleet.hosts),
        "notes": fleet.as_ref().map_or(0, |fleet| fleet.notes),
        "left_out": ignored,
    }));
    for path in &written {
        app.report.result(&format!("wrote {path}"));
    }
    for warning in &reading.warnings {
        app.report.warning(&warning.render(&args.file));
    }
    app.report.note(
        "\nNext: read both files, then\n  orchestrator check\n  orchestrator deploy --hosts fleet.toml --accept-new-host-keys",
    );
    Ok(Exit::Ok)
}

/// The configuration without what has moved elsewhere.
fn toml(from: &Path, entries: &[Entry], secret: bool) -> String {
    const MOVED: [&str; 4] = [
        "executor_management.executors",
        "ssh_session.miner_executor_key_path",
        "ssh_session.default_executor_username",
        "security.jwt_secret",
    ];
    let mut out = format!(
        "# From {}. Every key there is: config/orchestrator.toml, or `orchestrator init`.\n",
        crate::printable::printable(&from.display().to_string())
    );
    let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
    for entry in entries {
        let Some((name, key)) = entry.key.rsplit_once('.') else { continue };
        let line = match &entry.source {
            Source::Default | Source::Environment { .. } => continue,
            Source::Ignored { because, .. } => format!("# {key} is left out: {because}"),
            Source::File { .. } if entry.key == "security.jwt_secret" && secret => {
                "jwt_secret_file = \"jwt-secret\"".to_owned()
            }
            Source::File { .. } if MOVED.contains(&entry.key.as_str()) => continue,
            Source::File { .. } => format!("{key} = {}", entry.value),
        };
        match sections.iter_mut().find(|(section, _)| *section == name) {
            Some((_, lines)) => lines.push(line),
            None => sections.push((name, vec![line])),
        }
    }
    for (section, lines) in sections {
        let _infallible = writeln!(out, "\n[{section}]\n{}", lines.join("\n"));
    }
    out
}

fn write_secret(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let _absent = std::fs::remove_file(path);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)?;
    file.write_all(b"\n")
}

fn init_failure(error: InitError) -> Failure {
    let exists = matches!(error, InitError::Exists { .. });
    let failure = Failure::user("cannot write the files").because(error);
    if exists { failure.hint("--force overwrites them") } else { failure }
}

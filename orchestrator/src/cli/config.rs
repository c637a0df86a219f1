//! `orchestrator config`.

pub mod findings;
mod migrate;

use std::path::PathBuf;

use serde_json::json;

use self::findings::{Finding, Severity};
use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;
use super::settings::{self, Settings};
use crate::config::Source;

/// The configuration: check it, show what holds, take over a miner's
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read it and everything that it names, and say what is wrong and what is ignored
    Validate {
        /// The file; without it the one that every command reads
        file: Option<PathBuf>,
    },
    /// Print every key with its value and where that comes from; secrets stay hidden
    Show {
        /// Only keys that differ from their default or are ignored
        #[arg(long)]
        changed: bool,
    },
    Migrate(migrate::Args),
}

pub fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::Validate { file: None } => validate(app, &app.settings),
        Action::Validate { file: Some(file) } => {
            validate(app, &settings::read(Some(file), &app.environment.home)?)
        }
        Action::Show { changed } => {
            show(app, changed);
            Ok(Exit::Ok)
        }
        Action::Migrate(args) => migrate::run(app, &args),
    }
}

fn validate(app: &App<'_>, settings: &Settings) -> Result<Exit, Failure> {
    let findings = findings::of(settings);
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    app.report.json(&json!({ "ok": errors == 0, "file": settings.file, "findings": findings }));
    tell(app, &findings);
    let file = match &settings.file {
        Some(path) => path.display().to_string(),
        None => "no configuration file; the built-in defaults".to_owned(),
    };
    if errors > 0 {
        let failure = format!("{file}: {errors} of its settings cannot be used");
        app.report.note(&app.report.err_tone(&failure, Tone::Bad));
        return Ok(Exit::User);
    }
    app.report.result(&format!("{file}: {}", app.report.out_tone("good", Tone::Good)));
    Ok(Exit::Ok)
}

/// Says what was found, in words.
pub fn tell(app: &App<'_>, findings: &[Finding]) {
    for finding in findings {
        match finding.severity {
            Severity::Warning => app.report.warning(&finding.message),
            Severity::Error => {
                app.report.trouble(&finding.message, &finding.causes, finding.hint.as_deref());
            }
        }
    }
}

fn show(app: &App<'_>, changed: bool) {
    let entries = &app.settings.reading.entries;
    let entries: Vec<_> =
        entries.iter().filter(|entry| !changed || entry.source != Source::Default).collect();
    app.report.json(&json!({ "file": app.settings.file, "entries": entries }));
    let file = match &app.settings.file {
        Some(path) => path.display().to_string(),
        None => String::new(),
    };
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let (source, tone) = match &entry.source {
                Source::Default => ("default".to_owned(), Some(Tone::Dim)),
                Source::File { line } => (format!("{file}:{line}"), None),
                Source::Environment { variable } => (format!("${variable}"), None),
                Source::Ignored { line, because } => {
                    (format!("{file}:{line}: ignored: {because}"), Some(Tone::Warn))
                }
            };
            vec![(entry.key.clone(), None), (entry.value.clone(), None), (source, tone)]
        })
        .collect();
    app.report.table(&["KEY", "VALUE", "FROM"], &rows);
}

//! `orchestrator verify-proof`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use pow_kernels::{ModelTable, Outcome, Status};
use serde_json::{Value, json};

use super::app::App;
use super::failure::{Exit, Failure};
use super::models;
use super::verify::{conclude, no_key, sentence, state_folder, table};
use crate::fleet::short_uuid;
use crate::pow::{self, CheckRow, Examination, MAX_DOCUMENT_BYTES, SignedProof};
use crate::reason::Reason;
use crate::signing_key::SigningKey;

/// The most proofs of one file: those of a large host that was held for a long time.
const MAX_DOCUMENTS: usize = 4096;

/// Check signed proofs again, offline: who signed them, and every check of the verifier
///
/// Reads files and asks nobody; a file has one proof a line. A proof of which any byte was changed is
/// refused, and so is one that another orchestrator signed, unless --signer names its key. Times are
/// judged by the model table of this program, or of --models. Exit status 4 when a check fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The files that `verify --proof-out` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Let a proof of the CPU reference pass: it proves nothing of a GPU
    #[arg(long)]
    allow_reference: bool,
    /// The model table that the times are judged by, where it is not the built-in one
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// The public key that must have signed them, in hexadecimal; without it this orchestrator's own
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    signer: Option<[u8; 32]>,
}

/// One proof and what was found.
struct Examined {
    /// The file, and the line where it has several.
    place: String,
    document: Option<SignedProof>,
    found: Examination,
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let trusted = match args.signer {
        Some(key) => vec![key],
        None => {
            let own = SigningKey::load(&state_folder(app)).map_err(no_key)?;
            own.iter().map(SigningKey::public_key).collect()
        }
    };
    let (table, _) = models::load(args.models.as_deref())?;
    check(app, &args.files, &trusted, &table, args.allow_reference)
}

/// Examines every proof of these files, and shows what was found.
pub fn check(
    app: &App<'_>,
    files: &[PathBuf],
    trusted: &[[u8; 32]],
    table: &ModelTable,
    allow_reference: bool,
) -> Result<Exit, Failure> {
    let mut all = Vec::new();
    for file in files {
        let lines = lines(file)?;
        let several = lines.len() > 1;
        for (number, line) in lines.iter().enumerate() {
            let place = match several {
                true => format!("{}, line {}", file.display(), number + 1),
                false => file.display().to_string(),
            };
            all.push(examined(place, line, trusted, table, allow_reference)?);
        }
    }
    tell(app, &all);
    let passed = all.iter().all(|one| one.found.passed);
    Ok(if passed { Exit::Ok } else { Exit::Negative })
}

/// The lines of a file with their ends, at least one.
fn lines(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let cannot = || Failure::user(format!("cannot read the proof {}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| cannot().because(error))?;
    let mut reader = BufReader::new(file);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = (&mut reader)
            .take(MAX_DOCUMENT_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|error| cannot().because(error))?;
        if read == 0 && !lines.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
        if read == 0 {
            return Ok(lines);
        }
        if lines.len() > MAX_DOCUMENTS {
            return Err(Failure::user(format!(
                "{} has more than {MAX_DOCUMENTS} lines",
                path.display()
            )));
        }
    }
}

fn examined(
    place: String,
    text: &[u8],
    trusted: &[[u8; 32]],
    table: &ModelTable,
    allow_reference: bool,
) -> Result<Examined, Failure> {
    match SignedProof::from_json(text) {
        Ok(document) => {
            let found =
                pow::examine(&document, trusted, table, allow_reference).map_err(|error| {
                    Failure::user(format!("cannot examine the proof {place}")).because(error)
                })?;
            Ok(Examined { place, document: Some(document), found })
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let why = source.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
            let detail = crate::printable::printable(&why);
            let checks = vec![CheckRow { check: "document", status: Status::Failed, detail }];
            let found = Examination { checks, outcome: Outcome::Rejected, passed: false };
            Ok(Examined { place, document: None, found })
        }
    }
}

impl Examined {
    fn message(&self) -> String {
        match (&self.document, self.found.first_failure()) {
            (None, Some(row)) => row.detail.clone(),
            (Some(_), Some(row)) => format!("{}: {}", row.check, row.detail),
            (document, None) => {
                let backend = document.as_ref().map(|document| document.record.proof.backend);
                backend.map_or_else(String::new, |backend| {
                    sentence(self.found.passed, self.found.outcome, backend).to_owned()
                })
            }
        }
    }

    /// Which GPU of which host.
    fn name(&self) -> String {
        let Some(document) = &self.document else { return "refused".to_owned() };
        let record = &document.record;
        let gpu = match &record.gpu {
            Some(gpu) => format!("GPU {}", short_uuid(&crate::printable::printable(&gpu.uuid))),
            None => "the CPU reference".to_owned(),
        };
        let held = match record.held {
            Some(number) => format!(", later probe {number}"),
            None => String::new(),
        };
        format!("host {}, {gpu}{held}", record.host)
    }

    fn json(&self) -> Value {
        let record = self.document.as_ref().map(|document| &document.record);
        json!({
            "file": self.place,
            "ok": self.found.passed,
            "reason": (!self.found.passed).then_some(Reason::Rejected),
            "message": self.message(),
            "host": record.map(|record| &record.host),
            "gpu": record.and_then(|record| record.gpu.as_ref()),
            "held": record.and_then(|record| record.held),
            "backend": record.map(|record| pow::backend_name(record.proof.backend)),
            "outcome": pow::outcome_name(self.found.outcome),
            "failed_check": self.found.first_failure().map(|row| row.check),
            "checks": self.found.checks,
            "transcript": record.map(|record| record.transcript),
            "timings": record.map(|record| &record.timings),
            "signer": self.document.as_ref().map(|document| document.signer),
            "runner": record.map(|record| &record.runner),
        })
    }
}

fn tell(app: &App<'_>, all: &[Examined]) {
    let worst = all.iter().find(|one| !one.found.passed).or_else(|| all.first());
    app.report.json(&json!({
        "ok": all.iter().all(|one| one.found.passed),
        "reason": all.iter().any(|one| !one.found.passed).then_some(Reason::Rejected),
        "message": worst.map(|one| format!("{}: {}", one.place, one.message())),
        "outcome": worst.map(|one| pow::outcome_name(one.found.outcome)),
        "failed_check": worst.and_then(|one| one.found.first_failure()).map(|row| row.check),
        "proofs": all.iter().map(Examined::json).collect::<Vec<_>>(),
    }));
    for one in all {
        // All the checks of a single proof; of several only what is wrong.
        if all.len() == 1 || !one.found.passed {
            table(app, &one.found.checks);
        }
        if let Some(document) = &one.document {
            let words = format!("{}, signed by {}", one.name(), document.signer);
            app.report.result(&words);
        }
        let sentence = format!("{}: {}", one.place, one.message());
        conclude(app, &sentence, one.found.passed, one.found.outcome);
    }
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key: Result<runner_protocol::ByteArray<32>, _> =
        serde_json::from_value(serde_json::Value::String(text.to_owned()));
    key.map(|key| key.0).map_err(|_| "64 lower-case hexadecimal digits are needed".to_owned())
}

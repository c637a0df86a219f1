//! `orchestrator verify-proof`.

use std::io::Read as _;
use std::path::PathBuf;

use pow_kernels::{Outcome, Status};
use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use super::verify::{conclude, no_key, sentence, state_folder, table};
use crate::pow::{self, CheckRow, MAX_DOCUMENT_BYTES, SignedProof};
use crate::reason::Reason;
use crate::signing_key::SigningKey;

/// Check a signed proof again, offline: who signed it, and every check of the verifier
///
/// Reads one file and asks nobody. A file of which any byte was changed is refused, and so is one
/// that another orchestrator signed, unless --signer names its key. Exit status 4 when a check fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file that `verify --proof-out` wrote
    file: PathBuf,
    /// Let a proof of the CPU reference pass: it proves nothing of a GPU
    #[arg(long)]
    allow_reference: bool,
    /// The public key that must have signed it, in hexadecimal; without it this orchestrator's own
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    signer: Option<[u8; 32]>,
}

pub fn run(app: &App<'_>, args: &Args) -> Result<Exit, Failure> {
    let shown = args.file.display();
    let cannot = || Failure::user(format!("cannot read the proof {shown}"));
    let mut text = Vec::new();
    std::fs::File::open(&args.file)
        .and_then(|file| file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut text))
        .map_err(|error| cannot().because(error))?;
    let trusted = match args.signer {
        Some(key) => vec![key],
        None => {
            let own = SigningKey::load(&state_folder(app)).map_err(no_key)?;
            own.iter().map(SigningKey::public_key).collect()
        }
    };
    let document = match SignedProof::from_json(&text) {
        Ok(document) => document,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let why = source.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
            let detail = crate::printable::printable(&why);
            let row = CheckRow { check: "document", status: Status::Failed, detail };
            app.report.json(&json!({
                "ok": false,
                "reason": Reason::Rejected,
                "message": row.detail,
                "outcome": pow::outcome_name(Outcome::Rejected),
                "failed_check": row.check,
                "checks": [&row],
            }));
            table(app, &[row]);
            conclude(app, &format!("{shown}: refused"), false, Outcome::Rejected);
            return Ok(Exit::Negative);
        }
    };
    let found = pow::examine(&document, &trusted, args.allow_reference)
        .map_err(|error| cannot().because(error))?;
    let record = &document.record;
    let message = sentence(found.passed, found.outcome, record.proof.backend);
    app.report.json(&json!({
        "ok": found.passed,
        "reason": (!found.passed).then_some(Reason::Rejected),
        "message": message,
        "host": record.host,
        "backend": pow::backend_name(record.proof.backend),
        "outcome": pow::outcome_name(found.outcome),
        "failed_check": found.first_failure().map(|row| row.check),
        "checks": found.checks,
        "transcript": record.transcript,
        "timings": record.timings,
        "signer": document.signer,
        "runner": record.runner,
    }));
    table(app, &found.checks);
    app.report.result(&format!("\nhost {}, signed by {}", record.host, document.signer));
    conclude(app, &format!("{shown}: {message}"), found.passed, found.outcome);
    Ok(if found.passed { Exit::Ok } else { Exit::Negative })
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key: Result<runner_protocol::ByteArray<32>, _> =
        serde_json::from_value(serde_json::Value::String(text.to_owned()));
    key.map(|key| key.0).map_err(|_| "64 lower-case hexadecimal digits are needed".to_owned())
}

//! `orchestrator verify`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pow_kernels::{Backend, Outcome, Status};
use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::fleet::{self, Verified, VerifyError, VerifyOptions, VerifyStep};
use crate::ids::HostName;
use crate::pow::{self, CheckRow};
use crate::reason::Reason;
use crate::signing_key::{SigningKey, SigningKeyError};

/// Challenge a host to prove its GPU, and judge the answer here
///
/// The CUDA backend is not built yet: without --allow-reference the command says what the host
/// lacks, and never takes the CPU instead. The reference backend shows that the way to the host,
/// the protocol and the verifier work, and nothing of a GPU. Exit status 4 when the proof is
/// rejected.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    host: String,
    /// Ask the CPU reference instead of a GPU, and let its proof pass: it proves nothing of a GPU
    #[arg(long)]
    allow_reference: bool,
    /// Write the signed proof to this file, which must not exist; `verify-proof` checks it offline
    #[arg(long, value_name = "FILE")]
    proof_out: Option<PathBuf>,
    /// The fleet file, for a host that was never deployed to
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// The runner to upload if it is missing; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let spec = app.spec_of(&args.host, args.hosts.as_deref()).await?;
    let artifact = Arc::new(app.artifact(args.runner.as_deref())?);
    if let Some(path) = &args.proof_out {
        refuse_existing(path)?;
    }
    let fleet = app.fleet(std::slice::from_ref(&spec), false).await?;
    let key = SigningKey::load_or_create(&state_folder(app)).map_err(no_key)?;
    let options =
        VerifyOptions { artifact, allow_reference: args.allow_reference, key: Arc::new(key) };
    if args.allow_reference {
        app.report.warning("the CPU reference is asked: it proves nothing of a GPU");
    }
    let started = Instant::now();
    let name = spec.name.clone();
    let on_step = |step| app.report.note(&format!("{name}: {}", words(step)));
    let verified = fleet::verify(&fleet, &spec, &options, &on_step, &app.cancel)
        .await
        .map_err(|error| failed(&name, error))?;
    if let Some(path) = &args.proof_out {
        write_new(path, &verified.document_json)?;
    }
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    show(app, &name, &verified, args.proof_out.as_deref(), elapsed_ms);
    Ok(if verified.passed { Exit::Ok } else { Exit::Negative })
}

/// Where the database is, and the signing key beside it.
pub fn state_folder(app: &App<'_>) -> PathBuf {
    match app.database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The failure for want of a signing key.
pub fn no_key(error: SigningKeyError) -> Failure {
    let hint = error.hint();
    let failure = Failure::user("there is no key to sign proofs with").because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn failed(name: &HostName, error: VerifyError) -> Failure {
    let (reason, hint) = (error.reason(), error.hint());
    match error {
        VerifyError::Cancelled => Failure::interrupted(),
        VerifyError::Store(error) => error.into(),
        error => {
            let failure = Failure::remote(format!("cannot verify {name}"), reason).because(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
    }
}

fn words(step: VerifyStep) -> &'static str {
    match step {
        VerifyStep::Connecting => "connecting",
        VerifyStep::Starting => "starting the runner",
        VerifyStep::Preparing => "preparing",
        VerifyStep::Filling => "filling the memory",
        VerifyStep::Probing => "walking and multiplying it",
        VerifyStep::Opening => "opening the commitments",
        VerifyStep::Judging => "judging the proof",
    }
}

fn show(
    app: &App<'_>,
    name: &HostName,
    verified: &Verified,
    proof_file: Option<&Path>,
    elapsed_ms: u64,
) {
    let verdict = &verified.verdict;
    let record = &verified.document.record;
    let message = sentence(verified.passed, verdict.outcome(), verified.backend);
    app.report.json(&json!({
        "host": name,
        "ok": verified.passed,
        "reason": (!verified.passed).then_some(Reason::Rejected),
        "message": message,
        "elapsed_ms": elapsed_ms,
        "backend": pow::backend_name(verified.backend),
        "outcome": pow::outcome_name(verdict.outcome()),
        "failed_check": verdict.first_failure().map(|result| result.check.name()),
        "checks": verdict.checks,
        "evidence": verdict.evidence,
        "challenge": verified.challenge,
        "transcript": record.transcript,
        "timings": verified.timings,
        "signer": verified.document.signer,
        "runner": record.runner,
        "proof_file": proof_file,
    }));
    let rows: Vec<CheckRow> = verdict
        .checks
        .iter()
        .map(|result| CheckRow {
            check: result.check.name(),
            status: result.status,
            detail: result.detail.clone(),
        })
        .collect();
    table(app, &rows);
    let ms = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10);
    let products: Vec<String> = verified.timings.gemm_ns.iter().map(|ns| ms(*ns)).collect();
    app.report.result(&format!(
        "\nmeasured here: fill {}, chains {}, products {}",
        verified.timings.fill_ns.map_or_else(|| "-".to_owned(), ms),
        ms(verified.timings.chain_ns),
        products.join(", ")
    ));
    app.report
        .result(&format!("challenge {}, transcript {}", verified.challenge, record.transcript));
    if let Some(path) = proof_file {
        app.report.result(&format!("signed proof: {}", path.display()));
    }
    conclude(app, &format!("{name}: {message}"), verified.passed, verdict.outcome());
}

/// The checks, one line each.
pub fn table(app: &App<'_>, rows: &[CheckRow]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (word, tone) = match row.status {
                Status::Passed => ("passed", Tone::Good),
                Status::Failed => ("failed", Tone::Bad),
                Status::NotJudged => ("not judged", Tone::Warn),
            };
            vec![
                (row.check.to_owned(), None),
                (word.to_owned(), Some(tone)),
                (row.detail.clone(), None),
            ]
        })
        .collect();
    app.report.table(&["CHECK", "RESULT", "DETAIL"], &rows);
}

/// The verdict in one sentence.
pub fn sentence(passed: bool, outcome: Outcome, backend: Backend) -> &'static str {
    match (outcome, backend, passed) {
        (Outcome::Accepted, _, true) => "the proof is accepted",
        (Outcome::Unproven, Backend::Reference, true) => {
            "reference backend: the answer is right, and nothing is shown of a GPU"
        }
        (Outcome::Rejected, Backend::Reference, _) => "the proof of the reference is rejected",
        (Outcome::Rejected, Backend::Cuda, _) => "the proof is rejected",
        (_, Backend::Reference, _) => "reference backend: nothing is proven",
        (_, Backend::Cuda, _) => "nothing failed, and not everything could be judged: not proven",
    }
}

/// The last line.
pub fn conclude(app: &App<'_>, sentence: &str, passed: bool, outcome: Outcome) {
    let tone = match (passed, outcome) {
        (true, Outcome::Accepted) => Tone::Good,
        (true, _) => Tone::Warn,
        (false, _) => Tone::Bad,
    };
    app.report.result(&app.report.out_tone(sentence, tone));
}

/// Evidence is not overwritten; better known before the host is asked.
fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::user(format!("{} exists already", path.display()))
            .hint("a proof is not written over another file: choose another name"));
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| {
        Failure::user(format!("cannot write the proof to {}", path.display()))
            .because(error)
            .hint("the verdict and the proof are in the database all the same")
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map(|_| ()).map_err(|error| failed(error.error))
}

//! `orchestrator verify`.

mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pow_kernels::{Backend, Evidence, Mode, Outcome, Status};
use runner_protocol::ByteArray;
use runner_protocol::prove::Device;
use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;
use super::{models, new_file};
use crate::fleet::{
    self, Fleet, GpuReport, GpuVerdict, HostVerdict, VerifyError, VerifyOptions, short_uuid,
};
use crate::host_spec::{AgentSocket, ContainerRules, Endpoint, HostMode, HostSpec};
use crate::ids::HostName;
use crate::pow::{self, CheckRow};
use crate::reason::Reason;
use crate::signing_key::{SigningKey, SigningKeyError};

pub use view::View;

/// What a proof is called where it is written.
const PROOF: &str = "the proof";

/// Challenge a host to prove its GPUs, all of them at once, and judge the answers here
///
/// Every GPU fills its memory with fresh data, walks it and multiplies it, while the clock runs here.
/// The model that a GPU is challenged as is the fleet file's claim, or what its driver says where
/// nothing is claimed. Where only times are wrong, all GPUs are challenged again, up to --tries. Exit
/// status 4 when a GPU is rejected or is not what is claimed, 5 when one could not be challenged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    #[arg(required_unless_present = "local", conflicts_with = "local")]
    host: Option<String>,
    /// This machine instead of a host: no SSH, and no entry in the GPU ledger
    #[arg(long)]
    local: bool,
    /// Only this GPU, by its UUID; more than once for several. Cards that are not asked could answer
    /// for those that are
    #[arg(long, value_name = "UUID")]
    gpu: Vec<String>,
    /// How long the challenge is: `quick`, `deep` for slow lines, or `hold` to probe the filled memory
    /// again at random moments
    #[arg(long, value_name = "MODE", default_value = "quick")]
    mode: ModeName,
    /// With `--mode hold`: how long the memory is held, such as 90s or 10m (default 60s)
    #[arg(long, value_name = "TIME", value_parser = hold_time)]
    hold_for: Option<Duration>,
    /// How often to challenge where nothing but times is wrong
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    tries: u32,
    /// A model table of your own, as `calibrate` writes one
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// Ask the CPU reference instead of a GPU, and let its proof pass: it proves nothing of a GPU
    #[arg(long, conflicts_with_all = ["gpu", "models", "mode"])]
    allow_reference: bool,
    /// Write the signed proofs to this file, which must not exist; `verify-proof` checks it offline
    #[arg(long, value_name = "FILE")]
    proof_out: Option<PathBuf>,
    /// The fleet file, for a host that was never deployed to
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    hosts: Option<PathBuf>,
    /// The runner to upload if it is missing; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeName {
    Quick,
    Deep,
    Hold,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Quick => Self::Quick,
            ModeName::Deep => Self::Deep,
            ModeName::Hold => Self::Hold,
        }
    }
}

fn hold_time(text: &str) -> Result<Duration, String> {
    // The runner gives a GPU back that nobody has asked anything for an hour.
    const LONGEST: Duration = Duration::from_secs(50 * 60);
    let time = crate::config::duration::parse(text).map_err(|error| error.to_string())?;
    if time.is_zero() || time > LONGEST {
        return Err("a memory is held for some time, and for 50 minutes at most".to_owned());
    }
    Ok(time)
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    if args.hold_for.is_some() && args.mode != ModeName::Hold {
        return Err(Failure::user("--hold-for is of --mode hold alone"));
    }
    let spec = spec(app, args.host.as_deref(), args.hosts.as_deref()).await?;
    let artifact = Arc::new(app.artifact(args.runner.as_deref())?);
    let (models, models_name) = models::load(args.models.as_deref())?;
    if let Some(path) = &args.proof_out {
        new_file::refuse_existing(path, PROOF)?;
    }
    let reached: &[HostSpec] = if args.local { &[] } else { std::slice::from_ref(&spec) };
    let fleet = app.fleet(reached, false).await?;
    let key = Arc::new(SigningKey::load_or_create(&state_folder(app)).map_err(no_key)?);
    let options = VerifyOptions {
        gpus: args.gpu,
        mode: args.mode.into(),
        hold_for: args.hold_for.unwrap_or(Duration::from_secs(60)),
        tries: args.tries,
        models,
        models_name,
        allow_reference: args.allow_reference,
        local: args.local,
        ..VerifyOptions::new(artifact, key)
    };
    challenge(app, &fleet, &spec, &options, args.proof_out.as_deref()).await
}

/// Challenges a host, shows what came of it, and writes the signed proofs to a new file.
pub async fn challenge(
    app: &App<'_>,
    fleet: &Fleet,
    spec: &HostSpec,
    options: &VerifyOptions,
    proof_out: Option<&Path>,
) -> Result<Exit, Failure> {
    if options.allow_reference {
        app.report.warning("the CPU reference is asked: it proves nothing of a GPU");
    }
    let started = Instant::now();
    let view = View::new(app.report, &spec.name);
    let verified =
        fleet::verify(fleet, spec, options, &|event| view.show(event), &app.cancel).await;
    view.finish();
    let verdict = verified.map_err(|error| failed("verify", &spec.name, error))?;
    let documents = documents(&verdict)?;
    let proof_file = proof_out.filter(|_| !documents.is_empty());
    if let Some(path) = proof_file {
        new_file::write_new(path, PROOF, &documents).map_err(|failure| {
            failure.hint("the verdicts and the proofs are in the database all the same")
        })?;
    }
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    show(app, &verdict, options, proof_file, elapsed_ms);
    Ok(exit(&verdict))
}

/// The host that is meant, or this machine.
pub async fn spec(
    app: &App<'_>,
    host: Option<&str>,
    hosts: Option<&Path>,
) -> Result<HostSpec, Failure> {
    match host {
        Some(host) => app.spec_of(host, hosts).await,
        None => Ok(this_machine(app)?),
    }
}

fn this_machine(app: &App<'_>) -> Result<HostSpec, Failure> {
    let name = app.host_name("localhost")?;
    let endpoint = Endpoint {
        address: "localhost".to_owned(),
        port: 0,
        user: app.environment.local_user.clone().unwrap_or_default(),
        identity_files: Vec::new(),
        certificate_files: Vec::new(),
        agent: AgentSocket::Disabled,
        host_key: None,
        host_key_alias: None,
        known_hosts_files: Vec::new(),
    };
    Ok(HostSpec {
        name,
        endpoint,
        proxy_jump: Vec::new(),
        mode: HostMode::Ssh,
        gpus: None,
        labels: std::collections::BTreeMap::new(),
        work_dir: None,
        containers: ContainerRules::default(),
    })
}

/// A judgement is a negative verdict; what could not be judged is a host that did not do it.
fn exit(verdict: &HostVerdict) -> Exit {
    let judged = verdict.gpus.iter().any(|gpu| !gpu.passed && gpu.outcome.is_some());
    let claimed = verdict.checks.iter().any(|row| row.status == Status::Failed);
    match verdict.passed {
        true => Exit::Ok,
        false if judged || claimed => Exit::Negative,
        false => Exit::Remote,
    }
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

/// The failure of a verification or a calibration.
pub fn failed(verb: &str, name: &HostName, error: VerifyError) -> Failure {
    let (reason, hint) = (error.reason(), error.hint());
    match error {
        VerifyError::Cancelled => Failure::interrupted(),
        VerifyError::Store(error) => error.into(),
        error => {
            let failure = Failure::remote(format!("cannot {verb} {name}"), reason).because(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
    }
}

fn documents(verdict: &HostVerdict) -> Result<String, Failure> {
    let all: Result<String, _> = verdict.gpus.iter().map(GpuVerdict::documents).collect();
    all.map_err(|error| Failure::user("cannot write the proofs as documents").because(error))
}

fn show(
    app: &App<'_>,
    verdict: &HostVerdict,
    options: &VerifyOptions,
    proof_file: Option<&Path>,
    elapsed_ms: u64,
) {
    let gpus: Vec<GpuReport<'_>> = verdict.gpus.iter().map(GpuReport::from).collect();
    app.report.json(&json!({
        "host": verdict.host,
        "ok": verdict.passed,
        "reason": verdict.reason,
        "message": verdict.message,
        "elapsed_ms": elapsed_ms,
        "mode": pow::mode_name(verdict.mode),
        "tries": verdict.tries,
        "rtt_ns": verdict.rtt_ns,
        "allowance_ns": verdict.allowance_ns,
        "models": options.models_name,
        "checks": verdict.checks,
        "gpus": gpus,
        "signer": ByteArray(options.key.public_key()),
        "runner": options.artifact.sha256,
        "proof_file": proof_file,
    }));
    if let [only] = verdict.gpus.as_slice()
        && !only.checks.is_empty()
    {
        table(app, &only.checks);
        app.report.result("");
    }
    summary(app, &verdict.gpus);
    if !verdict.checks.is_empty() {
        app.report.result("");
        table(app, &verdict.checks);
    }
    app.report.result("");
    for gpu in &verdict.gpus {
        beside(app, gpu, verdict.gpus.len() > 1);
    }
    if let Some(ns) = verdict.rtt_ns {
        let tries = match verdict.tries {
            0 | 1 => String::new(),
            several => format!(", {several} tries"),
        };
        app.report.result(&format!(
            "measured here, {} mode{tries}: round trip {} ms, allowed to the network {} ms",
            pow::mode_name(verdict.mode),
            ms(ns),
            ms(verdict.allowance_ns)
        ));
    }
    if let Some(path) = proof_file {
        app.report.result(&format!("signed proofs: {}", path.display()));
    }
    let outcome = verdict.gpus.iter().filter_map(|gpu| gpu.outcome).next();
    let sentence = format!("{}: {}", verdict.host, verdict.message);
    conclude(app, &sentence, verdict.passed, outcome.unwrap_or(Outcome::Rejected));
}

/// One line for each GPU.
fn summary(app: &App<'_>, gpus: &[GpuVerdict]) {
    let dash = || "-".to_owned();
    let rows: Vec<_> = gpus
        .iter()
        .map(|gpu| {
            let timings = gpu.probes.first().map(|probe| &probe.timings);
            let slowest = timings.and_then(|timings| timings.gemm_ns.iter().max().copied());
            let (word, tone) = match (gpu.outcome, gpu.passed) {
                (Some(outcome), true) => (pow::outcome_name(outcome).to_owned(), Tone::Good),
                (Some(outcome), false) => (pow::outcome_name(outcome).to_owned(), Tone::Bad),
                (None, _) => {
                    let reason = gpu.reason.unwrap_or(Reason::Bug);
                    (format!("failed [{reason}]"), Tone::Bad)
                }
            };
            vec![
                (gpu.gpu.as_ref().map_or_else(dash, |gpu| gpu.index.to_string()), None),
                (gpu.gpu.as_ref().map_or_else(dash, |gpu| short_uuid(&gpu.uuid)), None),
                (
                    gpu.model.as_ref().map_or_else(|| model_words(gpu), |(name, _)| name.clone()),
                    None,
                ),
                (timings.and_then(|timings| timings.fill_ns).map_or_else(dash, ms), None),
                (timings.map_or_else(dash, |timings| ms(timings.chain_ns)), None),
                (slowest.map_or_else(dash, ms), None),
                (word, Some(tone)),
                (gpu.first_failure().map_or_else(dash, |row| row.check.to_owned()), None),
            ]
        })
        .collect();
    let headers =
        ["GPU", "UUID", "MODEL", "FILL MS", "CHAIN MS", "GEMM MS", "VERDICT", "FAILED CHECK"];
    app.report.table(&headers, &rows);
}

fn model_words(gpu: &GpuVerdict) -> String {
    match &gpu.gpu {
        Some(gpu) => gpu.name.clone(),
        None => "CPU reference".to_owned(),
    }
}

/// What the table has no room for.
fn beside(app: &App<'_>, gpu: &GpuVerdict, several: bool) {
    let name = gpu.short_name();
    if gpu.gpu.as_ref().is_some_and(|gpu| gpu.name.starts_with(Device::STAND_IN)) {
        app.report.warning(&format!(
            "{name} says that it is a stand-in for tests: nothing is shown of a GPU"
        ));
    }
    if let Some(observed) = &gpu.observed {
        let throttled = observed.throttled();
        if !throttled.is_empty() {
            let words = format!("{name}: its clocks were held down: {}", throttled.join(", "));
            app.report.result(&app.report.out_tone(&words, Tone::Warn));
        }
    }
    if let Some((model, source)) = &gpu.model {
        let who = match source {
            fleet::ModelSource::FleetFile => "as the fleet file claims",
            fleet::ModelSource::Driver => "as its driver says",
        };
        let evidence = match gpu.evidence {
            Some(Evidence::Modelled) => "; its times are modelled, not measured",
            Some(Evidence::Measured) => "; its times were measured on a trusted card",
            None => "",
        };
        app.report.note(&format!("{name}: challenged as {model}, {who}{evidence}"));
    }
    if !gpu.passed {
        if several {
            app.report.result(&format!("{name}: {}", gpu.message));
        }
        if let Some(hint) = &gpu.hint {
            app.report.note(&format!("{name}: hint: {hint}"));
        }
    }
    if let (Some(challenge), Some(probe)) = (&gpu.challenge, gpu.probes.first()) {
        let transcript = probe.document.record.transcript;
        app.report.result(&format!("{name}: challenge {challenge}, transcript {transcript}"));
    }
}

/// Nanoseconds as milliseconds.
pub fn ms(ns: u64) -> String {
    format!("{}.{}", ns / 1_000_000, ns / 100_000 % 10)
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
    fleet::sentence(passed, outcome, backend)
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

//! `orchestrator calibrate`.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::app::App;
use super::failure::{Exit, Failure};
use super::verify::{View, failed, no_key, spec, state_folder};
use super::{models, new_file};
use crate::fleet::{self, CalibrateError, Calibration, VerifyEvent, VerifyOptions, VerifyStep};
use crate::host_spec::HostSpec;
use crate::signing_key::SigningKey;

const TABLE: &str = "the model table";

/// Measure a GPU that you trust, and write a model table for `verify --models`
///
/// Runs whole challenges on one card, with the sizes of the model table or, for a model that it does
/// not know, with sizes from the card's memory. Every answer is checked. The band of each phase reaches
/// to six standard deviations over its mean. Use it on a card that you have in your hands: what is
/// measured on a liar's card is a liar's band. The CPU reference is never measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    #[arg(required_unless_present = "local", conflicts_with = "local")]
    host: Option<String>,
    /// This machine instead of a host
    #[arg(long)]
    local: bool,
    /// The GPU, by its UUID; needed where the host has different ones
    #[arg(long, value_name = "UUID")]
    gpu: Option<String>,
    /// How many challenges of each mode to measure, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1000))]
    runs: u32,
    /// Write the table with the measured model to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The model table to begin with, where it is not the built-in one
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// The fleet file, for a host that was never deployed to
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    hosts: Option<PathBuf>,
    /// The runner to upload if it is missing; without it the one beside this program
    #[arg(long, value_name = "FILE", env = "ORCHESTRATOR_RUNNER")]
    runner: Option<PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let spec = spec(app, args.host.as_deref(), args.hosts.as_deref()).await?;
    let artifact = Arc::new(app.artifact(args.runner.as_deref())?);
    let (models, models_name) = models::load(args.models.as_deref())?;
    if let Some(path) = &args.out {
        new_file::refuse_existing(path, TABLE)?;
    }
    let reached: &[HostSpec] = if args.local { &[] } else { std::slice::from_ref(&spec) };
    let fleet = app.fleet(reached, false).await?;
    let key = Arc::new(SigningKey::load_or_create(&state_folder(app)).map_err(no_key)?);
    let options = VerifyOptions {
        gpus: args.gpu.into_iter().collect(),
        models,
        models_name,
        local: args.local,
        ..VerifyOptions::new(artifact, key)
    };
    let view = View::new(app.report, &spec.name);
    let on_event = |event| {
        // The steps of each run would be a flood; which run it is, is told instead.
        if let VerifyEvent::Step(VerifyStep::Connecting | VerifyStep::Starting) = event {
            view.show(event);
        }
    };
    let on_run = |mode: &'static str, run: u32| {
        let words = match run {
            0 => format!("{}: {mode}: warming up", spec.name),
            run => format!("{}: {mode}: run {run} of {}", spec.name, args.runs),
        };
        app.report.note(&words);
    };
    let done =
        fleet::calibrate(&fleet, &spec, &options, args.runs, &on_event, &on_run, &app.cancel).await;
    view.finish();
    let calibration = done.map_err(|error| match error {
        CalibrateError::Verify(error) => failed("calibrate", &spec.name, error),
        error => {
            let (reason, hint) = (error.reason(), error.hint());
            let what = format!("cannot calibrate with {}", spec.name);
            let failure = Failure::remote(what, reason).because(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
    })?;
    if let Some(path) = &args.out {
        new_file::write_new(path, TABLE, &table_text(&calibration, args.runs)?)?;
    }
    show(app, &calibration, args.out.as_deref());
    Ok(Exit::Ok)
}

/// The table as a file that says where its numbers are from.
fn table_text(calibration: &Calibration, runs: u32) -> Result<String, Failure> {
    let body = toml::to_string(&calibration.table)
        .map_err(|error| Failure::user("cannot write the model table").because(error))?;
    Ok(format!(
        "# Measured with `orchestrator calibrate`: {:?} from {runs} runs on {}.\n\
         # The other models are those of the table that it began with.\n\n{body}",
        calibration.model.name, calibration.gpu.uuid
    ))
}

fn show(app: &App<'_>, calibration: &Calibration, out: Option<&std::path::Path>) {
    app.report.json(&json!({
        "ok": true,
        "gpu": calibration.gpu,
        "model": calibration.model,
        "was_known": calibration.was_known,
        "phases": calibration.phases,
        "rtt_ns": calibration.rtt_ns,
        "table_file": out,
    }));
    let rows: Vec<_> = calibration
        .phases
        .iter()
        .map(|phase| {
            let statistics = &phase.statistics;
            let cells = [
                phase.mode.to_owned(),
                phase.phase.to_owned(),
                statistics.count.to_string(),
                ms(statistics.mean_ns),
                ms(statistics.p50_ns as f64),
                ms(statistics.p99_ns as f64),
                ms(statistics.sigma_ns),
                ms(phase.expected_us as f64 * 1000.0),
            ];
            cells.into_iter().map(|cell| (cell, None)).collect()
        })
        .collect();
    let headers =
        ["MODE", "PHASE", "TIMES", "MEAN MS", "P50 MS", "P99 MS", "SIGMA MS", "EXPECTED MS"];
    app.report.table(&headers, &rows);
    let known = if calibration.was_known { "known to the table" } else { "new to the table" };
    app.report.result(&format!(
        "\n{} ({}), {known}, measured on GPU {} {}",
        calibration.model.name, calibration.gpu.name, calibration.gpu.index, calibration.gpu.uuid
    ));
    match out {
        Some(path) => app.report.result(&format!("model table: {}", path.display())),
        None => app.report.note("nothing was written: --out FILE writes the table"),
    }
}

/// Nanoseconds as milliseconds.
fn ms(ns: f64) -> String {
    format!("{:.3}", ns / 1_000_000.0)
}

//! `orchestrator sweep history`.

use std::time::Duration;

use serde_json::json;

use crate::cli::app::{App, utc};
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;
use crate::config::duration;
use crate::store::{FindingRow, now_ms};

/// Show past sweeps; of one host its probes, and what was found from when to when
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host; without it the whole fleet
    host: Option<String>,
    /// How far back, for example 12h or 7d
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = duration::parse)]
    since: Duration,
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    let since_ms =
        now_ms().saturating_sub(i64::try_from(args.since.as_millis()).unwrap_or(i64::MAX));
    match &args.host {
        None => fleet(app, since_ms, args.limit).await,
        Some(host) => one(app, host, since_ms, args.limit).await,
    }
}

async fn fleet(app: &App<'_>, since_ms: i64, limit: u32) -> Result<Exit, Failure> {
    let store = app.store().await?;
    let sweeps = store.sweeps_since(since_ms, limit).await?;
    let findings = store.findings_since(None, since_ms, limit).await?;
    app.report.json(&json!({ "sweeps": sweeps, "findings": findings }));
    let number = |count: Option<i64>| count.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let rows: Vec<_> = sweeps
        .iter()
        .map(|sweep| {
            let took = match sweep.ended_ms {
                Some(end) => format!("{:.1} s", (end - sweep.started_ms) as f64 / 1000.0),
                None => "not ended".to_owned(),
            };
            vec![
                (utc(sweep.started_ms), None),
                (took, Some(Tone::Dim)),
                (sweep.hosts.to_string(), None),
                (number(sweep.well), Some(Tone::Good)),
                (number(sweep.troubled), Some(Tone::Warn)),
                (number(sweep.unreached), Some(Tone::Bad)),
                (number(sweep.not_probed), None),
                (sweep.started_by.clone(), Some(Tone::Dim)),
            ]
        })
        .collect();
    if rows.is_empty() {
        app.report.note("no sweeps in this time");
        return Ok(Exit::Ok);
    }
    let headers =
        ["SWEEP", "TOOK", "HOSTS", "WELL", "IN TROUBLE", "UNREACHABLE", "NOT PROBED", "BY"];
    app.report.table(&headers, &rows);
    show_findings(app, &findings, true);
    Ok(Exit::Ok)
}

async fn one(app: &App<'_>, host: &str, since_ms: i64, limit: u32) -> Result<Exit, Failure> {
    let record = app.known_host(host).await?;
    let store = app.store().await?;
    let name = &record.spec.name;
    let probes = store.probes_of(name, since_ms, limit).await?;
    let findings = store.findings_since(Some(name), since_ms, limit).await?;
    app.report.json(&json!({ "host": name, "probes": probes, "findings": findings }));
    let rows: Vec<_> = probes
        .iter()
        .map(|probe| {
            let tone = probe.state.parse().map_or(Tone::Dim, crate::cli::hosts::state_tone);
            let dash = || "-".to_owned();
            vec![
                (utc(probe.at_ms), None),
                (probe.state.clone(), Some(tone)),
                (if probe.reached { "yes" } else { "no" }.to_owned(), None),
                (probe.worst.clone().unwrap_or_else(dash), None),
                (probe.celsius.clone().unwrap_or_else(dash), None),
                (format!("{} ms", probe.elapsed_ms), Some(Tone::Dim)),
            ]
        })
        .collect();
    if rows.is_empty() {
        app.report.note("no sweep has looked at this host in this time");
        return Ok(Exit::Ok);
    }
    app.report.table(&["PROBE", "STATE", "REACHED", "WORST", "GPUS °C", "TOOK"], &rows);
    show_findings(app, &findings, false);
    Ok(Exit::Ok)
}

fn show_findings(app: &App<'_>, findings: &[FindingRow], with_host: bool) {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let gone = finding.resolved_ms.map_or_else(|| "not gone".to_owned(), utc);
            let tone = match finding.severity.as_str() {
                "critical" => Tone::Bad,
                "warning" => Tone::Warn,
                _ => Tone::Dim,
            };
            let host = if with_host { finding.host.clone() } else { String::new() };
            vec![
                (utc(finding.first_ms), None),
                (gone, None),
                (host, None),
                (finding.code.clone(), Some(tone)),
                (finding.subject.clone(), None),
                (finding.seen.clone(), None),
            ]
        })
        .collect();
    if !rows.is_empty() {
        app.report.result("");
        app.report.table(&["FOUND", "GONE", "HOST", "FINDING", "ABOUT", "SEEN"], &rows);
    }
}

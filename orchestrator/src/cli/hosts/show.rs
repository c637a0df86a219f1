//! `orchestrator hosts show`.

mod trends;

use runner_protocol::HostFacts;
use runner_protocol::facts::Gpu;
use serde_json::json;

use crate::cli::app::{App, ago, utc};
use crate::cli::failure::{Exit, Failure};
use crate::cli::report::Tone;
use crate::fleet::{driver_version, gpu_summary};
use crate::store::{ChallengeRow, FactsRecord, HostRecord};

/// Show one host: what is declared, what was found, what changed over time
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host
    host: String,
    /// How many findings of the past to compare
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    history: u32,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    show(app, &args.host, args.history).await
}

/// Shows a host with so many findings of its past.
pub async fn show(app: &App<'_>, host: &str, history: u32) -> Result<Exit, Failure> {
    let host = app.known_host(host).await?;
    let store = app.store().await?;
    let history = store.facts_history(&host.spec.name, history).await?;
    let trends = trends::read(app, &host.spec.name).await?;
    let verdicts = store.last_challenges(&host.spec.name).await?;
    app.report.json(&json!({
        "host": host,
        "facts": history,
        "verdicts": verdicts,
        "trends": trends,
    }));
    if app.report.is_json() {
        return Ok(Exit::Ok);
    }
    describe(app, &host);
    match history.first() {
        None => app.report.note("no facts yet: the host has not answered a deploy"),
        Some(latest) => {
            found(app, latest);
            gpus(app, &latest.facts);
            disagreements(app, &latest.facts);
        }
    }
    verified(app, &verdicts);
    changes(app, &history);
    trends::show(app, &trends);
    Ok(Exit::Ok)
}

fn describe(app: &App<'_>, host: &HostRecord) {
    let spec = &host.spec;
    let endpoint = &spec.endpoint;
    let mut rows = vec![
        row("host", spec.name.to_string()),
        vec![
            ("state".to_owned(), Some(Tone::Bold)),
            (
                format!("{} since {}", host.state, utc(host.state_since_ms)),
                Some(super::list::tone(host.state)),
            ),
        ],
        row("address", format!("{}@{} port {}", endpoint.user, endpoint.address, endpoint.port)),
    ];
    if !spec.proxy_jump.is_empty() {
        let hops: Vec<String> =
            spec.proxy_jump.iter().map(|hop| format!("{}:{}", hop.address, hop.port)).collect();
        rows.push(row("through", hops.join(", ")));
    }
    if !spec.labels.is_empty() {
        let labels: Vec<String> =
            spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        rows.push(row("labels", labels.join(" ")));
    }
    rows.push(row("last seen", host.last_seen_ms.map_or_else(|| "never".to_owned(), ago)));
    if let (Some(version), Some(sha256)) = (&host.runner_version, &host.runner_sha256) {
        rows.push(row("runner", format!("{version}, SHA-256 {sha256}")));
    }
    if let Some(message) = &host.last_message {
        let reason = host.last_reason.as_deref().unwrap_or_default();
        rows.push(row("trouble", format!("[{reason}] {message}")));
    }
    if let Some(note) = &host.drain_note {
        rows.push(row("note", note.clone()));
    }
    let claim = spec.gpus.as_ref().map(|claim| format!("{} x {}", claim.count, claim.model));
    rows.push(row("GPUs claimed", claim.unwrap_or_else(|| "nothing".to_owned())));
    app.report.table(&["", ""], &rows);
}

fn row(key: &str, value: String) -> Vec<(String, Option<Tone>)> {
    vec![(key.to_owned(), Some(Tone::Bold)), (value, None)]
}

fn found(app: &App<'_>, record: &FactsRecord) {
    let facts = &record.facts;
    let gib = |bytes: u64| format!("{} GiB", bytes / (1024 * 1024 * 1024));
    let mut rows = vec![
        row("found", format!("{} ({})", utc(record.taken_ms), ago(record.taken_ms))),
        row("GPUs found", gpu_summary(facts)),
        row("driver", driver_version(facts).unwrap_or_else(|| "none".to_owned())),
        row("system", format!("{}, Linux {} {}", facts.os.name, facts.kernel, facts.arch)),
        row("C library", facts.glibc.clone().unwrap_or_else(|| "not glibc".to_owned())),
        row(
            "processor",
            format!(
                "{}, {} sockets, {} cores, {} threads",
                facts.cpu.model, facts.cpu.sockets, facts.cpu.cores, facts.cpu.threads
            ),
        ),
        row(
            "memory",
            format!(
                "{} of {} available",
                gib(facts.memory.available_bytes),
                gib(facts.memory.total_bytes)
            ),
        ),
        row("boot id", facts.boot_id.clone().unwrap_or_default()),
    ];
    for disk in &facts.disks {
        let note = if disk.read_only { ", read-only" } else { "" };
        rows.push(row(
            "disk",
            format!(
                "{}: {} of {} free ({}{note})",
                disk.mount,
                gib(disk.free_bytes),
                gib(disk.total_bytes),
                disk.fs
            ),
        ));
    }
    for runtime in &facts.container_runtimes {
        let version = runtime.version.as_deref().unwrap_or("unknown version");
        let state = runtime.problem.as_deref().unwrap_or("answers");
        let nvidia = match runtime.nvidia_runtime {
            Some(true) => ", NVIDIA runtime set up",
            Some(false) => ", no NVIDIA runtime",
            None => "",
        };
        let own = match runtime.containers.as_deref() {
            None | Some([]) => String::new(),
            Some(own) => format!(", {} of orchestrators", own.len()),
        };
        rows.push(row("containers", format!("{} {version}: {state}{nvidia}{own}", runtime.name)));
    }
    app.report.result("");
    app.report.table(&["", ""], &rows);
}

fn gpus(app: &App<'_>, facts: &HostFacts) {
    if facts.gpus.devices.is_empty() {
        return;
    }
    let rows: Vec<_> = facts.gpus.devices.iter().map(gpu_row).collect();
    app.report.result("");
    app.report.table(
        &["GPU", "MODEL", "UUID", "MEMORY", "PCI", "LINK", "TEMP", "POWER", "ECC ERRORS", "NOTE"],
        &rows,
    );
}

fn gpu_row(gpu: &Gpu) -> Vec<(String, Option<Tone>)> {
    let dash = || "-".to_owned();
    let plain = |text: String| (text, None);
    let link = match (gpu.pcie.generation, gpu.pcie.width) {
        (Some(generation), Some(width)) => format!("gen {generation} x{width}"),
        _ => dash(),
    };
    let power = match (gpu.power.draw_mw, gpu.power.limit_mw) {
        (Some(draw), Some(limit)) => format!("{} of {} W", draw / 1000, limit / 1000),
        _ => dash(),
    };
    let note = gpu.problem.clone().unwrap_or_else(|| gpu.throttle_reasons.join(", "));
    vec![
        plain(gpu.index.to_string()),
        plain(gpu.model.clone()),
        plain(gpu.uuid.clone()),
        plain(
            gpu.memory_total_bytes
                .map_or_else(dash, |bytes| format!("{} MiB", bytes / (1024 * 1024))),
        ),
        plain(gpu.pci_address.clone().unwrap_or_else(dash)),
        plain(link),
        plain(gpu.temperature_celsius.map_or_else(dash, |celsius| format!("{celsius} °C"))),
        plain(power),
        plain(gpu.ecc.uncorrected.map_or_else(dash, |count| count.to_string())),
        (note, Some(Tone::Warn)),
    ]
}

/// How the last challenge of each GPU ended.
fn verified(app: &App<'_>, rows: &[ChallengeRow]) {
    if rows.is_empty() {
        return;
    }
    let dash = || "-".to_owned();
    let ms = |ns: Option<i64>| {
        let ns = ns.and_then(|ns| u64::try_from(ns).ok());
        ns.map_or_else(dash, crate::cli::verify::ms)
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let outcome = row.outcome.clone().unwrap_or_else(|| "interrupted".to_owned());
            let tone = match outcome.as_str() {
                "accepted" => Tone::Good,
                "rejected" | "failed" => Tone::Bad,
                _ => Tone::Warn,
            };
            let why = row.failed_check.as_ref().or(row.reason.as_ref());
            vec![
                (row.gpu_uuid.as_deref().map_or_else(dash, crate::fleet::short_uuid), None),
                (row.model.clone().unwrap_or_else(dash), None),
                (row.mode.clone().unwrap_or_else(dash), None),
                (format!("{} ({})", utc(row.issued_ms), ago(row.issued_ms)), None),
                (ms(row.fill_ns), None),
                (ms(row.chain_ns), None),
                (ms(row.gemm_ns), None),
                (outcome, Some(tone)),
                (why.cloned().unwrap_or_else(dash), None),
            ]
        })
        .collect();
    app.report.result("");
    let headers = [
        "GPU",
        "CHALLENGED AS",
        "MODE",
        "LAST VERIFIED",
        "FILL MS",
        "CHAIN MS",
        "GEMM MS",
        "VERDICT",
        "WHY",
    ];
    app.report.table(&headers, &rows);
}

fn disagreements(app: &App<'_>, facts: &HostFacts) {
    for disagreement in &facts.disagreements {
        app.report.result(&format!(
            "{} {} ({}): NVML says {}, {} says {}",
            app.report.out_tone("sources disagree:", Tone::Warn),
            crate::printable::printable(&disagreement.code),
            crate::printable::printable(&disagreement.subject),
            crate::printable::printable(&disagreement.nvml),
            crate::printable::printable(&disagreement.other_source),
            crate::printable::printable(&disagreement.other),
        ));
    }
    for problem in &facts.problems {
        app.report.result(&format!(
            "{} {}: {}",
            app.report.out_tone("could not read:", Tone::Warn),
            crate::printable::printable(&problem.source),
            crate::printable::printable(&problem.message),
        ));
    }
}

/// What differs from one finding to the next: the things that do not change by themselves.
fn changes(app: &App<'_>, history: &[FactsRecord]) {
    let mut rows = Vec::new();
    for (newer, older) in history.iter().zip(history.iter().skip(1)) {
        let before = lasting(&older.facts);
        for (what, now) in lasting(&newer.facts) {
            let then = before.iter().find(|(name, _)| *name == what);
            if let Some((_, then)) = then
                && *then != now
            {
                rows.push(vec![
                    (utc(newer.taken_ms), Some(Tone::Dim)),
                    (what.to_owned(), Some(Tone::Bold)),
                    (then.clone(), None),
                    (now, None),
                ]);
            }
        }
    }
    if !rows.is_empty() {
        app.report.result("");
        app.report.table(&["CHANGED", "WHAT", "BEFORE", "AFTER"], &rows);
    }
}

fn lasting(facts: &HostFacts) -> [(&'static str, String); 7] {
    let uuids: Vec<&str> = facts.gpus.devices.iter().map(|gpu| gpu.uuid.as_str()).collect();
    [
        ("GPUs", gpu_summary(facts)),
        ("GPU UUIDs", uuids.join(" ")),
        ("driver", driver_version(facts).unwrap_or_else(|| "none".to_owned())),
        ("kernel", facts.kernel.clone()),
        ("boot id", facts.boot_id.clone().unwrap_or_default()),
        ("machine id", facts.machine_id.clone().unwrap_or_default()),
        ("memory", format!("{} MiB", facts.memory.total_bytes / (1024 * 1024))),
    ]
}

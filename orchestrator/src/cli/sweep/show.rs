//! What a sweep prints: a line for each host that is not well, what mends it, a summary.

use serde::Serialize;
use serde_json::json;

use crate::cli::app::App;
use crate::cli::report::Tone;
use crate::fleet::sweep::{FindingReport, HostReport, SweepReport};
use crate::fleet_file::range::compress;
use crate::host_state::HostState;

/// Fixes that are printed; a fleet that lost its network is not 5,000 commands.
const MOST_FIXES: usize = 20;

/// A host's line of `--json`.
#[derive(Serialize)]
struct Row<'o> {
    event: &'static str,
    #[serde(flatten)]
    host: &'o HostReport,
}

/// Shows a pass. With `--quiet`, only hosts whose state is bad are shown, and nothing where all are
/// well.
pub fn report(app: &App<'_>, report: &SweepReport) {
    for host in &report.hosts {
        app.report.json(&Row { event: "host", host });
    }
    let quiet = app.report.is_quiet();
    let shown: Vec<&HostReport> = report
        .hosts
        .iter()
        .filter(|host| !host.ok || (!quiet && (matters(host) || !host.repairs.is_empty())))
        .collect();
    table(app, &shown);
    fixes(app, &shown, quiet);
    repairs(app, &shown);
    summary(app, report, quiet);
}

fn matters(host: &HostReport) -> bool {
    host.findings.iter().any(FindingReport::matters)
}

fn table(app: &App<'_>, shown: &[&HostReport]) {
    let mut rows = Vec::new();
    for host in shown {
        let tone = crate::cli::hosts::state_tone(host.state);
        let findings: Vec<&FindingReport> =
            host.findings.iter().filter(|finding| finding.matters()).collect();
        let first = findings.first();
        let state = match (host.ok, first) {
            // Not certain yet: the state has not moved.
            (true, Some(finding)) if !finding.confirmed => {
                format!("{} (seen {} times)", host.state, finding.times)
            }
            _ => host.state.to_string(),
        };
        if findings.is_empty() {
            let none = String::new();
            rows.push(vec![
                (host.host.to_string(), None),
                (state, Some(tone)),
                (none.clone(), None),
                (none.clone(), None),
                (none.clone(), None),
                (none, None),
            ]);
            continue;
        }
        for (index, finding) in findings.iter().enumerate() {
            let once = |text: String| if index == 0 { text } else { String::new() };
            let bad = if finding.severity == "critical" { Tone::Bad } else { Tone::Warn };
            rows.push(vec![
                (once(host.host.to_string()), None),
                (once(state.clone()), Some(tone)),
                (finding.code.to_string(), Some(bad)),
                (subject(finding), None),
                (finding.seen.clone(), None),
                (finding.expected.clone(), Some(Tone::Dim)),
            ]);
        }
    }
    if !rows.is_empty() {
        app.report.table(&["HOST", "STATE", "FINDING", "ABOUT", "SEEN", "EXPECTED"], &rows);
    }
}

fn subject(finding: &FindingReport) -> String {
    if finding.subject == "host" { String::new() } else { finding.subject.clone() }
}

fn fixes(app: &App<'_>, shown: &[&HostReport], quiet: bool) {
    let mut lines: Vec<String> = Vec::new();
    for host in shown {
        for finding in host.findings.iter().filter(|it| it.matters() && (it.confirmed || !quiet)) {
            let line = format!("{}: {}", host.host, finding.fix);
            if !lines.contains(&line) && lines.len() <= MOST_FIXES {
                lines.push(line);
            }
        }
    }
    if lines.is_empty() {
        return;
    }
    let more = lines.len() > MOST_FIXES;
    lines.truncate(MOST_FIXES);
    app.report.result("\nwhat mends it, or shows more:");
    for line in lines {
        app.report.result(&format!("  {line}"));
    }
    if more {
        app.report.result("  ... and more: orchestrator sweep --json");
    }
}

fn repairs(app: &App<'_>, shown: &[&HostReport]) {
    for host in shown {
        for repair in &host.repairs {
            let (word, tone) =
                if repair.ok { ("mended", Tone::Good) } else { ("not mended", Tone::Bad) };
            app.report.result(&format!(
                "{}: {}: {}",
                host.host,
                app.report.out_tone(word, tone),
                repair.message
            ));
        }
    }
}

fn summary(app: &App<'_>, report: &SweepReport, quiet: bool) {
    let counts = &report.counts;
    let trouble = counts.troubled + counts.unreached;
    app.report.json(&json!({
        "event": "summary",
        "ok": trouble == 0 && report.not_probed.is_empty(),
        "sweep": report.sweep,
        "hosts": report.hosts.len() + report.not_probed.len(),
        "well": counts.well,
        "troubled": counts.troubled,
        "unreached": counts.unreached,
        "not_probed": report.not_probed,
        "elapsed_ms": report.elapsed_ms,
    }));
    if !report.not_probed.is_empty() {
        let names: Vec<&str> = report.not_probed.iter().map(|name| name.as_str()).collect();
        app.report.warning(&format!(
            "the deadline came before the turn of {}: raise --timeout or --parallel",
            compress(names)
        ));
    }
    if quiet && trouble == 0 {
        return;
    }
    let count = |state: HostState| report.hosts.iter().filter(|host| host.state == state).count();
    let mut parts = vec![app.report.out_tone(&format!("{} well", counts.well), Tone::Good)];
    for state in [HostState::Degraded, HostState::Unreachable, HostState::Quarantined] {
        let count = count(state);
        if count > 0 {
            parts.push(app.report.out_tone(&format!("{count} {state}"), Tone::Bad));
        }
    }
    app.report.result(&format!(
        "\n{} hosts: {}, {:.1} s",
        report.hosts.len() + report.not_probed.len(),
        parts.join(", "),
        report.elapsed_ms as f64 / 1000.0
    ));
}

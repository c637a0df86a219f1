//! What is printed.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::measure::Usage;
use crate::tools::{Bench, Operation, Tool};

type Row = (Tool, Result<Usage, String>);

/// What was measured, and where.
pub fn heading(bench: &Bench<'_>) -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(1).collect();
    format!(
        "## {} hosts, {} at a time, payload {} KiB, {} CPUs shared with the servers, load {}\n",
        bench.fleet.addresses.len(),
        bench.parallel,
        bench.payload_bytes / 1024,
        std::thread::available_parallelism().map_or(0, usize::from),
        load.concat(),
    )
}

/// One operation of all tools.
pub fn of(operation: Operation, hosts: usize, rows: &[Row]) -> String {
    let title = match operation {
        Operation::Exec => "connect and run one command",
        Operation::Kept => "one more command over connections that are open",
        Operation::Cold => "deploy to new hosts: upload, check, run",
        Operation::Warm => "deploy again",
    };
    let ours = rows.iter().find_map(|(tool, result)| match (tool, result) {
        (Tool::Orchestrator, Ok(usage)) => Some(*usage),
        _ => None,
    });
    let mut text = format!(
        "### {}: {title}\n\n| tool | wall s | client CPU ms/host | peak RSS MiB (largest process) | \
         wall x | CPU x | RSS x |\n|---|---:|---:|---:|---:|---:|---:|\n",
        operation.name()
    );
    for (tool, result) in rows {
        match result {
            Ok(usage) => {
                let per_host = usage.cpu.as_secs_f64() * 1e3 / hosts as f64;
                let ratio = |of: fn(&Usage) -> f64| match &ours {
                    Some(ours) => format!("{:.1}", of(usage) / of(ours)),
                    None => "-".to_owned(),
                };
                writeln!(
                    text,
                    "| {}{} | {:.2} | {per_host:.1} | {:.0} | {} | {} | {} |",
                    tool.name(),
                    if masters_uncounted(*tool, operation) { " *" } else { "" },
                    usage.wall.as_secs_f64(),
                    usage.peak_rss_bytes as f64 / f64::from(1 << 20),
                    ratio(|usage| usage.wall.as_secs_f64()),
                    ratio(|usage| usage.cpu.as_secs_f64()),
                    ratio(|usage| usage.peak_rss_bytes as f64),
                )
                .unwrap();
            }
            Err(why) => writeln!(text, "| {} | failed: {why} | | | | | |", tool.name()).unwrap(),
        }
    }
    if rows.iter().any(|(tool, _)| masters_uncounted(*tool, operation)) {
        text += "\n\\* without its `ssh` masters, one detached process a host, whose time and \
                 memory wait4 does not see.\n";
    }
    text
}

fn masters_uncounted(tool: Tool, operation: Operation) -> bool {
    matches!(
        (tool, operation),
        (Tool::OpenSsh | Tool::Ansible, Operation::Kept)
            | (Tool::Ansible, Operation::Cold | Operation::Warm)
    )
}

/// One measurement as a JSON line.
pub fn log_line(
    log: &mut std::fs::File,
    bench: &Bench<'_>,
    tool: Tool,
    operation: Operation,
    result: &Result<Usage, String>,
) {
    let mut line = serde_json::json!({
        "hosts": bench.fleet.addresses.len(),
        "parallel": bench.parallel,
        "tool": tool.name(),
        "operation": operation.name(),
    });
    match result {
        Ok(usage) => {
            line["wall_s"] = usage.wall.as_secs_f64().into();
            line["cpu_s"] = usage.cpu.as_secs_f64().into();
            line["peak_rss_bytes"] = usage.peak_rss_bytes.into();
        }
        Err(why) => line["error"] = why.as_str().into(),
    }
    writeln!(log, "{line}").unwrap();
}

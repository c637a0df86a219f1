//! Logs: diagnostics for the operator, on standard error, apart from what a command reports.

use tracing_subscriber::EnvFilter;

use super::report::Report;
use crate::config::{Config, LogFormat, LogLevel};

/// Starts logging. The level is that of the configuration, moved by `-v` and `-q`; `RUST_LOG`
/// wins over all of it.
pub fn start(config: &Config, verbose: u8, quiet: bool, report: &Report) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => word(config.logging.level),
        (false, 1) => "info,orchestrator=debug",
        (false, _) => "debug,orchestrator=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(report.stderr_color());
    let started = match config.logging.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    // A subscriber that is there already (a test's) keeps the logs.
    drop(started);
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

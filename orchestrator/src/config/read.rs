//! From the text of `orchestrator.toml` to [`Config`], collecting every error on the way.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::duration::{self, Written};
use super::{
    Config, DatabaseConfig, DatabaseUrl, Diagnostics, ExecutorManagement, LogFormat, LogLevel,
    LoggingConfig, Problems, Section, SshConfig, alerts, sweep, toml_text,
};

const SECTIONS: [&str; 6] =
    ["database", "executor_management", "ssh", "sweep", "alerts", "logging"];

pub(super) fn parse(path: &Path, source: &str) -> Result<Config, Diagnostics> {
    let document = toml_text::parse(path, source)?;
    let mut problems = Problems::default();
    let name = "the configuration";
    let top = Section::open(name, 0..0, document.get_ref(), source, &SECTIONS, &mut problems);
    let config = Config {
        database: section(&top, "database", "[database]", &["url"], &mut problems, database),
        executor_management: section(
            &top,
            "executor_management",
            "[executor_management]",
            &["parallel", "health_check_timeout", "max_retry_attempts", "auto_recovery"],
            &mut problems,
            executor_management,
        ),
        ssh: section(&top, "ssh", "[ssh]", &SSH_KEYS, &mut problems, ssh),
        sweep: section(&top, "sweep", "[sweep]", &sweep::KEYS, &mut problems, sweep::read),
        alerts: section(&top, "alerts", "[alerts]", &alerts::KEYS, &mut problems, alerts::read),
        logging: section(
            &top,
            "logging",
            "[logging]",
            &["level", "format"],
            &mut problems,
            logging,
        ),
    };
    match problems.located_errors(path, source) {
        Some(diagnostics) => Err(diagnostics),
        None => Ok(config),
    }
}

/// Reads a section, or gives its default where it is absent.
fn section<'a, T: Default>(
    top: &Section<'a>,
    key: &str,
    title: &'a str,
    known: &[&str],
    problems: &mut Problems,
    read: impl FnOnce(&Section<'a>, &mut Problems) -> T,
) -> T {
    match top.table(key, problems) {
        None => T::default(),
        Some(table) => {
            let span = table.span();
            let section =
                Section::open(title, span, table.into_inner(), top.source(), known, problems);
            read(&section, problems)
        }
    }
}

fn database(section: &Section<'_>, problems: &mut Problems) -> DatabaseConfig {
    let Some(text) = section.text("url", problems) else { return DatabaseConfig::default() };
    match DatabaseUrl::parse(text.value) {
        Ok(url) => DatabaseConfig { url },
        Err(error) => {
            // A URL may hold a password.
            problems.error_in_secret(text.span, format!("`url`: {error}"));
            DatabaseConfig::default()
        }
    }
}

fn executor_management(section: &Section<'_>, problems: &mut Problems) -> ExecutorManagement {
    let default = ExecutorManagement::default();
    ExecutorManagement {
        parallel: count(section, "parallel", 1..=1024, default.parallel, problems),
        health_check_timeout: duration_of(
            section,
            "health_check_timeout",
            &(Duration::from_secs(1)..=Duration::from_secs(600)),
            default.health_check_timeout,
            problems,
        ),
        max_retry_attempts: number(
            section,
            "max_retry_attempts",
            1..=100,
            default.max_retry_attempts,
            problems,
        ),
        auto_recovery: switch(section, "auto_recovery", default.auto_recovery, problems),
    }
}

const SSH_KEYS: [&str; 7] = [
    "resolve_timeout",
    "connect_timeout",
    "handshake_timeout",
    "auth_timeout",
    "keepalive_interval",
    "connect_attempts",
    "max_unauthenticated_per_route",
];

fn ssh(section: &Section<'_>, problems: &mut Problems) -> SshConfig {
    let d = SshConfig::default();
    // Longer than any login takes, and short enough that a mistyped unit is noticed.
    let wait = Duration::from_millis(100)..=Duration::from_secs(600);
    let silence = Duration::from_secs(1)..=Duration::from_secs(3600);
    let mut time = |key, bounds, default| duration_of(section, key, bounds, default, problems);
    SshConfig {
        resolve_timeout: time("resolve_timeout", &wait, d.resolve_timeout),
        connect_timeout: time("connect_timeout", &wait, d.connect_timeout),
        handshake_timeout: time("handshake_timeout", &wait, d.handshake_timeout),
        auth_timeout: time("auth_timeout", &wait, d.auth_timeout),
        keepalive_interval: time("keepalive_interval", &silence, d.keepalive_interval),
        connect_attempts: count(section, "connect_attempts", 1..=20, d.connect_attempts, problems),
        max_unauthenticated_per_route: count(
            section,
            "max_unauthenticated_per_route",
            1..=1024,
            d.max_unauthenticated_per_route,
            problems,
        ),
    }
}

fn logging(section: &Section<'_>, problems: &mut Problems) -> LoggingConfig {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LoggingConfig {
        level: choice(section, "level", &levels, problems),
        format: choice(section, "format", &formats, problems),
    }
}

pub(super) fn choice<T: Copy + Default>(
    section: &Section<'_>,
    key: &str,
    choices: &[(&str, T)],
    problems: &mut Problems,
) -> T {
    let Some(text) = section.text(key, problems) else { return T::default() };
    match choices.iter().find(|(name, _)| *name == text.value) {
        Some((_, value)) => *value,
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("unknown {key} `{}`", text.value.escape_debug());
            problems.error_with_hint(text.span, message, toml_text::suggest(text.value, &names));
            T::default()
        }
    }
}

/// A whole number of at most 32 bits.
pub(super) fn number(
    section: &Section<'_>,
    key: &str,
    bounds: RangeInclusive<u32>,
    default: u32,
    problems: &mut Problems,
) -> u32 {
    let bounds = u64::from(*bounds.start())..=u64::from(*bounds.end());
    let found = section.integer(key, bounds, problems);
    found.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
}

/// True or false.
pub(super) fn switch(
    section: &Section<'_>,
    key: &str,
    default: bool,
    problems: &mut Problems,
) -> bool {
    let Some(value) = section.get(key) else { return default };
    match value.get_ref() {
        DeValue::Boolean(on) => *on,
        _ => {
            section.wrong_type(key, value, "true or false", problems);
            default
        }
    }
}

pub(super) fn count(
    section: &Section<'_>,
    key: &str,
    bounds: RangeInclusive<u64>,
    default: usize,
    problems: &mut Problems,
) -> usize {
    let found = section.integer(key, bounds, problems);
    found.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

pub(super) fn duration_of(
    section: &Section<'_>,
    key: &str,
    bounds: &RangeInclusive<Duration>,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    let Some(value) = section.get(key) else { return default };
    let found = match value.get_ref() {
        DeValue::String(text) => match duration::parse(text) {
            Ok(duration) => duration,
            Err(error) => {
                problems.error(value.span(), format!("`{key}`: {error}"));
                return default;
            }
        },
        DeValue::Table(table) => {
            let known = ["secs", "nanos"];
            let errors_before = problems.errors.len();
            let parts = Section::open(key, value.span(), table, section.source(), &known, problems);
            let secs = parts.integer("secs", 0..=u64::from(u32::MAX), problems).unwrap_or(0);
            let nanos = parts.integer("nanos", 0..=999_999_999, problems).unwrap_or(0);
            if problems.errors.len() > errors_before {
                return default;
            }
            Duration::from_secs(secs) + Duration::from_nanos(nanos)
        }
        _ => {
            section.wrong_type(key, value, "a duration such as \"30s\"", problems);
            return default;
        }
    };
    if bounds.contains(&found) {
        return found;
    }
    let (low, high) = (Written(*bounds.start()), Written(*bounds.end()));
    let message = format!("`{key}` is {}, and must be {low} to {high}", Written(found));
    problems.error(value.span(), message);
    default
}

//! Logs: diagnostics for the operator, on standard error and in a file, apart from what a command
//! reports.

use std::io;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::failure::Failure;
use super::report::Report;
use super::settings::Settings;
use crate::config::{LogFormat, LoggingConfig};
use crate::log_file::LogFile;

/// What `-v` and `-q` ask for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How many `-v`.
    pub verbose: u8,
    /// `-q`.
    pub quiet: bool,
}

/// The running logs, whose level can be changed.
#[derive(Debug)]
pub struct Logs {
    wish: Wish,
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

type Sink = Box<dyn Layer<tracing_subscriber::layer::Layered<Reload, Registry>> + Send + Sync>;
type Reload = reload::Layer<EnvFilter, Registry>;

/// Starts logging. The level is that of the configuration, moved by `-v` and `-q`; `RUST_LOG`
/// wins over all of it.
pub fn start(settings: &Settings, wish: Wish, report: &Report) -> Result<Logs, Failure> {
    let config = &settings.config().logging;
    let file = config.file.as_ref().map(|path| settings.resolve(path));
    let file = file.map(|path| {
        LogFile::open(&path, config.max_file_size, config.max_files).map_err(|error| {
            Failure::user(format!("cannot log to {}", path.display()))
                .because(error)
                .hint("`file` of [logging] names it")
        })
    });
    let (filter, handle) = reload::Layer::new(filter(config, wish));
    let stderr = config.stdout.then(|| {
        let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        sink(layer.with_ansi(report.stderr_color()), config.format)
    });
    let file = file.transpose()?.map(|file| {
        let layer = tracing_subscriber::fmt::layer().with_writer(Mutex::new(file));
        sink(layer.with_ansi(false), config.format)
    });
    // A subscriber that is there already (a test's) keeps the logs.
    let sinks: Vec<Sink> = stderr.into_iter().chain(file).collect();
    let started = tracing_subscriber::registry().with(filter).with(sinks).try_init();
    Ok(Logs { wish, filter: started.is_ok().then_some(handle) })
}

impl Logs {
    /// Takes the levels of a configuration that was read again.
    pub fn reload(&self, config: &LoggingConfig) {
        if let Some(handle) = &self.filter {
            // It fails only when the subscriber is gone, and then nothing is logged anyway.
            let _gone = handle.reload(filter(config, self.wish));
        }
    }
}

fn sink<W>(
    layer: tracing_subscriber::fmt::Layer<
        tracing_subscriber::layer::Layered<Reload, Registry>,
        tracing_subscriber::fmt::format::DefaultFields,
        tracing_subscriber::fmt::format::Format,
        W,
    >,
    format: LogFormat,
) -> Sink
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        LogFormat::Pretty => layer.boxed(),
        LogFormat::Compact => layer.compact().with_target(false).boxed(),
        LogFormat::Json => layer.json().with_ansi(false).boxed(),
    }
}

fn filter(config: &LoggingConfig, wish: Wish) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(config, wish)))
}

fn directives(config: &LoggingConfig, wish: Wish) -> String {
    let level = match (wish.quiet, wish.verbose) {
        (true, _) => "error",
        (false, 0) => config.level.word(),
        (false, 1) => "info,orchestrator=debug",
        (false, _) => "debug,orchestrator=trace",
    };
    let targets = config.targets.iter().map(|(target, level)| format!(",{target}={level}"));
    level.to_owned() + &targets.collect::<String>()
}

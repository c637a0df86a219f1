//! `orchestrator check`.

use std::path::{Path, PathBuf};

use super::app::App;
use super::failure::{Exit, Failure};
use super::report::Tone;
use crate::fleet_file::{CheckReport, Severity, check};

/// Read and resolve everything, touch nothing remote; or print a fleet file from what you have
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The fleet file
    #[arg(long, value_name = "FILE", default_value = "fleet.toml")]
    hosts: PathBuf,
    /// Only these hosts, for example `gpu-[01-04],rack=a,!gpu-03`
    #[arg(long, value_name = "SELECTOR")]
    limit: Option<String>,
    /// Print a fleet file made from an Ansible inventory (.ini or .yml), and check nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hosts", "from_ssh_config"])]
    from_ansible: Option<PathBuf>,
    /// Print a fleet file made from the hosts of an ssh_config, and check nothing
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "~/.ssh/config",
        conflicts_with = "hosts"
    )]
    from_ssh_config: Option<PathBuf>,
}

pub async fn run(app: &App<'_>, args: Args) -> Result<Exit, Failure> {
    if let Some(path) = &args.from_ansible {
        return import(app, path, Source::Ansible);
    }
    if let Some(path) = &args.from_ssh_config {
        let path = match path.strip_prefix("~") {
            Ok(below) => app.environment.home.join(below),
            Err(_) => path.clone(),
        };
        return import(app, &path, Source::SshConfig);
    }
    let selector = args.limit.as_deref().map(super::app::selector).transpose()?;
    let work = check(&args.hosts, &app.environment, selector.as_ref());
    let report = app.until_cancelled(work).await?.map_err(|error| {
        Failure::user(format!("cannot use the fleet file {}", args.hosts.display()))
            .because(error)
            .hint("`orchestrator init` writes an explained example")
    })?;
    app.report.json(&report);
    show(app, &report);
    Ok(if report.is_ok() { Exit::Ok } else { Exit::User })
}

fn show(app: &App<'_>, report: &CheckReport) {
    let rows: Vec<_> = report
        .hosts
        .iter()
        .map(|host| {
            let server = &host.endpoint;
            let through: Vec<&str> =
                host.proxy_jump.iter().map(|hop| hop.address.as_str()).collect();
            let keys: Vec<String> =
                server.identity_files.iter().map(|path| path.display().to_string()).collect();
            let claim = host.gpus.as_ref().map(|gpus| format!("{} x {}", gpus.count, gpus.model));
            let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            vec![
                (host.name.to_string(), None),
                (format!("{}@{}:{}", server.user, server.address, server.port), None),
                (dash(through.join(", ")), None),
                (dash(keys.join(", ")), None),
                (claim.unwrap_or_else(|| "-".to_owned()), None),
            ]
        })
        .collect();
    app.report.table(&["HOST", "LOGIN", "THROUGH", "KEYS", "GPUS CLAIMED"], &rows);
    for finding in &report.findings {
        let (word, tone) = match finding.severity {
            Severity::Error => ("error:", Tone::Bad),
            Severity::Warning => ("warning:", Tone::Warn),
        };
        let hosts =
            if finding.hosts.is_empty() { String::new() } else { format!("{}: ", finding.hosts) };
        app.report.note(&format!("{} {hosts}{}", app.report.err_tone(word, tone), finding.message));
        if let Some(hint) = &finding.hint {
            app.report.note(&format!("  {} {hint}", app.report.err_tone("hint:", Tone::Good)));
        }
    }
    let config = app
        .config_file
        .as_deref()
        .map_or_else(|| "built-in defaults".to_owned(), |path: &Path| path.display().to_string());
    app.report.result(&format!(
        "\n{} hosts; configuration: {config}; database: {}",
        report.hosts.len(),
        app.database.display()
    ));
}

/// What a fleet file can be made from.
#[derive(Clone, Copy)]
enum Source {
    Ansible,
    SshConfig,
}

fn import(app: &App<'_>, path: &Path, source: Source) -> Result<Exit, Failure> {
    let failed = || Failure::user(format!("cannot make a fleet file of {}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed().because(error))?;
    let yaml = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    let fleet_file = match source {
        Source::Ansible if yaml => crate::import::ansible_yaml(&text),
        Source::Ansible => crate::import::ansible_ini(&text),
        Source::SshConfig => crate::import::ssh_config(&text),
    };
    let imported = fleet_file.map_err(|error| failed().because(error))?;
    app.report.raw(&imported.toml);
    app.report.note(&format!(
        "{} hosts; {} remarks, marked in the text, on what could not be taken over",
        imported.hosts, imported.notes
    ));
    Ok(Exit::Ok)
}

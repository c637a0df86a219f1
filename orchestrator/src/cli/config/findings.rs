//! What a configuration names, looked at: files, secrets, ports. Nothing remote is touched.

use std::path::Path;

use serde::Serialize;

use crate::cli::settings::Settings;
use crate::config::{AuthMethod, SECRET_HINT, Secret, SecretError};
use crate::error_chain::causes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `serve` starts all the same.
    Warning,
    /// `serve` does not start.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub message: String,
    /// The causes behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn warning(message: impl Into<String>) -> Self {
        let (severity, message) = (Severity::Warning, message.into());
        Self { severity, message, causes: Vec::new(), hint: None }
    }

    fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::warning(message) }
    }
}

/// Everything that is to be said of a configuration that was read.
pub fn of(settings: &Settings) -> Vec<Finding> {
    let path = settings.file.as_deref().unwrap_or(Path::new(""));
    let mut found: Vec<Finding> = settings
        .reading
        .warnings
        .iter()
        .map(|warning| Finding::warning(warning.render(path)))
        .collect();
    secrets(settings, &mut found);
    tokens_in_the_open(settings, &mut found);
    files(settings, &mut found);
    ports(settings, &mut found);
    let config = settings.config();
    let executors = &config.executor_management.executors;
    if !executors.is_empty()
        && let Err(error) = crate::import::executors(executors, &config.ssh_session)
    {
        let causes = causes(&error);
        found.push(Finding { causes, ..Finding::error(error.to_string()) });
    }
    found
}

/// Whether requests to the operator API need a token.
pub fn token_required(settings: &Settings) -> bool {
    let api = &settings.config().operator_api;
    api.require_token || !api.host.is_loopback()
}

/// The secret that tokens are signed with, if one is configured.
pub fn secret(settings: &Settings) -> Result<Option<Secret>, SecretError> {
    let source = settings.config().security.jwt_secret.as_ref();
    source.map(|source| source.read(|path| settings.resolve(path))).transpose()
}

fn secrets(settings: &Settings, found: &mut Vec<Finding>) {
    let api = &settings.config().operator_api;
    match secret(settings) {
        Err(error) => {
            let causes = causes(&error);
            let hint = Some(match &error {
                SecretError::Open { path, .. } => format!("chmod 600 {}", path.display()),
                _ => SECRET_HINT.to_owned(),
            });
            found.push(Finding { causes, hint, ..Finding::error(error.to_string()) });
        }
        Ok(None) if token_required(settings) => {
            let message = format!(
                "the operator API at {} asks for tokens, and there is no secret to sign them with",
                api.host
            );
            let hint = Some(SECRET_HINT.to_owned());
            found.push(Finding { hint, ..Finding::error(message) });
        }
        Ok(None) if settings.config().validator_comms.auth.method == AuthMethod::Jwt => {
            let message =
                "`validator_comms.auth.method` is jwt, and there is no secret to sign with";
            let hint = Some(SECRET_HINT.to_owned());
            found.push(Finding { hint, ..Finding::error(message) });
        }
        Ok(_) => {}
    }
    if let (Some(crate::config::SecretSource::Inline(_)), Some(file)) =
        (&settings.config().security.jwt_secret, &settings.file)
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.mode());
        if mode & 0o077 != 0 {
            found.push(Finding::warning(format!(
                "`jwt_secret` stands in {}, which others can read (mode {:04o}): \
                 `jwt_secret_file` keeps it apart",
                file.display(),
                mode & 0o7777
            )));
        }
    }
}

/// Whoever reads a token can use it: nobody may read along.
fn tokens_in_the_open(settings: &Settings, found: &mut Vec<Finding>) {
    let config = settings.config();
    let closed = config.security.cert_path.is_some() || config.server.host.is_loopback();
    if config.validator_comms.auth.method == AuthMethod::Jwt && !closed {
        let message = format!(
            "`validator_comms.auth.method` is jwt, and the service for validators at {} has no TLS: \
             whoever reads a token on the way can use it",
            config.server.host
        );
        let hint = "give [security] `cert_path` and `key_path`, or listen on loopback behind a \
                    proxy with TLS";
        found.push(Finding { hint: Some(hint.to_owned()), ..Finding::error(message) });
    }
}

fn files(settings: &Settings, found: &mut Vec<Finding>) {
    let security = &settings.config().security;
    for (key, path) in [
        ("cert_path", &security.cert_path),
        ("key_path", &security.key_path),
        ("ca_cert_path", &security.ca_cert_path),
    ] {
        let Some(path) = path.as_ref().map(|path| settings.resolve(path)) else { continue };
        if let Err(error) = std::fs::File::open(&path) {
            let message = format!("cannot read `{key}`, {}", path.display());
            let causes = vec![error.to_string()];
            found.push(Finding { causes, ..Finding::error(message) });
        }
    }
}

fn ports(settings: &Settings, found: &mut Vec<Finding>) {
    let config = settings.config();
    let mut listeners = vec![
        ("bittensor.axon_port", config.server.host, config.bittensor.axon_port),
        ("operator_api.port", config.operator_api.host, config.operator_api.port),
    ];
    if config.server.port != config.bittensor.axon_port {
        listeners.push(("server.port", config.server.host, config.server.port));
    }
    if let Some(prometheus) = &config.metrics.prometheus {
        listeners.push(("metrics.prometheus.port", prometheus.host, prometheus.port));
    }
    for (index, (key, host, port)) in listeners.iter().enumerate() {
        for (other, there, same) in listeners.iter().skip(index + 1) {
            let overlap = host == there || host.is_unspecified() || there.is_unspecified();
            if *port != 0 && port == same && overlap {
                let message = format!("`{key}` and `{other}` are both {port}");
                found.push(Finding::error(message));
            }
        }
    }
}

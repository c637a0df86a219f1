//! The channels of the configuration, and one attempt over each.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use zeroize::Zeroizing;

use super::{Alert, SendError, body, mail};
use crate::config::AlertsConfig;

/// A URL, with room for long tokens.
const MAX_URL_BYTES: usize = 4096;

/// A body of somebody's template, in bytes.
const MAX_TEMPLATE_BYTES: u64 = 256 * 1024;

/// One way for alerts to go.
pub enum Channel {
    /// A JSON document to a URL.
    Webhook {
        /// Where to.
        url: SecretUrl,
        /// The body's template; `None` for the built-in one.
        template: Option<String>,
    },
    /// Slack's incoming webhook, or one that takes its body.
    Slack(SecretUrl),
    /// Discord's webhook.
    Discord(SecretUrl),
    /// The local mail program.
    Mail(mail::Mail),
}

/// A URL that is not printed.
pub struct SecretUrl(Url);

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretUrl(..)")
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Channel {
    /// Its name in the database, in messages and in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack(_) => "slack",
            Self::Discord(_) => "discord",
            Self::Mail(_) => "mail",
        }
    }
}

/// Why the channels of a configuration cannot be used. Never has a URL in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// A file cannot be read.
    #[error("cannot read {}, which `{key}` names", path.display())]
    Read {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file with a secret can be read by others.
    #[error("{}, which `{key}` names, holds a secret and can be read by others: chmod 600 it", path.display())]
    Open {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It is no URL that alerts can go to.
    #[error("what {place} holds for `{channel}` is no http or https URL")]
    Url {
        /// The channel.
        channel: &'static str,
        /// The variable or file.
        place: String,
    },
    /// The template cannot be used.
    #[error("the template {} does not work: {why}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The HTTP client cannot be made, for want of the system's certificates perhaps.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The ways alerts go.
#[derive(Debug)]
pub struct Channels {
    client: Option<Client>,
    channels: Vec<Channel>,
    timeout: Duration,
}

impl Channels {
    /// The channels that a configuration has. `variable` reads the environment; paths that are not
    /// absolute start at `folder`.
    ///
    /// # Errors
    /// A file cannot be read or is open to others, or a URL or template is none.
    pub fn new(
        config: &AlertsConfig,
        folder: &Path,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ChannelError> {
        let url = |channel, variable_name: &str, key, file: &str| {
            secret_url(channel, variable_name, key, file, folder, &variable)
        };
        let mut channels = Vec::new();
        let (name, file) = (&config.webhook_url_env, &config.webhook_url_file);
        if let Some(url) = url("webhook", name, "webhook_url_file", file)? {
            let template = template(&config.webhook_template, folder)?;
            channels.push(Channel::Webhook { url, template });
        }
        let (name, file) = (&config.slack_url_env, &config.slack_url_file);
        channels.extend(url("slack", name, "slack_url_file", file)?.map(Channel::Slack));
        let (name, file) = (&config.discord_url_env, &config.discord_url_file);
        channels.extend(url("discord", name, "discord_url_file", file)?.map(Channel::Discord));
        channels.extend(mail::Mail::of(config).map(Channel::Mail));
        let over_http = channels.iter().any(|channel| !matches!(channel, Channel::Mail(_)));
        let client = over_http.then(|| client(config.timeout)).transpose()?;
        Ok(Self { client, channels, timeout: config.timeout })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Channel] {
        &self.channels
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name() == name)
    }

    pub(super) async fn attempt(&self, channel: &Channel, alert: &Alert) -> Result<(), SendError> {
        let name = channel.name();
        match channel {
            Channel::Webhook { url, template } => {
                let body = match template {
                    None => Ok(body::plain(alert)),
                    Some(template) => body::templated(template, alert),
                };
                self.post(name, url, body.map_err(|why| SendError::Body { channel: name, why })?)
                    .await
            }
            Channel::Slack(url) => self.post(name, url, body::slack(alert)).await,
            Channel::Discord(url) => self.post(name, url, body::discord(alert)).await,
            Channel::Mail(mail) => mail.send(alert, self.timeout).await.map_err(SendError::Mail),
        }
    }

    async fn post(
        &self,
        channel: &'static str,
        url: &SecretUrl,
        body: String,
    ) -> Result<(), SendError> {
        let why = |error: reqwest::Error| SendError::Unreached { channel, why: words(error) };
        let Some(client) = &self.client else {
            return Err(SendError::Unreached { channel, why: "no HTTP client".to_owned() });
        };
        let request = client
            .post(url.0.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        // What the answer says besides its status is nobody's concern, and is not read.
        let status = request.send().await.map_err(why)?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(SendError::Refused { channel, status: status.as_u16() })
    }
}

/// An error without its URL, as far as its cause.
fn words(error: reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the exchange failed"
    };
    // The causes below are those of sockets and TLS, which name hosts at most; the host of a
    // webhook is no secret, its path is.
    let error = error.without_url();
    match crate::error_chain::causes(&error).last() {
        Some(cause) => format!("{kind}: {}", crate::printable::printable(cause)),
        None => kind.to_owned(),
    }
}

fn client(timeout: Duration) -> Result<Client, ChannelError> {
    // Fails only where a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        // A redirect would hand the alert, and the secret in the URL, to somebody else.
        .redirect(Policy::none())
        .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(ChannelError::Client)
}

fn secret_url(
    channel: &'static str,
    name: &str,
    key: &'static str,
    file: &str,
    folder: &Path,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<SecretUrl>, ChannelError> {
    let from_variable =
        (!name.is_empty()).then(|| variable(name)).flatten().filter(|value| !value.is_empty()).map(
            |value| (Zeroizing::new(value.to_string_lossy().into_owned()), format!("${name}")),
        );
    let (text, place) = match from_variable {
        Some(found) => found,
        None if file.is_empty() => return Ok(None),
        None => {
            let path = folder.join(file);
            let failed = |source| ChannelError::Read { key, path: path.clone(), source };
            let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(ChannelError::Open { key, path });
            }
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            (Zeroizing::new(text), path.display().to_string())
        }
    };
    let line = text.lines().next().unwrap_or_default().trim();
    let url = Url::parse(line).ok().filter(|url| {
        line.len() <= MAX_URL_BYTES && matches!(url.scheme(), "http" | "https") && url.has_host()
    });
    url.map(|url| Some(SecretUrl(url))).ok_or(ChannelError::Url { channel, place })
}

fn template(file: &str, folder: &Path) -> Result<Option<String>, ChannelError> {
    if file.is_empty() {
        return Ok(None);
    }
    let (key, path) = ("webhook_template", folder.join(file));
    let failed = |source| ChannelError::Read { key, path: path.clone(), source };
    if std::fs::metadata(&path).map_err(failed)?.len() > MAX_TEMPLATE_BYTES {
        let why = format!("it is larger than {} KiB", MAX_TEMPLATE_BYTES >> 10);
        return Err(ChannelError::Template { path, why });
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    // Better known now than when a host is lost.
    body::templated(&text, &body::example()).map_err(|why| ChannelError::Template { path, why })?;
    Ok(Some(text))
}

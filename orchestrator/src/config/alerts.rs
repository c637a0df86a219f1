//! `[alerts]`: who is told when a host's state changes.

use std::time::Duration;

use super::read::duration_of;
use super::{Problems, Section};

/// `[alerts]`. A URL often holds a secret, so that none stands here: each comes from an environment
/// variable or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsConfig {
    /// The variable that holds the webhook's URL.
    pub webhook_url_env: String,
    /// The file that holds the webhook's URL; empty for none.
    pub webhook_url_file: String,
    /// A template of the webhook's body; empty for the built-in one.
    pub webhook_template: String,
    /// The variable that holds the URL of a Slack incoming webhook, or one that takes its body.
    pub slack_url_env: String,
    /// The file that holds it; empty for none.
    pub slack_url_file: String,
    /// The variable that holds the URL of a Discord webhook.
    pub discord_url_env: String,
    /// The file that holds it; empty for none.
    pub discord_url_file: String,
    /// Where mail goes, addresses separated by commas; empty for none.
    pub mail_to: String,
    /// Who it comes from; empty leaves that to sendmail.
    pub mail_from: String,
    /// The program that sends it.
    pub sendmail: String,
    /// After how long a state that stays bad is told again.
    pub remind_after: Duration,
    /// How long one delivery may take.
    pub timeout: Duration,
    /// For how long an alert that cannot be delivered is kept.
    pub keep_undelivered: Duration,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            webhook_url_env: "ORCHESTRATOR_WEBHOOK_URL".to_owned(),
            webhook_url_file: String::new(),
            webhook_template: String::new(),
            slack_url_env: "ORCHESTRATOR_SLACK_URL".to_owned(),
            slack_url_file: String::new(),
            discord_url_env: "ORCHESTRATOR_DISCORD_URL".to_owned(),
            discord_url_file: String::new(),
            mail_to: String::new(),
            mail_from: String::new(),
            sendmail: "/usr/sbin/sendmail".to_owned(),
            remind_after: Duration::from_hours(12),
            timeout: Duration::from_secs(10),
            keep_undelivered: Duration::from_hours(24),
        }
    }
}

pub(super) const KEYS: [&str; 13] = [
    "webhook_url_env",
    "webhook_url_file",
    "webhook_template",
    "slack_url_env",
    "slack_url_file",
    "discord_url_env",
    "discord_url_file",
    "mail_to",
    "mail_from",
    "sendmail",
    "remind_after",
    "timeout",
    "keep_undelivered",
];

pub(super) fn read(section: &Section<'_>, problems: &mut Problems) -> AlertsConfig {
    let d = AlertsConfig::default();
    let days = Duration::from_secs(1)..=Duration::from_hours(365 * 24);
    let wait = Duration::from_millis(100)..=Duration::from_secs(300);
    let problems = std::cell::RefCell::new(problems);
    let time = |key, bounds, default| {
        duration_of(section, key, bounds, default, &mut problems.borrow_mut())
    };
    let text = |key, default: String| {
        let problems = &mut problems.borrow_mut();
        let Some(found) = section.text(key, problems) else { return default };
        // A line break would start another header of the mail or another argument of nobody's.
        if found.value.chars().any(char::is_control) {
            problems.error(found.span, format!("`{key}` has a control character"));
        } else if key.ends_with("_env") && found.value.contains(['/', ':', '=', ' ']) {
            // Most likely the URL itself, which does not belong here and is not shown.
            let message =
                format!("`{key}` is the name of an environment variable, and this is none");
            problems.error_in_secret(found.span, message);
        }
        found.value.to_owned()
    };
    AlertsConfig {
        webhook_url_env: text("webhook_url_env", d.webhook_url_env),
        webhook_url_file: text("webhook_url_file", d.webhook_url_file),
        webhook_template: text("webhook_template", d.webhook_template),
        slack_url_env: text("slack_url_env", d.slack_url_env),
        slack_url_file: text("slack_url_file", d.slack_url_file),
        discord_url_env: text("discord_url_env", d.discord_url_env),
        discord_url_file: text("discord_url_file", d.discord_url_file),
        mail_to: text("mail_to", d.mail_to),
        mail_from: text("mail_from", d.mail_from),
        sendmail: text("sendmail", d.sendmail),
        remind_after: time("remind_after", &days, d.remind_after),
        timeout: time("timeout", &wait, d.timeout),
        keep_undelivered: time("keep_undelivered", &days, d.keep_undelivered),
    }
}

//! `[alerts]`: who is told when a host's state changes.

use std::time::Duration;

use super::keys::Keys;

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

pub(super) fn read(keys: &Keys<'_, '_>) -> AlertsConfig {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let days = Duration::from_secs(1)..=hours(365 * 24);
    let wait = Duration::from_millis(100)..=Duration::from_secs(300);
    // A line break would start another header of the mail or another argument of nobody's.
    let plain = |text: &str| match text.chars().any(char::is_control) {
        true => Err("it has a control character".to_owned()),
        false => Ok(text.to_owned()),
    };
    let text = |key, default: &str| keys.parsed(key, default, false, plain, || default.to_owned());
    // Most likely the URL itself, which does not belong here and is not shown.
    let variable = |key, default: &str| {
        let name = |text: &str| match text.contains(['/', ':', '=', ' ']) {
            true => {
                Err("this is to be the name of an environment variable, and is none".to_owned())
            }
            false => plain(text),
        };
        keys.parsed(key, default, true, name, || default.to_owned())
    };
    AlertsConfig {
        webhook_url_env: variable("webhook_url_env", "ORCHESTRATOR_WEBHOOK_URL"),
        webhook_url_file: text("webhook_url_file", ""),
        webhook_template: text("webhook_template", ""),
        slack_url_env: variable("slack_url_env", "ORCHESTRATOR_SLACK_URL"),
        slack_url_file: text("slack_url_file", ""),
        discord_url_env: variable("discord_url_env", "ORCHESTRATOR_DISCORD_URL"),
        discord_url_file: text("discord_url_file", ""),
        mail_to: text("mail_to", ""),
        mail_from: text("mail_from", ""),
        sendmail: text("sendmail", "/usr/sbin/sendmail"),
        remind_after: keys.time("remind_after", days.clone(), hours(12)),
        timeout: keys.time("timeout", wait, Duration::from_secs(10)),
        keep_undelivered: keys.time("keep_undelivered", days, hours(24)),
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        super::Config::default().alerts
    }
}

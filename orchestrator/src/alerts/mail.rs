//! Mail through the local sendmail(8) interface, which every mail system of a Unix machine has.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Alert;
use crate::config::AlertsConfig;
use crate::printable::last_line;

/// Where mail goes. No field has a control character; the configuration refuses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    program: String,
    to: String,
    from: String,
}

impl Mail {
    pub(super) fn of(config: &AlertsConfig) -> Option<Self> {
        let to = config.mail_to.trim().to_owned();
        (!to.is_empty()).then(|| Self {
            program: config.sendmail.clone(),
            to,
            from: config.mail_from.trim().to_owned(),
        })
    }

    pub(super) async fn send(&self, alert: &Alert, timeout: Duration) -> Result<(), String> {
        let work = async {
            // -i: a line of one dot is no end. -t: the recipients are those of the headers.
            let mut child = Command::new(&self.program)
                .args(["-i", "-t"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| format!("cannot start {}: {error}", self.program))?;
            let message = self.message(alert);
            if let Some(mut stdin) = child.stdin.take() {
                // A program that ends early has said why on standard error.
                let _ = stdin.write_all(message.as_bytes()).await;
            }
            let done = child.wait_with_output().await.map_err(|error| error.to_string())?;
            if done.status.success() {
                return Ok(());
            }
            Err(format!("{} ended with {}: {}", self.program, done.status, last_line(&done.stderr)))
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(format!("{} did not end in time", self.program)),
        }
    }

    /// Headers (RFC 5322) and text. All of it but names and addresses is cleaned to one line each.
    fn message(&self, alert: &Alert) -> String {
        let mut text = format!("To: {}\n", self.to);
        if !self.from.is_empty() {
            text += &format!("From: {}\n", self.from);
        }
        let subject: String = alert.subject().chars().filter(char::is_ascii).take(200).collect();
        text += &format!(
            "Subject: [orchestrator] {subject}\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\
             Auto-Submitted: auto-generated\n\n"
        );
        for line in alert.lines() {
            text += &line;
            text.push('\n');
        }
        text += "\n";
        for change in alert.changes.iter().filter(|change| !change.fix.is_empty()).take(20) {
            text += &format!("{}: {}\n", change.host, crate::printable::printable(&change.fix));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_host_becomes_a_header() {
        let mail =
            Mail { program: String::new(), to: "ops@example.org".into(), from: String::new() };
        let mut alert = super::super::body::example();
        alert.from = "a\nBcc: evil@example.org".into();
        alert.test = true;
        alert.changes[0].fix = "x\n.\nBcc: evil@example.org".into();
        let message = mail.message(&alert);
        let (headers, _) = message.split_once("\n\n").unwrap();
        assert_eq!(headers.lines().count(), 6, "{headers}");
        assert!(!message.lines().any(|line| line.starts_with("Bcc:") || line == "."), "{message}");
    }
}

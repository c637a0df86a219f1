//! The bodies of alerts.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde_json::json;

use super::{Alert, AlertChange};
use crate::ids::HostName;

/// Discord refuses longer messages, in characters.
const DISCORD_CHARS: usize = 2_000;

/// Slack cuts longer ones badly, in characters.
const SLACK_CHARS: usize = 3_000;

/// The document of a webhook.
pub(super) fn plain(alert: &Alert) -> String {
    document(alert).to_string()
}

fn document(alert: &Alert) -> serde_json::Value {
    json!({
        "event": match (alert.test, &alert.notice) {
            (true, _) => "test",
            (false, Some(_)) => "notice",
            (false, None) => "hosts_changed",
        },
        "at_ms": alert.at_ms,
        "from": alert.from,
        "subject": alert.subject(),
        "hosts": alert.hosts,
        "well": alert.well,
        "changes": alert.changes,
    })
}

/// A body of the operator's own making, which must be JSON.
pub(super) fn templated(template: &str, alert: &Alert) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The one way for text into JSON, quotes included.
    environment.add_filter("json", |value: Value| {
        serde_json::to_string(&value).map(Value::from_safe_string).map_err(|error| {
            minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string())
        })
    });
    let mut context = document(alert);
    if let Some(map) = context.as_object_mut() {
        map.insert("lines".to_owned(), json!(alert.lines()));
    }
    let text = environment
        .render_str(template, Value::from(Serde(context)))
        .map_err(|error| error.to_string())?;
    serde_json::from_str::<serde_json::Value>(&text)
        .map_err(|error| format!("what it gives is no JSON: {error}"))?;
    Ok(text)
}

/// Slack's body. `&`, `<` and `>` are its only special characters.
pub(super) fn slack(alert: &Alert) -> String {
    let text = text(alert, SLACK_CHARS);
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "text": text }).to_string()
}

/// Discord's body. Nobody is mentioned, whatever a host is called.
pub(super) fn discord(alert: &Alert) -> String {
    let content = text(alert, DISCORD_CHARS);
    json!({ "content": content, "allowed_mentions": { "parse": [] } }).to_string()
}

fn text(alert: &Alert, most: usize) -> String {
    let text = format!("{}\n{}", alert.subject(), alert.lines().join("\n"));
    if text.chars().count() <= most {
        return text;
    }
    let cut: String = text.chars().take(most.saturating_sub(4)).collect();
    format!("{cut}\n...")
}

/// An alert that has everything, to try a template with.
pub(super) fn example() -> Alert {
    let change = |host: &str, after: &str, well, reminder| AlertChange {
        host: HostName::new(host).expect("a constant of the right letters"),
        before: "ready".to_owned(),
        after: after.to_owned(),
        reminder,
        well,
        message: "the host was not reached: tcp: \"quoted\"".to_owned(),
        fix: "ssh -p 22 root@gpu-01 true".to_owned(),
    };
    Alert {
        at_ms: 1_760_000_000_000,
        from: "ops@desk".to_owned(),
        hosts: 10,
        well: 8,
        changes: vec![
            change("gpu-01", "unreachable", false, false),
            change("gpu-02", "degraded", false, true),
            change("gpu-03", "ready", true, false),
        ],
        test: false,
        notice: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_names_the_first_and_counts_the_rest() {
        let mut alert = example();
        assert_eq!(
            alert.subject(),
            "3 hosts changed: gpu-01 unreachable, gpu-02 degraded, gpu-03 ready"
        );
        for _ in 0..40 {
            alert.changes.push(alert.changes[0].clone());
        }
        assert!(alert.subject().ends_with("gpu-03 ready and 40 more"));
        assert_eq!(alert.lines().len(), 22);
        assert_eq!(alert.lines()[20], "... and 23 more");
        alert.changes = vec![alert.changes[1].clone()];
        assert_eq!(alert.subject(), "1 host still in trouble: gpu-02 degraded");
    }

    #[test]
    fn bodies_are_json_and_hold_what_they_may() {
        let mut alert = example();
        alert.changes[0].message = format!("<@everyone> & \"{}\"", "x".repeat(900));
        for _ in 0..40 {
            alert.changes.push(alert.changes[0].clone());
        }
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let discord = read(&discord(&alert));
        assert!(discord["content"].as_str().unwrap().chars().count() <= DISCORD_CHARS);
        assert_eq!(discord["allowed_mentions"]["parse"], json!([]));
        let slack = read(&slack(&alert));
        assert!(slack["text"].as_str().unwrap().contains("&lt;@everyone&gt; &amp;"));
        assert_eq!(read(&plain(&alert))["changes"][0]["host"], "gpu-01");
    }

    #[test]
    fn a_template_gives_json_or_an_error() {
        let good = r#"{"t": {{ subject | json }}, "l": [{% for line in lines %}{{ line | json }}{% if not loop.last %},{% endif %}{% endfor %}]}"#;
        let body = templated(good, &example()).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["t"], example().subject());
        assert_eq!(body["l"].as_array().unwrap().len(), 4);
        for bad in ["{{ nothing }}", "{% for x in", "{\"t\": {{ subject }}}"] {
            assert!(templated(bad, &example()).is_err(), "{bad}");
        }
    }
}

//! From a pass to alerts: what changed goes into the outbox in one transaction, and what is due in
//! the outbox goes out, after the pass and never as a part of it.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::json;

use super::millis;
use super::report::{HostReport, SweepReport};
use crate::alerts::{Alert, AlertChange, Channels, longest_delivery};
use crate::config::AlertsConfig;
use crate::host_state::HostState;
use crate::ids::HostName;
use crate::store::{AlertRow, Error, HostChange, NewEvent, Store, now_ms};

/// Alerts that are delivered at most after one pass.
const AT_ONE_TIME: u32 = 50;

/// The first pause after a delivery that failed; later ones double.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(3_600);

/// Why alerts could not be queued or delivered.
pub type NotifyError = Error;

/// What became of the alerts that were due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Delivered.
    pub sent: u64,
    /// Given up: too old, or for a channel that is no more.
    pub given_up: u64,
    /// That wait.
    pub waiting: u64,
    /// Why some wait, one line for each channel.
    pub errors: Vec<String>,
}

/// Queues what nobody was told of yet. Returns how many hosts that is.
///
/// # Errors
/// The database cannot be written; the next pass then queues the same.
pub async fn queue(
    store: &Store,
    actor: &str,
    report: &SweepReport,
    channels: &Channels,
    config: &AlertsConfig,
) -> Result<usize, Error> {
    let names: Vec<&str> = channels.all().iter().map(|channel| channel.name()).collect();
    // Without a channel nobody is told, so that whoever sets one up hears of the present state.
    if names.is_empty() {
        return Ok(0);
    }
    let states: Vec<(HostName, HostState)> =
        report.hosts.iter().map(|host| (host.host.clone(), host.state)).collect();
    let write = |changes: &[HostChange]| {
        let alert = alert(actor, report, changes);
        serde_json::to_string(&alert).unwrap_or_default()
    };
    let changes = store.queue_alerts(&states, &names, millis(config.remind_after), write).await?;
    Ok(changes.len())
}

/// Queues one sentence about the service itself, for every channel.
///
/// # Errors
/// The database cannot be written.
pub async fn queue_notice(
    store: &Store,
    actor: &str,
    notice: &str,
    channels: &Channels,
) -> Result<(), Error> {
    let names: Vec<&str> = channels.all().iter().map(|channel| channel.name()).collect();
    let alert = Alert {
        at_ms: now_ms(),
        from: actor.to_owned(),
        hosts: 0,
        well: 0,
        changes: Vec::new(),
        test: false,
        notice: Some(notice.to_owned()),
    };
    // A struct of strings and numbers always has a JSON form.
    let alert = serde_json::to_string(&alert).unwrap_or_default();
    store.queue_notice(&names, &alert).await
}

fn alert(actor: &str, report: &SweepReport, changes: &[HostChange]) -> Alert {
    let of = |name: &HostName| -> Option<&HostReport> {
        let place = report.hosts.binary_search_by(|host| host.host.cmp(name)).ok()?;
        report.hosts.get(place)
    };
    let mut changes: Vec<AlertChange> = changes
        .iter()
        .map(|change| {
            let host = of(&change.host);
            let worst = host.and_then(|host| {
                host.findings.iter().find(|finding| Some(finding.code) == host.reason)
            });
            AlertChange {
                host: change.host.clone(),
                before: change.before.to_string(),
                after: change.after.to_string(),
                reminder: change.reminder,
                well: host.is_some_and(|host| host.ok),
                message: host.map(|host| host.message.clone()).unwrap_or_default(),
                fix: worst.map(|finding| finding.fix.clone()).unwrap_or_default(),
            }
        })
        .collect();
    changes.sort_by(|a, b| (a.well, a.reminder, &a.host).cmp(&(b.well, b.reminder, &b.host)));
    Alert {
        at_ms: now_ms(),
        from: actor.to_owned(),
        hosts: report.hosts.len(),
        well: report.counts.well,
        changes,
        test: false,
        notice: None,
    }
}

/// Delivers what is due. Channels go side by side; one that fails is not tried again this time, so
/// that the whole is bounded by one delivery and what went before it.
///
/// # Errors
/// The database cannot be read or written. A delivery that fails is no error: it waits.
///
/// # Cancel safety
/// An alert whose delivery is dropped comes again when its claim is over.
pub async fn deliver(
    store: &Store,
    actor: &str,
    channels: &Channels,
    config: &AlertsConfig,
) -> Result<Delivery, Error> {
    let due = store.due_alerts(AT_ONE_TIME).await?;
    let mut names: Vec<&str> = due.iter().map(|row| row.channel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut work = Vec::with_capacity(names.len());
    for name in names {
        let rows = due.iter().filter(|row| row.channel == name).collect();
        work.push(one_channel(store, actor, channels, config, rows));
    }
    let mut all = futures_util::stream::iter(work).buffer_unordered(8);
    let mut delivery = Delivery::default();
    while let Some(done) = all.next().await {
        let done = done?;
        delivery.sent += done.sent;
        delivery.given_up += done.given_up;
        delivery.errors.extend(done.errors);
    }
    delivery.waiting = store.waiting_alerts().await?;
    Ok(delivery)
}

async fn one_channel(
    store: &Store,
    actor: &str,
    channels: &Channels,
    config: &AlertsConfig,
    rows: Vec<&AlertRow>,
) -> Result<Delivery, Error> {
    let mut delivery = Delivery::default();
    for row in rows {
        let too_old = now_ms().saturating_sub(row.created_ms) > millis(config.keep_undelivered);
        let channel = channels.named(&row.channel);
        let alert: Option<Alert> = serde_json::from_str(&row.alert_json).ok();
        let (Some(channel), Some(alert), false) = (channel, alert, too_old) else {
            give_up(store, actor, row).await?;
            delivery.given_up += 1;
            continue;
        };
        let until = now_ms().saturating_add(millis(longest_delivery(config)));
        if !store.claim_alert(row, until).await? {
            continue;
        }
        match channels.send(channel, &alert).await {
            Ok(()) => {
                store.remove_alert(&row.id).await?;
                delivery.sent += 1;
            }
            Err(error) => {
                let factor = 2_u32.saturating_pow(row.attempts.min(16));
                let pause = FIRST_PAUSE.saturating_mul(factor).min(LAST_PAUSE);
                let next = now_ms().saturating_add(millis(pause));
                let why = error.to_string();
                store.postpone_alert(&row.id, next, &why).await?;
                delivery.errors.push(why);
                break;
            }
        }
    }
    Ok(delivery)
}

async fn give_up(store: &Store, actor: &str, row: &AlertRow) -> Result<(), Error> {
    store.remove_alert(&row.id).await?;
    let event = NewEvent {
        kind: "alert.given_up",
        host: None,
        detail: json!({ "channel": row.channel, "attempts": row.attempts }),
    };
    store.append_events(actor, &[event]).await
}

//! Sweeps of a running service: on a schedule, over connections that stay open.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::notify::{deliver, queue};
use super::report::SweepReport;
use super::{SweepError, Sweeper, millis};
use crate::alerts::Channels;
use crate::config::AlertsConfig;
use crate::store::{SweepCounts, now_ms};
use crate::sweep::Schedule;

/// How long a loop rests when its schedule has no next time at all.
const NO_NEXT_TIME: Duration = Duration::from_secs(3_600);

/// When sweeps of a loop are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pace {
    /// At the times of a schedule, read in UTC.
    Schedule(Box<Schedule>),
    /// So long after the end of the one before; the first at once.
    Every(Duration),
}

/// What the loop has done last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepStatus {
    /// When the last pass ended, milliseconds.
    pub ended_ms: Option<i64>,
    /// How long it took, milliseconds.
    pub elapsed_ms: Option<u64>,
    /// What it counted.
    pub counts: Option<SweepCounts>,
    /// Why the last one did not come to its end, if it did not.
    pub problem: Option<String>,
    /// When the next is due, milliseconds.
    pub next_ms: Option<i64>,
}

/// Sweeps until `cancel` fires, and publishes what it did. A pass that fails is told in the status and
/// the log, and the next comes all the same. With `follow_deploys`, each pass is over the hosts that
/// the database knows by then, and else over those of the sweeper.
///
/// Up to `jitter` is added to every due time, so that several orchestrators do not start together.
///
/// # Cancel safety
/// Ends by `cancel`: a pass under way is stopped, and its connections are closed.
pub async fn sweep_loop(
    mut sweeper: Sweeper,
    pace: Pace,
    jitter: Duration,
    follow_deploys: bool,
    alerts: (Channels, AlertsConfig),
    status: watch::Sender<SweepStatus>,
    cancel: CancellationToken,
) {
    let mut first = true;
    loop {
        let pause = until_next(&pace, first).saturating_add(part_of(jitter));
        first = false;
        let next_ms = now_ms().saturating_add(millis(pause));
        status.send_modify(|status| status.next_ms = Some(next_ms));
        // Cancel safety: a sleep that is lost is no matter.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => break,
        }
        if follow_deploys {
            match sweeper.fleet().store.hosts().await {
                Ok(records) => {
                    sweeper.set_hosts(records.into_iter().map(|record| record.spec).collect());
                }
                Err(error) => tracing::warn!(%error, "cannot read the hosts to sweep"),
            }
        }
        let done = sweeper.pass(&cancel).await;
        if cancel.is_cancelled() {
            break;
        }
        publish(&status, &done);
        if let Ok(report) = &done {
            tell(&sweeper, report, &alerts).await;
        }
    }
    sweeper.close().await;
}

/// Queues and delivers; trouble with either is the log's.
async fn tell(
    sweeper: &Sweeper,
    report: &SweepReport,
    (channels, config): &(Channels, AlertsConfig),
) {
    let fleet = sweeper.fleet();
    if let Err(error) = queue(&fleet.store, &fleet.actor, report, channels, config).await {
        tracing::warn!(%error, "cannot queue alerts");
    }
    match deliver(&fleet.store, &fleet.actor, channels, config).await {
        Ok(delivery) => {
            for error in delivery.errors {
                tracing::warn!(%error, "an alert waits");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot deliver alerts"),
    }
}

fn publish(status: &watch::Sender<SweepStatus>, done: &Result<SweepReport, SweepError>) {
    status.send_modify(|status| match done {
        Ok(report) => {
            status.ended_ms = Some(now_ms());
            status.elapsed_ms = Some(report.elapsed_ms);
            status.counts = Some(report.counts);
            status.problem = None;
        }
        Err(error) => {
            tracing::warn!(%error, "the sweep did not come to its end");
            status.problem = Some(error.to_string());
        }
    });
}

fn until_next(pace: &Pace, first: bool) -> Duration {
    match pace {
        Pace::Every(_) if first => Duration::ZERO,
        Pace::Every(interval) => *interval,
        Pace::Schedule(schedule) => {
            let now = now_ms();
            let gap = schedule.next_after(now).map(|next| next.saturating_sub(now));
            let gap = gap.and_then(|gap| u64::try_from(gap).ok());
            gap.map_or(NO_NEXT_TIME, Duration::from_millis)
        }
    }
}

/// A part of `whole` that differs from call to call.
fn part_of(whole: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let spread = RandomState::new().hash_one(0_u8);
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(if nanos == 0 { 0 } else { spread % nanos })
}

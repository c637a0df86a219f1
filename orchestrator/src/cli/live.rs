//! What a person sees while a fleet operation runs: on a terminal a row for each host at work, an
//! overall bar and what is waited for; otherwise one plain line for each host that ends.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::report::{Report, Tone};
use crate::fleet::{FleetEvent, HostOutcome, Step};
use crate::fleet_file::range::compress;
use crate::ids::HostName;

/// Rows of hosts at a time: what fits above the overall bar on a small terminal.
const MAX_ROWS: usize = 16;

/// How often rows are drawn anew while nothing happens, for their clocks.
const TICK: Duration = Duration::from_millis(250);

/// Follows an operation to its end and shows it. Returns when every sender is gone.
pub async fn follow(
    report: &Report,
    total: usize,
    mut events: mpsc::UnboundedReceiver<FleetEvent>,
) {
    let mut view = View::new(report, total);
    while let Some(event) = events.recv().await {
        match event {
            FleetEvent::Step { host, step } => view.step(&host, step),
            FleetEvent::Done(outcome) => view.done(&outcome),
        }
    }
    view.finish();
}

/// A host's line of `--json`.
#[derive(serde::Serialize)]
struct Row<'o> {
    event: &'static str,
    #[serde(flatten)]
    outcome: &'o HostOutcome,
}

struct View<'r> {
    report: &'r Report,
    drawn: Option<Drawn>,
    total: usize,
    done: usize,
}

/// The bars of a terminal.
struct Drawn {
    bars: MultiProgress,
    overall: ProgressBar,
    rows: BTreeMap<HostName, ProgressBar>,
    /// Hosts at work that have no row, with their step.
    rowless: BTreeMap<HostName, Step>,
    row_style: ProgressStyle,
}

impl<'r> View<'r> {
    fn new(report: &'r Report, total: usize) -> Self {
        let drawn = (report.may_draw() && total > 0).then(|| Drawn::new(report, total));
        Self { report, drawn, total, done: 0 }
    }

    fn step(&mut self, host: &HostName, step: Step) {
        if let Some(drawn) = &mut self.drawn {
            drawn.step(host, step);
        }
    }

    fn done(&mut self, outcome: &HostOutcome) {
        self.done += 1;
        self.report.json(&Row { event: "host", outcome });
        let line = line(self.report, outcome, self.done, self.total);
        match &mut self.drawn {
            Some(drawn) => drawn.done(&outcome.host, (!outcome.ok).then_some(line)),
            None if !self.report.is_json() => self.report.note(&line),
            None => {}
        }
    }

    fn finish(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            drawn.overall.finish_and_clear();
            let _terminal_gone = drawn.bars.clear();
        }
    }
}

/// One line for a host that ended.
fn line(report: &Report, outcome: &HostOutcome, done: usize, total: usize) -> String {
    let seconds = Duration::from_millis(outcome.elapsed_ms).as_secs_f64();
    let (word, tone) = if outcome.ok { ("ok", Tone::Good) } else { ("failed", Tone::Bad) };
    let reason = outcome.reason.map(|reason| format!(" [{reason}]")).unwrap_or_default();
    format!(
        "[{done}/{total}] {} {}{reason} {} ({seconds:.1} s)",
        outcome.host,
        report.err_tone(word, tone),
        outcome.whole_message(),
    )
}

impl Drawn {
    fn new(report: &Report, total: usize) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let (overall_template, row_template) = if report.stderr_color() {
            (
                "{bar:30.green/dim} {pos}/{len} hosts {elapsed:.dim} {wide_msg}",
                "  {spinner:.cyan} {prefix:<24.bold} {wide_msg} {elapsed:.dim}",
            )
        } else {
            (
                "{bar:30} {pos}/{len} hosts {elapsed} {wide_msg}",
                "  {spinner} {prefix:<24} {wide_msg} {elapsed}",
            )
        };
        let style = |template| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let overall = bars.add(ProgressBar::new(total as u64).with_style(style(overall_template)));
        overall.enable_steady_tick(TICK);
        Self {
            bars,
            overall,
            rows: BTreeMap::new(),
            rowless: BTreeMap::new(),
            row_style: style(row_template),
        }
    }

    fn step(&mut self, host: &HostName, step: Step) {
        if let Some(row) = self.rows.get(host) {
            row.set_message(words(step));
        } else if self.rows.len() < MAX_ROWS {
            self.add_row(host, step);
        } else {
            self.rowless.insert(host.clone(), step);
        }
        self.say_waiting();
    }

    fn done(&mut self, host: &HostName, failure: Option<String>) {
        self.rowless.remove(host);
        if let Some(row) = self.rows.remove(host) {
            row.finish_and_clear();
            self.bars.remove(&row);
        }
        if let Some((next, step)) = self.rowless.pop_first() {
            self.add_row(&next, step);
        }
        if let Some(line) = failure {
            let _terminal_gone = self.bars.println(line);
        }
        self.overall.inc(1);
        self.say_waiting();
    }

    fn add_row(&mut self, host: &HostName, step: Step) {
        let row = ProgressBar::new_spinner()
            .with_style(self.row_style.clone())
            .with_prefix(host.to_string())
            .with_message(words(step));
        let row = self.bars.insert_before(&self.overall, row);
        row.enable_steady_tick(TICK);
        self.rows.insert(host.clone(), row);
    }

    /// Names who is waited for once they are few.
    fn say_waiting(&self) {
        let left = self.overall.length().unwrap_or(0).saturating_sub(self.overall.position());
        let working = self.rows.len() + self.rowless.len();
        let message = if left > 0 && left <= MAX_ROWS as u64 && working as u64 == left {
            let names = self.rows.keys().chain(self.rowless.keys()).map(HostName::as_str);
            format!("waiting on {}", compress(names))
        } else {
            String::new()
        };
        self.overall.set_message(message);
    }
}

fn words(step: Step) -> String {
    match step {
        Step::Uploading { sent, total } if total > 0 => {
            format!("uploading {}%", sent.saturating_mul(100) / total)
        }
        step => step.name().to_owned(),
    }
}

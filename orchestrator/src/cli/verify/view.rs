//! What a person sees while a host is verified: on a terminal a row for each GPU with its step and its
//! clock, otherwise one plain line for each step.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::report::Report;
use crate::fleet::{GpuStep, VerifyEvent, VerifyStep, short_uuid};
use crate::ids::HostName;

/// How often rows are drawn anew while nothing happens, for their clocks.
const TICK: Duration = Duration::from_millis(250);

/// Shows the events of one verification.
pub struct View<'r> {
    report: &'r Report,
    host: HostName,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    drawn: Option<Drawn>,
    /// What each GPU is called, by its place.
    names: Vec<String>,
    /// The step that was told last, where there is no terminal.
    told: Option<GpuStep>,
}

struct Drawn {
    bars: MultiProgress,
    host: ProgressBar,
    gpus: Vec<ProgressBar>,
    style: ProgressStyle,
}

impl<'r> View<'r> {
    /// A view that shows nothing yet.
    pub fn new(report: &'r Report, host: &HostName) -> Self {
        let drawn = report.may_draw().then(|| Drawn::new(report, host));
        let state = State { drawn, ..State::default() };
        Self { report, host: host.clone(), state: Mutex::new(state) }
    }

    /// Shows an event.
    pub fn show(&self, event: VerifyEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            VerifyEvent::Step(step) => match &state.drawn {
                Some(drawn) => drawn.host.set_message(host_words(step)),
                None => self.note(host_words(step)),
            },
            VerifyEvent::Gpus(gpus) => {
                state.names = gpus
                    .iter()
                    .map(|gpu| format!("GPU {} {}", gpu.index, short_uuid(&gpu.uuid)))
                    .collect();
                if state.names.is_empty() {
                    state.names.push("reference".to_owned());
                }
                let names = state.names.clone();
                if let Some(drawn) = &mut state.drawn {
                    drawn.add_rows(&names);
                }
            }
            VerifyEvent::Again(number) => {
                state.told = None;
                let words = format!("only times were wrong: all of them once more, try {number}");
                match &state.drawn {
                    Some(drawn) => {
                        let line = format!("{}: {words}", self.host);
                        let _terminal_gone = drawn.bars.println(line);
                    }
                    None => self.note(&words),
                }
            }
            VerifyEvent::Gpu { gpu, step } => self.gpu(&mut state, gpu, step),
            // For those who ask from afar.
            VerifyEvent::LeftOut(_)
            | VerifyEvent::Issued { .. }
            | VerifyEvent::Root { .. }
            | VerifyEvent::Awaiting(_) => {}
        }
    }

    fn gpu(&self, state: &mut State, gpu: usize, step: GpuStep) {
        let name = state.names.get(gpu).cloned().unwrap_or_default();
        if let Some(drawn) = &state.drawn {
            if let Some(row) = drawn.gpus.get(gpu) {
                row.set_message(gpu_words(step));
                if step == GpuStep::Failed {
                    row.finish();
                }
            }
        } else if step == GpuStep::Failed {
            self.note(&format!("{name} has failed"));
        } else if step != GpuStep::Filled && state.told != Some(step) {
            state.told = Some(step);
            self.note(gpu_words(step));
        }
    }

    fn note(&self, words: &str) {
        self.report.note(&format!("{}: {words}", self.host));
    }

    /// Takes the rows off the terminal again.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drawn) = state.drawn.take() {
            drawn.host.finish_and_clear();
            let _terminal_gone = drawn.bars.clear();
        }
    }
}

impl Drawn {
    fn new(report: &Report, host: &HostName) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let template = if report.stderr_color() {
            "{spinner:.cyan} {prefix:<20.bold} {wide_msg} {elapsed:.dim}"
        } else {
            "{spinner} {prefix:<20} {wide_msg} {elapsed}"
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let row = ProgressBar::new_spinner().with_style(style.clone());
        let row = bars.add(row.with_prefix(host.to_string()));
        row.enable_steady_tick(TICK);
        Self { bars, host: row, gpus: Vec::new(), style }
    }

    fn add_rows(&mut self, names: &[String]) {
        for name in names {
            let row = ProgressBar::new_spinner().with_style(self.style.clone());
            let row = self.bars.add(row.with_prefix(format!("  {name}")).with_message("waiting"));
            row.enable_steady_tick(TICK);
            self.gpus.push(row);
        }
    }
}

fn host_words(step: VerifyStep) -> &'static str {
    match step {
        VerifyStep::Connecting => "connecting",
        VerifyStep::Starting => "starting the runner",
        VerifyStep::Looking => "looking for its GPUs",
        VerifyStep::Challenging => "challenging",
        VerifyStep::Judging => "judging the proofs",
    }
}

fn gpu_words(step: GpuStep) -> &'static str {
    match step {
        GpuStep::Preparing => "preparing",
        GpuStep::Loading => "loading the kernels",
        GpuStep::Filling => "filling the memory",
        GpuStep::Filled => "filled, waiting for the others",
        GpuStep::Probing => "walking and multiplying it",
        GpuStep::Opening => "opening the commitments",
        GpuStep::Holding => "holding it until a random moment",
        GpuStep::Releasing => "giving it back",
        GpuStep::Failed => "failed",
    }
}

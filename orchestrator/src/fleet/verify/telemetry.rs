//! What the GPUs were at while they proved, as the host said: information, never a judgement.

use std::collections::BTreeMap;

use runner_protocol::Telemetry;
use runner_protocol::telemetry::GpuTelemetry;
use serde::Serialize;

use crate::printable::printable;

/// The most different words that are kept of one GPU: NVML has a dozen.
const MAX_WORDS: usize = 16;

/// The smallest and the largest value that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

/// One GPU during a challenge. `None` where the device does not report a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// How many samples came.
    pub samples: u64,
    /// SM clock in MHz.
    pub sm_clock_mhz: Option<Span>,
    /// Memory clock in MHz.
    pub memory_clock_mhz: Option<Span>,
    /// Power draw in milliwatts.
    pub power_draw_mw: Option<Span>,
    /// Core temperature in degrees Celsius.
    pub temperature_celsius: Option<Span>,
    /// Every reason for lower clocks that was seen, in NVML's words.
    pub throttle_reasons: Vec<String>,
    /// Why the device did not answer, the last such words.
    pub problem: Option<String>,
}

impl Observed {
    /// What held the clocks down, but for having nothing to do.
    #[must_use]
    pub fn throttled(&self) -> Vec<&str> {
        self.throttle_reasons
            .iter()
            .map(String::as_str)
            .filter(|word| *word != "gpu_idle")
            .collect()
    }

    fn take(&mut self, sample: &GpuTelemetry) {
        self.samples = self.samples.saturating_add(1);
        widen(&mut self.sm_clock_mhz, sample.sm_clock_mhz.map(u64::from));
        widen(&mut self.memory_clock_mhz, sample.memory_clock_mhz.map(u64::from));
        widen(&mut self.power_draw_mw, sample.power_draw_mw);
        widen(&mut self.temperature_celsius, sample.temperature_celsius.map(u64::from));
        for word in &sample.throttle_reasons {
            let word = printable(word);
            if self.throttle_reasons.len() < MAX_WORDS && !self.throttle_reasons.contains(&word) {
                self.throttle_reasons.push(word);
            }
        }
        if let Some(problem) = &sample.problem {
            self.problem = Some(printable(problem));
        }
    }
}

fn widen(span: &mut Option<Span>, value: Option<u64>) {
    if let Some(value) = value {
        let seen = span.unwrap_or(Span { min: value, max: value });
        *span = Some(Span { min: seen.min.min(value), max: seen.max.max(value) });
    }
}

/// All GPUs that are watched, by UUID.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Watched(BTreeMap<String, Observed>);

impl Watched {
    /// Watches these GPUs and no others: what a host invents beside them takes no memory.
    pub(super) fn new<'u>(uuids: impl IntoIterator<Item = &'u str>) -> Self {
        Self(uuids.into_iter().map(|uuid| (uuid.to_owned(), Observed::default())).collect())
    }

    pub(super) fn take(&mut self, sample: &Telemetry) {
        for gpu in &sample.gpus {
            if let Some(observed) = self.0.get_mut(&gpu.uuid) {
                observed.take(gpu);
            }
        }
    }

    /// What was seen of a GPU; `None` if nothing was.
    pub(super) fn of(&self, uuid: &str) -> Option<Observed> {
        self.0.get(uuid).filter(|observed| observed.samples > 0).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_of_a_watched_gpu_is_kept_and_others_are_not() {
        let sample = |uuid: &str, clock: u32, reason: &str| GpuTelemetry {
            uuid: uuid.to_owned(),
            sm_clock_mhz: Some(clock),
            throttle_reasons: vec![reason.to_owned()],
            ..GpuTelemetry::default()
        };
        let mut watched = Watched::new(["A"]);
        for gpus in [
            vec![sample("A", 1500, "gpu_idle"), sample("B", 1, "x")],
            vec![sample("A", 1980, "sw_power_cap\u{1b}[2J")],
            vec![sample("A", 345, "gpu_idle")],
        ] {
            watched.take(&Telemetry { gpus, ..Telemetry::default() });
        }
        let seen = watched.of("A").unwrap();
        assert_eq!((seen.samples, seen.sm_clock_mhz), (3, Some(Span { min: 345, max: 1980 })));
        assert_eq!(seen.power_draw_mw, None);
        let throttled = seen.throttled();
        assert_eq!(throttled.len(), 1, "{throttled:?}");
        assert!(throttled[0].starts_with("sw_power_cap") && !throttled[0].contains('\u{1b}'));
        assert_eq!(watched.of("B"), None);
    }

    #[test]
    fn words_without_end_are_not_kept_without_end() {
        let mut watched = Watched::new(["A"]);
        for number in 0..1000 {
            let gpu = GpuTelemetry {
                uuid: "A".to_owned(),
                throttle_reasons: vec![format!("unknown_{number}")],
                ..GpuTelemetry::default()
            };
            watched.take(&Telemetry { gpus: vec![gpu], ..Telemetry::default() });
        }
        assert_eq!(watched.of("A").unwrap().throttle_reasons.len(), MAX_WORDS);
    }
}

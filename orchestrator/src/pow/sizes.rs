//! Sizes and times for a model that no table has: from its memory, and from what was measured on a card
//! that the operator trusts.

use pow_kernels::models::Profile;
use pow_kernels::timing::DEFAULT_SLACK_PERMILLE;
use pow_kernels::{Evidence, Mode, Parameters, PhaseBaseline, Sizes};

/// Cards of so much memory, in bytes, are taken for ones with stacked memory: their lines come faster,
/// so that leaves may be cheaper, chains longer and products larger.
const STACKED_MEMORY_BYTES: u64 = 60_000_000_000;

/// What is left beside the fill at least, in bytes: contexts, a product, its tree and the records.
const RESERVE_BYTES: u64 = 1_200_000_000;

/// The smallest memory, in bytes, for which there are sizes.
pub const LEAST_MEMORY_BYTES: u64 = 4_000_000_000;

/// The sizes for a card of `memory_bytes` that is in no table, by the rules of the built-in one.
/// `None` below [`LEAST_MEMORY_BYTES`].
#[must_use]
pub fn derived_sizes(memory_bytes: u64, mode: Mode) -> Option<Parameters> {
    if memory_bytes < LEAST_MEMORY_BYTES {
        return None;
    }
    let stacked = memory_bytes >= STACKED_MEMORY_BYTES;
    let permille = if mode == Mode::Deep && stacked { 940 } else { 900 };
    let share = memory_bytes / 1000 * permille;
    let fill = share.min(memory_bytes.saturating_sub(RESERVE_BYTES));
    let steps = match (mode, stacked) {
        (Mode::Deep, _) => 256,
        (Mode::Quick | Mode::Hold, true) => 32,
        (Mode::Quick | Mode::Hold, false) => 8,
    };
    Parameters::new(Sizes {
        leaf_iterations: if stacked { 4 } else { 16 },
        blocks: fill / 16_384,
        chains: 131_072,
        steps,
        windows: 1,
        window_shift: 5,
        gemms: 4,
        gemm_dimension: if stacked { 16_384 } else { 8_192 },
    })
    .ok()
}

/// What many runs of one phase took.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PhaseStatistics {
    /// How many.
    pub count: usize,
    /// The least, in nanoseconds.
    pub least_ns: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// Their standard deviation, of a sample.
    pub sigma_ns: f64,
    /// Half of them are below.
    pub p50_ns: u64,
    /// Ninety-nine of a hundred are below.
    pub p99_ns: u64,
}

impl PhaseStatistics {
    /// The statistics of some times; `None` of none.
    #[must_use]
    pub fn of(times_ns: &[u64]) -> Option<Self> {
        let mut sorted = times_ns.to_vec();
        sorted.sort_unstable();
        let least_ns = *sorted.first()?;
        let count = sorted.len();
        let n = count as f64;
        let mean_ns = sorted.iter().map(|ns| *ns as f64).sum::<f64>() / n;
        let squares = sorted.iter().map(|ns| (*ns as f64 - mean_ns).powi(2)).sum::<f64>();
        let sigma_ns = if count > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        // The nearest rank.
        let rank = |percent: usize| sorted.get((count * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { count, least_ns, mean_ns, sigma_ns, p50_ns: rank(50)?, p99_ns: rank(99)? })
    }

    /// The band that follows: with the usual slack it reaches to six deviations over the mean, and its
    /// middle is never below the mean. `round_trip_ns` is in each of the times and in no band.
    /// `floor_us` is the datasheet's; without one, a card that takes less than eight tenths of the
    /// least that was seen is another card.
    #[must_use]
    pub fn baseline(&self, round_trip_ns: u64, floor_us: Option<u64>) -> PhaseBaseline {
        let round_trip = round_trip_ns as f64;
        let mean_ns = (self.mean_ns - round_trip).max(1000.0);
        let slack = 1.0 + f64::from(DEFAULT_SLACK_PERMILLE) / 1000.0;
        let expected_ns = ((mean_ns + 6.0 * self.sigma_ns) / slack).max(mean_ns);
        let expected_us = (expected_ns / 1000.0).ceil() as u64;
        let least_us = self.least_ns.saturating_sub(round_trip_ns) / 1000;
        let floor_us = floor_us.unwrap_or(least_us / 10 * 8).clamp(1, expected_us);
        PhaseBaseline { expected_us, floor_us, evidence: Evidence::Measured }
    }
}

/// A profile before anything was measured: the sizes, and times that judge nothing.
#[must_use]
pub fn unmeasured(sizes: Parameters) -> Profile {
    // Half a minute for each phase: what a run is waited for is made of it.
    let any = PhaseBaseline { expected_us: 30_000_000, floor_us: 1, evidence: Evidence::Modelled };
    Profile { sizes, fill: any, chain: any, gemm: any }
}

#[cfg(test)]
mod tests {
    use pow_kernels::ModelTable;

    use super::*;

    #[test]
    fn derived_sizes_are_those_of_the_table_for_its_own_cards() {
        for model in ModelTable::embedded().models() {
            for mode in [Mode::Quick, Mode::Deep] {
                let derived = derived_sizes(model.memory_bytes, mode).unwrap();
                let share = derived.memory_bytes() * 1000 / model.memory_bytes;
                assert!((870..=940).contains(&share), "{}: {share}", model.name);
                let known = &model.profile(mode).sizes;
                if model.memory_bytes >= STACKED_MEMORY_BYTES {
                    assert_eq!(derived.gemm_dimension, known.gemm_dimension, "{}", model.name);
                    assert_eq!(derived.leaf_iterations, known.leaf_iterations, "{}", model.name);
                }
            }
        }
        assert!(derived_sizes(4_294_967_296, Mode::Quick).is_some());
        assert_eq!(derived_sizes(LEAST_MEMORY_BYTES - 1, Mode::Quick), None);
        assert!(derived_sizes(u64::MAX, Mode::Deep).is_none(), "no such memory, and no overflow");
    }

    #[test]
    fn statistics_are_those_of_the_textbook() {
        let found = PhaseStatistics::of(&[2, 4, 4, 4, 5, 5, 7, 9]).unwrap();
        assert_eq!((found.count, found.least_ns, found.p50_ns, found.p99_ns), (8, 2, 4, 9));
        assert!((found.mean_ns - 5.0).abs() < 1e-9);
        assert!((found.sigma_ns - (32.0_f64 / 7.0).sqrt()).abs() < 1e-9);
        assert_eq!(PhaseStatistics::of(&[]), None);
        assert_eq!(PhaseStatistics::of(&[3]).unwrap().sigma_ns, 0.0);
    }

    /// The limit with the slack is six deviations above the mean, and the band's middle is the mean
    /// where the runs hardly differ.
    #[test]
    fn a_band_reaches_to_six_deviations_or_to_the_slack() {
        let spread = PhaseStatistics::of(&[8_000_000, 10_000_000, 12_000_000]).unwrap();
        let band = spread.baseline(0, None);
        // (10 + 6 * 2) / 1.35 ms.
        assert_eq!(band.expected_us, 16_297);
        assert_eq!(band.floor_us, 6_400);
        assert_eq!(band.evidence, Evidence::Measured);
        let steady = PhaseStatistics::of(&[10_000_000; 20]).unwrap();
        assert_eq!(steady.baseline(0, None).expected_us, 10_000);
        assert_eq!(steady.baseline(1_000_000, Some(5_000)).expected_us, 9_000);
        assert_eq!(steady.baseline(0, Some(5_000)).floor_us, 5_000);
        assert_eq!(steady.baseline(0, Some(50_000)).floor_us, 10_000, "never above the middle");
        assert_eq!(steady.baseline(u64::MAX, None).floor_us, 1, "nor impossible");
    }
}

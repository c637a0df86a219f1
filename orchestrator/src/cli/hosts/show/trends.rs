//! What a host's GPUs did over the last sweeps and proofs, one small line each.

use serde::Serialize;

use crate::cli::app::App;
use crate::cli::failure::Failure;
use crate::ids::HostName;
use crate::sweep::ProofTime;

/// Points of a line: what fits beside its numbers on a terminal of 80 columns.
const POINTS: usize = 40;

/// The eight heights, U+2581 to U+2588.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One line.
#[derive(Debug, Serialize)]
pub struct Trend {
    /// What it is of.
    what: String,
    /// The unit of the values.
    unit: &'static str,
    /// The values, oldest first.
    values: Vec<Option<u64>>,
}

/// The hottest GPU at each sweep, and the times of each GPU's proofs of its newest kind.
pub async fn read(app: &App<'_>, host: &HostName) -> Result<Vec<Trend>, Failure> {
    let store = app.store().await?;
    let mut trends = Vec::new();
    let limit = u32::try_from(POINTS).unwrap_or(u32::MAX);
    let probes = store.probes_of(host, 0, limit).await?;
    let hottest = |celsius: &str| celsius.split(',').filter_map(|it| it.parse().ok()).max();
    let values: Vec<Option<u64>> =
        probes.iter().rev().map(|probe| probe.celsius.as_deref().and_then(hottest)).collect();
    if values.iter().any(Option::is_some) {
        trends.push(Trend { what: "hottest GPU".to_owned(), unit: "°C", values });
    }
    let times = store.proof_times_of(host, 0).await?;
    let mut gpus: Vec<&ProofTime> = Vec::new();
    for time in &times {
        if !gpus.iter().any(|known| known.gpu == time.gpu) {
            gpus.push(time);
        }
    }
    for newest in gpus {
        let same = times.iter().filter(|it| it.gpu == newest.gpu && it.kind == newest.kind);
        let mut values: Vec<Option<u64>> =
            same.take(POINTS).map(|it| Some(it.nanos / 1_000_000)).collect();
        values.reverse();
        trends.push(Trend { what: format!("proofs of {}", newest.gpu), unit: "ms", values });
    }
    Ok(trends)
}

/// Shows the lines.
pub fn show(app: &App<'_>, trends: &[Trend]) {
    let rows: Vec<_> = trends
        .iter()
        .filter_map(|trend| {
            let known = || trend.values.iter().flatten();
            let (low, high, last) = (known().min()?, known().max()?, known().next_back()?);
            let range = format!("{low} to {high} {}, last {last}", trend.unit);
            Some(vec![(trend.what.clone(), None), (sparkline(&trend.values), None), (range, None)])
        })
        .collect();
    if !rows.is_empty() {
        app.report.result("");
        app.report.table(&["TREND", "OLDEST TO NEWEST", "RANGE"], &rows);
    }
}

/// Values as bars between the lowest and the highest; a gap where there is none.
fn sparkline(values: &[Option<u64>]) -> String {
    let known = || values.iter().flatten();
    let (low, high) = (known().min().copied().unwrap_or(0), known().max().copied().unwrap_or(0));
    let bar = |value: &Option<u64>| {
        let Some(value) = value else { return ' ' };
        let span = u128::from((high - low).max(1));
        let height = u128::from(value - low) * (HEIGHTS.len() as u128 - 1) / span;
        usize::try_from(height).ok().and_then(|height| HEIGHTS.get(height)).copied().unwrap_or(' ')
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_spans_from_its_lowest_to_its_highest() {
        assert_eq!(sparkline(&[Some(40), Some(47), None, Some(43)]), "▁█ ▄");
        assert_eq!(sparkline(&[Some(5), Some(5)]), "▁▁");
        assert_eq!(sparkline(&[Some(0), Some(u64::MAX)]), "▁█");
        assert_eq!(sparkline(&[]), "");
    }
}

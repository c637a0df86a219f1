//! Politeness: public nodes answer about one request a second for each address, and shut out who
//! asks more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::options::Pacing;

/// Lets requests pass at a rate, with a burst after a silence (the generic cell rate algorithm,
/// ITU-T I.371): one moment is all the state there is.
#[derive(Debug)]
pub(super) struct Pace {
    pacing: Option<Pacing>,
    /// When the next request would be due had there never been a burst.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    /// `None` lets everything pass.
    pub fn new(pacing: Option<Pacing>) -> Self {
        Self { pacing, due: Mutex::new(None) }
    }

    /// Waits until the next request may be made.
    ///
    /// # Cancel safety
    /// A turn that was waited for and not used is lost, which errs on the polite side.
    pub async fn turn(&self) {
        let wait = self.reserve(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn reserve(&self, now: Instant) -> Duration {
        let Some(pacing) = &self.pacing else { return Duration::ZERO };
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = due.map_or(now, |due| due.max(now));
        *due = Some(turn + pacing.interval);
        let ahead = pacing.interval * pacing.burst.saturating_sub(1);
        turn.duration_since(now).saturating_sub(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACING: Pacing = Pacing { interval: Duration::from_secs(1), burst: 3 };

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_a_second() {
        let pace = Pace::new(Some(PACING));
        let start = Instant::now();
        let mut passed = Vec::new();
        for _ in 0..6 {
            pace.turn().await;
            passed.push(start.elapsed().as_secs());
        }
        assert_eq!(passed, [0, 0, 0, 1, 2, 3]);
        // Silence earns the burst again, and no more than it.
        tokio::time::advance(Duration::from_secs(600)).await;
        let start = Instant::now();
        for _ in 0..4 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_a_time_pass_no_faster() {
        let pace = Pace::new(Some(PACING));
        let start = Instant::now();
        futures_util::future::join_all((0..20).map(|_| pace.turn())).await;
        assert_eq!(start.elapsed().as_secs(), 17);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_of_ones_own_is_not_waited_for() {
        let pace = Pace::new(None);
        let start = Instant::now();
        for _ in 0..1000 {
            pace.turn().await;
        }
        assert!(start.elapsed().is_zero());
    }
}

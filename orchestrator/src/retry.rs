//! Trying again after failures that pass by themselves.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How often and how soon to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: usize,
    /// The first pause; later ones double.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl RetryPolicy {
    /// The pauses between attempts, each with up to its own length of jitter, so that hosts
    /// that failed together do not come back together.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.pause)
            .with_max_delay(self.pause_max)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
            .build()
    }
}

/// Runs `attempt` until it succeeds, fails for good, or the policy's attempts are used up; the
/// last error is returned.
///
/// # Errors
/// What the last attempt returned.
///
/// # Cancel safety
/// As `attempt`.
pub async fn retry<T, E, F>(
    policy: &RetryPolicy,
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pauses = policy.pauses();
    loop {
        match attempt().await {
            Err(error) if is_transient(&error) => match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn policy(attempts: usize) -> RetryPolicy {
        let (pause, pause_max) = (Duration::from_millis(100), Duration::from_millis(400));
        RetryPolicy { attempts, pause, pause_max }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter() {
        let pauses: Vec<_> = policy(5).pauses().collect();
        assert_eq!(pauses.len(), 4);
        for (pause, base) in pauses.iter().zip([100, 200, 400, 400]) {
            let base = Duration::from_millis(base);
            assert!(*pause >= base && *pause <= base * 2, "{pause:?} for {base:?}");
        }
    }

    async fn count(attempts: usize, transient: bool, succeed_at: usize) -> (usize, bool) {
        let calls = Cell::new(0);
        let fast = RetryPolicy { pause: Duration::ZERO, pause_max: Duration::ZERO, attempts };
        let result: Result<(), ()> = retry(
            &fast,
            |()| transient,
            || async {
                calls.set(calls.get() + 1);
                if calls.get() == succeed_at { Ok(()) } else { Err(()) }
            },
        )
        .await;
        (calls.get(), result.is_ok())
    }

    #[tokio::test]
    async fn only_transient_failures_are_tried_again_and_not_for_ever() {
        assert_eq!(count(3, true, 2).await, (2, true));
        assert_eq!(count(3, true, 9).await, (3, false));
        assert_eq!(count(3, false, 9).await, (1, false));
        assert_eq!(count(1, true, 9).await, (1, false));
    }
}

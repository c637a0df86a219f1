//! Leaving a host alone that keeps failing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a host is left alone: two may be one bad moment and its echo.
const FAILURES_TO_OPEN: u32 = 3;

/// How long it is left alone before one attempt is made: about a reboot's firmware phase, so
/// that a rebooted host is back within two attempts.
const OPEN_FOR: Duration = Duration::from_secs(60);

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Instant;
}

/// The system's monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A per-host circuit breaker: open after three failures in a row, and after a minute one
/// attempt is let through, whose outcome closes or reopens it.
pub struct Circuit {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        since: Instant,
    },
    /// One attempt is under way; its start, in case its outcome is never told.
    HalfOpen {
        since: Instant,
    },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Asks to make an attempt.
    ///
    /// # Errors
    /// The circuit is open; the time until an attempt is let through.
    pub fn admit(&self) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { since } | State::HalfOpen { since } => {
                let left = OPEN_FOR.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    *state = State::HalfOpen { since: now };
                    Ok(())
                } else {
                    Err(left)
                }
            }
        }
    }

    /// Tells that an attempt succeeded.
    pub fn succeeded(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed { failures: 0 };
    }

    /// Tells that an attempt failed.
    pub fn failed(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match *state {
            State::Closed { failures } if failures + 1 < FAILURES_TO_OPEN => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } | State::HalfOpen { .. } => State::Open { since: now },
            State::Open { since } => State::Open { since },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestClock(Mutex<Instant>);

    impl TestClock {
        fn pass(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
    }

    fn opened() -> (Circuit, Arc<TestClock>) {
        let clock = Arc::new(TestClock(Mutex::new(Instant::now())));
        let circuit = Circuit::new(Arc::clone(&clock) as Arc<dyn Clock>);
        for _ in 0..3 {
            assert!(circuit.admit().is_ok());
            circuit.failed();
        }
        (circuit, clock)
    }

    #[test]
    fn opens_after_three_failures_in_a_row_and_says_for_how_long() {
        let (circuit, clock) = opened();
        clock.pass(Duration::from_secs(10));
        assert_eq!(circuit.admit(), Err(Duration::from_secs(50)));
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let circuit = Circuit::default();
        for _ in 0..5 {
            circuit.failed();
            circuit.failed();
            circuit.succeeded();
        }
        assert!(circuit.admit().is_ok());
    }

    #[test]
    fn after_a_minute_one_attempt_decides() {
        let (circuit, clock) = opened();
        clock.pass(OPEN_FOR);
        assert!(circuit.admit().is_ok());
        assert!(circuit.admit().is_err(), "only one");
        circuit.failed();
        assert_eq!(circuit.admit(), Err(OPEN_FOR));

        clock.pass(OPEN_FOR);
        assert!(circuit.admit().is_ok());
        circuit.succeeded();
        assert!(circuit.admit().is_ok() && circuit.admit().is_ok());
    }

    #[test]
    fn an_attempt_that_is_never_reported_does_not_hold_it_open() {
        let (circuit, clock) = opened();
        clock.pass(OPEN_FOR);
        assert!(circuit.admit().is_ok());
        clock.pass(OPEN_FOR);
        assert!(circuit.admit().is_ok());
    }
}

//! How many sessions are open on one connection.
//!
//! sshd allows `MaxSessions` (default 10) and refuses the next with a bare "open failed". A
//! refusal while others are open is taken as that limit: later opens wait before asking. And
//! sshd frees a session only when it has reaped the process, a moment after it has closed the
//! channel, so a refusal with nothing open may only mean that it is not yet done: then the open
//! is tried again. Only a connection that never had a session is told no at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Sessions that must succeed before a lowered limit is raised by one: some refusals are only
/// sshd being slow to reap, and asking too often costs one refusal each.
const SUCCESSES_TO_RAISE: usize = 32;

#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    open: usize,
    successes: usize,
    ever: bool,
}

/// A place for one session, given back on drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

/// The server never allowed a session, so the refusal is not for their number.
#[derive(Debug)]
pub(super) struct NotTheLimit;

impl Slots {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let state = State { limit: most, open: 0, successes: 0, ever: false };
        Arc::new(Self { most, state: Mutex::new(state), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of sessions that may be open, as far as is known.
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Safe: a dropped wait takes no place.
    pub(super) async fn take(self: &Arc<Self>) -> Slot {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the look, so that a place freed in between is not missed.
            freed.as_mut().enable();
            {
                let mut state = self.state();
                if state.open < state.limit {
                    state.open += 1;
                    return Slot(Arc::clone(self));
                }
            }
            freed.await;
        }
    }
}

impl Slot {
    /// The server opened the session.
    pub(super) fn opened(&self) {
        let mut state = self.0.state();
        state.ever = true;
        state.successes += 1;
        if state.successes >= SUCCESSES_TO_RAISE && state.limit < self.0.most {
            state.limit += 1;
            state.successes = 0;
        }
    }

    /// The server refused the session that was to take this place: lowers the limit to the
    /// sessions that are open besides it. `Ok` says that trying again may help.
    pub(super) fn refused(self) -> Result<(), NotTheLimit> {
        let mut state = self.0.state();
        let others = state.open - 1;
        if others == 0 && !state.ever {
            return Err(NotTheLimit);
        }
        state.limit = others.max(1);
        state.successes = 0;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state().open -= 1;
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_refusal_lowers_the_limit_to_what_is_open_and_successes_raise_it() {
        let slots = Slots::new(8);
        let first = slots.take().await;
        let second = slots.take().await;
        slots.take().await.refused().unwrap();
        assert_eq!(slots.limit(), 2);
        assert!(slots.take().now_or_never().is_none());
        drop(first);
        assert!(slots.take().now_or_never().is_some());
        for _ in 0..SUCCESSES_TO_RAISE {
            second.opened();
        }
        assert_eq!(slots.limit(), 3);
    }

    #[tokio::test]
    async fn a_server_that_never_allowed_a_session_is_not_asked_again() {
        let slots = Slots::new(8);
        assert!(slots.take().await.refused().is_err());
        assert_eq!(slots.limit(), 8);
        slots.take().await.opened();
        assert!(slots.take().await.refused().is_ok());
        assert_eq!(slots.limit(), 1);
    }
}

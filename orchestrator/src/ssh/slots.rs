//! How many sessions are open on one connection.
//!
//! sshd allows `MaxSessions` (default 10) and refuses the next with a bare "open failed". A
//! refusal while others are open is taken as that limit: the refused open waits for one of them
//! to end, and later ones wait before asking.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    open: usize,
}

/// A place for one session, given back on drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

/// No other session is open, so the refusal is not for their number.
#[derive(Debug)]
pub(super) struct NotTheLimit;

impl Slots {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let state = Mutex::new(State { limit: limit.max(1), open: 0 });
        Arc::new(Self { state, freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of sessions that may be open, as far as is known.
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    /// Whether another session would have to wait.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state();
        state.open >= state.limit
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
    /// The server refused the session that was to take this place: lowers the limit to the
    /// sessions that are open besides it.
    pub(super) fn refused(self) -> Result<(), NotTheLimit> {
        let mut state = self.0.state();
        let others = state.open - 1;
        if others == 0 {
            return Err(NotTheLimit);
        }
        state.limit = others;
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
    async fn a_refusal_lowers_the_limit_to_what_is_open() {
        let slots = Slots::new(8);
        let first = slots.take().await;
        let second = slots.take().await;
        slots.take().await.refused().unwrap();
        assert_eq!(slots.limit(), 2);
        assert!(slots.take().now_or_never().is_none());
        drop(first);
        assert!(slots.take().now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn a_refusal_of_the_only_session_is_not_about_the_number() {
        let slots = Slots::new(8);
        assert!(slots.take().await.refused().is_err());
        assert_eq!(slots.limit(), 8);
    }
}

//! How many connects to one server may be unauthenticated at a time.
//!
//! sshd drops connections beyond `MaxStartups`, so a fleet behind one bastion must queue. The
//! configured width is for sshd's default; a server that still drops connections has a lower
//! limit or other clients; its gate narrows by half each time, and widens by one after eight full
//! rounds of successes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Rounds of successes before a narrowed gate widens again: rarely enough that probing for room
/// costs a dropped connection only now and then.
const ROUNDS: usize = 8;

/// One gate per server, shared by everything that connects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    width: usize,
    routes: Arc<Mutex<Routes>>,
}

type Routes = HashMap<(String, u16), Arc<Route>>;

#[derive(Debug)]
struct Route {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug)]
struct State {
    width: usize,
    inside: usize,
    successes: usize,
}

/// A place in the gate, given back on drop.
#[derive(Debug)]
pub(super) struct Pass {
    route: Arc<Route>,
    widest: usize,
}

impl Gate {
    /// A gate that lets `width` connects (at least one) to each server through at a time.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width: width.max(1), routes: Arc::default() }
    }

    /// Waits for a place on the way to this server.
    ///
    /// # Cancel safety
    /// Safe: a dropped wait takes no place.
    pub(super) async fn enter(&self, address: &str, port: u16) -> Pass {
        let route = {
            let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Route::new(self.width));
            Arc::clone(routes.entry((address.to_owned(), port)).or_insert_with(new))
        };
        loop {
            let room = route.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that a place freed in between is not missed.
            room.as_mut().enable();
            if route.try_enter() {
                return Pass { route: Arc::clone(&route), widest: self.width };
            }
            room.await;
        }
    }
}

impl Route {
    fn new(width: usize) -> Self {
        Self { state: Mutex::new(State { width, inside: 0, successes: 0 }), room: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_enter(&self) -> bool {
        let mut state = self.state();
        let room = state.inside < state.width;
        state.inside += usize::from(room);
        room
    }
}

impl Pass {
    /// The server let this connect in.
    pub(super) fn succeeded(&self) {
        let mut state = self.route.state();
        state.successes += 1;
        if state.successes >= state.width * ROUNDS && state.width < self.widest {
            state.width += 1;
            state.successes = 0;
        }
    }

    /// Whether the server has lately dropped connects.
    pub(super) fn is_narrow(&self) -> bool {
        self.route.state().width < self.widest
    }

    /// The server dropped this connect before its greeting.
    pub(super) fn was_dropped(&self) {
        let mut state = self.route.state();
        state.width = (state.width / 2).max(1);
        state.successes = 0;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.route.state().inside -= 1;
        // All are woken, not one: the width may have grown, and a woken waiter may be dropped.
        self.route.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_full_gate_waits_for_a_place_and_other_servers_do_not() {
        let gate = Gate::new(2);
        let first = gate.enter("a", 22).await;
        let _second = gate.enter("a", 22).await;
        assert!(gate.enter("a", 22).now_or_never().is_none());
        assert!(gate.enter("a", 2222).now_or_never().is_some());

        let gate_too = gate.clone();
        let third = tokio::spawn(async move { gate_too.enter("a", 22).await });
        drop(first);
        third.await.unwrap();
    }

    #[tokio::test]
    async fn drops_narrow_the_gate_and_successes_widen_it_again() {
        let gate = Gate::new(4);
        let pass = gate.enter("a", 22).await;
        pass.was_dropped();
        pass.was_dropped();
        pass.was_dropped();
        assert!(gate.enter("a", 22).now_or_never().is_none(), "narrowed to one");
        for _ in 0..ROUNDS * (1 + 2 + 3) {
            pass.succeeded();
        }
        let others: Vec<_> = (0..3).filter_map(|_| gate.enter("a", 22).now_or_never()).collect();
        assert_eq!(others.len(), 3, "back to four");
        assert!(gate.enter("a", 22).now_or_never().is_none(), "and no further");
    }
}

//! The process groups that are alive because of us, so that a drop can kill them without a runtime.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The set of our process groups.
///
/// Invariant: a group in the set has an unreaped leader, so its id belongs to it and to no later
/// process. Hence [`ProcessGroups::kill`] takes it out before the caller reaps the leader.
#[derive(Debug, Default)]
pub(super) struct ProcessGroups {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    alive: HashSet<Pid>,
    /// Set by [`ProcessGroups::kill_all`]: a command that was just being started dies too.
    closed: bool,
}

impl ProcessGroups {
    /// Adds a group whose leader was just started.
    pub(super) fn add(&self, leader: Pid) {
        let mut state = self.state();
        if state.closed {
            kill(leader);
        } else {
            state.alive.insert(leader);
        }
    }

    /// Kills a group and forgets it. The leader may be reaped afterwards, not before.
    pub(super) fn kill(&self, leader: Pid) {
        if self.state().alive.remove(&leader) {
            kill(leader);
        }
    }

    /// Kills every group, now and later. The leaders are still to be reaped by their tasks.
    pub(super) fn kill_all(&self) {
        let mut state = self.state();
        state.closed = true;
        state.alive.drain().for_each(kill);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state has no half-changed form that a panic elsewhere could leave behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(leader: Pid) {
    // Fails only if every member is gone.
    let _ = kill_process_group(leader, Signal::KILL);
}

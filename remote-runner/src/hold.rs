//! Containers that must not outlive this process: whatever ends the session, they are stopped
//! before the process is gone.
//!
//! A container is the engine's child, not the runner's, so it would live on when the orchestrator
//! dies. The runner is told which one belongs to the session before it is started, and asks the
//! engine to stop it in its last moments. Only SIGKILL or a crash of the machine leaves it
//! running; then the orchestrator's next contact finds it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runner_protocol::Held;

use crate::{http, log, os};

/// How long the engine may take to say that it knows the container.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// The most between TERM and KILL: what the session's last moments have room for.
const MAX_GRACE: u32 = 20;

/// Beyond the grace time, for the engine to kill and clean up.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// Seconds that the process may live on for its last requests: longer than both take in all.
const LAST_MOMENTS: u32 = 90;

/// What is stopped at the end. The process has one session, and its end must find them without
/// asking the threads that hold them.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One container among those that are stopped at the end. Dropping this leaves it there.
pub(crate) struct Hold(Held);

impl Hold {
    /// Checks that the engine knows the container, and keeps it.
    ///
    /// # Errors
    ///
    /// A code and words: it is not there, or the engine does not answer.
    pub(crate) fn take(held_one: Held) -> Result<Self, (&'static str, String)> {
        let id = &held_one.container;
        let is_id = (12..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_id || !Path::new(&held_one.socket).is_absolute() {
            return Err(("container", "no id of a container or no path of a socket".into()));
        }
        // Kept before it is looked for: a session that ends meanwhile finds it.
        held().push(held_one.clone());
        let hold = Self(held_one);
        let path = format!("/containers/{}/json", hold.0.container);
        match http::call(Path::new(&hold.0.socket), "GET", &path, LOOK_DEADLINE) {
            Ok((200, _)) => Ok(hold),
            Ok((code, _)) => {
                hold.release();
                Err(("container", format!("the engine does not know it (HTTP status {code})")))
            }
            Err(error) => {
                hold.release();
                Err(("socket", error.to_string()))
            }
        }
    }

    /// Lets the container live on.
    pub(crate) fn release(self) {
        let mut all = held();
        if let Some(at) = all.iter().position(|one| *one == self.0) {
            all.remove(at);
        }
    }

    /// Stops it now.
    pub(crate) fn stop(self) {
        stop(&self.0);
        self.release();
    }
}

/// Stops all that are still held.
pub(crate) fn stop_all() {
    let all: Vec<Held> = held().drain(..).collect();
    if all.is_empty() {
        return;
    }
    os::alarm(LAST_MOMENTS);
    for one in all {
        log::info("stopping the container of this session", &one.container);
        stop(&one);
    }
}

/// TERM, the grace time, KILL; and away with it if that is wanted.
fn stop(one: &Held) {
    let socket = PathBuf::from(&one.socket);
    let (id, grace) = (&one.container, one.grace_secs.min(MAX_GRACE));
    let limit = Duration::from_secs(u64::from(grace)).saturating_add(STOP_MARGIN);
    let stopped =
        http::call(&socket, "POST", &format!("/containers/{id}/stop?t={grace}"), limit);
    // 304: it had ended; 404: it is gone.
    if !matches!(stopped, Ok((204 | 304 | 404, _))) {
        log::error("the engine did not stop the container", &format!("{:?}", stopped.map(|s| s.0)));
    }
    if one.remove {
        let path = format!("/containers/{id}?force=true&v=true");
        let removed = http::call(&socket, "DELETE", &path, STOP_MARGIN);
        if !matches!(removed, Ok((204 | 404 | 409, _))) {
            let words = format!("{:?}", removed.map(|answer| answer.0));
            log::error("the engine did not remove the container", &words);
        }
    }
}

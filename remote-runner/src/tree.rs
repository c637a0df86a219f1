//! The processes this one started: gathering and ending them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, setsid, wait};

/// How long to wait for killed processes to be gone. One that sits in the kernel for longer (a hung
/// driver call) cannot be waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Makes this process the head of its own tree: in a session of its own, so that a signal to the
/// caller's group does not hit it half-way, and the new parent of descendants whose parent ends,
/// so that none escapes [`kill_descendants`].
pub(crate) fn take_root() {
    // Fails for a process that leads its group already, as under sshd: then there is nothing to do.
    let _ = setsid();
    // Any value but `None` switches it on. Without it (seccomp) only a double fork could escape.
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
}

/// Kills every descendant, including those that are born meanwhile, and waits until they are gone.
pub(crate) fn kill_descendants() {
    let end = Instant::now().checked_add(GRACE);
    loop {
        let alive = descendants();
        if alive.is_empty() {
            return;
        }
        for pid in alive {
            // Fails only for one that is gone already.
            let _ = kill_process(pid, Signal::KILL);
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if end.is_none_or(|end| Instant::now() >= end) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every process below this one that still runs.
fn descendants() -> Vec<Pid> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = running_parent(&String::from_utf8_lossy(&stat)) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![rustix::process::getpid().as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
        let new: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        next = next.saturating_add(1);
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

/// The parent's id in a line of `/proc/PID/stat` (proc(5)), unless the process has ended.
fn running_parent(stat: &str) -> Option<i32> {
    // The command's name may hold spaces and brackets: the last bracket ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(running_parent("42 (a) S 1 (b) S 7 42 42 0"), Some(7));
        assert_eq!(running_parent("42 (sh) S 7 42 42 0"), Some(7));
    }

    #[test]
    fn an_ended_process_is_not_running() {
        assert_eq!(running_parent("42 (sh) Z 7 42 42 0"), None);
        assert_eq!(running_parent(""), None);
    }
}

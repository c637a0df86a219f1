//! Containers of this database that should not be as they are, and leases with nothing under them.

use std::collections::HashSet;

use runner_protocol::facts::{ContainerRuntime, OwnContainer};
use runner_protocol::labels::FOREGROUND;

use super::ago;
use crate::sweep::{Code, ContainerFault, ContainerLife, Finding, Holder};

/// A lease of a container, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Its id.
    pub id: String,
    /// The container, once there is one.
    pub container: Option<String>,
    /// When it lapses unless it is renewed, milliseconds.
    pub expires_ms: Option<i64>,
    /// Whether it has ended.
    pub released: bool,
}

impl HeldLease {
    fn is_overdue(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| end <= now_ms)
    }
}

/// The leases of one host.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a> {
    /// Whose containers are ours.
    pub owner: &'a str,
    /// Those that were live before the host was looked at.
    pub before: &'a [HeldLease],
    /// Those that are live after it, and those that ended while it was.
    pub after: &'a [HeldLease],
}

/// What is wrong with our containers and their leases, by what the engines of a host list.
#[must_use]
pub fn findings(runtimes: &[ContainerRuntime], leases: &Leases<'_>, now_ms: i64) -> Vec<Finding> {
    let mut seen = HashSet::new();
    let listed = runtimes.iter().filter_map(|runtime| runtime.containers.as_ref()).flatten();
    let ours: Vec<&OwnContainer> = listed
        .filter(|container| container.owner == leases.owner)
        // One engine may have two sockets.
        .filter(|container| seen.insert(container.id.as_str()))
        .collect();
    let mut found: Vec<Finding> =
        ours.iter().filter_map(|container| of_container(container, leases, now_ms)).collect();
    // What an engine that says nothing has is not known.
    let is_asked = |it: &&ContainerRuntime| matches!(it.name.as_str(), "docker" | "podman");
    let mut asked = runtimes.iter().filter(is_asked).peekable();
    if asked.peek().is_some() && asked.all(|runtime| runtime.containers.is_some()) {
        found.extend(leases.after.iter().filter_map(|lease| empty(lease, &ours, leases, now_ms)));
    }
    found
}

fn of_container(container: &OwnContainer, leases: &Leases<'_>, now_ms: i64) -> Option<Finding> {
    let time = |at: Option<u64>| at.and_then(|at| i64::try_from(at).ok());
    let deadline_ms = time(container.deadline_unix_ms);
    let life = ContainerLife {
        state: &container.state,
        foreground: container.mode == FOREGROUND,
        remove: container.remove,
        deadline_ms,
        keep_until_ms: time(container.keep_until_unix_ms),
    };
    let lease = leases.after.iter().find(|lease| lease.id == container.lease);
    let holder = match lease {
        None => Holder::None,
        Some(lease) if !lease.released && lease.is_overdue(now_ms) => Holder::Overdue,
        Some(_) => Holder::Live,
    };
    let state = &container.state;
    let finding = |code, seen: String, expected| {
        Some(Finding::new(code, short(&container.id), seen, expected))
    };
    match life.fault(holder, now_ms) {
        Some(ContainerFault::Overdue) => {
            let since = deadline_ms.map_or_else(String::new, |at| format!(" {}", ago(at, now_ms)));
            finding(Code::ContainerOverdue, format!("{state}, its time was over{since}"), "ended")
        }
        Some(ContainerFault::Abandoned) => {
            finding(Code::ContainerAbandoned, format!("{state}, its holder is gone"), "ended")
        }
        Some(
            fault @ (ContainerFault::NeverStarted | ContainerFault::Ended | ContainerFault::Kept),
        ) => {
            let seen = format!("{state}, {}", fault.words());
            finding(Code::ContainerLeftBehind, seen, "removed")
        }
        Some(ContainerFault::LeaseOutlived) if lease.is_some_and(|lease| lease.released) => None,
        Some(ContainerFault::LeaseOutlived) => {
            let seen = format!("the container {} has ended", short(&container.id));
            let expected = "no lease without a container";
            Some(Finding::new(Code::LeaseOutlived, short(&container.lease), seen, expected))
        }
        None if life.runs() && holder == Holder::None => {
            finding(Code::ContainerUnleased, format!("{state}, without a lease"), "a live lease")
        }
        None => None,
    }
}

/// A lease under which there is no container, though there was one before the host was looked at, or
/// though nobody will make one any more.
fn empty(
    lease: &HeldLease,
    ours: &[&OwnContainer],
    leases: &Leases<'_>,
    now_ms: i64,
) -> Option<Finding> {
    if lease.released || ours.iter().any(|container| container.lease == lease.id) {
        return None;
    }
    let before = leases.before.iter().find(|before| before.id == lease.id)?;
    let seen = match &before.container {
        Some(container) => format!("the container {} is gone", short(container)),
        None if lease.container.is_none() && lease.is_overdue(now_ms) => {
            "no container, and its holder is gone".to_owned()
        }
        None => return None,
    };
    Some(Finding::new(Code::LeaseOutlived, short(&lease.id), seen, "no lease without a container"))
}

/// The beginning of an id, as `ps` shows it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

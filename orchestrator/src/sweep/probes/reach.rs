//! Whether the host answers at all, and with which failure.

use crate::reason::Reason;
use crate::sweep::{Code, Finding};

/// The finding for a look that failed.
pub(super) fn finding(reason: Reason, connected: bool, message: &str) -> Finding {
    let (code, expected) = match reason {
        Reason::HostKey => (Code::HostKey, "the key that is trusted"),
        Reason::Auth | Reason::Identity => (Code::LoginRefused, "a login"),
        Reason::Verify => (Code::RunnerDamaged, "the runner, whole"),
        Reason::Deadline if connected => (Code::RunnerSilent, "an answer in time"),
        // What a host without the runner is told as, unless it could not be put there again.
        Reason::RunnerMissing
        | Reason::NoSpace
        | Reason::NoExec
        | Reason::ReadOnly
        | Reason::WrongArch
        | Reason::OldGlibc
        | Reason::Upload => (Code::RunnerMissing, "the runner"),
        _ if connected => (Code::RunnerFailed, "facts"),
        _ => (Code::Unreachable, "a connection"),
    };
    Finding::new(code, "host", format!("{reason}: {message}"), expected)
}

//! Why a runner ended.

use std::fmt;

/// The exit status of the runner, one for each reason to end.
///
/// | status | name | meaning |
/// |---|---|---|
/// | 0 | `ok` | the orchestrator sent `Shutdown`, or a command such as `--version` succeeded |
/// | 2 | `usage` | the command line was not understood |
/// | 10 | `stdin_closed` | standard input ended: the orchestrator or its connection is gone |
/// | 11 | `lease_lapsed` | no `Renew` came within the lease |
/// | 12 | `deadline` | the session reached the deadline it was started with |
/// | 13 | `terminated` | SIGTERM, SIGINT or SIGHUP |
/// | 14 | `protocol_error` | standard input carried something that is not a frame of this protocol |
/// | 15 | `stdout_closed` | standard output is closed, or nobody reads it |
/// | 16 | `environment` | the host lacks what the runner needs to start (`/proc`, threads) |
/// | 70 | `bug` | a panic; the log line on standard error says where |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitCode {
    /// The orchestrator sent `Shutdown`, or a command such as `--version` succeeded.
    Ok,
    /// The command line was not understood.
    Usage,
    /// Standard input ended.
    StdinClosed,
    /// No `Renew` came within the lease.
    LeaseLapsed,
    /// The session reached its deadline.
    Deadline,
    /// SIGTERM, SIGINT or SIGHUP.
    Terminated,
    /// Standard input carried something that is not a frame of this protocol.
    ProtocolError,
    /// Standard output is closed, or nobody reads it.
    StdoutClosed,
    /// The host lacks what the runner needs to start.
    Environment,
    /// A panic.
    Bug,
}

impl ExitCode {
    /// Every code, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Usage,
        Self::StdinClosed,
        Self::LeaseLapsed,
        Self::Deadline,
        Self::Terminated,
        Self::ProtocolError,
        Self::StdoutClosed,
        Self::Environment,
        Self::Bug,
    ];

    /// The exit status.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::StdinClosed => 10,
            Self::LeaseLapsed => 11,
            Self::Deadline => 12,
            Self::Terminated => 13,
            Self::ProtocolError => 14,
            Self::StdoutClosed => 15,
            Self::Environment => 16,
            Self::Bug => 70,
        }
    }

    /// The code of an exit status, if it is one of the runner's.
    #[must_use]
    pub fn from_status(status: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u32::from(code.status()) == status)
    }

    /// The stable name, as in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Usage => "usage",
            Self::StdinClosed => "stdin_closed",
            Self::LeaseLapsed => "lease_lapsed",
            Self::Deadline => "deadline",
            Self::Terminated => "terminated",
            Self::ProtocolError => "protocol_error",
            Self::StdoutClosed => "stdout_closed",
            Self::Environment => "environment",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_distinct_and_lead_back_to_their_code() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from_status(u32::from(code.status())), Some(code));
        }
        assert_eq!(ExitCode::from_status(1), None);
        assert_eq!(ExitCode::from_status(256), None);
    }

    #[test]
    fn the_table_in_the_documentation_is_complete() {
        let source = include_str!("exit.rs");
        for code in ExitCode::ALL {
            let row = format!("/// | {} | `{}` |", code.status(), code.name());
            assert!(source.contains(&row), "no row {row}");
        }
    }
}

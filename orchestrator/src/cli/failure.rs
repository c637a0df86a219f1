//! Exit codes, and errors on their way to the user.

use std::error::Error as StdError;
use std::process::ExitCode;

use crate::reason::Reason;

/// How the process ends. The table is in `--help` and in `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// The user's input or the configuration is wrong.
    User,
    /// The command line is wrong.
    Usage,
    /// Some hosts failed.
    SomeHostsFailed,
    /// A verdict is negative.
    Negative,
    /// The one host that was asked for failed.
    Remote,
    /// Another operation holds the lock.
    Locked,
    /// A defect of this program.
    Bug,
    /// Stopped by a signal.
    Interrupted,
    /// A container's time was over, as `timeout(1)` says it.
    TimedOut,
    /// A container in the foreground did not run, or what became of it is not known.
    AroundContainer,
    /// The exit code of a container.
    Passed(u8),
}

impl Exit {
    /// The process's exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::User => 1,
            Self::Usage => 2,
            Self::SomeHostsFailed => 3,
            Self::Negative => 4,
            Self::Remote => 5,
            Self::Locked => 6,
            Self::Bug => 70,
            Self::TimedOut => 124,
            Self::AroundContainer => 125,
            Self::Interrupted => 130,
            Self::Passed(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that ends the command: what could not be done, why, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// `cannot deploy`, without the causes.
    pub what: String,
    /// The cause, with its own causes.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
    /// What to do next.
    pub hint: Option<String>,
    /// The stable code for `--json`.
    pub reason: Reason,
    exit: Exit,
}

impl Failure {
    /// An error of the user's input or configuration.
    pub fn user(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
            hint: None,
            reason: Reason::Input,
            exit: Exit::User,
        }
    }

    /// The user stopped it.
    pub fn interrupted() -> Self {
        Self {
            what: "stopped".to_owned(),
            source: None,
            hint: None,
            reason: Reason::Cancelled,
            exit: Exit::Interrupted,
        }
    }

    /// A failure of a host or the way to it.
    pub fn remote(what: impl Into<String>, reason: Reason) -> Self {
        let what = what.into();
        Self { what, source: None, hint: None, reason, exit: Exit::Remote }
    }

    /// Somebody else holds a lock.
    pub fn locked(what: impl Into<String>) -> Self {
        let (what, reason) = (what.into(), Reason::Locked);
        Self { what, source: None, hint: None, reason, exit: Exit::Locked }
    }

    /// A failure where the exit status would be a container's: another one than containers have.
    #[must_use]
    pub fn around_a_container(mut self) -> Self {
        if self.exit != Exit::Interrupted {
            self.exit = Exit::AroundContainer;
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit status it means.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<crate::store::Error> for Failure {
    fn from(error: crate::store::Error) -> Self {
        let mut failure = Self::user("cannot use the database").because(error).hint(
            "see that the disk has room and that the database (see `orchestrator check`) is yours to write",
        );
        failure.reason = Reason::Store;
        failure
    }
}

//! Exit codes, and errors on their way to the user.

use std::error::Error as StdError;
use std::process::ExitCode;

use crate::reason::Reason;

/// How the process ends. The table is in `--help` and in `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// The user's input or the configuration is wrong.
    User = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Some hosts failed.
    SomeHostsFailed = 3,
    /// A verdict is negative.
    Negative = 4,
    /// The one host that was asked for failed.
    Remote = 5,
    /// Another operation holds the lock.
    Locked = 6,
    /// A defect of this program.
    Bug = 70,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
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

//! Why a host could not be reached or a command could not be run: one type for every transport,
//! with the place, the time, a stable reason, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::reason::Reason;

mod excerpt;
mod hint;
mod keys;

pub use self::excerpt::Excerpt;
pub use self::keys::{HostKeyProblem, IdentityProblem, KeyLabel, OfferedKey, PresentedKey};

use self::excerpt::said;
use self::keys::{after_offers, offered_list};

type Source = Box<dyn StdError + Send + Sync>;

/// A failure with its place and time.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    elapsed: Duration,
    failure: Failure,
}

/// Which server an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) hop: Hop,
}

/// Where on the way a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The host itself.
    Host,
    /// A jump on the way to it.
    Jump {
        /// 1 for the first jump.
        number: usize,
        /// How many jumps there are.
        of: usize,
    },
}

impl Error {
    pub(crate) fn new(place: Place, elapsed: Duration, failure: Failure) -> Self {
        Self(Box::new(Inner { place, elapsed, failure }))
    }

    /// The answer for a process whose end has already been told.
    pub(crate) fn process_gone() -> Self {
        let place = Place { server: "process".to_owned(), hop: Hop::Host };
        Self::new(place, Duration::ZERO, Failure::Closed)
    }

    /// The stable code of the stage that failed.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.failure.reason()
    }

    /// What happened, to match on.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// The server it happened at, as `address:port`, or `this machine`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.0.place.server
    }

    /// Whether that server is the host or a jump.
    #[must_use]
    pub fn hop(&self) -> Hop {
        self.0.place.hop
    }

    /// Time from the start of the operation to the failure.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// What the user can do about it, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        hint::hint(self)
    }

    /// The host key problem, if that is what it is: `hosts trust` shows both keys from it.
    #[must_use]
    pub fn host_key(&self) -> Option<&HostKeyProblem> {
        match &self.0.failure {
            Failure::HostKey(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether trying again may help: true for name resolution, refused or reset connections and
    /// timeouts before authentication, false for everything that another attempt would only
    /// repeat (host keys, authentication) or that may have had an effect.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.failure.is_transient()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { server, hop } = &self.0.place;
        match hop {
            Hop::Host => write!(f, "{server}: {}", self.0.failure),
            Hop::Jump { number, of } => {
                write!(f, "{server} (jump {number} of {of}): {}", self.0.failure)
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.failure.source()
    }
}

/// What happened, without place and time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The name has no address.
    #[error("cannot resolve the name")]
    Resolve(#[source] io::Error),
    /// The name was not resolved in time.
    #[error("the name was not resolved within {} s", .0.as_secs())]
    ResolveTimeout(Duration),
    /// No address took a TCP connection.
    #[error("cannot connect ({tried} tried)")]
    Tcp {
        /// How many addresses were tried.
        tried: usize,
        /// What the last one answered.
        #[source]
        source: io::Error,
    },
    /// No greeting came.
    #[error("connected, but no SSH greeting came within {} s", .0.as_secs())]
    BannerTimeout(Duration),
    /// The server hung up before or instead of its greeting.
    #[error("the server closed the connection before its SSH greeting{}", said(.0))]
    BannerClosed(Excerpt),
    /// Something else answers on this port.
    #[error("what answers is not an SSH server{}", said(.0))]
    NotSsh(Excerpt),
    /// The greeting came, the key exchange did not end.
    #[error("the key exchange did not end within {} s", .0.as_secs())]
    KexTimeout(Duration),
    /// The key exchange failed.
    #[error("the key exchange failed")]
    Kex(#[source] Source),
    /// Both sides have nothing in common.
    #[error("no common {kind} algorithm; the server offers {}", theirs.join(", "))]
    NoCommonAlgorithm {
        /// Which kind of algorithm.
        kind: &'static str,
        /// What the server offers, made printable.
        theirs: Vec<String>,
    },
    /// The host key is not trusted.
    #[error(transparent)]
    HostKey(HostKeyProblem),
    /// A private key cannot be used.
    #[error("cannot use the key {}: {problem}", path.display())]
    Identity {
        /// The key or certificate file.
        path: PathBuf,
        /// Why not.
        problem: IdentityProblem,
        /// The cause, if there is one below.
        #[source]
        source: Option<Source>,
    },
    /// There is nothing to log in with.
    #[error("there is no key to log in with as {user}")]
    NoIdentity {
        /// The login name.
        user: String,
        /// Whether an agent was asked and what came of it.
        agent: String,
    },
    /// The server refused every key.
    #[error("{user} was refused with {}", offered_list(offered))]
    Auth {
        /// The login name.
        user: String,
        /// The keys that were offered, in order.
        offered: Vec<OfferedKey>,
        /// What the server would accept instead, as it says.
        methods: Vec<String>,
    },
    /// Authentication did not end.
    #[error("authentication did not end within {} s", .0.as_secs())]
    AuthTimeout(Duration),
    /// The server hung up while authenticating.
    #[error("the server closed the connection during authentication{}", after_offers(offered))]
    AuthClosed {
        /// The keys that were offered until then.
        offered: Vec<OfferedKey>,
        /// How the connection ended.
        #[source]
        source: Option<Source>,
    },
    /// The jump cannot or may not connect to the next server.
    #[error("the jump refused to connect to {target}: {answer}")]
    JumpRefused {
        /// The next server.
        target: String,
        /// Whether it was forbidden, rather than tried without success.
        prohibited: bool,
        /// The server's word for it.
        answer: String,
    },
    /// The server refused a channel.
    #[error("the server refused to open a {what}: {answer}")]
    ChannelRefused {
        /// What was asked for.
        what: &'static str,
        /// The server's word for it.
        answer: String,
    },
    /// All sessions that the server allows are in use.
    #[error("the server allows {limit} sessions on one connection and all are in use")]
    SessionsExhausted {
        /// How many it allows.
        limit: usize,
    },
    /// The connection ended below an operation.
    #[error("the connection was lost")]
    Lost(#[source] Option<Source>),
    /// The host failed repeatedly and is left alone for a while.
    #[error("it failed repeatedly and is left alone for another {} s", .0.as_secs())]
    CircuitOpen(Duration),
    /// The operation was asked of something already closed.
    #[error("already closed")]
    Closed,
    /// The server would not execute a command.
    #[error("the server refused to run a command")]
    ExecRefused,
    /// The login shell ended without running the command.
    #[error("the login ran something else than our command ({status}){}", said(said_instead))]
    NotOurCommand {
        /// What it said.
        said_instead: Excerpt,
        /// How it ended.
        status: super::ExitStatus,
    },
    /// Too much came before the command started.
    #[error("the login wrote over {0} bytes before it ran our command")]
    Noise(usize),
    /// The login did not get to the command.
    #[error("the login did not run our command within {} s", .0.as_secs())]
    LoginTimeout(Duration),
    /// The command did not end.
    #[error("the command did not end within {} s", .0.as_secs())]
    ExecTimeout(Duration),
    /// The command wrote without end.
    #[error("the command wrote over {0} bytes more than was asked for")]
    Flood(u64),
    /// Nobody read what a process wrote.
    #[error("over {0} bytes of a process's output were waiting unread")]
    Overflow(usize),
    /// The command stopped taking its input.
    #[error("the command took no input for {} s, after {sent} bytes", timeout.as_secs())]
    Stalled {
        /// Bytes that it had taken.
        sent: u64,
        /// How long nothing moved.
        timeout: Duration,
    },
    /// Our own input for the command failed.
    #[error("cannot read the command's input after {sent} bytes")]
    Input {
        /// Bytes that were read.
        sent: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command of this machine could not be started.
    #[error("cannot start a shell")]
    Spawn(#[source] io::Error),
}

impl Failure {
    fn reason(&self) -> Reason {
        match self {
            Self::Resolve(_) | Self::ResolveTimeout(_) => Reason::Resolve,
            Self::Tcp { .. } => Reason::Tcp,
            Self::BannerTimeout(_) | Self::BannerClosed(_) | Self::NotSsh(_) => Reason::Banner,
            Self::KexTimeout(_) | Self::Kex(_) | Self::NoCommonAlgorithm { .. } => Reason::Kex,
            Self::HostKey(_) => Reason::HostKey,
            Self::Identity { .. } | Self::NoIdentity { .. } => Reason::Identity,
            Self::Auth { .. } | Self::AuthTimeout(_) | Self::AuthClosed { .. } => Reason::Auth,
            Self::JumpRefused { prohibited: false, .. } => Reason::Tcp,
            Self::JumpRefused { prohibited: true, .. }
            | Self::ChannelRefused { .. }
            | Self::SessionsExhausted { .. }
            | Self::Lost(_)
            | Self::Closed => Reason::Channel,
            Self::CircuitOpen(_) => Reason::CircuitOpen,
            Self::ExecRefused
            | Self::NotOurCommand { .. }
            | Self::Noise(_)
            | Self::LoginTimeout(_)
            | Self::ExecTimeout(_)
            | Self::Flood(_)
            | Self::Overflow(_)
            | Self::Spawn(_) => Reason::Exec,
            Self::Stalled { .. } | Self::Input { .. } => Reason::Upload,
        }
    }

    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Resolve(_)
            | Self::ResolveTimeout(_)
            | Self::Tcp { .. }
            | Self::BannerTimeout(_)
            | Self::BannerClosed(_)
            | Self::KexTimeout(_)
            | Self::Kex(_)
            | Self::JumpRefused { prohibited: false, .. } => true,
            // A server that hangs up before it was offered a key was only overloaded.
            Self::AuthClosed { offered, .. } => offered.is_empty(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_place_and_leaves_the_source_to_the_printer() {
        let place = Place { server: "10.0.0.1:22".into(), hop: Hop::Jump { number: 1, of: 2 } };
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::new(place, Duration::ZERO, Failure::Tcp { tried: 2, source });
        assert_eq!(error.to_string(), "10.0.0.1:22 (jump 1 of 2): cannot connect (2 tried)");
        assert!(error.source().is_some());
        assert_eq!(error.reason(), Reason::Tcp);
        assert!(error.is_transient());
    }
}

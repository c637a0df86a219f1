//! Why a host could not be reached or a command could not be run: one type for every transport,
//! with the place, the time, a stable reason, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::reason::Reason;

mod hint;

/// Bytes of a host's words that an error shows.
const EXCERPT_BYTES: usize = 200;

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

/// Why a host key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyProblem {
    /// No source knows the server.
    #[error("the host key is not known: {0}")]
    Unknown(PresentedKey),
    /// A source knows the server by another key.
    #[error("the host key has changed: it is {presented}, expected {}", keys(expected))]
    Changed {
        /// What the server presented.
        presented: PresentedKey,
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// A source knows the server by keys of other types only.
    #[error("the host key is of another type: it is {presented}, expected {}", keys(expected))]
    OtherType {
        /// What the server presented.
        presented: PresentedKey,
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// The server has no key of a type that is pinned.
    #[error("the server has no host key of a pinned type ({}); it has {}", keys(expected), theirs.join(", "))]
    NoPinnedType {
        /// What was expected.
        expected: Vec<KeyLabel>,
        /// The types it offers, made printable.
        theirs: Vec<String>,
    },
    /// Only keys of types that cannot be checked are pinned.
    #[error("the pinned host key cannot be checked: {}", keys(expected))]
    PinUnsupported {
        /// What was expected.
        expected: Vec<KeyLabel>,
    },
    /// The server has keys of types only that cannot be checked.
    #[error("the server has no host key of a supported type; it has {}", theirs.join(", "))]
    Unsupported {
        /// The types it offers, made printable.
        theirs: Vec<String>,
    },
    /// The key is marked `@revoked`.
    #[error("the host key is revoked by {by}: {presented}")]
    Revoked {
        /// What the server presented.
        presented: PresentedKey,
        /// The file and line.
        by: String,
    },
    /// The host certificate is not good.
    #[error("the host certificate is refused: {why}")]
    Certificate {
        /// Why not.
        why: String,
    },
    /// The pin in the fleet file is not a fingerprint.
    #[error("the pinned host key {pin:?} is not a fingerprint of the form SHA256:...")]
    InvalidPin {
        /// What stands there.
        pin: String,
    },
}

/// A host key as a server presented it, proved by the key exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedKey {
    /// Key type, for example `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The key in the form of an OpenSSH public key line, without comment.
    pub key_line: String,
}

impl fmt::Display for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// An expected key and who expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLabel {
    /// Key type, if it is known.
    pub algorithm: Option<String>,
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// Where it is written: `the fleet file`, `the store`, or a file and line.
    pub from: String,
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(algorithm) = &self.algorithm {
            write!(f, "{algorithm} ")?;
        }
        write!(f, "{} ({})", self.fingerprint, self.from)
    }
}

/// Why a private key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityProblem {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable,
    /// Others can read it.
    #[error("its permissions {mode:03o} let others read it")]
    Permissions {
        /// The permission bits.
        mode: u32,
    },
    /// It is not a private key in a known form.
    #[error("it is not a private key in a supported format")]
    Malformed,
    /// Its type is not supported from a file.
    #[error("{0} keys are not supported in files")]
    UnsupportedType(String),
    /// It is encrypted and there is no passphrase.
    #[error("it is encrypted and no passphrase is known")]
    PassphraseMissing,
    /// The passphrase is wrong.
    #[error("the passphrase is wrong")]
    PassphraseWrong,
    /// The passphrase could not be asked for.
    #[error("the passphrase cannot be had")]
    PassphraseUnavailable,
    /// A certificate file does not hold a user certificate.
    #[error("it is not an OpenSSH user certificate")]
    NotACertificate,
    /// A certificate has no private key among the identities and the agent's keys.
    #[error("there is no private key for this certificate")]
    CertificateWithoutKey,
    /// A certificate is outside its validity.
    #[error("the certificate is not valid now")]
    CertificateExpired,
}

/// A key that was offered to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedKey {
    /// `SHA256:<base64>`.
    pub fingerprint: String,
    /// The file it came from, or `agent` with the agent's comment.
    pub from: String,
    /// What became of the offer when it was not simply refused.
    pub note: Option<String>,
}

impl fmt::Display for OfferedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.fingerprint, self.from)?;
        if let Some(note) = &self.note {
            write!(f, ": {note}")?;
        }
        f.write_str(")")
    }
}

/// A few of a host's words, made safe to print: one line, no control characters, capped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excerpt(String);

impl Excerpt {
    /// The printable start of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let start = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
        let text: String = String::from_utf8_lossy(start)
            .chars()
            .map(|c| if c.is_whitespace() { ' ' } else { c })
            // Control characters start escape sequences; format characters reorder what is read.
            .filter(|c| !c.is_control() && !is_format(*c))
            .collect();
        Self(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The text, possibly empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Invisible characters and bidirectional controls (Unicode general category Cf, the ranges a
/// terminal acts on).
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn said(excerpt: &Excerpt) -> String {
    if excerpt.0.is_empty() { String::new() } else { format!("; it said: {excerpt}") }
}

fn keys(labels: &[KeyLabel]) -> String {
    labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn offered_list(offered: &[OfferedKey]) -> String {
    offered.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn after_offers(offered: &[OfferedKey]) -> String {
    if offered.is_empty() {
        String::new()
    } else {
        format!(" after it was offered {}", offered_list(offered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_holds_nothing_a_terminal_acts_on() {
        let hostile = b"\x1b]0;owned\x07\x1b[31mred\xff\xfe\r\nnext\x00\xe2\x80\xae".repeat(40);
        let text = Excerpt::of(&hostile);
        assert!(text.as_str().chars().all(|c| !c.is_control() && !is_format(c)));
        assert!(text.as_str().len() <= 3 * EXCERPT_BYTES);
        assert!(text.as_str().starts_with("]0;owned[31mred"));
    }

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

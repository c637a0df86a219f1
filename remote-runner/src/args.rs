//! The command line. It is parsed by hand: the orchestrator writes it, and an argument parser would
//! be a fifth of the binary that every host receives.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use runner_protocol::LEASE_DURATION;

/// How long NVML may take to answer, unless told otherwise. Initialising eight devices without
/// persistence mode takes up to 20 s.
const PROBE_DEADLINE: Duration = Duration::from_secs(45);

/// How long a phase of a proof-of-work may take, unless told otherwise: from the start of its
/// process, or from a round, to its last step. Initialising eight devices without persistence mode
/// takes up to 20 s, compiling PTX some seconds; an honest fill or probe takes less than one.
const PHASE_DEADLINE: Duration = Duration::from_secs(120);

/// What `--help` prints.
pub(crate) const HELP: &str = "\
remote-runner: runs on a GPU host for one session of an orchestrator, and ends with it.

usage: remote-runner [--deadline-secs N]   speak frames on stdin and stdout
       remote-runner --self-check          print the SHA-256 of this executable
       remote-runner --version
       remote-runner --help

  --deadline-secs N   end after N seconds, whatever happens

The session ends, with every process it started, when stdin closes, when the lease is not renewed
for 30 seconds, at the deadline, or on SIGTERM, SIGINT or SIGHUP.

exit status: 0 asked to end, 2 usage, 10 stdin closed, 11 lease lapsed, 12 deadline, 13 signal,
14 protocol error, 15 stdout closed, 16 environment, 70 bug
";

/// What a person sees who starts it by hand.
pub(crate) const EXPLANATION: &str = "\
This is the remote-runner of a GPU orchestrator. It is started over SSH, speaks a binary protocol
on stdin and stdout, and leaves nothing running. There is nothing to see at a terminal.
`remote-runner --help` says more.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Session(Options),
    Probe(ProbeOptions),
    Prove(ProveOptions),
    Version,
    Help,
    SelfCheck,
}

/// How a session runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// When to end in any case.
    pub(crate) deadline: Option<Duration>,
    /// How long to live without a renewal.
    pub(crate) lease: Duration,
    /// How long NVML may take to answer.
    pub(crate) probe_deadline: Duration,
    /// How long a phase of a proof-of-work may take.
    pub(crate) phase_deadline: Duration,
    /// Where `/proc`, `/sys` and `/etc` are read: `/` but in tests.
    pub(crate) root: PathBuf,
}

/// What a child process asks of NVML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProbeOptions {
    /// Samples at this interval, or the facts once.
    pub(crate) interval: Option<Duration>,
    /// The process that must be alive: the child's parent.
    pub(crate) parent: u32,
}

/// What a child process proves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProveOptions {
    /// The device's UUID; `None` for the reference.
    pub(crate) gpu: Option<String>,
    /// The process that must be alive: the child's parent.
    pub(crate) parent: u32,
}

/// Why a command line was not understood. It does not repeat the argument: that may be anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ArgsError {
    Unknown { position: usize },
    Value { flag: &'static str },
}

impl fmt::Display for ArgsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { position } => write!(formatter, "argument {position} is not known"),
            Self::Value { flag } => write!(formatter, "{flag} needs a positive whole number"),
        }
    }
}

/// Reads the arguments after the program's name.
///
/// `--lease-ms`, `--probe-deadline-ms`, `--phase-deadline-ms` and `--root` are for tests, `--probe-*`
/// and `--prove-*` for the runner's own children; none of them is part of the interface.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut options = Options {
        deadline: None,
        lease: LEASE_DURATION,
        probe_deadline: PROBE_DEADLINE,
        phase_deadline: PHASE_DEADLINE,
        root: PathBuf::from("/"),
    };
    let (mut probe, mut prove) = (None, None);
    let (mut interval, mut gpu) = (None, None);
    let mut arguments = arguments.enumerate();
    while let Some((index, argument)) = arguments.next() {
        let mut number = |flag| {
            let value = arguments.next().and_then(|(_, value)| value.to_str()?.parse::<u64>().ok());
            value.filter(|value| *value > 0).ok_or(ArgsError::Value { flag })
        };
        match argument.to_str() {
            Some("--version") => return Ok(Command::Version),
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--self-check") => return Ok(Command::SelfCheck),
            Some("--deadline-secs") => {
                options.deadline = Some(Duration::from_secs(number("--deadline-secs")?));
            }
            Some("--lease-ms") => options.lease = Duration::from_millis(number("--lease-ms")?),
            Some("--probe-deadline-ms") => {
                options.probe_deadline = Duration::from_millis(number("--probe-deadline-ms")?);
            }
            Some("--phase-deadline-ms") => {
                options.phase_deadline = Duration::from_millis(number("--phase-deadline-ms")?);
            }
            Some("--prove-gpu") => {
                match arguments.next().and_then(|(_, uuid)| uuid.into_string().ok()) {
                    Some(uuid) => gpu = Some(uuid),
                    None => return Err(ArgsError::Value { flag: "--prove-gpu" }),
                }
            }
            Some("--root") => match arguments.next() {
                Some((_, path)) => options.root = PathBuf::from(path),
                None => return Err(ArgsError::Value { flag: "--root" }),
            },
            Some("--probe-for") => probe = Some(process_id("--probe-for", number("--probe-for")?)?),
            Some("--prove-for") => prove = Some(process_id("--prove-for", number("--prove-for")?)?),
            Some("--probe-interval-ms") => {
                interval = Some(Duration::from_millis(number("--probe-interval-ms")?));
            }
            _ => return Err(ArgsError::Unknown { position: index.saturating_add(1) }),
        }
    }
    Ok(match (probe, prove) {
        (Some(parent), _) => Command::Probe(ProbeOptions { interval, parent }),
        (None, Some(parent)) => Command::Prove(ProveOptions { gpu, parent }),
        (None, None) => Command::Session(options),
    })
}

fn process_id(flag: &'static str, number: u64) -> Result<u32, ArgsError> {
    u32::try_from(number).map_err(|_| ArgsError::Value { flag })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, ArgsError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn a_session_has_the_lease_of_the_protocol() {
        let Ok(Command::Session(options)) = parsed(&["--deadline-secs", "90"]) else {
            panic!("not a session");
        };
        assert_eq!(options.lease, LEASE_DURATION);
        assert_eq!(options.deadline, Some(Duration::from_secs(90)));
        assert_eq!(options.root, PathBuf::from("/"));
    }

    #[test]
    fn a_flag_without_a_positive_number_is_refused() {
        for arguments in [
            &["--deadline-secs"][..],
            &["--deadline-secs", "0"],
            &["--deadline-secs", "-1"],
            &["--deadline-secs", "ten"],
        ] {
            assert_eq!(parsed(arguments), Err(ArgsError::Value { flag: "--deadline-secs" }));
        }
    }

    #[test]
    fn an_unknown_argument_is_named_by_its_place() {
        assert_eq!(parsed(&["--deadline-secs", "1", "x"]), Err(ArgsError::Unknown { position: 3 }));
    }

    #[test]
    fn the_help_names_every_exit_status() {
        for code in runner_protocol::ExitCode::ALL {
            let status = format!("{} ", code.status());
            assert!(HELP.split("exit status: ").nth(1).unwrap().contains(&status), "{code}");
        }
    }
}

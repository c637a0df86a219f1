//! Why a runner could not be put on a host, started, or asked.

use runner_protocol::{ExitCode, FrameError, MagicError};

use super::artifact::GlibcVersion;
use crate::reason::Reason;
use crate::transport;

/// Why a runner could not be put on a host, started, or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed under it.
    #[error("cannot {operation}")]
    Transport {
        /// What was being done.
        operation: &'static str,
        /// What the connection said.
        source: transport::Error,
    },
    /// A stream of the running runner broke.
    #[error("cannot {operation}")]
    Stream {
        /// What was being done.
        operation: &'static str,
        /// What the stream said.
        source: std::io::Error,
    },
    /// A remote command ended without our answer.
    #[error("the host's shell did not answer our command (exit status {status}): {said}")]
    NoAnswer {
        /// Exit status in words.
        status: String,
        /// The last words on standard error, cleaned.
        said: String,
    },
    /// The host has another processor or system than the runner.
    #[error("the host is {found}, and this runner is for {needed}")]
    WrongArch {
        /// What the host says it is.
        found: String,
        /// What the runner needs.
        needed: String,
    },
    /// The host's C library is too old.
    #[error("the host has the GNU C library {found}, and this runner needs {needed} or newer")]
    OldGlibc {
        /// The host's version in its own words, or that it does not say.
        found: String,
        /// The runner's demand.
        needed: GlibcVersion,
    },
    /// No room.
    #[error("no space left in {base} (free: {free_kib} KiB): {detail}")]
    NoSpace {
        /// The work directory.
        base: String,
        /// Free space that the host reports.
        free_kib: String,
        /// The host's words.
        detail: String,
    },
    /// The work directory cannot be written.
    #[error("cannot write to the work directory {base}: {detail}")]
    NotWritable {
        /// The work directory.
        base: String,
        /// The host's words.
        detail: String,
    },
    /// The work directory does not let programs run.
    #[error("programs cannot be run from the work directory {base}: {detail}")]
    NoExec {
        /// The work directory.
        base: String,
        /// The host's words.
        detail: String,
    },
    /// The host lacks a program that every POSIX system has.
    #[error("a program that the upload needs is missing on the host: {detail}")]
    MissingProgram {
        /// The host's words.
        detail: String,
    },
    /// What arrived is not what was sent.
    #[error("the upload arrived damaged: {detail}")]
    Damaged {
        /// What differs.
        detail: String,
    },
    /// What arrived is whole and does not start.
    #[error("the runner does not start on this host: {detail}")]
    DoesNotStart {
        /// The host's words.
        detail: String,
    },
    /// `mode = "manual"` and the runner is not there.
    #[error("the runner {sha256} is not in {base}, and the host's mode is manual")]
    NotPlaced {
        /// What should be there.
        sha256: String,
        /// The work directory.
        base: String,
    },
    /// It started and its first line did not come.
    #[error("the runner did not introduce itself")]
    Magic(#[source] MagicError),
    /// It sent something that is no frame of the protocol.
    #[error("the runner sent something that is not of the protocol")]
    Frame(#[source] FrameError),
    /// A frame came where another was due.
    #[error("the runner sent {found} where {expected} was due")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// It speaks another protocol version.
    #[error("the runner speaks protocol version {found}, and this orchestrator speaks {ours}")]
    Version {
        /// Theirs.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// It says that it is another build than the one we started.
    #[error("the runner says that it is build {found}, and {expected} was started")]
    Build {
        /// What it says.
        found: String,
        /// What was started.
        expected: String,
    },
    /// It ended in the middle.
    #[error("the runner ended ({}){}", exit.map_or("no exit status of a runner", ExitCode::name), said_last(said))]
    Ended {
        /// Why, if its exit status is one of a runner.
        exit: Option<ExitCode>,
        /// The last words on standard error, cleaned.
        said: String,
    },
    /// It answered a request with a failure.
    #[error("the runner could not do it: {code}: {message}")]
    Failed {
        /// Its code, cleaned.
        code: String,
        /// Its words, cleaned.
        message: String,
    },
    /// It was silent for too long.
    #[error("the host did not {operation} within {seconds} s")]
    TimedOut {
        /// What was awaited.
        operation: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The command line cannot be built: the work directory's name is too long or has a NUL byte.
    #[error("cannot build the remote command")]
    Command(#[source] transport::CommandError),
}

fn said_last(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What the code of a request's failure means; `remote-runner/protocol` lists them.
fn failed(code: &str) -> Reason {
    match code {
        "no_driver" => Reason::NoDriver,
        "driver_too_old" => Reason::DriverTooOld,
        "no_kernels" => Reason::NoKernels,
        "gpu_not_found" | "gpu_required" => Reason::GpuNotFound,
        "gpu_busy" => Reason::GpuBusy,
        "mig_enabled" => Reason::MigEnabled,
        "out_of_memory" => Reason::OutOfMemory,
        "selftest_failed" => Reason::SelftestFailed,
        "ecc_error" => Reason::EccError,
        "gpu_lost" => Reason::GpuLost,
        "deadline" => Reason::Deadline,
        "socket_denied" => Reason::SocketDenied,
        "socket_missing" => Reason::NoEngine,
        _ => Reason::Runner,
    }
}

fn failed_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "no_driver" => {
            "install the NVIDIA driver on the host; to see the protocol work without a GPU, and prove nothing of one: --allow-reference"
        }
        "driver_too_old" => "install a newer NVIDIA driver on the host",
        "no_kernels" => {
            "the kernels are for compute capability 7.0 and later; is the GPU the model that is claimed?"
        }
        "gpu_busy" => "wait for the process to end, or stop it: nothing was done on the GPU",
        "mig_enabled" => "turn the division off on the host: nvidia-smi -i GPU -mig 0",
        "out_of_memory" => "stop what holds the memory: the challenge fills nine tenths of it",
        "selftest_failed" => "take the GPU out of service and test it: it computes wrongly",
        "ecc_error" => "reset the GPU; if it comes back, replace it",
        "gpu_lost" => "restart the host, and look for Xid messages in its kernel log",
        _ => return None,
    })
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Transport { source, .. } => source.reason(),
            Self::NoAnswer { .. } | Self::MissingProgram { .. } => Reason::Exec,
            Self::WrongArch { .. } => Reason::WrongArch,
            Self::OldGlibc { .. } => Reason::OldGlibc,
            Self::NoSpace { .. } => Reason::NoSpace,
            Self::NotWritable { .. } => Reason::ReadOnly,
            Self::NoExec { .. } => Reason::NoExec,
            Self::Damaged { .. } | Self::NotPlaced { .. } | Self::Build { .. } => Reason::Verify,
            Self::Failed { code, .. } => failed(code),
            Self::DoesNotStart { .. }
            | Self::Magic(_)
            | Self::Frame(_)
            | Self::Unexpected { .. }
            | Self::Version { .. }
            | Self::Ended { .. }
            | Self::Stream { .. } => Reason::Runner,
            Self::TimedOut { .. } => Reason::Deadline,
            Self::Command(_) => Reason::Bug,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Transport { source, .. } => return source.hint(),
            Self::NoAnswer { .. } => {
                "log in by hand and run `sh -c 'echo ok'`: a ForceCommand, a restricted shell or an rc file that ends the shell stands in the way"
            }
            Self::WrongArch { .. } => {
                "remove the host from the fleet file, or give a runner for it with --runner"
            }
            Self::OldGlibc { .. } => {
                "upload the portable runner: build it with scripts/build-runner and pass --runner target/runner/remote-runner-x86_64-linux-gnu"
            }
            Self::NoSpace { .. } => {
                "free some space, or set work_dir in the fleet file to a directory on another disk"
            }
            Self::NotWritable { .. } => {
                "set work_dir in the fleet file to a directory that the login user may write"
            }
            Self::NoExec { .. } => {
                "the file system is mounted noexec: set work_dir in the fleet file to a directory on another one"
            }
            Self::Damaged { .. } => {
                "run the command again; if it stays, test the host's disk and memory"
            }
            Self::NotPlaced { .. } => {
                "copy the runner to <work_dir>/<sha256>/remote-runner, mode 0700, or set mode = \"ssh\""
            }
            Self::Version { .. } | Self::Build { .. } => {
                "deploy again with the runner of this orchestrator's release"
            }
            Self::Failed { code, .. } => failed_hint(code)?,
            Self::DoesNotStart { .. } => "log in by hand and run the runner with --self-check",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transport { source, .. } if source.is_transient())
    }
}

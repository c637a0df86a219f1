//! The command lines that handle the runner on a host: constant scripts, data in arguments only.

use std::sync::LazyLock;

use crate::transport::{CommandError, RemoteCommand};

/// The longest that one runner may live, whatever else fails. Renewed leases end it much sooner
/// when nobody is there; this is the last line.
const RUNNER_DEADLINE_SECS: u32 = 3_600;

static START: LazyLock<String> = LazyLock::new(|| script(include_str!("scripts/start.sh")));
static INSTALL: LazyLock<String> = LazyLock::new(|| script(include_str!("scripts/install.sh")));
static PURGE: LazyLock<String> = LazyLock::new(|| script(include_str!("scripts/purge.sh")));

/// Puts the prelude before a script and leaves out what a host need not read: comment lines and
/// indentation. No script has a text of several lines in which either would count.
fn script(body: &str) -> String {
    [include_str!("scripts/prelude.sh"), body]
        .iter()
        .flat_map(|part| part.lines())
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Becomes the runner if it is there and whole; otherwise says what the host is.
pub fn start(work_dir: Option<&str>, sha256: &str) -> Result<RemoteCommand, CommandError> {
    let deadline = RUNNER_DEADLINE_SECS.to_string();
    let arguments = [work_dir.unwrap_or(""), sha256, "start", "--deadline-secs", deadline.as_str()];
    RemoteCommand::script(START.as_str(), arguments)
}

/// Says whether the runner is there, and what the host is. Changes nothing.
pub fn look(work_dir: Option<&str>, sha256: &str) -> Result<RemoteCommand, CommandError> {
    RemoteCommand::script(START.as_str(), [work_dir.unwrap_or(""), sha256, "look"])
}

/// Receives the runner of `size` bytes on standard input.
pub fn install(
    work_dir: Option<&str>,
    sha256: &str,
    size: usize,
    gzip: bool,
) -> Result<RemoteCommand, CommandError> {
    let size = size.to_string();
    let encoding = if gzip { "gzip" } else { "raw" };
    RemoteCommand::script(
        INSTALL.as_str(),
        [work_dir.unwrap_or(""), sha256, size.as_str(), encoding],
    )
}

/// Takes away all that was ever installed.
pub fn purge(work_dir: Option<&str>) -> Result<RemoteCommand, CommandError> {
    RemoteCommand::script(PURGE.as_str(), [work_dir.unwrap_or("")])
}

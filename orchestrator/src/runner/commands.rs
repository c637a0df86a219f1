//! The command lines that handle the runner on a host: constant scripts, data in arguments only.

use std::sync::LazyLock;
use std::time::Duration;

use super::Artifact;
use crate::transport::{CommandError, RemoteCommand};

static START: LazyLock<String> = LazyLock::new(|| script(include_str!("scripts/start.sh")));
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

/// Becomes the runner if it is there and whole; otherwise says what the host is, and receives the
/// runner after the word [`SEND`].
pub fn start(
    work_dir: Option<&str>,
    artifact: &Artifact,
    lifetime: Duration,
) -> Result<RemoteCommand, CommandError> {
    let gzip_size = artifact.gzip.len().to_string();
    let raw_size = artifact.bytes.len().to_string();
    let deadline = lifetime.as_secs().max(1).to_string();
    let sizes = [artifact.sha256.as_str(), &gzip_size, &raw_size];
    let runner = ["--deadline-secs", &deadline];
    let arguments = std::iter::once(work_dir.unwrap_or("")).chain(sizes).chain(runner);
    RemoteCommand::script(START.as_str(), arguments)
}

/// What [`start`]'s script waits for before it changes anything and takes the file.
pub const SEND: &[u8] = b"send\n";

/// Takes away all that was ever received.
pub fn purge(work_dir: Option<&str>) -> Result<RemoteCommand, CommandError> {
    RemoteCommand::script(PURGE.as_str(), [work_dir.unwrap_or("")])
}

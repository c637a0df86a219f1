//! Asks the local `ssh` client what `ssh_config` says of a name: `ssh -G -- <name>`.
//!
//! The client reads files and prints; it opens no connection. (`Match exec` in the user's own
//! configuration runs the user's own command, as with every `ssh`.)

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// `ssh -G` takes milliseconds; the rest is room for a `Match exec` and a loaded machine.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer is about 5 KiB.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// Enough of a complaint to be understood.
const MAX_COMPLAINT_BYTES: u64 = 4 * 1024;

/// Why the client gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("cannot run {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("ssh -G gave no answer within {} s", QUERY_TIMEOUT.as_secs())]
    Timeout,
    #[error("ssh -G refused: {0}")]
    Refused(String),
}

impl QueryError {
    /// True when there is no such program: then `ssh_config` is simply not honoured.
    pub(crate) fn no_client(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What the client says, as far as it is used; keywords in lower case, in the order printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    lines: Vec<(String, String)>,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let lines = lines.map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()));
        Self { lines: lines.collect() }
    }

    /// Every value of a keyword.
    pub(crate) fn all(&self, keyword: &str) -> Vec<&str> {
        let lines = self.lines.iter().filter(|(key, _)| key == keyword);
        lines.map(|(_, value)| value.as_str()).collect()
    }

    /// The first value of a keyword.
    pub(crate) fn first(&self, keyword: &str) -> Option<&str> {
        self.lines.iter().find(|(key, _)| key == keyword).map(|(_, value)| value.as_str())
    }

    /// Drops every value of a keyword.
    pub(crate) fn without_keyword(mut self, keyword: &str) -> Self {
        self.lines.retain(|(key, _)| key != keyword);
        self
    }

    /// Drops what the client also says with no configuration at all: `ssh -G` prints its own
    /// defaults, and nothing tells them apart from what the user wrote.
    pub(crate) fn without(mut self, baseline: &Self) -> Self {
        let keywords: std::collections::BTreeSet<String> =
            self.lines.iter().map(|(key, _)| key.clone()).collect();
        for keyword in keywords {
            if self.all(&keyword) == baseline.all(&keyword) {
                self.lines.retain(|(key, _)| *key != keyword);
            }
        }
        self
    }
}

/// Asks for one name. `config` is the file to read instead of the user's and the system's.
///
/// # Cancel safety
/// Dropping the future kills the client.
pub(crate) async fn query(
    program: &Path,
    config: Option<&Path>,
    name: &str,
) -> Result<Answer, QueryError> {
    let mut command = tokio::process::Command::new(program);
    // `-T`: without it the client remarks on stderr that there is no terminal.
    command.args(["-G", "-T"]);
    if let Some(config) = config {
        command.arg("-F").arg(config);
    }
    command.arg("--").arg(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let start = |source| QueryError::Start { program: program.to_owned(), source };

    let mut child = command.spawn().map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let finished = async {
        tokio::join!(
            read_capped(stdout, MAX_ANSWER_BYTES),
            read_capped(stderr, MAX_COMPLAINT_BYTES),
            child.wait()
        )
    };
    let finished = tokio::time::timeout(QUERY_TIMEOUT, finished).await;
    let (answer, complaint, status) = finished.map_err(|_| QueryError::Timeout)?;
    if status.map_err(start)?.success() {
        return Ok(Answer::parse(&answer));
    }
    let complaint: String =
        complaint.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Err(QueryError::Refused(complaint.trim().to_owned()))
}

/// Reads up to a limit, and then only drains, so that the client never blocks on a full pipe.
async fn read_capped(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    // A broken pipe reads as the end; the exit status tells the rest.
    let _ = (&mut stream).take(limit).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_client_are_not_taken_for_settings() {
        let baseline = Answer::parse("user root\nport 22\nidentityfile a\nidentityfile b\n");
        let answer = Answer::parse("user root\nport 23\nidentityfile a\n").without(&baseline);
        assert_eq!(answer.first("user"), None);
        assert_eq!(answer.first("port"), Some("23"));
        assert_eq!(answer.all("identityfile"), ["a"]);
    }
}

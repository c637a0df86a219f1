//! The host's side of grants: two scripts, with data in their arguments and on their input only.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::GrantError;
use crate::grants::{MAX_FILE_BYTES, grant_ids};
use crate::printable::last_line;
use crate::runner::answer::{self, Answer};
use crate::transport::{ExecRequest, Process, RemoteCommand, Transport};

const KEYS: &str = include_str!("scripts/keys.sh");
const END: &str = include_str!("scripts/end.sh");

/// How long an edit waits for another one's lock, in tenths of a second.
const LOCK_TENTHS: &str = "200";

/// For an edit as a whole: the login, the lock, and two small transfers.
const EDIT_DEADLINE: Duration = Duration::from_secs(60);

/// Shows the file to `plan`, which says what it shall be instead, if anything. Returns the ids of
/// the grants that are in the file afterwards. `expires` is the end of a grant that will be added.
pub(super) async fn edit(
    transport: &dyn Transport,
    file: &str,
    expires: Option<i64>,
    plan: impl FnOnce(&Answer, &[u8]) -> Result<Option<Vec<u8>>, GrantError>,
) -> Result<Vec<String>, GrantError> {
    let operation = "change the keys of the host";
    let expires = expires.map(|secs| secs.to_string()).unwrap_or_default();
    let command = RemoteCommand::script(KEYS, [file, &expires, LOCK_TENTHS])
        .map_err(|error| GrantError::NoAnswer(error.to_string()))?;
    let mut process = transport
        .spawn(command, EDIT_DEADLINE)
        .await
        .map_err(|source| GrantError::Transport { operation, source })?;
    let late = || GrantError::NoAnswer(format!("nothing within {} s", EDIT_DEADLINE.as_secs()));
    let done = tokio::time::timeout(EDIT_DEADLINE, talk(&mut process, plan));
    let done = done.await.unwrap_or_else(|_| Err(late()));
    process.close().await;
    done
}

async fn talk(
    process: &mut Process,
    plan: impl FnOnce(&Answer, &[u8]) -> Result<Option<Vec<u8>>, GrantError>,
) -> Result<Vec<String>, GrantError> {
    let mut input = Input { bytes: Vec::new() };
    let answer = input.answer(process).await?;
    if answer.get("state") == "absent" && answer.get("size").is_empty() {
        // Not even a directory: nothing to take out.
        return Ok(Vec::new());
    }
    let file = answer.get("target").to_owned();
    let bytes: u64 = answer
        .get("size")
        .parse()
        .map_err(|_| GrantError::NoAnswer("the size is no number".to_owned()))?;
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > MAX_FILE_BYTES {
        return Err(GrantError::TooLarge { file, bytes });
    }
    let content = input.take(process, length).await?;
    match plan(&answer, &content)? {
        None => {
            send(process, b"done\n").await?;
            Ok(grant_ids(&content))
        }
        Some(new) if new.len() > MAX_FILE_BYTES => {
            Err(GrantError::TooLarge { file, bytes: new.len() as u64 })
        }
        Some(new) => {
            send(process, format!("write {}\n", new.len()).as_bytes()).await?;
            send(process, &new).await?;
            let answer = input.answer(process).await?;
            if answer.get("written") == new.len().to_string() {
                Ok(grant_ids(&new))
            } else {
                Err(GrantError::NoAnswer("it did not say that the file is written".to_owned()))
            }
        }
    }
}

async fn send(process: &mut Process, bytes: &[u8]) -> Result<(), GrantError> {
    let sent = async {
        process.stdin.write_all(bytes).await?;
        process.stdin.flush().await
    };
    sent.await.map_err(|error| GrantError::NoAnswer(format!("it takes no input: {error}")))
}

/// What has come and was not looked at yet.
struct Input {
    bytes: Vec<u8>,
}

impl Input {
    /// Reads one answer. One that says `failed` is an error.
    async fn answer(&mut self, process: &mut Process) -> Result<Answer, GrantError> {
        let answer = loop {
            if let Some((answer, end)) = Answer::find(&self.bytes) {
                self.bytes.drain(..end);
                break answer;
            }
            if self.bytes.len() > answer::MAX_BYTES {
                return Err(GrantError::NoAnswer("it says too much".to_owned()));
            }
            self.more(process).await?;
        };
        let what = answer.get("failed");
        if what.is_empty() {
            return Ok(answer);
        }
        Err(GrantError::Refused {
            file: answer.get("target").to_owned(),
            what: what.to_owned(),
            detail: answer.get("detail").to_owned(),
        })
    }

    async fn take(&mut self, process: &mut Process, length: usize) -> Result<Vec<u8>, GrantError> {
        while self.bytes.len() < length {
            self.more(process).await?;
        }
        let rest = self.bytes.split_off(length);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }

    async fn more(&mut self, process: &mut Process) -> Result<(), GrantError> {
        let mut block = vec![0; 32 * 1024];
        let read = process.stdout.read(&mut block).await;
        let count = read.map_err(|error| GrantError::NoAnswer(error.to_string()))?;
        if count == 0 {
            let mut said = Vec::new();
            let mut stderr = (&mut process.stderr).take(4096);
            // Whatever it said before it ended is enough.
            let _cut = stderr.read_to_end(&mut said).await;
            return Err(GrantError::NoAnswer(last_line(&said)));
        }
        self.bytes.extend(block.iter().take(count));
        Ok(())
    }
}

/// Ends the sessions of these grants; returns how many processes that were.
pub(super) async fn end_sessions(
    transport: &dyn Transport,
    ids: &[&str],
) -> Result<u64, GrantError> {
    let command = RemoteCommand::script(END, ids.iter().copied())
        .map_err(|error| GrantError::NoAnswer(error.to_string()))?;
    let request = ExecRequest::new(command).caps(answer::MAX_BYTES, answer::MAX_BYTES);
    let operation = "end the sessions of grants";
    let output = transport
        .exec(request)
        .await
        .map_err(|source| GrantError::Transport { operation, source })?;
    let (answer, _) = Answer::find(&output.stdout)
        .ok_or_else(|| GrantError::NoAnswer(last_line(&output.stderr)))?;
    match answer.get("left").parse::<u64>() {
        Ok(0) => Ok(answer.get("ended").parse().unwrap_or(0)),
        Ok(left) => Err(GrantError::StillRunning(left)),
        Err(_) => Err(GrantError::NoAnswer("it did not count what is left".to_owned())),
    }
}

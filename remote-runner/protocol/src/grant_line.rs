//! What a line of a grant in an `authorized_keys` file is known by, the same for who edits the file
//! and who looks at it.

/// A larger file is left alone. sshd reads it at every login.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// May stand before a line of ours that follows one which had no line break of its own: sshd skips
/// blanks before a line.
pub const JOINT: &[u8] = b" ";

/// How our lines begin.
const START: &[u8] = b"restrict,pty,from=\"";

/// How our lines end: a blank, this, and the digits of the grant's id.
const MARK: &[u8] = b" orch:";

/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

/// The id of the grant whose line this is, with its line break. Only a whole line as it is written
/// counts.
#[must_use]
pub fn grant_id(line: &[u8]) -> Option<String> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_prefix(JOINT).unwrap_or(line);
    if !line.starts_with(START) {
        return None;
    }
    let (rest, id) = line.split_at_checked(line.len().checked_sub(ID_DIGITS)?)?;
    let digits = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && rest.ends_with(MARK)).then(|| String::from_utf8_lossy(id).into_owned())
}

/// The ids of all grants in a file, whoever gave them.
#[must_use]
pub fn grant_ids(content: &[u8]) -> Vec<String> {
    content.split_inclusive(|byte| *byte == b'\n').filter_map(grant_id).collect()
}

//! Lines of grants in files of keys: which are there. The rest of such a file is nobody's business here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use runner_protocol::facts::{GrantLine, MAX_GRANT_LINES};
use runner_protocol::grant_line::{MAX_FILE_BYTES, grant_ids};

use super::Problems;
use super::root::Root;

/// The lines of grants in `files`; `~/` is this login's home. A file that is not there has none.
pub(super) fn read(root: &Root, files: &[String], problems: &mut Problems) -> Vec<GrantLine> {
    let home = std::env::var("HOME").unwrap_or_default();
    let mut found = Vec::new();
    for file in files {
        let path = match file.strip_prefix("~/") {
            Some(rest) => format!("{home}/{rest}"),
            None => file.clone(),
        };
        let content = problems.optional(file, content(&root.path(&path))).unwrap_or_default();
        let of_file = |grant| GrantLine { file: file.clone(), grant };
        found.extend(grant_ids(&content).into_iter().map(of_file));
    }
    if found.len() > MAX_GRANT_LINES {
        problems.add("grants", &format!("{} lines of grants", found.len()));
        found.truncate(MAX_GRANT_LINES);
    }
    found
}

/// A whole file of keys. Only a plain file is opened: a pipe would never answer.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;
    use super::*;

    fn line(id: &str) -> String {
        format!("restrict,pty,from=\"10.0.0.1\",command=\"x\" ssh-ed25519 AAAA orch:{id}\n")
    }

    fn found(root: &Root, files: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut problems = Problems(Vec::new());
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        let lines = read(root, &files, &mut problems);
        let sources = problems.0.into_iter().map(|it| format!("{}: {}", it.source, it.message));
        (
            lines.into_iter().map(|it| format!("{} {}", it.file, it.grant)).collect(),
            sources.collect(),
        )
    }

    #[test]
    fn only_lines_of_grants_are_told_of_each_file() {
        let (one, two) = ("1".repeat(32), "2".repeat(32));
        let keys = format!("ssh-ed25519 AAAA me\n{}# {}{}", line(&one), line(&two), line("short"));
        let (_folder, root) = tree(&[("/etc/keys/a", &keys), ("/etc/keys/b", &line(&two))]);
        let (lines, problems) = found(&root, &["/etc/keys/a", "/etc/keys/b", "/etc/keys/absent"]);
        assert_eq!(lines, [format!("/etc/keys/a {one}"), format!("/etc/keys/b {two}")]);
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn the_home_is_the_login_s_own() {
        let id = "a".repeat(32);
        let home = std::env::var("HOME").unwrap();
        let (_folder, root) = tree(&[(&format!("{home}/.ssh/keys"), &line(&id))]);
        assert_eq!(found(&root, &["~/.ssh/keys"]).0, [format!("~/.ssh/keys {id}")]);
    }

    #[test]
    fn what_is_no_file_or_too_large_is_a_problem() {
        let large = "#".repeat(MAX_FILE_BYTES + 1);
        let (_folder, root) = tree(&[("/etc/keys/large", &large)]);
        let (lines, problems) = found(&root, &["/etc/keys/large", "/etc/keys"]);
        assert_eq!(lines, [""; 0]);
        assert_eq!(problems, ["/etc/keys/large: it is too large", "/etc/keys: it is not a file"]);
    }
}

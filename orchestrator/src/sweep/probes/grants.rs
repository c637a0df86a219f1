//! Grants that are over and whose lines are still in a file of keys, and lines that nobody here gave.

use runner_protocol::facts::GrantLine;

use super::ago;
use crate::sweep::{Code, Finding};

/// How long a grant may be over before its line counts: an edit of the file that is under way takes
/// less.
pub const SETTLED_MS: i64 = 60_000;

/// A grant, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGrant {
    /// Its id.
    pub id: String,
    /// When it ended or will, milliseconds.
    pub over_ms: i64,
    /// Whether its time ends it, or ended it, and nobody took it back.
    pub by_time: bool,
    /// Whether its line was taken out.
    pub gone: bool,
}

/// The grants of one host.
#[derive(Debug, Clone, Copy)]
pub struct Grants<'a> {
    /// Those whose lines may be there, from before the host was looked at.
    pub before: &'a [KnownGrant],
    /// Those of the lines that were found, from after it.
    pub after: &'a [KnownGrant],
    /// When the look began, milliseconds.
    pub looked_ms: i64,
}

/// What is wrong with the lines that a host has.
#[must_use]
pub fn findings(lines: &[GrantLine], grants: &Grants<'_>) -> Vec<Finding> {
    let mut lines: Vec<&GrantLine> = lines.iter().collect();
    lines.sort_unstable_by(|a, b| (&a.grant, &a.file).cmp(&(&b.grant, &b.file)));
    lines.dedup_by(|b, a| a.grant == b.grant);
    lines.iter().filter_map(|line| of_line(line, grants)).collect()
}

fn of_line(line: &GrantLine, grants: &Grants<'_>) -> Option<Finding> {
    let place = format!("in {}", line.file);
    let known = |all: &[KnownGrant]| all.iter().find(|grant| grant.id == line.grant).cloned();
    let Some(grant) = known(grants.after) else {
        let expected = "a grant of this database";
        return Some(Finding::new(Code::GrantUnknown, &line.grant, place, expected));
    };
    let was_there = grants.before.iter().any(|before| before.id == line.grant);
    let settled = grant.over_ms <= grants.looked_ms.saturating_sub(SETTLED_MS);
    if !settled || (grant.gone && was_there) {
        return None;
    }
    let code = if grant.by_time { Code::GrantExpired } else { Code::GrantRevoked };
    let seen = format!("{place}, over {}", ago(grant.over_ms, grants.looked_ms));
    Some(Finding::new(code, &line.grant, seen, "taken out"))
}

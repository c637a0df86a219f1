//! Reads `ssh_config` just far enough to know which names it could concern.
//!
//! What it says of a name is the `ssh` client's to work out, with `ssh -G` (see `ssh_query`); asking
//! it costs a process. So this module only answers: need it be asked for this name, and will the
//! answer for another name do?
//!
//! The rule. A block counts if it sets something we use. A name is asked for if a counting `Host`
//! block matches it, or a counting `Match` block could. Names that the same `Host` blocks match
//! share one answer, unless a block sets `HostName` or has a `%` token, or a `Match` block could
//! apply. A file that this reader cannot follow (an `Include` with a wildcard in a directory) makes
//! every name be asked for.

use std::path::{Path, PathBuf};

/// What a block must set to count.
const USED: [&str; 11] = [
    "hostname",
    "user",
    "port",
    "identityfile",
    "certificatefile",
    "identityagent",
    "proxyjump",
    "proxycommand",
    "hostkeyalias",
    "userknownhostsfile",
    "canonicalizehostname",
];

/// `ssh` itself stops at 16 nested files.
const MAX_DEPTH: usize = 16;
/// A configuration larger than this is not read; every name is then asked for.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// When a block applies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// `Host` with its patterns.
    Host(Vec<String>),
    /// `Match originalhost` with its patterns, and perhaps more.
    OriginalHost(Vec<String>),
    /// `Match host`, whose subject is the address after `HostName`.
    FinalHost(Vec<String>),
    /// `Match` on something that this reader does not evaluate.
    Unknown,
}

/// Some settings and the conditions that all must hold for them.
#[derive(Debug, Clone, Default)]
struct Block {
    conditions: Vec<Condition>,
    counts: bool,
    sets_hostname: bool,
    has_tokens: bool,
}

/// The outline of a configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    blocks: Vec<Block>,
    /// Something could not be followed: assume that it concerns every name.
    opaque: bool,
    /// A `Match exec` runs commands whenever a name is asked for.
    pub(crate) runs_commands: bool,
    canonicalizes: bool,
}

/// Whether `ssh -G` must be asked for a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// Nothing in the configuration concerns it.
    Nothing,
    /// One answer serves all names with the same blocks.
    Shared(Vec<usize>),
    /// It needs an answer of its own.
    Own,
}

impl Outline {
    /// Reads a configuration file. A missing file is an empty one, as for `ssh`.
    pub(crate) fn read(path: &Path, home: &Path) -> Self {
        let mut outline = Self::default();
        // Relative includes of the user's file lie in ~/.ssh, those of the system's in /etc/ssh.
        let base = match path.starts_with("/etc/ssh") {
            true => PathBuf::from("/etc/ssh"),
            false => home.join(".ssh"),
        };
        outline.read_file(path, &base, home, &[], 0);
        outline
    }

    /// Takes over the blocks of a file that is read after this one.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.blocks.extend(other.blocks);
        self.opaque |= other.opaque;
        self.runs_commands |= other.runs_commands;
        self.canonicalizes |= other.canonicalizes;
        self
    }

    /// What must be asked for this name.
    pub(crate) fn need(&self, name: &str) -> Need {
        if self.opaque {
            return Need::Own;
        }
        let renames = self.canonicalizes || self.blocks.iter().any(|block| block.sets_hostname);
        let mut matched = Vec::new();
        let mut own = false;
        for (index, block) in self.blocks.iter().enumerate() {
            if !block.counts || block.conditions.iter().any(|c| c.excludes(name, renames)) {
                continue;
            }
            matched.push(index);
            let certain = block.conditions.iter().all(|c| matches!(c, Condition::Host(_)));
            own |= !certain || block.sets_hostname || block.has_tokens;
        }
        match (matched.is_empty(), own || self.canonicalizes) {
            (true, _) => Need::Nothing,
            (false, true) => Need::Own,
            (false, false) => Need::Shared(matched),
        }
    }

    fn read_file(
        &mut self,
        path: &Path,
        base: &Path,
        home: &Path,
        enclosing: &[Condition],
        depth: usize,
    ) {
        let small = std::fs::metadata(path).map(|data| data.is_file() && data.len() <= MAX_BYTES);
        let text = match small {
            Ok(true) => {
                std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            Ok(false) => {
                self.opaque = true;
                return;
            }
            Err(error) => Err(error),
        };
        let Ok(text) = text else { return };
        let start = |condition: Option<Condition>| Block {
            conditions: enclosing.iter().cloned().chain(condition).collect(),
            ..Block::default()
        };
        let mut block = start(None);
        for line in text.lines() {
            let Some((keyword, arguments)) = directive(line) else { continue };
            match keyword.as_str() {
                "host" => self
                    .blocks
                    .push(std::mem::replace(&mut block, start(Some(Condition::Host(arguments))))),
                "match" => {
                    let next = start(self.match_condition(&arguments));
                    self.blocks.push(std::mem::replace(&mut block, next));
                }
                "include" => {
                    self.blocks.push(block.clone());
                    let conditions = block.conditions.clone();
                    for pattern in &arguments {
                        self.include(pattern, base, home, &conditions, depth + 1);
                    }
                    block = Block { conditions, ..Block::default() };
                }
                used if USED.contains(&used) => {
                    block.counts = true;
                    block.sets_hostname |= used == "hostname";
                    block.has_tokens |= arguments.iter().any(|argument| argument.contains('%'));
                    self.canonicalizes |= used == "canonicalizehostname";
                }
                _ => {}
            }
        }
        self.blocks.push(block);
    }

    fn match_condition(&mut self, arguments: &[String]) -> Option<Condition> {
        let mut words = arguments.iter().map(|word| word.to_ascii_lowercase());
        let mut condition = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "all" if condition.is_none() => return None,
                "originalhost" | "host" => {
                    let patterns = words.next().unwrap_or_default();
                    let patterns = patterns.split(',').map(str::to_owned).collect();
                    condition = Some(match word.as_str() {
                        "host" => Condition::FinalHost(patterns),
                        _ => Condition::OriginalHost(patterns),
                    });
                }
                "exec" => {
                    self.runs_commands = true;
                    words.next();
                    condition.get_or_insert(Condition::Unknown);
                }
                _ => {
                    condition.get_or_insert(Condition::Unknown);
                }
            }
        }
        condition
    }

    fn include(
        &mut self,
        pattern: &str,
        base: &Path,
        home: &Path,
        conditions: &[Condition],
        depth: usize,
    ) {
        let path = match pattern.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => base.join(pattern),
        };
        let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else { return };
        let wild = |text: &str| text.contains(['*', '?', '[']);
        let (directory_text, file) = (directory.to_string_lossy(), file.to_string_lossy());
        if depth > MAX_DEPTH || wild(&directory_text) || file.contains('[') {
            self.opaque = true;
        } else if wild(&file) {
            let Ok(entries) = std::fs::read_dir(directory) else { return };
            let mut paths: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| {
                    let name = path.file_name().map(|name| name.to_string_lossy());
                    name.is_some_and(|name| !name.starts_with('.') && glob(&file, &name))
                })
                .collect();
            paths.sort();
            for path in paths {
                self.read_file(&path, base, home, conditions, depth);
            }
        } else {
            self.read_file(&path, base, home, conditions, depth);
        }
    }
}

impl Condition {
    /// True when the block certainly does not apply to the name.
    fn excludes(&self, name: &str, addresses_are_renamed: bool) -> bool {
        match self {
            Self::Host(patterns) => !any_matches(patterns, name),
            // A negated criterion (`Match !originalhost x`) is spelt differently and unknown.
            Self::OriginalHost(patterns) => !any_matches(patterns, &name.to_ascii_lowercase()),
            Self::FinalHost(patterns) => {
                !addresses_are_renamed && !any_matches(patterns, &name.to_ascii_lowercase())
            }
            Self::Unknown => false,
        }
    }
}

/// A pattern list: some positive pattern matches and no negated one does.
pub(crate) fn any_matches(patterns: &[String], name: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated, name) => return false,
            Some(_) => {}
            None => found |= glob(pattern, name),
        }
    }
    found
}

/// Shell-like matching with `*` and `?`, in time proportional to the product of the lengths.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|c| *c == '*'))
}

/// One line as a lower-case keyword and its arguments; none for blanks and comments.
pub(crate) fn directive(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Some((keyword.to_ascii_lowercase(), words(rest)))
}

/// Splits at white space outside double quotes; a word that begins with `#` ends the line.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut started) = (false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                started = true;
            }
            '#' if !quoted && !started => break,
            c if c.is_whitespace() && !quoted => {
                if started {
                    all.push(std::mem::take(&mut word));
                }
                started = false;
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> Outline {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, text).unwrap();
        Outline::read(&path, directory.path())
    }

    #[test]
    fn a_block_without_anything_used_concerns_nobody() {
        let outline = outline("Host *\n ServerAliveInterval 60\nHost gpu-*\n Compression yes\n");
        assert_eq!(outline.need("gpu-01"), Need::Nothing);
    }

    #[test]
    fn names_of_the_same_blocks_share_an_answer() {
        let outline = outline("Host gpu-* !gpu-9*\n User u\nHost *\n IdentityFile ~/.ssh/k\n");
        assert_eq!(outline.need("gpu-01"), outline.need("gpu-02"));
        assert_ne!(outline.need("gpu-01"), outline.need("gpu-91"));
        assert_eq!(outline.need("gpu-91"), outline.need("10.0.0.1"));
        assert!(matches!(outline.need("gpu-01"), Need::Shared(_)));
    }

    #[test]
    fn an_address_that_no_pattern_matches_is_never_asked_for() {
        let outline = outline("Host gpu-*\n User u\n HostName %h.lan\n");
        assert_eq!(outline.need("10.0.0.1"), Need::Nothing);
        assert_eq!(outline.need("gpu-1"), Need::Own);
    }

    #[test]
    fn a_match_block_is_asked_for_where_it_could_apply() {
        let by_name = outline("Match originalhost gpu-*\n User u\n");
        assert_eq!(by_name.need("gpu-1"), Need::Own);
        assert_eq!(by_name.need("cpu-1"), Need::Nothing);
        assert!(!by_name.runs_commands);
        let by_command = outline("Match exec \"test -f /x\"\n User u\n");
        assert_eq!(by_command.need("cpu-1"), Need::Own);
        assert!(by_command.runs_commands);
        let by_address = outline("Match host 10.*\n User u\nHost b\n HostName 10.1.1.1\n");
        assert_eq!(by_address.need("c"), Need::Own);
        assert!(matches!(outline("Match all\n User u\n").need("c"), Need::Shared(_)));
    }

    #[test]
    fn includes_are_followed_and_keep_the_condition_they_stand_under() {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        std::fs::create_dir_all(ssh.join("conf.d")).unwrap();
        std::fs::write(ssh.join("conf.d/a.conf"), "User u\nHost x1\n Port 23\n").unwrap();
        std::fs::write(ssh.join("config"), "Host x*\n Include conf.d/*.conf\nHost z\n User v\n")
            .unwrap();
        let outline = Outline::read(&ssh.join("config"), home.path());
        assert_ne!(outline.need("x1"), outline.need("x2"));
        assert!(matches!(outline.need("x2"), Need::Shared(_)));
        assert_eq!(outline.need("y"), Need::Nothing);
        assert!(matches!(outline.need("z"), Need::Shared(_)));
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        let path = home.path().join(".ssh/config");
        std::fs::write(&path, "Include config\nUser u\n").unwrap();
        assert_eq!(Outline::read(&path, home.path()).need("a"), Need::Own);
    }

    #[test]
    fn globs_match_as_in_ssh() {
        assert!(glob("*", ""));
        assert!(glob("a*b?d", "axxbcd"));
        assert!(!glob("a*b?d", "axxbd"));
        assert!(glob("*.example.com", "a.b.example.com"));
        assert!(!glob(&format!("{}b", "a*".repeat(50)), &"a".repeat(200)));
    }

    #[test]
    fn lines_are_split_as_in_ssh() {
        let words = |line| directive(line).unwrap().1;
        assert_eq!(words("Host = a b # c"), ["a", "b"]);
        assert_eq!(words("IdentityFile=\"~/my key\""), ["~/my key"]);
        assert_eq!(directive("  # x"), None);
        assert_eq!(directive("USER x").unwrap().0, "user");
    }
}

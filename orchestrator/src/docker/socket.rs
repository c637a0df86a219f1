//! Where an engine's socket is: one command that looks in the usual places.

use crate::transport::{CommandError, RemoteCommand};

/// Prints one line for each place: the path, what it is for us, and the group it belongs to.
const SCRIPT: &str = r#"runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
for path in "$1" /var/run/docker.sock "$runtime/docker.sock" "$runtime/podman/podman.sock" /run/podman/podman.sock; do
  [ -n "$path" ] || continue
  if [ ! -S "$path" ]; then state=missing
  elif [ -w "$path" ]; then state=ready
  else state=denied
  fi
  group=$(stat -L -c %G "$path" 2>/dev/null) || group=
  printf '%s\t%s\t%s\n' "$state" "${group:-?}" "$path"
  [ -z "$1" ] || break
done"#;

/// A place where an engine may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The socket's path on the host.
    pub path: String,
    /// Whether it is there.
    pub exists: bool,
    /// Whether the login user may use it.
    pub usable: bool,
    /// The group it belongs to.
    pub group: String,
}

/// The command that looks. With `only`, nowhere else.
///
/// # Errors
/// The path cannot be sent.
pub fn probe(only: Option<&str>) -> Result<RemoteCommand, CommandError> {
    RemoteCommand::script(SCRIPT, [only.unwrap_or("")])
}

/// What the command said, as far as it makes sense. A host may say anything.
#[must_use]
pub fn parse_probe(output: &[u8]) -> Vec<Candidate> {
    let text = String::from_utf8_lossy(output);
    let mut found = Vec::new();
    for line in text.lines().take(16) {
        let mut fields = line.splitn(3, '\t');
        let (Some(state), Some(group), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_path = path.starts_with('/') && path.len() < 108 && !path.contains(char::is_control);
        if is_path && matches!(state, "missing" | "ready" | "denied") {
            found.push(Candidate {
                path: path.to_owned(),
                exists: state != "missing",
                usable: state == "ready",
                group: crate::printable::printable(group),
            });
        }
    }
    found
}

/// The sockets to try without asking, the likeliest first: what the fleet file names, else what
/// answered when the host was last deployed to, else Docker's own place.
#[must_use]
pub fn candidates(named: Option<&str>, found: &[(String, bool)]) -> Vec<String> {
    if let Some(named) = named {
        return vec![named.to_owned()];
    }
    let answering = found.iter().filter(|(_, answers)| *answers).map(|(path, _)| path.clone());
    let mut all: Vec<String> = answering.collect();
    if all.is_empty() {
        all.push("/var/run/docker.sock".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probe_says_is_read_and_nonsense_is_not() {
        let said = b"ready\tdocker\t/var/run/docker.sock\nnoise\ndenied\troot\t/run/podman/podman.sock\n\
            missing\t?\t/run/user/0/docker.sock\nready\tx\trelative\nready\tx\t/a\x1b[2J\n";
        let found = parse_probe(said);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].usable && found[0].exists);
        assert!(!found[1].usable && found[1].exists && found[1].group == "root");
        assert!(!found[2].exists);
    }
}

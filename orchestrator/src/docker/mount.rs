//! Directories of the host inside a container, and those that are never given.

use std::fmt;

use serde::Serialize;

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The absolute path on the host.
    pub source: String,
    /// The absolute path in the container.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// Why a text is no mount that is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMount {
    /// It is not `SRC:DST[:ro]`.
    #[error("{0:?} is not a mount: write SRC:DST or SRC:DST:ro, both absolute paths without `..`")]
    Form(String),
    /// What it would give away is the host.
    #[error("{source_path} is not mounted: {why}")]
    Refused {
        /// The path on the host.
        source_path: String,
        /// What it would do.
        why: &'static str,
    },
}

/// Host paths that are not mounted, nor anything below them, nor anything that has them below.
const REFUSED: [(&str, &str); 10] = [
    ("/etc", "it has the host's accounts and keys"),
    ("/proc", "it is the host's kernel"),
    ("/sys", "it is the host's kernel"),
    ("/dev", "it has the host's disks; GPUs are given with --gpus"),
    ("/run", "it has the sockets of the host's services, the container engine's among them"),
    ("/var/run", "it has the sockets of the host's services, the container engine's among them"),
    ("/boot", "it has the host's kernel"),
    ("/var/lib/docker", "it has every other container"),
    ("/var/lib/containerd", "it has every other container"),
    ("/var/lib/containers", "it has every other container"),
];

/// Whoever can write to one of these owns the host.
const SOCKETS: [&str; 5] =
    ["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock"];

impl Mount {
    /// Reads `SRC:DST[:ro]` and refuses what would give the host away. `engine_socket` is where the
    /// engine itself listens, wherever that is.
    ///
    /// This looks at names. What a symbolic link on the host points to is the engine's to resolve,
    /// so whoever can make links on a host can get around it.
    ///
    /// # Errors
    /// [`InvalidMount`].
    pub fn parse(text: &str, engine_socket: Option<&str>) -> Result<Self, InvalidMount> {
        let form = || InvalidMount::Form(text.to_owned());
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            return Err(form());
        };
        let read_only = match (parts.next(), parts.next()) {
            (None, None) | (Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err(form()),
        };
        let source = normal(source).ok_or_else(form)?;
        let target = normal(target).filter(|target| target != "/").ok_or_else(form)?;
        let refused =
            |why| InvalidMount::Refused { source_path: source.clone(), why };
        let name = source.rsplit('/').next().unwrap_or_default();
        if SOCKETS.contains(&name) || engine_socket.is_some_and(|socket| holds(&source, socket)) {
            return Err(refused("whoever has the container engine's socket owns the host"));
        }
        for (path, why) in REFUSED {
            if holds(path, &source) || holds(&source, path) {
                return Err(refused(if source == "/" { "it is the whole host" } else { why }));
            }
        }
        Ok(Self { source, target, read_only })
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.source, self.target)
    }
}

/// An absolute path without `.`, empty parts and a slash at its end; `None` for one with `..`.
fn normal(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.chars().any(char::is_control) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then(|| format!("/{}", parts.join("/")))
}

/// Whether `inner` is `outer` or below it.
fn holds(outer: &str, inner: &str) -> bool {
    match inner.strip_prefix(outer.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_and_what_is_not() {
        let mount = |text| Mount::parse(text, Some("/opt/engine/docker.socket"));
        assert_eq!(mount("/data//models/./a/:/m:ro").unwrap().to_string(), "/data/models/a:/m:ro");
        assert_eq!(mount("/home/ops:/home").unwrap().to_string(), "/home/ops:/home");
        assert_eq!(mount("/etcetera:/e").unwrap().to_string(), "/etcetera:/e");
        for text in [
            "/:/host", "/etc:/e", "/etc/ssh:/e:ro", "/proc:/p", "/sys/fs:/s", "/dev/sda:/d",
            "/var/run/docker.sock:/d", "/run/user/1000:/r", "/var:/v", "/var/lib:/v",
            "/data/docker.sock:/d", "/opt:/o", "/opt/engine:/o", "//etc/./passwd:/p", "/boot:/b",
        ] {
            assert!(matches!(mount(text), Err(InvalidMount::Refused { .. })), "{text}");
        }
        for text in ["", "/a", "a:/b", "/a:b", "/a:/", "/a/../etc:/e", "/a:/b:rw:ro", "/a:/b:z", "/a\n:/b"] {
            assert!(matches!(mount(text), Err(InvalidMount::Form(_))), "{text}");
        }
    }
}

//! The distribution, the kernel and the host's names.

use std::io;

use runner_protocol::facts::OsFacts;

use super::root::{Root, unexpected};

/// The distribution (os-release(5)).
pub(super) fn os_release(root: &Root) -> io::Result<OsFacts> {
    let text = root.read("/etc/os-release").or_else(|_| root.read("/usr/lib/os-release"))?;
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| unquote(value.trim()))
        })
    };
    Ok(OsFacts {
        id: value("ID").unwrap_or_default(),
        version: value("VERSION_ID"),
        name: value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_default(),
    })
}

/// Takes a shell-quoted value apart: one pair of quotes, and backslash escapes in double ones.
fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            character => plain.push(character),
        }
    }
    plain
}

/// The machine's architecture, as `uname -m` says it.
pub(super) fn arch() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

impl Root {
    /// The kernel's release.
    pub(super) fn kernel(&self) -> io::Result<String> {
        self.line("/proc/sys/kernel/osrelease")
    }

    /// The host's own name.
    pub(super) fn hostname(&self) -> io::Result<String> {
        self.line("/proc/sys/kernel/hostname")
    }

    /// The installation's id (machine-id(5)).
    pub(super) fn machine_id(&self) -> io::Result<String> {
        self.line("/etc/machine-id")
    }

    /// The id of this start of the kernel.
    pub(crate) fn boot_id(&self) -> io::Result<String> {
        self.line("/proc/sys/kernel/random/boot_id")
    }

    /// Whole seconds since the start.
    pub(super) fn uptime_secs(&self) -> io::Result<u64> {
        let line = self.line("/proc/uptime")?;
        let secs = line.split('.').next().and_then(|secs| secs.parse().ok());
        secs.ok_or_else(|| unexpected("no seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;
    use super::*;

    #[test]
    fn os_release_of_ubuntu() {
        let text = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\n\
                    VERSION=\"24.04.1 LTS (Noble Numbat)\"\nID=ubuntu\nID_LIKE=debian\n";
        let (_folder, root) = tree(&[("/etc/os-release", text)]);
        let os = os_release(&root).unwrap();
        assert_eq!((os.id.as_str(), os.version.as_deref()), ("ubuntu", Some("24.04")));
        assert_eq!(os.name, "Ubuntu 24.04.1 LTS");
    }

    #[test]
    fn os_release_without_version_and_with_escapes() {
        let text =
            "# a comment\nNAME='Arch \"Linux\"'\nID=arch\nPRETTY_NAME=\"A \\\"b\\\" \\$c\"\n";
        let (_folder, root) = tree(&[("/usr/lib/os-release", text)]);
        let os = os_release(&root).unwrap();
        assert_eq!((os.version, os.name.as_str()), (None, "A \"b\" $c"));
    }

    #[test]
    fn uptime_is_whole_seconds() {
        let (_folder, root) = tree(&[("/proc/uptime", "350735.47 234388.90\n")]);
        assert_eq!(root.uptime_secs().unwrap(), 350_735);
        let (_folder, root) = tree(&[("/proc/uptime", "\n")]);
        assert!(root.uptime_secs().is_err());
    }
}

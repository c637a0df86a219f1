//! The runner's executable file on this machine: found, read once, described.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The names under which a runner lies beside the orchestrator: the portable build that a release
/// ships, then the development build of this workspace.
pub const FILE_NAMES: [&str; 2] = ["remote-runner-x86_64-linux-gnu", "remote-runner"];

/// A development build with debug information is some ten MiB; beyond this it is another file.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Why there is no runner to upload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// No file of that name lies where it was looked for.
    #[error("no remote-runner beside the orchestrator in {}", folder.display())]
    NotFound {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the runner {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a Linux executable that we know.
    #[error("{} is not a 64-bit Linux executable for x86_64 or aarch64", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than any runner.
    #[error("{} is larger than {} MiB and cannot be a runner", path.display(), MAX_BYTES / 1024 / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// A version of the GNU C library, for example 2.17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlibcVersion {
    /// 2.
    pub major: u32,
    /// 17.
    pub minor: u32,
}

impl std::fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl GlibcVersion {
    /// Reads `2.17` or `2.17.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor })
    }
}

/// The runner that is uploaded.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Where it was read.
    pub path: PathBuf,
    /// The executable.
    pub bytes: Vec<u8>,
    /// The executable in gzip (RFC 1952), what travels.
    pub gzip: Vec<u8>,
    /// SHA-256 of the executable in lower hexadecimal.
    pub sha256: String,
    /// The processor it is for, in the words of `uname -m`.
    pub machine: &'static str,
    /// The oldest GNU C library that it runs on, if it needs one.
    pub needs_glibc: Option<GlibcVersion>,
}

impl Artifact {
    /// Finds the runner in `folder` under one of [`FILE_NAMES`] and reads it.
    ///
    /// # Errors
    /// No such file, or it is not a runner.
    pub fn find_in(folder: &Path) -> Result<Self, ArtifactError> {
        FILE_NAMES
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| ArtifactError::NotFound { folder: folder.to_path_buf() })
            .and_then(|path| Self::read(&path))
    }

    /// Reads the runner at `path`.
    ///
    /// # Errors
    /// The file cannot be read or is not an executable for a host.
    pub fn read(path: &Path) -> Result<Self, ArtifactError> {
        let failed = |source| ArtifactError::Read { path: path.to_path_buf(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
            return Err(ArtifactError::TooLarge { path: path.to_path_buf() });
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        let machine = elf_machine(&bytes)
            .ok_or_else(|| ArtifactError::NotExecutable { path: path.to_path_buf() })?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes).map_err(failed)?;
        let gzip = encoder.finish().map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            sha256: crate::hex::sha256(&bytes),
            needs_glibc: newest_glibc_symbol(&bytes),
            machine,
            bytes,
            gzip,
        })
    }
}

/// `e_machine` of a little-endian ELF64 header (System V ABI, chapter 4) in `uname -m`'s words.
fn elf_machine(bytes: &[u8]) -> Option<&'static str> {
    let little_endian_elf64 = bytes.starts_with(b"\x7fELF\x02\x01");
    let machine = bytes.get(18..20)?;
    match machine {
        _ if !little_endian_elf64 => None,
        [0x3e, 0] => Some("x86_64"),
        [0xb7, 0] => Some("aarch64"),
        _ => None,
    }
}

/// The newest `GLIBC_x.y` that a file, or what a loader says of it, names. Symbol versions stand in its dynamic string table
/// as plain text; reading them as text spares an ELF parser, and a stray mention elsewhere in the
/// file could only make the demand too strict, which shows at once in development.
pub(super) fn newest_glibc_symbol(bytes: &[u8]) -> Option<GlibcVersion> {
    const PREFIX: &[u8] = b"GLIBC_";
    bytes
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX)
        .filter_map(|(at, _)| {
            let tail = bytes.get(at + PREFIX.len()..)?;
            let digits = tail.iter().take(8).take_while(|b| b.is_ascii_digit() || **b == b'.');
            let text: String = digits.map(|b| char::from(*b)).collect();
            GlibcVersion::parse(&text)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let old = GlibcVersion::parse("2.9").unwrap();
        let new = GlibcVersion::parse("2.17.1").unwrap();
        assert!(old < new);
        assert_eq!(new.to_string(), "2.17");
        assert_eq!(GlibcVersion::parse("two"), None);
    }

    #[test]
    fn the_newest_symbol_version_is_found() {
        let bytes = b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.17\0";
        assert_eq!(newest_glibc_symbol(bytes), Some(GlibcVersion { major: 2, minor: 34 }));
        assert_eq!(newest_glibc_symbol(b"static"), None);
    }

    #[test]
    fn a_script_is_not_a_runner() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        assert!(matches!(Artifact::read(file.path()), Err(ArtifactError::NotExecutable { .. })));
    }

    #[test]
    fn this_test_is_an_executable_of_this_machine() {
        let artifact = Artifact::read(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(artifact.machine, std::env::consts::ARCH);
        assert_eq!(artifact.sha256.len(), 64);
    }
}

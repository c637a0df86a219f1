//! Where the host's files are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most that is read of one file, in bytes: `/proc/cpuinfo` of 1024 threads is 1.6 MB.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The folder that is `/` to the readers: `/` itself but in tests.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// A root at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where `path`, an absolute one, is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The text of a file, cut at a limit. Bytes that are no UTF-8 are replaced.
    pub(crate) fn read(&self, path: &str) -> io::Result<String> {
        read(&self.path(path))
    }

    /// The text of a file of one line, without its newline.
    pub(crate) fn line(&self, path: &str) -> io::Result<String> {
        self.read(path).map(|text| text.trim().to_owned())
    }
}

/// The text of a file, cut at a limit.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The error of a file that holds something else than expected.
pub(crate) fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected content: {what}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// A recorded tree: paths and their contents.
    pub(crate) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, content) in files {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_file_that_is_no_utf8_is_read_all_the_same() {
        let (_folder, root) = tree(&[]);
        fs::write(root.path("/name"), b"gpu\xff\n").unwrap();
        assert_eq!(root.line("/name").unwrap(), "gpu\u{fffd}");
    }
}

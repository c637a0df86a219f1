//! A log file that is set aside when it has grown, with a number of older ones kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Appends to `path`; at `max_bytes` the file becomes `path.1`, that one `path.2`, and so on.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    max_files: u32,
}

impl LogFile {
    /// Opens the file for appending, making it (mode 0600) and its folder where they are missing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, max_bytes: u64, max_files: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, max_bytes, max_files })
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Another process that logs to the same file may have done it already.
        let ours = self.file.metadata()?;
        let moved = std::fs::metadata(&self.path)
            .map_or(true, |there| (there.dev(), there.ino()) != (ours.dev(), ours.ino()));
        if !moved {
            let numbered = |number: u32| {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                PathBuf::from(name)
            };
            if self.max_files <= 1 {
                std::fs::remove_file(&self.path)?;
            } else {
                for number in (1..self.max_files - 1).rev() {
                    match std::fs::rename(numbered(number), numbered(number + 1)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                std::fs::rename(&self.path, numbered(1))?;
            }
        }
        self.file = append(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

impl Write for LogFile {
    /// Takes one record; records are never divided between files.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let length = record.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.max_bytes {
            // A file that cannot be set aside is better too long than without its records.
            let _kept = self.rotate();
        }
        self.file.write_all(record)?;
        self.bytes += length;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_set_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/o.log");
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        for record in ["one 56789\n", "two\n", "three\n", "four 6789\n", "five\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(path.with_file_name(name)).unwrap();
        assert_eq!(read("o.log"), "five\n");
        assert_eq!(read("o.log.1"), "four 6789\n");
        assert_eq!(read("o.log.2"), "two\nthree\n");
        assert!(!path.with_file_name("o.log.3").exists());
    }

    #[test]
    fn two_writers_share_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.log");
        let mut first = LogFile::open(&path, 8, 9).unwrap();
        let mut second = LogFile::open(&path, 8, 9).unwrap();
        first.write_all(b"first 1\n").unwrap();
        second.write_all(b"second\n").unwrap();
        first.write_all(b"first 2\n").unwrap();
        second.write_all(b"second\n").unwrap();
        let mut all = String::new();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            all += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
        }
        assert_eq!(all.lines().count(), 4, "{all}");
    }

    #[test]
    fn one_file_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.log");
        let mut log = LogFile::open(&path, 4, 1).unwrap();
        log.write_all(b"one\n").unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

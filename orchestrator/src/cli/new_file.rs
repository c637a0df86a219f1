//! Files that a command writes for the user: new ones, whole or not at all.

use std::path::Path;

use super::failure::Failure;

/// Refuses a path that exists; better known before a host is asked.
pub fn refuse_existing(path: &Path, what: &str) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::user(format!("{} exists already", path.display()))
            .hint(format!("{what} is not written over another file: choose another name")));
    }
    Ok(())
}

/// Writes a file that must not exist.
pub fn write_new(path: &Path, what: &str, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| {
        Failure::user(format!("cannot write {what} to {}", path.display())).because(error)
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map(|_| ()).map_err(|error| failed(error.error))
}

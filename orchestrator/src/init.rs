//! Writes the first `orchestrator.toml` and `fleet.toml`.
//!
//! [`plan`] says what would be written; [`write()`] writes all of it or, where a file exists and
//! overwriting was not asked for, nothing.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;

use crate::fleet_file::{FleetFile, FleetFileError};
use crate::render::{INIT_FLEET, RenderError, render};

/// The manual, which is at the same time the configuration that `init` writes.
const CONFIG: &str = include_str!("../../config/orchestrator.toml");

/// What is known before the files are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Login name on the hosts.
    pub user: Option<String>,
    /// Private key file.
    pub identity_file: Option<String>,
    /// Hosts to begin with: name and address. Ranges work as in the fleet file.
    pub hosts: Vec<(String, String)>,
}

/// A file that would be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where.
    pub path: PathBuf,
    /// The whole content.
    pub content: String,
    /// Something is there already.
    pub exists: bool,
}

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The template is broken.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The options make no fleet file that could be read back.
    #[error("the given hosts make no fleet file")]
    Fleet(#[source] FleetFileError),
    /// Files exist, and overwriting was not asked for.
    #[error("{} already there: {}", if paths.len() == 1 { "a file is" } else { "files are" }, list(paths))]
    Exists {
        /// Which.
        paths: Vec<PathBuf>,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Plans the two files for a directory.
///
/// # Errors
/// [`InitError::Fleet`] when a host, user or key of the options is not acceptable in a fleet file.
pub fn plan(directory: &Path, options: &InitOptions) -> Result<Vec<PlannedFile>, InitError> {
    #[derive(Serialize)]
    struct Host<'a> {
        name: &'a str,
        address: &'a str,
    }
    #[derive(Serialize)]
    struct Context<'a> {
        file_name: &'a str,
        user: Option<&'a str>,
        identity_file: Option<&'a str>,
        hosts: Vec<Host<'a>>,
    }
    let fleet_path = directory.join("fleet.toml");
    let hosts = options.hosts.iter().map(|(name, address)| Host { name, address });
    let context = Context {
        file_name: "fleet.toml",
        user: options.user.as_deref(),
        identity_file: options.identity_file.as_deref(),
        hosts: hosts.collect(),
    };
    let fleet = render(INIT_FLEET, context)?;
    if !options.hosts.is_empty() {
        FleetFile::parse(&fleet_path, &fleet).map_err(InitError::Fleet)?;
    }
    let planned = |path: PathBuf, content| PlannedFile {
        // A dangling link is something, too.
        exists: path.symlink_metadata().is_ok(),
        path,
        content,
    };
    Ok(vec![
        planned(directory.join("orchestrator.toml"), CONFIG.to_owned()),
        planned(fleet_path, fleet),
    ])
}

/// Writes the planned files, each in one step: a reader sees the old file or the new one.
///
/// # Errors
/// [`InitError::Exists`] before anything is written, unless `overwrite`; [`InitError::Write`].
pub fn write(files: &[PlannedFile], overwrite: bool) -> Result<(), InitError> {
    let existing: Vec<PathBuf> =
        files.iter().filter(|file| file.exists).map(|file| file.path.clone()).collect();
    if !overwrite && !existing.is_empty() {
        return Err(InitError::Exists { paths: existing });
    }
    for PlannedFile { path, content, .. } in files {
        match write_one(path, content, overwrite) {
            Ok(()) => {}
            // It appeared since the plan was made.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(InitError::Exists { paths: vec![path.clone()] });
            }
            Err(source) => return Err(InitError::Write { path: path.clone(), source }),
        }
    }
    Ok(())
}

fn write_one(path: &Path, content: &str, overwrite: bool) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}.tmp", std::process::id()));
    let mut file = std::fs::File::create_new(&temporary)?;
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| move_into_place(&temporary, path, overwrite));
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn move_into_place(temporary: &Path, path: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return std::fs::rename(temporary, path);
    }
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // Some network file systems know no such rename: a link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(temporary, path)?;
            std::fs::remove_file(temporary)
        }
        result => Ok(result?),
    }
}

//! One service for one database: a lock of the system for this machine, which ends with the
//! process however it ends, and a lease in the database for all machines, which ends when nobody
//! renews it.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::store::{self, SERVE_LEASE_MS, ServeLease, Store};

/// Why this process may not serve.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process of this machine does.
    #[error("process {holder} serves this database already")]
    HeldHere {
        /// What it wrote of itself.
        holder: String,
    },
    /// A process of another machine does.
    #[error("process {} on {} serves this database already", .0.pid, .0.machine)]
    HeldElsewhere(ServeLease),
    /// The lock file cannot be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error("cannot take the lease of the service")]
    Store(#[from] store::Error),
}

/// The right to serve a database, for as long as this lives and the lease is renewed.
#[derive(Debug)]
pub struct Instance {
    store: Store,
    lease: ServeLease,
    /// Locked; unlocked by the system when it is closed.
    _file: File,
}

impl Instance {
    /// Takes the right, or says who has it.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub async fn take(store: &Store, machine: &str) -> Result<Self, InstanceError> {
        let file = lock(store.path())?;
        match store.take_serve_lease(machine, true).await? {
            Ok(lease) => Ok(Self { store: store.clone(), lease, _file: file }),
            Err(held) => Err(InstanceError::HeldElsewhere(held)),
        }
    }

    /// Renews the lease until somebody else has it, which is when this returns. A database that
    /// cannot be written is tried again: without a renewal the lease ends, and with it this.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn keep(&self) {
        let pause = Duration::from_millis(SERVE_LEASE_MS.unsigned_abs() / 3);
        loop {
            tokio::time::sleep(pause).await;
            match self.store.renew_serve_lease(&self.lease).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::error!(%error, "the lease of the service is not renewed"),
            }
        }
    }

    /// Gives the right back.
    pub async fn give_back(self) {
        if let Err(error) = self.store.return_serve_lease(&self.lease).await {
            // It ends by itself within half a minute.
            tracing::warn!(%error, "the lease of the service is not given back");
        }
    }
}

fn lock(database: &Path) -> Result<File, InstanceError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".serve.lock");
    let path = PathBuf::from(path);
    let failed = |source: std::io::Error| InstanceError::Lock { path: path.clone(), source };
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(failed)?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message.
            let _unreadable = file.take(64).read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
            Err(InstanceError::HeldHere { holder })
        }
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(directory: &Path) -> Store {
        Store::open(&directory.join("o.db")).await.unwrap()
    }

    #[tokio::test]
    async fn one_process_of_a_machine_serves() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let first = Instance::take(&store, "here").await.unwrap();
        let second = Instance::take(&store, "here").await.unwrap_err();
        let pid = std::process::id();
        assert_eq!(second.to_string(), format!("process {pid} serves this database already"));
        // A killed one gives nothing back; its lock ends with it.
        drop(first);
        Instance::take(&store, "here").await.unwrap().give_back().await;
    }

    #[tokio::test]
    async fn another_machine_waits_for_the_end_of_the_lease() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let lease = store.take_serve_lease("there", false).await.unwrap().unwrap();
        let refused = Instance::take(&store, "here").await.unwrap_err();
        assert!(matches!(refused, InstanceError::HeldElsewhere(_)), "{refused}");
        assert!(refused.to_string().contains("on there"), "{refused}");
        store.return_serve_lease(&lease).await.unwrap();
        let here = Instance::take(&store, "here").await.unwrap();
        // The one there notices that it is not its own any more.
        assert!(!store.renew_serve_lease(&lease).await.unwrap());
        here.give_back().await;
    }
}

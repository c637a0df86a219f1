//! Embedded demo hosts: SSH servers inside this process, for `orchestrator demo` and for tests.
//!
//! Each embedded host is one loopback TCP port with its own ed25519 host key and its own home
//! directory. It lets exactly one client key in and runs `exec` requests with `/bin/sh -c` as the
//! user who runs this process. It is *not* a sandbox: a command on an embedded host can do what
//! that user can do. That is why the listener refuses every address but loopback.
//!
//! ```text
//! EmbeddedFleet
//!   listener task (one a host)  accepts, at most MAX_CONNECTIONS
//!     connection task           owns the TCP stream and the SSH session; cuts it on shutdown
//!       command task            owns one process group, its three pipes, its SSH channel
//! ```
//!
//! Every task runs in one `TaskTracker` and stops by one `CancellationToken`; a command's token is
//! a grandchild of it, cancelled also when its channel or connection closes. Whatever ends a
//! command, its process group gets SIGKILL before its leader is reaped, so the id cannot have
//! been reused. (A process that leaves its group with `setsid` escapes, as it would from sshd.)
//!
//! What it must not do: a pseudo-terminal, a login shell, forwarding of any kind, subsystems
//! (sftp), environment variables from the client, passwords, certificates, host keys on disk.
//!
//! Flow control: stdout and stderr wait for the client's channel window. The SSH library grants
//! stdin window by itself as data arrives, so stdin goes through a queue that spills to an
//! unlinked file and has a cap; blocking there instead would stall every channel of the
//! connection, and the window updates the command's own output waits for.

mod command;
mod connection;
mod process_groups;
mod stdin_queue;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Listener, server_config};
use self::process_groups::ProcessGroups;

/// What [`EmbeddedFleet::start`] needs.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Directory that holds one directory a host; made if missing, never removed.
    pub root: PathBuf,
    /// How many hosts.
    pub hosts: usize,
    /// The only key that is let in, under any login name.
    pub client_key: PublicKey,
    /// Address to listen on: loopback, or the start is refused.
    pub bind_address: IpAddr,
}

impl EmbeddedOptions {
    /// Options that listen on 127.0.0.1.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, hosts: usize, client_key: PublicKey) -> Self {
        let bind_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { root: root.into(), hosts, client_key, bind_address }
    }
}

/// Where one embedded host is, and how to know that it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedHost {
    /// `embedded-1`, `embedded-2`, ...; zero-padded to the width of the largest.
    pub name: String,
    /// Loopback address it listens on.
    pub address: IpAddr,
    /// TCP port, chosen by the system.
    pub port: u16,
    /// Host key fingerprint as `SHA256:<base64>`, to be pinned by the client.
    pub host_key_fingerprint: String,
    /// Working directory and `$HOME` of its commands.
    pub home: PathBuf,
}

/// Why embedded hosts could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The address is reachable from other machines.
    #[error("refusing to listen on {0}: an embedded host gives a shell and stays on loopback")]
    NotLoopback(IpAddr),
    /// A directory could not be made or resolved.
    #[error("cannot prepare directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes for a host key.
    #[error("cannot make a host key: no random bytes from the system")]
    HostKey,
}

/// Running embedded hosts. Dropping it stops them and kills every command at once.
#[derive(Debug)]
pub struct EmbeddedFleet {
    hosts: Vec<EmbeddedHost>,
    stop: CancellationToken,
    tasks: TaskTracker,
    groups: Arc<ProcessGroups>,
}

impl EmbeddedFleet {
    /// Opens the ports and starts to serve.
    ///
    /// # Errors
    /// [`EmbeddedError`]; hosts that had started are stopped again.
    ///
    /// # Panics
    /// Outside a Tokio runtime with I/O and time.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        if !options.bind_address.is_loopback() {
            return Err(EmbeddedError::NotLoopback(options.bind_address));
        }
        let mut fleet = Self {
            hosts: Vec::with_capacity(options.hosts),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            groups: Arc::default(),
        };
        let width = options.hosts.to_string().len();
        for number in 1..=options.hosts {
            let name = format!("embedded-{number:0width$}");
            fleet.start_host(name, &options).await?;
        }
        fleet.tasks.close();
        Ok(fleet)
    }

    /// The hosts, in order of their names.
    #[must_use]
    pub fn hosts(&self) -> &[EmbeddedHost] {
        &self.hosts
    }

    /// Closes the ports and connections, kills the commands, and waits until all of it is gone.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn start_host(
        &mut self,
        name: String,
        options: &EmbeddedOptions,
    ) -> Result<(), EmbeddedError> {
        let directory = private_directory(&options.root.join(&name))?;
        let home = private_directory(&directory.join("home"))?;
        let host_key = new_key()?;
        let host_key_fingerprint = host_key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let address = options.bind_address;
        let listen = |source| EmbeddedError::Listen { address, source };
        let socket = TcpListener::bind(SocketAddr::new(address, 0)).await.map_err(listen)?;
        let port = socket.local_addr().map_err(listen)?.port();

        let shell = command::Shell {
            host: name.clone(),
            home: home.clone(),
            spill: directory,
            groups: Arc::clone(&self.groups),
            tasks: self.tasks.clone(),
        };
        let listener = Listener {
            socket,
            config: server_config(host_key),
            client_key: Arc::new(options.client_key.clone()),
            shell: Arc::new(shell),
            stop: self.stop.child_token(),
        };
        self.tasks.spawn(listener.run());
        self.hosts.push(EmbeddedHost { name, address, port, host_key_fingerprint, home });
        Ok(())
    }
}

impl Drop for EmbeddedFleet {
    fn drop(&mut self) {
        self.stop.cancel();
        // The tasks do this too, but a runtime that is going down may never poll them again.
        self.groups.kill_all();
    }
}

/// Makes a directory that only this user can enter, and resolves it, since it becomes `$HOME`.
fn private_directory(path: &Path) -> Result<PathBuf, EmbeddedError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| EmbeddedError::Directory { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    path.canonicalize().map_err(failed)
}

/// A fresh ed25519 key, kept in memory alone: each start pins anew, nothing secret is left behind.
/// A fresh ed25519 key, for a host or for the one client that is let in.
///
/// # Errors
/// The system gave no randomness.
pub fn new_key() -> Result<PrivateKey, EmbeddedError> {
    let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
    SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| EmbeddedError::HostKey)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_an_address_that_others_can_reach() {
        let root = tempfile::tempdir().unwrap();
        let key = new_key().unwrap().public_key().clone();
        let mut options = EmbeddedOptions::new(root.path(), 1, key);
        for address in ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1"] {
            options.bind_address = address.parse().unwrap();
            let error = EmbeddedFleet::start(options.clone()).await.unwrap_err();
            assert!(matches!(error, EmbeddedError::NotLoopback(_)), "{error}");
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing was made");
    }

    #[tokio::test]
    async fn hosts_differ_in_name_port_key_and_home() {
        let root = tempfile::tempdir().unwrap();
        let key = new_key().unwrap().public_key().clone();
        let fleet = EmbeddedFleet::start(EmbeddedOptions::new(root.path(), 12, key)).await.unwrap();
        let hosts = fleet.hosts();
        assert_eq!(hosts[0].name, "embedded-01");
        assert_eq!(hosts[11].name, "embedded-12");
        let distinct = |f: fn(&EmbeddedHost) -> String| {
            hosts.iter().map(f).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(distinct(|h| h.port.to_string()), 12);
        assert_eq!(distinct(|h| h.host_key_fingerprint.clone()), 12);
        assert_eq!(distinct(|h| h.home.display().to_string()), 12);
        fleet.shutdown().await;
    }
}

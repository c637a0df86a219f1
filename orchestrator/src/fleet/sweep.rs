//! Sweep: one look at every host of the fleet, judged, recorded, told.
//!
//! A [`Sweeper`] keeps what lasts from one pass to the next: the connections, where they are to be
//! kept. A pass holds the lock of the database, so that passes do not stack. Each host is one task
//! with a deadline of its own; what it found goes to one recorder, which writes many hosts in one
//! transaction. Hosts that were well go first, so that those that do not answer hold nobody up.

mod host;
mod lock;
mod look;
mod notify;
mod ours;
mod recorder;
mod repair;
mod report;
mod scheduled;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::Fleet;
use super::verify::VerifyOptions;
use crate::config::SweepConfig;
use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::ids::HostName;
use crate::runner::Artifact;
use crate::ssh::HostConnections;
use crate::store::{self, HostKnowledge, LockHolder, SweepCounts, now_ms};

pub use notify::{Delivery, NotifyError, deliver, queue, queue_notice};
pub use report::{FindingReport, HostReport, SweepReport};
pub use scheduled::{Pace, SweepStatus, sweep_loop};

/// Proofs that are asked for at a time: each is judged here, on all cores.
const PROOFS_AT_A_TIME: usize = 4;

/// How a sweep is done.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// The runner that hosts shall have.
    pub artifact: Arc<Artifact>,
    /// Hosts at a time.
    pub parallel: usize,
    /// The whole pass, but for what is written at its end.
    pub timeout: Duration,
    /// One host.
    pub probe_timeout: Duration,
    /// Sweeps in a row that must see what may pass.
    pub max_retry_attempts: u32,
    /// Whether to mend what is safe to mend.
    pub auto_recovery: bool,
    /// The file on hosts in which grants are, as `authorized_keys_file` of `[ssh_session]`.
    pub keys_file: String,
    /// Thresholds.
    pub config: SweepConfig,
    /// Whether to ask hosts for proofs, and how.
    pub pow: Option<VerifyOptions>,
}

/// Why there was no sweep, or only a part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// Another one is under way.
    #[error("another sweep holds the lock: {}", .0.holder)]
    Locked(LockHolder),
    /// The lock was lost on the way: this machine slept, or the database could not be written.
    #[error("the lock of the sweep was lost on the way")]
    LockLost,
    /// The database failed.
    #[error("cannot read or record the sweep")]
    Store(#[from] store::Error),
    /// The caller stopped it. What was found by then is recorded.
    #[error("stopped before it ended")]
    Cancelled,
}

/// What lasts from one pass to the next.
pub struct Sweeper {
    fleet: Arc<Fleet>,
    options: Arc<SweepOptions>,
    specs: Vec<HostSpec>,
    connections: HashMap<HostName, Arc<HostConnections>>,
    keep: bool,
    proofs: Arc<Semaphore>,
}

impl Sweeper {
    /// A sweeper of these hosts. With `keep`, connections stay open after a pass, so that the next
    /// look at a host costs a channel and no handshake.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, specs: Vec<HostSpec>, options: SweepOptions, keep: bool) -> Self {
        let proofs = Arc::new(Semaphore::new(PROOFS_AT_A_TIME));
        let (options, connections) = (Arc::new(options), HashMap::new());
        let mut sweeper = Self { fleet, options, specs: Vec::new(), connections, keep, proofs };
        sweeper.set_hosts(specs);
        sweeper
    }

    /// Sweeps these hosts from now on. Connections to hosts whose declaration is the same are kept;
    /// the others end when they are dropped.
    pub fn set_hosts(&mut self, specs: Vec<HostSpec>) {
        let old_specs = std::mem::replace(&mut self.specs, specs);
        let mut old = std::mem::take(&mut self.connections);
        let same: HashSet<&HostName> = {
            let before: HashMap<&HostName, &HostSpec> =
                old_specs.iter().map(|spec| (&spec.name, spec)).collect();
            let is_same = |spec: &&HostSpec| before.get(&spec.name) == Some(spec);
            self.specs.iter().filter(is_same).map(|spec| &spec.name).collect()
        };
        old.retain(|name, _| same.contains(name));
        for spec in &self.specs {
            let connections = old.remove(&spec.name).unwrap_or_else(|| {
                let (endpoint, jumps) = (spec.endpoint.clone(), spec.proxy_jump.clone());
                Arc::new(HostConnections::new(endpoint, jumps, Arc::clone(&self.fleet.ssh)))
            });
            self.connections.insert(spec.name.clone(), connections);
        }
    }

    /// Looks at every host once, under the lock.
    ///
    /// # Errors
    /// Another sweep is under way, the lock was lost, the database failed, or `cancel` fired. A
    /// host that is not well is no error.
    ///
    /// # Cancel safety
    /// Dropping the future ends the host tasks; the lock then ends with its lease.
    pub async fn pass(&self, cancel: &CancellationToken) -> Result<SweepReport, SweepError> {
        let lock = lock::take(&self.fleet.store, &self.fleet.actor).await?;
        // Cancel safety: the pass is dropped whole; what is recorded stays.
        let done = tokio::select! {
            done = self.locked_pass(cancel) => done,
            () = lock.lost() => Err(SweepError::LockLost),
        };
        lock.release().await;
        done
    }

    async fn locked_pass(&self, cancel: &CancellationToken) -> Result<SweepReport, SweepError> {
        let started = Instant::now();
        let deadline = started + self.options.timeout;
        let store = &self.fleet.store;
        let proofs_since = now_ms().saturating_sub(millis(self.options.config.history));
        let mut known = store.sweep_knowledge(proofs_since).await?;
        let owner: Arc<str> = store.identity().await?.into();
        let sweep = store.begin_sweep(&self.fleet.actor, self.specs.len()).await?;
        let mut turns: Vec<(HostSpec, HostKnowledge)> = self
            .specs
            .iter()
            .map(|spec| (spec.clone(), known.remove(spec.name.as_str()).unwrap_or_default()))
            .collect();
        turns.sort_by_key(|(_, known)| known.state == HostState::Unreachable);
        let (found, finds) = mpsc::channel(recorder::BATCH);
        let probing = async move {
            // The recorder ends when the last sender, this one, is gone.
            let visit = || host::Visit {
                fleet: Arc::clone(&self.fleet),
                options: Arc::clone(&self.options),
                proofs: Arc::clone(&self.proofs),
                owner: Arc::clone(&owner),
                deadline,
            };
            futures_util::stream::iter(turns)
                .map(|(spec, known)| self.spawn(visit(), spec, known, found.clone(), cancel))
                .buffer_unordered(self.options.parallel.max(1))
                .filter_map(|joined| async move { joined.ok().flatten() })
                .collect::<Vec<HostName>>()
                .await
        };
        let recording = recorder::record(store, &self.fleet.actor, &sweep, finds);
        let (mut not_probed, recorded) = tokio::join!(probing, recording);
        let mut hosts = recorded?;
        if cancel.is_cancelled() {
            return Err(SweepError::Cancelled);
        }
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        not_probed.sort_unstable();
        let counts = counts(&hosts, not_probed.len());
        store.end_sweep(&sweep, &counts).await?;
        let before = now_ms().saturating_sub(millis(self.options.config.history));
        store.prune_sweeps(before).await?;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(SweepReport { sweep, hosts, not_probed, counts, elapsed_ms })
    }

    /// One host on a task of its own. Its name comes back if its turn did not come.
    fn spawn(
        &self,
        visit: host::Visit,
        spec: HostSpec,
        known: HostKnowledge,
        found: mpsc::Sender<host::Found>,
        cancel: &CancellationToken,
    ) -> tokio::task::JoinHandle<Option<HostName>> {
        let connections = self.connections.get(&spec.name).map(Arc::clone);
        let (cancel, keep) = (cancel.clone(), self.keep);
        tokio::spawn(async move {
            let Some(connections) = connections else { return Some(spec.name) };
            if visit.deadline <= Instant::now() || cancel.is_cancelled() {
                return Some(spec.name);
            }
            // Cancel safety: the visit is dropped whole; nothing of it is recorded then.
            let done = tokio::select! {
                done = visit.run(&spec, known, &connections) => Some(done),
                () = cancel.cancelled() => None,
            };
            if let Some(done) = done {
                // The recorder is gone only when the database failed, which ends the pass.
                let _ = found.send(done).await;
            }
            if !keep {
                connections.close().await;
            }
            None
        })
    }

    /// Closes every connection that was kept.
    pub async fn close(&self) {
        let all: Vec<Arc<HostConnections>> = self.connections.values().map(Arc::clone).collect();
        futures_util::stream::iter(all)
            .for_each_concurrent(256, |connections| async move { connections.close().await })
            .await;
    }

    /// What the sweeper works with.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }
}

fn counts(hosts: &[HostReport], not_probed: usize) -> SweepCounts {
    let count = |wanted: &dyn Fn(&HostReport) -> bool| {
        hosts.iter().filter(|host| wanted(host)).count() as u64
    };
    let unreached = count(&|host| host.state == HostState::Unreachable);
    let well = count(&|host| host.ok);
    SweepCounts {
        well,
        unreached,
        troubled: hosts.len() as u64 - well - unreached,
        not_probed: not_probed as u64,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

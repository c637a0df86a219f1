//! Containers on hosts: run, list, read, stop, remove, and the reconciliation of leases with what
//! really runs.
//!
//! What runs is asked of the hosts and never remembered. Each container carries labels that say
//! which database it belongs to, under which lease, and when it must have ended; the lease is in
//! the store before the container exists, and ends after it. So whatever dies in between, the
//! next contact with the host ([`reconcile`]) finds on one side what is missing on the other.
//!
//! A container in the foreground is held by a runner session, which stops it when the session ends
//! for any reason; its lease is renewed while it runs. One that is detached is held by its lease
//! alone until it ends.

mod act;
mod address;
mod choose;
mod dial;
mod error;
mod host;
mod list;
mod reconcile;
mod run;

pub use act::{inspect_container, logs, remove_container, stop_container};
pub use address::{Address, Found};
pub use choose::{HostDoesNotFit, Wish, rank};
pub use error::ContainerError;
pub use host::HostEngine;
pub use list::{ContainerRow, HostContainers, list};
pub use reconcile::{Reconciled, reconcile, reconcile_if_held};
pub use run::{Client, Ended, Pull, RunEvent, RunOptions, Sink, Started, Stop, pump, run};

//! Containers by the built binary, on a real Docker Engine behind a real sshd.

mod endings;
pub mod engine;
mod gpus;
mod hostile;
mod leases;
mod refusals;
mod registry;
mod site;
mod streams;
mod tampering;

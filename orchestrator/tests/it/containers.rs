//! Containers by the built binary, on a real Docker Engine behind a real sshd.

pub mod engine;
mod leases;

//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod embedded_host;
pub mod host_spec;
pub mod ids;
pub mod reason;
pub mod retry;
pub mod ssh;
pub mod transport;

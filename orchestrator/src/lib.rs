//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod hex;
pub mod host_spec;
pub mod host_state;
pub mod ids;
pub mod reason;
pub mod store;
pub mod transport;
pub mod printable;
pub mod runner;

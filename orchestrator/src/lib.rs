//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod hex;
pub mod fleet_file;
pub mod embedded_host;
pub mod host_spec;
pub mod host_state;
pub mod ids;
pub mod printable;
pub mod reason;
pub mod runner;
pub mod store;
pub mod retry;
pub mod ssh;
pub mod transport;
pub mod toml_text;

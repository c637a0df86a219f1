//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod byte_size;
pub mod cli;
pub mod config;
pub mod docker;
pub mod embedded_host;
pub mod error_chain;
pub mod fleet;
pub mod fleet_file;
pub mod hex;
pub mod host_spec;
pub mod host_state;
pub mod ids;
pub mod import;
pub mod init;
pub mod metrics;
pub mod pow;
pub mod printable;
pub mod reason;
pub mod render;
pub mod retry;
pub mod runner;
pub mod signing_key;
pub mod ssh;
pub mod store;
pub mod toml_text;
pub mod transport;

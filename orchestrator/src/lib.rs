//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod config;
pub mod fleet_file;
pub mod host_spec;
pub mod ids;
pub mod import;
pub mod init;
pub mod reason;
pub mod render;
pub mod toml_text;

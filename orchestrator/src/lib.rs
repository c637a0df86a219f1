//! The orchestrator: runs a fleet of GPU hosts over plain SSH.

pub mod fleet_file;
pub mod host_spec;
pub mod ids;
pub mod reason;
pub mod toml_text;

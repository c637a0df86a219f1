//! Integration tests of the orchestrator, against real parts on loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod chaos;
mod config;
mod embedded_host;
mod fleet_file_check;
mod fleet_file_errors;
mod fleet_file_ranges;
mod fleet_file_resolve;
mod fleet_file_selector;
mod hostile;
mod import;
mod init;
mod store;

//! The integration tests of the orchestrator, one binary.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod config;
mod fleet_file_check;
mod fleet_file_errors;
mod fleet_file_ranges;
mod fleet_file_resolve;
mod fleet_file_selector;
mod import;
mod init;

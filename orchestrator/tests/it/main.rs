//! Integration tests of the orchestrator, against real parts on loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

mod axon;
mod chain;
mod chaos;
mod cli;
mod config;
mod containers;
mod demo;
mod deploy;
mod embedded_host;
mod fleet_file_check;
mod fleet_file_errors;
mod fleet_file_ranges;
mod fleet_file_resolve;
mod fleet_file_selector;
mod grants;
mod hostile;
mod hosts;
mod import;
mod init;
mod layers;
mod python;
mod serve;
mod ssh_auth;
mod ssh_channels;
mod ssh_faults;
mod ssh_jump;
mod ssh_known_hosts;
mod ssh_shells;
mod ssh_trust;
mod sshd;
mod store;
mod sweep;
mod test_chain;
mod verify;
mod wallet;

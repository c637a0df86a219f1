//! Integration tests: real parts on the loopback interface.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

mod ssh_auth;
mod ssh_channels;
mod ssh_faults;
mod ssh_jump;
mod ssh_known_hosts;
mod ssh_shells;
mod ssh_trust;
mod sshd;

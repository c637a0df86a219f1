//! The real binary, driven over pipes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod commands;
mod cuda;
mod endings;
mod harness;
mod hostile;
mod nvml;
mod prove;
mod relay;
mod session;

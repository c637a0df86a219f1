//! Integration tests of the orchestrator, against real parts on loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod chaos;
mod embedded_host;
mod hostile;

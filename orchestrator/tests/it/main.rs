//! Integration tests of the orchestrator, against real parts on loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod embedded_host;

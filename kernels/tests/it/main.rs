//! Tests of the crate from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod agreement;
mod artifacts;
mod cheats;
mod decoder;
mod known_answers;
mod model_table;
mod shim;
mod support;
mod timing;
mod vectors;

//! The protocol as a whole: every message survives the wire, hostile bytes do no harm, and the
//! messages of released versions stay parseable.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fixtures;
mod hostile;
mod json;
mod samples;
mod strategies;
mod wire;

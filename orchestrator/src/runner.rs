//! The remote runner, seen from here: the file that is uploaded, how it gets onto a host and off
//! it again, and the session with a running one.
//!
//! Everything goes through [`crate::transport`]; nothing here knows SSH. A runner is named by the
//! SHA-256 of its executable, on the host as here, so that an upload is needed once for each
//! build and a file that differs by a bit is another file. What must *not* be here: decisions
//! about hosts, the database, anything that prints.

pub mod answer;
pub mod artifact;
mod commands;
mod error;
mod hold;
pub mod install;
mod relay;
pub mod session;

pub use artifact::{Artifact, ArtifactError};
pub use error::Error;
pub use hold::{Hold, HoldEnd};
pub use relay::Relay;
pub use session::{Incoming, Session, Started, UnitEvent};

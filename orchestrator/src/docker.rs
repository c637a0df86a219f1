//! A client of the Docker Engine API over streams that somebody else opens.
//!
//! [`Engine`] speaks HTTP/1.1 with the engine of one host (Docker, or Podman's socket that speaks
//! the same); [`Dial`] gives it the streams, so nothing here knows SSH or the runner. It is written
//! for engines that cannot be trusted: every answer has a largest size and a deadline, and streams
//! are passed on in pieces, however large the engine says that a message is. That is why it is not
//! one of the client libraries, which collect what an engine announces.
//!
//! [`ContainerPlan`] is what a container shall be; its safe defaults are in one function that is
//! tested as data. What must *not* be here: decisions about hosts, leases, the database, printing.

mod auth;
mod dial;
mod engine;
mod error;
mod http;
mod image;
mod model;
mod mount;
mod output;
mod plan;
mod socket;

pub use auth::{AuthError, RegistryAuth};
pub use dial::{Dial, DialError, Lane, Stream};
pub use engine::{Engine, LogQuery, PullProgress};
pub use error::Error;
pub use image::{ImageName, InvalidImage};
pub use model::{ContainerSummary, Inspected, Port, State, Waited};
pub use mount::{InvalidMount, Mount};
pub use output::{Output, OutputStream};
pub use plan::{ContainerPlan, Network, PlanError, Publish, RuledPlan};
pub use runner_protocol::labels;
pub use socket::{Candidate, candidates, parse_probe, probe};

//! What the orchestrator and the remote runner say to each other.
//!
//! One session is one runner process. Its standard output carries [`MAGIC`], then frames of
//! [`FromRunner`]; its standard input carries frames of [`ToRunner`]; its standard error carries
//! JSON log lines that are no part of the protocol; its exit status is an [`ExitCode`].
//!
//! ```text
//! orchestrator                         runner
//!      |        (noise of a login shell)  |
//!      | <------------- remote-runner 1\n |
//!      | <-------------------------- Hello|
//!      | Request { id: 1, unit: facts } ->|
//!      | Renew -------------------------->|   each LEASE_RENEW_INTERVAL
//!      | <----------- Reply { id: 1, .. } |
//!      | <-------- Finished { id: 1, .. } |   exactly one for each request
//!      | Request { id: 2, unit: prove } ->|   a unit in rounds, see [`prove`]
//!      | <----------- Reply { id: 2, .. } |
//!      | Continue { id: 2, round } ------>|
//!      | <----------- Reply { id: 2, .. } |
//!      | <-------- Finished { id: 2, .. } |
//!      | Shutdown {} -------------------->|
//!      |                        exit 0    |
//! ```
//!
//! The crate is pure: it turns bytes into messages and back, and does no I/O. Both ends use these
//! types; neither copies them.
//!
//! # Versions
//!
//! Changes are additive: unknown fields are ignored, new fields have defaults, an unknown unit is
//! answered with [`Outcome::Unsupported`], and so is an unknown round of a unit. A change of meaning bumps [`PROTOCOL_VERSION`]. The
//! messages under `fixtures/` are those of every released version and stay parseable.
//!
//! # Limits
//!
//! Everything a host says is untrusted. A frame's length is checked before anything is allocated
//! for it, and every list in a message has a largest length, so a frame of [`MAX_FRAME_BYTES`]
//! cannot become gigabytes of memory. Strings are passed on as they came: the one who prints them
//! strips control characters.

mod bounded;
mod byte_array;
mod exit;
pub mod facts;
pub mod frame;
pub mod grant_line;
pub mod health;
pub mod labels;
pub mod magic;
pub mod message;
pub mod prove;
pub mod relay;
pub mod telemetry;

use std::time::Duration;

pub use byte_array::ByteArray;
pub use exit::ExitCode;
pub use facts::{FactsQuery, HostFacts};
pub use frame::{FrameDecoder, FrameError, decode, encode_frame};
pub use health::{Finding, HealthReport, Severity};
pub use magic::{MagicError, MagicScanner};
pub use message::{FromRunner, Hello, Outcome, Reply, RequestId, ToRunner, Unit};
pub use prove::{Backend, ProveEvent, ProveReply, Round};
pub use relay::{Held, HoldEvent, RelayEvent, StreamBytes};
pub use telemetry::Telemetry;

/// The version of the messages' meaning. Both ends must speak the same one.
pub const PROTOCOL_VERSION: u32 = 1;

/// The first bytes of the runner's own on its standard output. A login shell may print before it.
pub const MAGIC: &str = "remote-runner 1\n";

/// The largest body of a frame, in bytes (4 MiB): facts of a host with 16 GPUs are about 20 KiB, the
/// openings of a proof come in replies of at most [`MAX_OPENINGS`](prove::MAX_OPENINGS), less than
/// 1 MiB each, and kernels have at most [`MAX_IMAGE_BYTES`](prove::MAX_IMAGE_BYTES).
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// How often the orchestrator sends [`ToRunner::Renew`]: a third of the lease, so that two may be
/// lost or late.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(10);

/// How long the runner lives after the last [`ToRunner::Renew`]. Closing SSH does not stop a remote
/// process, so the runner must end by itself.
pub const LEASE_DURATION: Duration = Duration::from_secs(30);

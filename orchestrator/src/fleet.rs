//! Operations over hosts: deploy, trust, purge, verify, sweep.
//!
//! Each host is one task, and its partial failure is data: a [`HostOutcome`], never an error of
//! the whole. A host's task owns its connection, its runner session and what it records; when it
//! is dropped (Ctrl-C), the connection closes, the remote side removes what it had begun, and the
//! database has either all of that host's contact or none. What must *not* be here: printing, the
//! environment, SSH's details.

pub mod calibrate;
mod claim;
pub mod containers;
pub mod deploy;
pub mod grants;
mod ledger;
mod link;
mod outcome;
mod purge;
pub mod sweep;
mod trust;
pub mod verify;

pub use calibrate::{CalibrateError, Calibration, MeasuredPhase, calibrate};
pub use claim::{driver_version, gpu_summary, models_of};
pub use deploy::{DeployOptions, deploy};
pub use link::Fleet;
pub use outcome::{Change, FleetEvent, HostOutcome, Step};
pub use purge::purge;
pub use trust::{TrustChange, inspect, replace};
pub use verify::{
    AskedNonces, AskedRound, GpuName, GpuReport, GpuStep, GpuVerdict, HostVerdict, ModelSource,
    NonceSender, VerifyError, VerifyEvent, VerifyOptions, VerifyStep, sentence, short_uuid, verify,
};

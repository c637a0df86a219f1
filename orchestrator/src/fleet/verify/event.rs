//! What a verification tells of itself while it runs.

use pow_kernels::{Context, Digest};

use super::nonces::AskedRound;
use super::targets::GpuName;
use crate::reason::Reason;

/// What a verification is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyEvent {
    /// The host as a whole went on to a step.
    Step(VerifyStep),
    /// These are not challenged, and why.
    LeftOut(Vec<(GpuName, Reason)>),
    /// These are challenged; later events name them by their place here. Empty for the reference.
    Gpus(Vec<GpuName>),
    /// Challenged once more: only times were wrong. The number of the try, from 2.
    Again(u32),
    /// The challenge of a GPU, which is stored and not sent yet.
    Issued {
        /// The GPU's place.
        gpu: usize,
        /// What its proof will be bound to.
        context: Box<Context>,
    },
    /// The nonce of this round is awaited, where somebody else chooses it.
    Awaiting(AskedRound),
    /// A root came, in its turn.
    Root {
        /// The GPU's place.
        gpu: usize,
        /// Number of the product; `None` for the records.
        product: Option<u8>,
        /// The root.
        root: Digest,
    },
    /// A GPU went on to a step.
    Gpu {
        /// Its place.
        gpu: usize,
        /// The step.
        step: GpuStep,
    },
}

/// What is done with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyStep {
    /// Reaching it.
    Connecting,
    /// Starting the runner, after uploading it if it is missing.
    Starting,
    /// Reading its facts: which GPUs there are.
    Looking,
    /// The challenges are under way.
    Challenging,
    /// The verifier is at work here.
    Judging,
}

/// What is done with a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuStep {
    /// Its driver starts.
    Preparing,
    /// The kernels are on their way and tested there.
    Loading,
    /// Its memory is being filled.
    Filling,
    /// It is full, and waits for the others.
    Filled,
    /// Its memory is walked and multiplied; the clock runs.
    Probing,
    /// The openings are on their way.
    Opening,
    /// The filled memory is held until a random moment.
    Holding,
    /// It is given back.
    Releasing,
    /// It has failed.
    Failed,
}

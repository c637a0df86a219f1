//! GPOW/1: a proof that a GPU holds a memory full of fresh data and multiplies it at speed.
//!
//! `SPEC.md` in this directory is the protocol; [`reference`](mod@reference) is the same as a slow program. The crate is
//! pure: it opens nothing, waits for nothing, measures no time and starts no thread. A caller hands
//! it bytes and durations and gets keys, queries and a [`Verdict`].
//!
//! - [`Context`] and [`Parameters`]: what is asked, with every size checked once.
//! - [`keys`], [`queries`], [`launch`], [`artifacts`]: what a prover needs besides a GPU.
//! - [`Proof`]: what comes back. Sizes are bounded while it is decoded.
//! - [`Verification`]: the checks as independent pieces of work, so that a caller may spread them over
//!   threads; [`verify()`] does them one after another.
//! - [`models`], [`timing`]: how fast a model ought to be, and the judgement of measured times.
//!
//! What it must not do: touch a device, a file or a clock; trust a length from the wire; panic on
//! anything a prover sent.

pub mod artifacts;
mod block;
mod bytes;
mod commitment;
pub mod context;
pub mod keys;
pub mod launch;
pub mod models;
pub mod parameters;
mod philox;
mod probe;
pub mod proof;
pub mod queries;
pub mod reference;
pub mod timing;
pub mod verify;

pub use block::{BLOCK_BYTES, BLOCK_WORDS, BlockGenerator, LINE_WORDS, LINES_PER_BLOCK};
pub use commitment::check_opening;
pub use context::{CONTEXT_BYTES, Context, ContextError, KernelVariant, Mode};
pub use models::{Model, ModelTable, Profile};
pub use parameters::{ParameterError, Parameters, Sizes};
pub use proof::{Backend, Chunk, Commitments, Digest, Opening, Path, Proof};
pub use queries::{GemmQuery, ProbeQuery, Queries, QueryCounts};
pub use timing::{Baseline, Evidence, PhaseBaseline, TimingPolicy, Timings};
pub use verify::{
    Challenge, Check, CheckResult, Outcome, PieceResult, Policy, Status, Verdict, Verification,
    verify,
};

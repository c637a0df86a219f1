//! The proof-of-work, seen from here: what is asked, how an answer is judged, and the signed
//! document that keeps both. The mathematics is `kernels/`.
//!
//! Nothing here does I/O, measures a time or knows a host's connection: [`crate::fleet`] drives a
//! challenge and measures, [`crate::store`] keeps, [`crate::signing_key`] signs.

mod challenge;
mod document;
mod duration;
mod judge;
mod sizes;

pub use challenge::{
    Asked, ChallengeRecord, GpuTarget, NoRandomness, REFERENCE_SIZES, asked_by_another,
    gpu_challenge, probed_again, random_moments, raw_uuid, reference_challenge,
};
pub use document::{
    CheckRow, DocumentError, Examination, GpuLabel, MAX_DOCUMENT_BYTES, ProofRecord, SignedProof,
    examine,
};
pub use duration::ProofDuration;
pub use judge::{Judgement, backend_name, judge, mode_name, only_slow, outcome_name, passes};
pub use sizes::{LEAST_MEMORY_BYTES, PhaseStatistics, derived_sizes, unmeasured};

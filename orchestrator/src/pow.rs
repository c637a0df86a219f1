//! The proof-of-work, seen from here: what is asked, how an answer is judged, and the signed
//! document that keeps both. The mathematics is `kernels/`.
//!
//! Nothing here does I/O, measures a time or knows a host's connection: [`crate::fleet`] drives a
//! challenge and measures, [`crate::store`] keeps, [`crate::signing_key`] signs.

mod challenge;
mod document;
mod judge;

pub use challenge::{ChallengeRecord, NoRandomness, REFERENCE_SIZES, reference_challenge};
pub use document::{
    CheckRow, DocumentError, Examination, MAX_DOCUMENT_BYTES, ProofRecord, SignedProof, examine,
};
pub use judge::{backend_name, judge, outcome_name, passes};

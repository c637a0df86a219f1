//! The verifier: one CPU core, no GPU, constant memory. `SPEC.md` section 12.
//!
//! [`Verification`] is the work in pieces. Pieces share nothing, so a caller may run them on as many
//! threads as it likes and in any order; [`Verification::conclude`] counts that none was left out.

mod verdict;

use crate::block::{BLOCK_WORDS, BlockGenerator, dot};
use crate::commitment::check_opening;
use crate::context::Context;
use crate::keys::{PhiloxKey, ProbeKeys, Slice, derive, fill_key};
use crate::probe::{chain_start, replay};
use crate::proof::{Backend, Digest, Opening, Proof};
use crate::queries::{GemmQuery, ProbeQuery, Queries, QueryCounts};
use crate::timing::{Baseline, TimingPolicy, Timings};

pub use verdict::{Check, CheckResult, Outcome, Status, Verdict};

/// Everything the verifier chose for one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What the proof is bound to, with all sizes.
    pub context: Context,
    /// Random bytes sent with Probe.
    pub nonce_probe: [u8; 32],
    /// Random bytes sent with Open.
    pub nonce_open: [u8; 32],
    /// How many queries were asked.
    pub counts: QueryCounts,
}

impl Challenge {
    /// Hash of the whole exchange, to be signed and stored. `SPEC.md` section 12.
    #[must_use]
    pub fn transcript_hash(&self, proof: &Proof, timings: &Timings) -> [u8; 32] {
        let roots: Vec<u8> = std::iter::once(&proof.commitments.probe_root)
            .chain(&proof.commitments.gemm_roots)
            .flat_map(|root| root.0)
            .collect();
        let times: Vec<u8> = std::iter::once(&timings.chain_ns)
            .chain(&timings.gemm_ns)
            .flat_map(|ns| ns.to_le_bytes())
            .collect();
        derive(
            "gpow/1 transcript",
            &[
                &self.context.encode(),
                &self.nonce_probe,
                &self.nonce_open,
                &self.counts.probe.to_le_bytes(),
                &self.counts.gemm.to_le_bytes(),
                &roots,
                &times,
                &proof.openings_hash(),
            ],
        )
    }
}

/// What the caller decides about acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether a proof of the CPU reference may pass. It is then at best [`Outcome::Unproven`].
    pub allow_reference: bool,
    /// Band of the promised model for these sizes; `None` leaves the times unjudged.
    pub baseline: Option<Baseline>,
    /// Strictness of the times.
    pub timing: TimingPolicy,
    /// Whether the memory was filled before an earlier probe, so that its chains must also leave no
    /// time to fill it again.
    pub held: bool,
}

/// A verification under way.
#[derive(Debug)]
pub struct Verification<'a> {
    challenge: &'a Challenge,
    proof: &'a Proof,
    mismatch: Option<&'static str>,
    generator: BlockGenerator,
    keys: ProbeKeys,
    queries: Queries,
}

/// What one piece of work found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceResult {
    piece: usize,
    kind: Kind,
    opened: bool,
    /// `None` when the opening was wrong, so that its content says nothing.
    content: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Probe,
    Gemm,
}

impl<'a> Verification<'a> {
    /// Compares the proof's shape with the challenge and derives the queries.
    #[must_use]
    pub fn begin(challenge: &'a Challenge, proof: &'a Proof) -> Self {
        let parameters = &challenge.context.parameters;
        let ctx_hash = challenge.context.hash();
        let queries = Queries::derive(
            parameters,
            &ctx_hash,
            &challenge.nonce_probe,
            &proof.commitments,
            &challenge.nonce_open,
            challenge.counts,
        );
        let mismatch = if proof.context_hash != Digest(ctx_hash) {
            Some("the proof answers another context")
        } else if proof.commitments.gemm_roots.len() != usize::from(parameters.gemms) {
            Some("the number of product roots is not what was asked")
        } else if proof.probe_openings.len() != queries.probe.len() {
            Some("the number of record openings is not what was asked")
        } else if proof.gemm_openings.len() != queries.gemm.len() {
            Some("the number of product openings is not what was asked")
        } else if queries.probe.is_empty() || queries.gemm.is_empty() {
            Some("nothing was asked")
        } else {
            None
        };
        Self {
            challenge,
            proof,
            mismatch,
            generator: BlockGenerator::new(
                fill_key(&challenge.context),
                parameters.leaf_iterations,
            ),
            keys: ProbeKeys::new(&ctx_hash, &challenge.nonce_probe),
            queries,
        }
    }

    /// The same with portable instructions only, to compare.
    #[must_use]
    pub fn portable(mut self) -> Self {
        let key: PhiloxKey = fill_key(&self.challenge.context);
        self.generator =
            BlockGenerator::portable(key, self.challenge.context.parameters.leaf_iterations);
        self
    }

    /// Number of pieces of work: none when the shape is wrong.
    #[must_use]
    pub fn pieces(&self) -> usize {
        match self.mismatch {
            Some(_) => 0,
            None => self.queries.probe.len() + self.queries.gemm.len(),
        }
    }

    /// Does piece `piece`, below [`Self::pieces`]. `None` when there is no such piece.
    #[must_use]
    pub fn run(&self, piece: usize) -> Option<PieceResult> {
        if piece >= self.pieces() {
            return None;
        }
        if let Some(query) = self.queries.probe.get(piece) {
            let opening = self.proof.probe_openings.get(piece)?;
            let opened = self.opens_record(query, opening);
            let content = opened.then(|| self.replays(query, opening));
            return Some(PieceResult { piece, kind: Kind::Probe, opened, content });
        }
        let number = piece - self.queries.probe.len();
        let query = self.queries.gemm.get(number)?;
        let opening = self.proof.gemm_openings.get(number)?;
        let opened = self.opens_product(query, opening);
        let content = opened.then(|| self.multiplies(query, opening) == Some(true));
        Some(PieceResult { piece, kind: Kind::Gemm, opened, content })
    }

    /// Puts the results of all pieces and the measured times together.
    #[must_use]
    pub fn conclude(
        &self,
        results: impl IntoIterator<Item = PieceResult>,
        timings: Option<&Timings>,
        policy: &Policy,
    ) -> Verdict {
        let mut done = vec![None; self.pieces()];
        for result in results {
            if let Some(slot) = done.get_mut(result.piece) {
                *slot = Some(result);
            }
        }
        let reference = self.proof.backend == Backend::Reference;
        let mut checks = vec![
            verdict::backend(self.proof.backend, policy.allow_reference),
            verdict::parameters(self.mismatch),
            verdict::openings(&done),
            verdict::content(Check::ProbeReplay, Kind::Probe, &done),
            verdict::content(Check::Gemm, Kind::Gemm, &done),
        ];
        let gemms = usize::from(self.challenge.context.parameters.gemms);
        let judged = timings.zip(policy.baseline.as_ref()).filter(|_| !reference);
        checks.extend(verdict::times(judged, policy, gemms));
        Verdict { checks, evidence: judged.map(|(_, baseline)| verdict::evidence(baseline)) }
    }

    fn opens_record(&self, query: &ProbeQuery, opening: &Opening) -> bool {
        check_opening(
            &self.keys.commit_probe,
            &self.proof.commitments.probe_root.0,
            query.chain.into(),
            self.challenge.context.parameters.probe_path_len(),
            opening,
        )
    }

    fn replays(&self, query: &ProbeQuery, opening: &Opening) -> bool {
        let parameters = &self.challenge.context.parameters;
        let checkpoint = |segment: u32| {
            let (states, _) = opening.chunk.0.as_chunks::<16>();
            states.get(segment as usize).map(|bytes| {
                let mut words = [0; 4];
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *word = u32::from_le_bytes(*bytes);
                }
                words
            })
        };
        let start = match query.segment.checked_sub(1) {
            None => Some(chain_start(&self.keys.chains, query.chain)),
            Some(previous) => checkpoint(previous),
        };
        let steps = u32::from(parameters.steps);
        start.is_some_and(|state| {
            let from = query.segment * steps;
            let end = replay(parameters, &self.generator, &self.keys.chains, state, from, steps);
            Some(end) == checkpoint(query.segment)
        })
    }

    fn opens_product(&self, query: &GemmQuery, opening: &Opening) -> bool {
        let parameters = &self.challenge.context.parameters;
        let (chunk, _) = query.chunk(parameters);
        let key = self.keys.commit_gemm(query.product);
        let root = self.proof.commitments.gemm_roots.get(usize::from(query.product));
        root.is_some_and(|root| {
            check_opening(&key, &root.0, chunk, parameters.gemm_path_len(), opening)
        })
    }

    fn multiplies(&self, query: &GemmQuery, opening: &Opening) -> Option<bool> {
        let parameters = &self.challenge.context.parameters;
        let commitments = &self.proof.commitments;
        let previous = match query.product.checked_sub(1) {
            None => &commitments.probe_root,
            Some(earlier) => commitments.gemm_roots.get(usize::from(earlier))?,
        };
        let slice = Slice::new(parameters, &previous.0, query.product);
        let mut row = [0; BLOCK_WORDS];
        let mut column = [0; BLOCK_WORDS];
        self.generator.block(slice.first_row + u64::from(query.row), &mut row);
        self.generator.block(slice.first_column + u64::from(query.column), &mut column);
        let (_, entry) = query.chunk(parameters);
        let claimed = opening.chunk.0.as_chunks::<4>().0.get(entry)?;
        Some(i32::from_le_bytes(*claimed) == dot(&row, &column))
    }
}

/// Does all pieces on this thread and concludes.
#[must_use]
pub fn verify(
    challenge: &Challenge,
    proof: &Proof,
    timings: Option<&Timings>,
    policy: &Policy,
) -> Verdict {
    let verification = Verification::begin(challenge, proof);
    let results: Vec<_> =
        (0..verification.pieces()).filter_map(|piece| verification.run(piece)).collect();
    verification.conclude(results, timings, policy)
}

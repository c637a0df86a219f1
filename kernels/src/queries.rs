//! What the verifier asks to see, once everything is committed. `SPEC.md` section 11.

use serde::{Deserialize, Serialize};

use crate::context::Mode;
use crate::parameters::{Parameters, SEGMENTS};
use crate::philox::mulhi;
use crate::proof::Commitments;

/// Upper bound of queries of one kind; it bounds a proof to about 15 MB and a verifier's work.
pub const MAX_QUERIES: u16 = 4096;

/// How many queries of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCounts {
    /// Segments of chains to replay.
    pub probe: u16,
    /// Entries of products to recompute.
    pub gemm: u16,
}

impl QueryCounts {
    /// The counts that the soundness numbers of `SPEC.md` section 14 are for.
    #[must_use]
    pub fn for_mode(mode: Mode) -> Self {
        match mode {
            Mode::Quick | Mode::Hold => Self { probe: 32, gemm: 128 },
            Mode::Deep => Self { probe: 16, gemm: 128 },
        }
    }
}

/// One segment of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeQuery {
    /// Chain, and chunk of the record array.
    pub chain: u32,
    /// Segment whose last state is the checkpoint of the same number.
    pub segment: u32,
}

/// One entry of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GemmQuery {
    /// Which product.
    pub product: u8,
    /// Row.
    pub row: u32,
    /// Column.
    pub column: u32,
}

impl GemmQuery {
    /// The chunk of the product that holds the entry, and the entry's place in it.
    #[must_use]
    pub fn chunk(&self, parameters: &Parameters) -> (u64, usize) {
        let n = u64::from(parameters.gemm_dimension);
        let entry = u64::from(self.row) * n + u64::from(self.column);
        (entry / 256, (entry % 256) as usize)
    }
}

/// All queries of a challenge, in the order in which openings are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// Segments.
    pub probe: Vec<ProbeQuery>,
    /// Entries.
    pub gemm: Vec<GemmQuery>,
}

impl Queries {
    /// Derives the queries; counts above [`MAX_QUERIES`] are taken as [`MAX_QUERIES`].
    #[must_use]
    pub fn derive(
        parameters: &Parameters,
        ctx_hash: &[u8; 32],
        nonce_probe: &[u8; 32],
        commitments: &Commitments,
        nonce_open: &[u8; 32],
        counts: QueryCounts,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gpow/1 query");
        hasher.update(ctx_hash).update(nonce_probe).update(&commitments.probe_root.0);
        for root in &commitments.gemm_roots {
            hasher.update(&root.0);
        }
        hasher.update(nonce_open);
        let mut stream = hasher.finalize_xof();
        let mut below = |bound: u32| {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            // The result is below a u32 bound.
            mulhi(u64::from_le_bytes(bytes), bound.into()) as u32
        };
        let probe = (0..counts.probe.min(MAX_QUERIES))
            .map(|_| ProbeQuery { chain: below(parameters.chains), segment: below(SEGMENTS) })
            .collect();
        let n = parameters.gemm_dimension;
        let gemm = (0..counts.gemm.min(MAX_QUERIES))
            .map(|_| GemmQuery {
                product: below(parameters.gemms.into()) as u8,
                row: below(n),
                column: below(n),
            })
            .collect();
        Self { probe, gemm }
    }
}

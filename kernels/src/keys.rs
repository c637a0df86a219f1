//! Keys and slices, derived from the context and the nonces. `SPEC.md` sections 4 and 8.

use crate::context::{CONTEXT_BYTES, Context};
use crate::parameters::Parameters;
use crate::philox::mulhi;

/// The four words that key a Philox use: the key `k0, k1` and the counter words `s0, s1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PhiloxKey {
    /// Key words.
    pub k: [u32; 2],
    /// Fixed counter words.
    pub s: [u32; 2],
}

impl PhiloxKey {
    fn from_seed(seed: [u8; 32]) -> Self {
        let [x0, x1, ..] = as_u64s(seed);
        Self { k: [x0 as u32, (x0 >> 32) as u32], s: [x1 as u32, (x1 >> 32) as u32] }
    }
}

/// Key of the memory's content. Known to the prover as soon as it has the context.
#[must_use]
pub fn fill_key(context: &Context) -> PhiloxKey {
    PhiloxKey::from_seed(derive("gpow/1 fill", &[&context.encode()]))
}

/// The same, from the encoded context.
#[must_use]
pub fn fill_key_of_encoded(context: &[u8; CONTEXT_BYTES]) -> PhiloxKey {
    PhiloxKey::from_seed(derive("gpow/1 fill", &[context]))
}

/// Keys that exist only once `nonce_probe` is known.
#[derive(Debug, Clone)]
pub struct ProbeKeys {
    ctx_hash: [u8; 32],
    nonce_probe: [u8; 32],
    /// Addresses and states of the chains.
    pub chains: PhiloxKey,
    /// BLAKE3 key of the commitment to the records.
    pub commit_probe: [u8; 32],
}

impl ProbeKeys {
    /// Derives the keys of the probe phase.
    #[must_use]
    pub fn new(ctx_hash: &[u8; 32], nonce_probe: &[u8; 32]) -> Self {
        Self {
            ctx_hash: *ctx_hash,
            nonce_probe: *nonce_probe,
            chains: PhiloxKey::from_seed(derive("gpow/1 probe", &[ctx_hash, nonce_probe])),
            commit_probe: derive("gpow/1 commit-probe", &[ctx_hash, nonce_probe]),
        }
    }

    /// BLAKE3 key of the commitment to product `g`.
    #[must_use]
    pub fn commit_gemm(&self, g: u8) -> [u8; 32] {
        let g = u32::from(g).to_le_bytes();
        derive("gpow/1 commit-gemm", &[&self.ctx_hash, &self.nonce_probe, &g])
    }
}

/// Which blocks product `g` multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Block that is row 0 of the left operand.
    pub first_row: u64,
    /// Block that is row 0 of the right operand (column 0 of the product).
    pub first_column: u64,
}

impl Slice {
    /// The slice of product `g`, after the root of what was committed before it.
    #[must_use]
    pub fn new(parameters: &Parameters, previous_root: &[u8; 32], g: u8) -> Self {
        let seed = derive("gpow/1 gemm-slice", &[previous_root, &u32::from(g).to_le_bytes()]);
        let [x0, x1, ..] = as_u64s(seed);
        let (blocks, n) = (parameters.blocks, u64::from(parameters.gemm_dimension));
        let half = blocks / 2;
        Self {
            first_row: mulhi(x0, half - n + 1),
            first_column: half + mulhi(x1, blocks - half - n + 1),
        }
    }
}

pub(crate) fn derive(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(label);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn as_u64s(seed: [u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(seed.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

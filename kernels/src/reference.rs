//! The protocol as a program: slow, short, and written from `SPEC.md` alone.
//!
//! It shares no arithmetic and no key derivation with the rest of the crate, so that the fast code
//! and the kernels are compared with something other than themselves. BLAKE3 is its own crate's.
//! Only sizes come from a checked [`Context`], which is why indices and sums stay in range.
#![allow(
    clippy::indexing_slicing,
    reason = "bounds are the constants of the specification; a reference must be legible"
)]

use blake3::hazmat::HasherExt;

use crate::context::Context;
use crate::parameters::Parameters;
use crate::proof::{Backend, Chunk, Commitments, Digest, Opening, Path, Proof};
use crate::queries::QueryCounts;

/// Words of a block: 128 lines of 32 words.
const BLOCK_WORDS: usize = 4096;
/// Bytes of a block, and the inner dimension of the products.
const BLOCK_BYTES: usize = 4 * BLOCK_WORDS;
/// Checkpoints of a chain.
const SEGMENTS: usize = 64;
/// Bytes of a BLAKE3 chunk.
const CHUNK: usize = 1024;

fn low(x: u64) -> u32 {
    x as u32
}

fn high(x: u64) -> u32 {
    (x >> 32) as u32
}

/// Bits 64..127 of the product: maps a uniform `a` to `0..b`.
#[must_use]
pub fn mulhi(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// Philox4x32 with `rounds` rounds (Salmon et al., SC'11).
#[must_use]
pub fn philox(rounds: u32, counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut c = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..rounds {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [high(p1) ^ c[1] ^ k0, low(p1), high(p0) ^ c[3] ^ k1, low(p0)];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

/// `LK[k]`, the constant of butterfly layer `k`.
#[must_use]
pub fn layer_constant(k: u32) -> u64 {
    0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * u64::from(k) + 1)
}

/// The pair function of the butterfly.
#[must_use]
pub fn mix(a: u32, b: u32, constant: u64) -> (u32, u32) {
    let p = (u64::from(a) * u64::from(b)).wrapping_add(constant);
    let u = low(p) ^ high(p) ^ a;
    let v = low(p).wrapping_sub(high(p)).wrapping_add(b);
    let r = (u64::from(u) * u64::from(v)).wrapping_add(constant.rotate_left(32));
    (low(r) ^ high(r) ^ a, low(r).wrapping_sub(high(r)).wrapping_add(b))
}

/// Block `index` of the memory keyed by `[k0, k1, s0, s1]`, as 128 lines of 32 words.
#[must_use]
pub fn block(key: [u32; 4], leaf_iterations: u32, index: u64) -> Box<[u32; BLOCK_WORDS]> {
    let [k0, k1, s0, s1] = key;
    let mut words = Box::new([0; BLOCK_WORDS]);
    for column in 0..32_u32 {
        let mut x = [0; 128];
        for q in 0..32_u32 {
            let mut c = [low(index), (high(index) << 16) | (q << 5) | column, s0, s1];
            for _ in 0..leaf_iterations {
                c = philox(10, c, [k0, k1]);
            }
            x[4 * q as usize..][..4].copy_from_slice(&c);
        }
        for k in 0..7 {
            for i in (0..128).filter(|i| i & (1 << k) == 0) {
                let j = i + (1 << k);
                (x[i], x[j]) = mix(x[i], x[j], layer_constant(k));
            }
        }
        for i in 0..128 {
            words[32 * i + column as usize] = x[i];
        }
    }
    words
}

/// The first line and the number of lines of the window that step `t` reads.
#[must_use]
pub fn window(blocks: u64, windows: u8, window_shift: u8, t: u32) -> (u64, u64) {
    let index = u64::from(t >> window_shift) % u64::from(windows);
    let width = 128 * blocks.div_ceil(u64::from(windows));
    let base = index * width;
    (base, width.min(128 * blocks - base))
}

/// State of chain `chain` before its first step.
#[must_use]
pub fn chain_start(key: [u32; 4], chain: u32) -> [u32; 4] {
    philox(10, [chain, 0, key[2], key[3]], [key[0], key[1]])
}

/// The state after step `t` from `state`. `line` gives the 32 words of a line of the memory.
#[must_use]
pub fn step(
    parameters: &Parameters,
    key: [u32; 4],
    line: &impl Fn(u64) -> [u32; 32],
    state: [u32; 4],
    t: u32,
) -> [u32; 4] {
    let (base, size) = window(parameters.blocks, parameters.windows, parameters.window_shift, t);
    let pair = |i: usize| u64::from(state[i]) | u64::from(state[i + 1]) << 32;
    let lines = [base + mulhi(pair(0), size), base + mulhi(pair(2), size)];
    let mut next = [0; 4];
    for (r, number) in (0_u32..).zip(lines) {
        let words = line(number);
        for q in 0..8_u32 {
            let input = std::array::from_fn(|i| words[4 * q as usize + i] ^ state[i]);
            let key = [key[0].wrapping_add(8 * r + q), key[1].wrapping_add(t)];
            let output = philox(4, input, key);
            for i in 0..4 {
                next[i] ^= output[i];
            }
        }
    }
    next
}

/// The record of one chain: 64 checkpoints of 16 bytes.
#[must_use]
pub fn probe_chain(
    parameters: &Parameters,
    key: [u32; 4],
    line: &impl Fn(u64) -> [u32; 32],
    chain: u32,
) -> Vec<u8> {
    let mut state = chain_start(key, chain);
    let mut record = Vec::with_capacity(CHUNK);
    for t in 0..SEGMENTS as u32 * u32::from(parameters.steps) {
        state = step(parameters, key, line, state, t);
        if (t + 1) % u32::from(parameters.steps) == 0 {
            record.extend(state.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
    record
}

/// One entry of a product: the dot product of two blocks read as 16384 signed bytes.
#[must_use]
pub fn gemm_element(a: &[u32], b: &[u32]) -> i32 {
    let byte = |word: u32, k: u32| i32::from((word >> (8 * k)) as i8);
    let products = |(x, y): (&u32, &u32)| {
        byte(*x, 0) * byte(*y, 0)
            + byte(*x, 1) * byte(*y, 1)
            + byte(*x, 2) * byte(*y, 2)
            + byte(*x, 3) * byte(*y, 3)
    };
    a.iter().zip(b).map(products).sum()
}

fn derive(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(label);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn words(seed: [u8; 32]) -> [u32; 4] {
    std::array::from_fn(|i| {
        let s = &seed[4 * i..];
        u32::from_le_bytes([s[0], s[1], s[2], s[3]])
    })
}

/// Chaining value of the perfect subtree over `data`, which starts `offset` bytes into the input.
fn chaining_value(key: &[u8; 32], offset: usize, data: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.set_input_offset(offset as u64).update(data).finalize_non_root()
}

/// The opening of chunk `index`: each sibling is hashed again from the data under it. `data` is a
/// power of two of chunks, at least two.
#[must_use]
pub fn open(key: &[u8; 32], data: &[u8], index: usize) -> Opening {
    let mut path = Vec::new();
    let mut span = CHUNK;
    let mut node = index;
    while span < data.len() {
        let start = (node ^ 1) * span;
        path.push(Digest(chaining_value(key, start, &data[start..start + span])));
        node /= 2;
        span *= 2;
    }
    let mut chunk = [0; CHUNK];
    chunk.copy_from_slice(&data[index * CHUNK..][..CHUNK]);
    Opening { chunk: Chunk(Box::new(chunk)), path: Path::from(path) }
}

/// A prover that holds the whole memory as words and does everything in the plainest way.
///
/// For tests, demonstrations and test vectors: its time grows with `n^2` and its memory is that of
/// the challenge. Proofs say [`Backend::Reference`].
#[derive(Debug, Clone)]
pub struct Prover {
    context: Context,
    /// All blocks, one after another. Public so that a test can play a prover that lost some.
    pub memory: Vec<u32>,
}

/// What a prover holds once it is committed.
#[derive(Debug, Clone)]
pub struct Committed {
    context: Context,
    nonce_probe: [u8; 32],
    /// What is sent to the verifier.
    pub commitments: Commitments,
    /// The records of all chains.
    pub records: Vec<u8>,
    /// The products as little-endian bytes.
    pub products: Vec<Vec<u8>>,
}

impl Prover {
    /// Fills the memory for `context`.
    #[must_use]
    pub fn fill(context: &Context) -> Self {
        let key = words(derive("gpow/1 fill", &[&context.encode()]));
        let h = u32::from(context.parameters.leaf_iterations);
        let memory = (0..context.parameters.blocks).flat_map(|b| *block(key, h, b)).collect();
        Self { context: context.clone(), memory }
    }

    /// What it proves.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Line `index` of the memory as it is now.
    #[must_use]
    pub fn line(&self, index: u64) -> [u32; 32] {
        let mut words = [0; 32];
        words.copy_from_slice(&self.memory[32 * index as usize..][..32]);
        words
    }

    /// Walks all chains over the memory as it is now and gives their records.
    #[must_use]
    pub fn walk(&self, nonce_probe: &[u8; 32]) -> Vec<u8> {
        let key = self.chain_key(nonce_probe);
        (0..self.context.parameters.chains)
            .flat_map(|chain| probe_chain(&self.context.parameters, key, &|i| self.line(i), chain))
            .collect()
    }

    /// Key words of the chains, for a test that walks in another way.
    #[must_use]
    pub fn chain_key(&self, nonce_probe: &[u8; 32]) -> [u32; 4] {
        let ctx_hash = *blake3::hash(&self.context.encode()).as_bytes();
        words(derive("gpow/1 probe", &[&ctx_hash, nonce_probe]))
    }

    /// Commits to `records`, then multiplies slices of the memory as it is now and commits to each
    /// product.
    #[must_use]
    pub fn commit(&self, nonce_probe: &[u8; 32], records: Vec<u8>) -> Committed {
        self.commit_telling(nonce_probe, records, &mut |_| {})
    }

    /// The same, and hands each root to `on_root` as soon as it is known: the records' first.
    pub fn commit_telling(
        &self,
        nonce_probe: &[u8; 32],
        records: Vec<u8>,
        on_root: &mut dyn FnMut(Digest),
    ) -> Committed {
        let ctx_hash = *blake3::hash(&self.context.encode()).as_bytes();
        let probe_key = derive("gpow/1 commit-probe", &[&ctx_hash, nonce_probe]);
        let probe_root = *blake3::keyed_hash(&probe_key, &records).as_bytes();
        on_root(Digest(probe_root));
        let mut previous = probe_root;
        let mut products = Vec::new();
        let mut gemm_roots = Vec::new();
        for g in 0..u32::from(self.context.parameters.gemms) {
            let slice = derive("gpow/1 gemm-slice", &[&previous, &g.to_le_bytes()]);
            let product = self.product(slice);
            let key = derive("gpow/1 commit-gemm", &[&ctx_hash, nonce_probe, &g.to_le_bytes()]);
            previous = *blake3::keyed_hash(&key, &product).as_bytes();
            on_root(Digest(previous));
            gemm_roots.push(Digest(previous));
            products.push(product);
        }
        Committed {
            context: self.context.clone(),
            nonce_probe: *nonce_probe,
            commitments: Commitments { probe_root: Digest(probe_root), gemm_roots },
            records,
            products,
        }
    }

    fn product(&self, slice: [u8; 32]) -> Vec<u8> {
        let (blocks, n) =
            (self.context.parameters.blocks, u64::from(self.context.parameters.gemm_dimension));
        let half = blocks / 2;
        let [w0, w1, w2, w3] = words(slice).map(u64::from);
        let a0 = mulhi(w0 | w1 << 32, half - n + 1);
        let b0 = half + mulhi(w2 | w3 << 32, blocks - half - n + 1);
        let row = |b: u64| &self.memory[b as usize * BLOCK_WORDS..][..BLOCK_BYTES / 4];
        (0..n)
            .flat_map(|i| (0..n).map(move |j| (i, j)))
            .flat_map(|(i, j)| gemm_element(row(a0 + i), row(b0 + j)).to_le_bytes())
            .collect()
    }

    /// The whole of an honest answer.
    #[must_use]
    pub fn prove(
        context: &Context,
        nonce_probe: &[u8; 32],
        nonce_open: &[u8; 32],
        counts: QueryCounts,
    ) -> Proof {
        let prover = Self::fill(context);
        prover.commit(nonce_probe, prover.walk(nonce_probe)).open(nonce_open, counts)
    }
}

impl Committed {
    /// Answers the queries that follow from the commitments and `nonce_open`.
    #[must_use]
    pub fn open(&self, nonce_open: &[u8; 32], counts: QueryCounts) -> Proof {
        let ctx_hash = *blake3::hash(&self.context.encode()).as_bytes();
        let p = &self.context.parameters;
        let mut hasher = blake3::Hasher::new_derive_key("gpow/1 query");
        hasher.update(&ctx_hash).update(&self.nonce_probe).update(&self.commitments.probe_root.0);
        for root in &self.commitments.gemm_roots {
            hasher.update(&root.0);
        }
        let mut stream = hasher.update(nonce_open).finalize_xof();
        let mut below = |bound: u64| {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            mulhi(u64::from_le_bytes(bytes), bound)
        };
        let probe_key = derive("gpow/1 commit-probe", &[&ctx_hash, &self.nonce_probe]);
        let probe_openings = (0..counts.probe)
            .map(|_| {
                let (chain, _segment) = (below(u64::from(p.chains)), below(SEGMENTS as u64));
                open(&probe_key, &self.records, chain as usize)
            })
            .collect();
        let n = u64::from(p.gemm_dimension);
        let gemm_openings = (0..counts.gemm)
            .map(|_| {
                let (g, i, j) = (below(u64::from(p.gemms)) as u32, below(n), below(n));
                let key =
                    derive("gpow/1 commit-gemm", &[&ctx_hash, &self.nonce_probe, &g.to_le_bytes()]);
                open(&key, &self.products[g as usize], ((i * n + j) / 256) as usize)
            })
            .collect();
        Proof {
            backend: Backend::Reference,
            context_hash: Digest(ctx_hash),
            commitments: self.commitments.clone(),
            probe_openings,
            gemm_openings,
        }
    }
}

//! The block function with AVX2.
//!
//! A vector holds one 32-bit word of four columns, each in the low half of a 64-bit lane; the high
//! halves hold rubbish. `vpmuludq` reads low halves only and everything else here carries upwards or
//! not at all, so no word is ever shuffled between halves until it is stored. Eight columns are
//! worked on at once as their even and their odd four, which also hides the multiplier's latency.
#![allow(
    clippy::indexing_slicing,
    reason = "every index is below 128 (a line), 32 (a quad or column) or 7 (a layer)"
)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_blend_epi32, _mm256_mul_epu32,
    _mm256_set1_epi64x, _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_slli_epi64,
    _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi32, _mm256_xor_si256,
};

use super::{BLOCK_WORDS, LAYERS, LINE_WORDS, LINES_PER_BLOCK, layer_constant, leaf_counter};
use crate::keys::PhiloxKey;
use crate::philox::{KEY_INCREMENTS, MULTIPLIERS};

/// The even and the odd four of eight columns.
type Pair = [__m256i; 2];
/// Quads of lines in a block.
const QUADS: usize = LINES_PER_BLOCK / 4;

/// Everything that is the same for all leaves of a block.
struct Leaves {
    multipliers: [__m256i; 2],
    round_keys: [[__m256i; 2]; 10],
    index: u64,
    s: [__m256i; 2],
    h: u32,
}

/// Block `index`, all lines.
#[target_feature(enable = "avx2")]
pub(super) fn block(key: &PhiloxKey, h: u32, index: u64, words: &mut [u32; BLOCK_WORDS]) {
    let leaves = Leaves::new(key, h, index);
    for octet in 0..LINE_WORDS / 8 {
        let mut x = [[_mm256_setzero_si256(); 2]; LINES_PER_BLOCK];
        for (q, quad) in (0..).zip(x.as_chunks_mut::<4>().0) {
            *quad = leaves.quad(q, octet);
            butterfly::<0, 2, 4>(quad);
        }
        for base in (0..LINES_PER_BLOCK).step_by(16) {
            for i in base..base + 4 {
                strided::<2, 4, 4>(&mut x, i);
            }
        }
        for base in [0, 64] {
            for i in base..base + 16 {
                strided::<4, 6, 4>(&mut x, i);
            }
        }
        for i in 0..64 {
            strided::<6, 7, 2>(&mut x, i);
        }
        for (line, pair) in words.as_chunks_mut::<LINE_WORDS>().0.iter_mut().zip(&x) {
            store(&mut line.as_chunks_mut::<8>().0[octet], *pair);
        }
    }
}

/// Line `line` of block `index`.
#[target_feature(enable = "avx2")]
pub(super) fn line(key: &PhiloxKey, h: u32, index: u64, line: usize) -> [u32; LINE_WORDS] {
    let leaves = Leaves::new(key, h, index);
    let mut words = [0; LINE_WORDS];
    for (octet, out) in words.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut x = [[_mm256_setzero_si256(); 2]; QUADS];
        for (q, node) in (0..).zip(&mut x) {
            let [a, b, c, d] = leaves.quad(q, octet);
            let upper = line & 1 != 0;
            *node = mix_one(mix_one(a, b, 0, upper), mix_one(c, d, 0, upper), 1, line & 2 != 0);
        }
        for layer in 2..LAYERS {
            for i in 0..QUADS >> (layer - 1) {
                x[i] = mix_one(x[2 * i], x[2 * i + 1], layer, line >> layer & 1 != 0);
            }
        }
        store(out, x[0]);
    }
    words
}

impl Leaves {
    #[target_feature(enable = "avx2")]
    fn new(key: &PhiloxKey, h: u32, index: u64) -> Self {
        let [mut k0, mut k1] = key.k;
        let mut round_keys = [[_mm256_setzero_si256(); 2]; 10];
        for round in &mut round_keys {
            *round = [splat(k0.into()), splat(k1.into())];
            k0 = k0.wrapping_add(KEY_INCREMENTS[0]);
            k1 = k1.wrapping_add(KEY_INCREMENTS[1]);
        }
        let multipliers = [splat(MULTIPLIERS[0].into()), splat(MULTIPLIERS[1].into())];
        let s = [splat(key.s[0].into()), splat(key.s[1].into())];
        Self { multipliers, round_keys, index, s, h }
    }

    /// The four leaf lines of quad `q`, columns `8 * octet ..`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn quad(&self, q: u32, octet: usize) -> [Pair; 4] {
        let first = i64::from(leaf_counter(self.index, q)) | (8 * octet as i64);
        let even = _mm256_setr_epi64x(first, first | 2, first | 4, first | 6);
        let odd = _mm256_setr_epi64x(first | 1, first | 3, first | 5, first | 7);
        let mut c0 = [splat(self.index); 2];
        let mut c1 = [even, odd];
        let mut c2 = [self.s[0]; 2];
        let mut c3 = [self.s[1]; 2];
        for _ in 0..self.h {
            for [k0, k1] in &self.round_keys {
                for i in 0..2 {
                    let p0 = _mm256_mul_epu32(c0[i], self.multipliers[0]);
                    let p1 = _mm256_mul_epu32(c2[i], self.multipliers[1]);
                    let a = _mm256_xor_si256(_mm256_xor_si256(c1[i], *k0), upper_half(p1));
                    let b = _mm256_xor_si256(_mm256_xor_si256(c3[i], *k1), upper_half(p0));
                    (c0[i], c1[i], c2[i], c3[i]) = (a, p1, b, p0);
                }
            }
        }
        [c0, c1, c2, c3]
    }
}

/// Layers `FROM .. TO` over `N = 2^(TO - FROM)` neighbours.
#[target_feature(enable = "avx2")]
#[inline]
fn butterfly<const FROM: usize, const TO: usize, const N: usize>(x: &mut [Pair; N]) {
    for layer in FROM..TO {
        let stride = 1 << (layer - FROM);
        for i in 0..N {
            if i & stride == 0 {
                (x[i], x[i + stride]) = mix(x[i], x[i + stride], layer);
            }
        }
    }
}

/// The same over lines `first + m * 2^FROM`.
#[target_feature(enable = "avx2")]
#[inline]
fn strided<const FROM: usize, const TO: usize, const N: usize>(
    x: &mut [Pair; LINES_PER_BLOCK],
    first: usize,
) {
    let mut group = [[_mm256_setzero_si256(); 2]; N];
    for (m, pair) in group.iter_mut().enumerate() {
        *pair = x[first + (m << FROM)];
    }
    butterfly::<FROM, TO, N>(&mut group);
    for (m, pair) in group.into_iter().enumerate() {
        x[first + (m << FROM)] = pair;
    }
}

/// The last product of MIX, with its upper half brought down.
#[target_feature(enable = "avx2")]
#[inline]
fn mix_core(a: __m256i, b: __m256i, layer: usize) -> (__m256i, __m256i) {
    let constant = layer_constant(layer);
    let p = _mm256_add_epi64(_mm256_mul_epu32(a, b), splat(constant));
    let high = upper_half(p);
    let u = _mm256_xor_si256(_mm256_xor_si256(p, high), a);
    let v = _mm256_add_epi32(_mm256_sub_epi32(p, high), b);
    let r = _mm256_add_epi64(_mm256_mul_epu32(u, v), splat(constant.rotate_left(32)));
    (r, upper_half(r))
}

#[target_feature(enable = "avx2")]
#[inline]
fn mix(a: Pair, b: Pair, layer: usize) -> (Pair, Pair) {
    let (mut x, mut y) = (a, b);
    for i in 0..2 {
        let (low, high) = mix_core(a[i], b[i], layer);
        x[i] = _mm256_xor_si256(_mm256_xor_si256(low, high), a[i]);
        y[i] = _mm256_add_epi32(_mm256_sub_epi32(low, high), b[i]);
    }
    (x, y)
}

/// The upper or the lower result of MIX alone.
#[target_feature(enable = "avx2")]
#[inline]
fn mix_one(a: Pair, b: Pair, layer: usize, upper: bool) -> Pair {
    let mut x = a;
    for i in 0..2 {
        let (low, high) = mix_core(a[i], b[i], layer);
        x[i] = if upper {
            _mm256_add_epi32(_mm256_sub_epi32(low, high), b[i])
        } else {
            _mm256_xor_si256(_mm256_xor_si256(low, high), a[i])
        };
    }
    x
}

#[target_feature(enable = "avx2")]
#[inline]
fn upper_half(x: __m256i) -> __m256i {
    _mm256_srli_epi64::<32>(x)
}

#[target_feature(enable = "avx2")]
#[inline]
fn splat(x: u64) -> __m256i {
    _mm256_set1_epi64x(x as i64)
}

/// Interleaves the even and odd columns and writes eight words.
#[target_feature(enable = "avx2")]
#[inline]
fn store(words: &mut [u32; 8], [even, odd]: Pair) {
    let packed = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
    // SAFETY: `words` is 32 writable bytes; the instruction needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), packed) }
}

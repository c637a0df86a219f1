//! The block function, fast: one block, or one line of one, from the key. `SPEC.md` section 6.
//!
//! Two implementations give the same words: portable code, and AVX2 chosen at run time. A property
//! test compares both with [`crate::reference`].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use crate::keys::PhiloxKey;

/// Lines of a block.
pub const LINES_PER_BLOCK: usize = 128;
/// Words of a line: 128 bytes, the unit of a GPU's memory.
pub const LINE_WORDS: usize = 32;
/// Words of a block.
pub const BLOCK_WORDS: usize = LINES_PER_BLOCK * LINE_WORDS;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4 * BLOCK_WORDS;
/// Layers of the butterfly: 2^7 lines.
const LAYERS: usize = 7;

/// `LK[k]`: odd multiples of the golden ratio's 64-bit fraction.
const fn layer_constant(layer: usize) -> u64 {
    0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * layer as u64 + 1)
}

/// Counter word 1 of the leaf of column 0: upper bits of the block number and the quad.
fn leaf_counter(index: u64, quad: u32) -> u32 {
    ((index >> 32) as u32) << 16 | quad << 5
}

/// Regenerates any part of a challenge's memory.
#[derive(Debug, Clone)]
pub struct BlockGenerator {
    key: PhiloxKey,
    leaf_iterations: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Scalar,
    /// Made only by [`BlockGenerator::new`], after the processor said that it has AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl BlockGenerator {
    /// A generator that uses the best instructions this processor has.
    #[must_use]
    pub fn new(key: PhiloxKey, leaf_iterations: u8) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Self { key, leaf_iterations: leaf_iterations.into(), unit: Unit::Avx2 };
        }
        Self::portable(key, leaf_iterations)
    }

    /// A generator that uses portable code alone.
    #[must_use]
    pub fn portable(key: PhiloxKey, leaf_iterations: u8) -> Self {
        Self { key, leaf_iterations: leaf_iterations.into(), unit: Unit::Scalar }
    }

    /// Whether the vector instructions are in use.
    #[must_use]
    pub fn is_vectorised(&self) -> bool {
        self.unit != Unit::Scalar
    }

    /// Writes block `index`, line after line.
    pub fn block(&self, index: u64, words: &mut [u32; BLOCK_WORDS]) {
        match self.unit {
            Unit::Scalar => scalar::block(&self.key, self.leaf_iterations, index, words),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Unit::Avx2` exists only where the processor reported AVX2.
            Unit::Avx2 => unsafe { avx2::block(&self.key, self.leaf_iterations, index, words) },
        }
    }

    /// One line of block `index`. It needs every leaf of the block, but of the butterfly only the
    /// cone of that line: 127 pairs of a column instead of 448. `line` is taken modulo 128.
    #[must_use]
    pub fn line(&self, index: u64, line: usize) -> [u32; LINE_WORDS] {
        match self.unit {
            Unit::Scalar => scalar::line(&self.key, self.leaf_iterations, index, line),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Unit::Avx2` exists only where the processor reported AVX2.
            Unit::Avx2 => unsafe { avx2::line(&self.key, self.leaf_iterations, index, line) },
        }
    }
}

/// Dot product of two blocks read as signed bytes: an entry of a product. At most 2^28 in size.
pub(crate) fn dot(a: &[u32; BLOCK_WORDS], b: &[u32; BLOCK_WORDS]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| {
            let [x0, x1, x2, x3] = x.to_le_bytes().map(|byte| i32::from(byte as i8));
            let [y0, y1, y2, y3] = y.to_le_bytes().map(|byte| i32::from(byte as i8));
            x0 * y0 + x1 * y1 + x2 * y2 + x3 * y3
        })
        .sum()
}

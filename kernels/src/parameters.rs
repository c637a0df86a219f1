//! The sizes of a challenge, checked once so that nothing after it can overflow.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Checkpoints of a chain. Sixty-four of 16 bytes make a record exactly one BLAKE3 chunk.
pub const SEGMENTS: u32 = 64;
/// Lines that a step reads.
pub const LINES_PER_STEP: u8 = 2;
/// Bytes of a block and inner dimension of the products.
pub const INNER_DIMENSION: u32 = 16_384;
/// Upper bound of blocks: 16 PiB. Line numbers stay below 2^47.
pub const MAX_BLOCKS: u64 = 1 << 40;
/// Lower bound of blocks: two of the smallest products must fit side by side.
pub const MIN_BLOCKS: u64 = 512;
/// Upper bound of chains: a gibibyte of records.
pub const MAX_CHAINS: u32 = 1 << 20;
/// Upper bound of steps between two checkpoints; it bounds the cost of one probe query.
pub const MAX_STEPS: u16 = 256;
/// Upper bound of leaf iterations; with [`MAX_STEPS`] it bounds the work of a verifier.
pub const MAX_LEAF_ITERATIONS: u8 = 64;
/// Upper bound of windows.
pub const MAX_WINDOWS: u8 = 16;
/// Upper bound of the window shift: a chain has at most 2^14 steps.
pub const MAX_WINDOW_SHIFT: u8 = 14;
/// Upper bound of products.
pub const MAX_GEMMS: u8 = 16;
/// Bounds of the product dimension: a row is at least one chunk, a product at most a gibibyte.
pub const GEMM_DIMENSIONS: std::ops::RangeInclusive<u32> = 256..=16_384;

/// The sizes as numbers, not yet checked. `SPEC.md` section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// `h`: Philox applications per leaf.
    pub leaf_iterations: u8,
    /// `n_blk`: blocks of 16 KiB.
    pub blocks: u64,
    /// `W`: chains.
    pub chains: u32,
    /// `c`: steps between checkpoints.
    pub steps: u16,
    /// `n_win`: parts of the memory that are walked in turn.
    pub windows: u8,
    /// `wshift`: binary logarithm of the steps spent in one window.
    pub window_shift: u8,
    /// `G`: products.
    pub gemms: u8,
    /// `n`: rows and columns of a product.
    pub gemm_dimension: u32,
}

/// [`Sizes`] that a challenge can have. Read them through `Deref`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Sizes", into = "Sizes")]
pub struct Parameters(Sizes);

/// Which size is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A number is outside its limits.
    #[error("{name} is {value}, outside {low} to {high}")]
    OutOfRange {
        /// The field of [`Sizes`].
        name: &'static str,
        /// What it was.
        value: u64,
        /// Least possible value.
        low: u64,
        /// Greatest possible value.
        high: u64,
    },
    /// A number that must be a power of two is none.
    #[error("{name} is {value}, not a power of two")]
    NotPowerOfTwo {
        /// The field of [`Sizes`].
        name: &'static str,
        /// What it was.
        value: u64,
    },
    /// The two operands of a product do not fit into the two halves of the memory.
    #[error("a product of dimension {dimension} needs {} blocks, there are {blocks}", 2 * u64::from(*dimension))]
    ProductTooLarge {
        /// Rows of the product.
        dimension: u32,
        /// Blocks of the memory.
        blocks: u64,
    },
    /// The last window would have no block.
    #[error("{blocks} blocks cannot be cut into {windows} windows")]
    EmptyWindow {
        /// Blocks of the memory.
        blocks: u64,
        /// Windows asked for.
        windows: u8,
    },
}

impl Parameters {
    /// Checks sizes against every limit of the protocol.
    ///
    /// # Errors
    /// [`ParameterError`] names the first size that is impossible.
    pub fn new(sizes: Sizes) -> Result<Self, ParameterError> {
        let s = &sizes;
        in_range("leaf_iterations", s.leaf_iterations.into(), 1, MAX_LEAF_ITERATIONS.into())?;
        in_range("blocks", s.blocks, MIN_BLOCKS, MAX_BLOCKS)?;
        in_range("chains", s.chains.into(), 2, MAX_CHAINS.into())?;
        power_of_two("chains", s.chains)?;
        in_range("steps", s.steps.into(), 1, MAX_STEPS.into())?;
        in_range("windows", s.windows.into(), 1, MAX_WINDOWS.into())?;
        in_range("window_shift", s.window_shift.into(), 0, MAX_WINDOW_SHIFT.into())?;
        in_range("gemms", s.gemms.into(), 1, MAX_GEMMS.into())?;
        let (low, high) = (*GEMM_DIMENSIONS.start(), *GEMM_DIMENSIONS.end());
        in_range("gemm_dimension", s.gemm_dimension.into(), low.into(), high.into())?;
        power_of_two("gemm_dimension", s.gemm_dimension)?;
        if u64::from(s.gemm_dimension) > s.blocks / 2 {
            return Err(ParameterError::ProductTooLarge {
                dimension: s.gemm_dimension,
                blocks: s.blocks,
            });
        }
        let windows = u64::from(s.windows);
        if (windows - 1) * s.blocks.div_ceil(windows) >= s.blocks {
            return Err(ParameterError::EmptyWindow { blocks: s.blocks, windows: s.windows });
        }
        Ok(Self(sizes))
    }

    /// Bytes of the filled memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.blocks * u64::from(INNER_DIMENSION)
    }

    /// Bytes of the records of all chains.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        u64::from(self.chains) * 1024
    }

    /// Bytes of one product.
    #[must_use]
    pub fn product_bytes(&self) -> u64 {
        4 * u64::from(self.gemm_dimension) * u64::from(self.gemm_dimension)
    }

    /// Sibling hashes in the opening of a record.
    #[must_use]
    pub fn probe_path_len(&self) -> u32 {
        self.chains.ilog2()
    }

    /// Sibling hashes in the opening of a chunk of a product.
    #[must_use]
    pub fn gemm_path_len(&self) -> u32 {
        2 * self.gemm_dimension.ilog2() - 8
    }

    /// First line and number of lines of the window that step `t` reads. Never empty.
    #[must_use]
    pub fn window(&self, t: u32) -> (u64, u64) {
        let windows = u64::from(self.windows);
        let width = 128 * self.blocks.div_ceil(windows);
        let base = (u64::from(t >> self.window_shift) % windows) * width;
        (base, width.min(128 * self.blocks - base))
    }
}

impl Deref for Parameters {
    type Target = Sizes;
    fn deref(&self) -> &Sizes {
        &self.0
    }
}

impl TryFrom<Sizes> for Parameters {
    type Error = ParameterError;
    fn try_from(sizes: Sizes) -> Result<Self, ParameterError> {
        Self::new(sizes)
    }
}

impl From<Parameters> for Sizes {
    fn from(parameters: Parameters) -> Self {
        parameters.0
    }
}

fn in_range(name: &'static str, value: u64, low: u64, high: u64) -> Result<(), ParameterError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(ParameterError::OutOfRange { name, value, low, high })
    }
}

fn power_of_two(name: &'static str, value: u32) -> Result<(), ParameterError> {
    if value.is_power_of_two() {
        Ok(())
    } else {
        Err(ParameterError::NotPowerOfTwo { name, value: value.into() })
    }
}

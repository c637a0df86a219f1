//! How the kernels of `cuda/` are launched: names, threads, grids and the layout of their parameters.
//!
//! A runner allocates, in this order of size: the memory ([`Parameters::memory_bytes`]), one product
//! ([`Parameters::product_bytes`], used again for each `g`), the records, and a tree of
//! [`tree_bytes`] for the records and for each product, which stay until the openings are read.
//! The test that runs the kernels on a CPU launches them by these numbers.

use crate::context::KernelVariant;
use crate::keys::PhiloxKey;
use crate::parameters::Parameters;

/// A kernel's entry point and the fixed part of its launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Symbol in the module.
    pub name: &'static str,
    /// Threads of a thread block.
    pub threads: u32,
    /// Dynamic shared memory; above 48 KiB it has to be allowed with
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
    pub dynamic_shared_bytes: u32,
}

const fn kernel(name: &'static str, threads: u32) -> Kernel {
    Kernel { name, threads, dynamic_shared_bytes: 0 }
}

/// `(u32 *memory, u64 blocks, PhiloxKey key, u32 leaf_iterations)`
pub const FILL: Kernel = kernel("gpow_fill", 128);
/// `(const uint4 *memory, uint4 *records, ProbeShape shape, PhiloxKey key)`
pub const PROBE: Kernel = kernel("gpow_probe", 256);
/// `(const uint4 *data, uint4 *tree, u32 chunks, Blake3Key key)`
pub const CHUNKS: Kernel = kernel("gpow_chunks", 128);
/// `(uint4 *tree, u32 children, Blake3Key key)`, once for each of [`parent_launches`].
pub const PARENTS: Kernel = kernel("gpow_parents", 256);
/// `(const uint4 *memory, int *chunks, const RowChunk *openings)`, one thread block per opening.
pub const ROW_CHUNKS: Kernel = kernel("gpow_row_chunks", 256);
/// `(u32 *out, u32 zero, u32 ones)`; see [`SELFTEST_ANSWERS`].
pub const SELFTEST: Kernel = kernel("gpow_selftest", 32);

/// What [`SELFTEST`] writes when it is given 0 and `0xFFFF_FFFF`: Philox with ten rounds and with four
/// over zeros, ones and pi, then MIX.
pub const SELFTEST_ANSWERS: [u32; 30] = [
    0x6627_e8d5,
    0xe169_c58d,
    0xbc57_ac4c,
    0x9b00_dbd8,
    0x408f_276d,
    0x41c8_3b0e,
    0xa20b_c7c6,
    0x6d54_51fd,
    0xd16c_fe09,
    0x94fd_cceb,
    0x5001_e420,
    0x2412_6ea1,
    0x1e59_7a2c,
    0x4fa2_984f,
    0xf71c_efed,
    0xd685_830c,
    0x0ab3_8261,
    0x0b0c_6200,
    0x3dee_b265,
    0x0de6_8f3e,
    0xc9c7_529c,
    0xd06d_7a4c,
    0xab32_6927,
    0x24ac_33b9,
    0x27ab_e52b,
    0x1c97_dce8,
    0x7d7e_c7e4,
    0xf36a_bf1c,
    0xd4b0_4030,
    0xd746_7a46,
];

/// The kernel of a variant, all with
/// `(const void *rows, const void *columns, int *product, u32 log2_n, u32 inner)`: pointers to the
/// first block of each operand, the logarithm of the dimension, and 16384. `None` for the reference.
#[must_use]
pub fn gemm(variant: KernelVariant) -> Option<Kernel> {
    match variant {
        KernelVariant::Reference => None,
        KernelVariant::Dp4a => Some(kernel("gpow_gemm_dp4a", 256)),
        KernelVariant::Mma => Some(kernel("gpow_gemm_mma", 256)),
        KernelVariant::Wgmma => Some(Kernel {
            name: "gpow_gemm_wgmma",
            threads: 256,
            // Four stages of 128 and 256 rows of 128 bytes.
            dynamic_shared_bytes: 4 * (128 + 256) * 128,
        }),
    }
}

/// Thread blocks of a product: tiles of 128 x 128, or 128 x 256 with warpgroups.
#[must_use]
pub fn gemm_grid(variant: KernelVariant, parameters: &Parameters) -> u32 {
    let rows = parameters.gemm_dimension / 128;
    match variant {
        KernelVariant::Wgmma => rows * (rows / 2),
        KernelVariant::Reference | KernelVariant::Dp4a | KernelVariant::Mma => rows * rows,
    }
}

/// Thread blocks of the fill: what the device holds at once, `resident`, or one per block of memory.
#[must_use]
pub fn fill_grid(parameters: &Parameters, resident: u32) -> u32 {
    u32::try_from(parameters.blocks).unwrap_or(u32::MAX).min(resident.max(1))
}

/// Thread blocks of the probe: what the device holds at once, `resident`, so that all chains under way
/// are in the same window; or as many as there are chains for.
#[must_use]
pub fn probe_grid(parameters: &Parameters, resident: u32) -> u32 {
    parameters.chains.div_ceil(PROBE.threads / 4).min(resident.max(1))
}

/// Parameters of [`PROBE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeShape {
    /// Blocks of the memory.
    pub blocks: u64,
    /// Lines of a full window.
    pub window_lines: u64,
    /// Windows.
    pub windows: u32,
    /// Logarithm of the steps in a window.
    pub window_shift: u32,
    /// Chains.
    pub chains: u32,
    /// Steps between checkpoints.
    pub steps: u32,
}

impl ProbeShape {
    /// The shape of a challenge.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            blocks: parameters.blocks,
            window_lines: 128 * parameters.blocks.div_ceil(parameters.windows.into()),
            windows: parameters.windows.into(),
            window_shift: parameters.window_shift.into(),
            chains: parameters.chains,
            steps: parameters.steps.into(),
        }
    }
}

/// A BLAKE3 key as the eight words a kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Blake3Key(pub [u32; 8]);

impl Blake3Key {
    /// The words of a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }
}

/// One opening for [`ROW_CHUNKS`]: 256 entries of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RowChunk {
    /// Block of the left operand.
    pub row: u64,
    /// First of 256 blocks of the right operand.
    pub column: u64,
}

// What the C++ sources assume of these layouts.
const _: () = {
    assert!(size_of::<PhiloxKey>() == 16 && align_of::<PhiloxKey>() == 4);
    assert!(size_of::<ProbeShape>() == 32 && align_of::<ProbeShape>() == 8);
    assert!(size_of::<Blake3Key>() == 32 && align_of::<Blake3Key>() == 4);
    assert!(size_of::<RowChunk>() == 16 && align_of::<RowChunk>() == 8);
};

/// Bytes of the tree over `chunks` chunks: a heap of 32-byte nodes whose node 0 is unused, node 1 the
/// root, and node `chunks + i` chunk `i`.
#[must_use]
pub fn tree_bytes(chunks: u32) -> u64 {
    64 * u64::from(chunks)
}

/// Thread blocks of [`CHUNKS`].
#[must_use]
pub fn chunks_grid(chunks: u32) -> u32 {
    chunks.div_ceil(CHUNKS.threads)
}

/// The launches of [`PARENTS`] over a power of two of `chunks`: `children` and the grid of each.
pub fn parent_launches(chunks: u32) -> impl Iterator<Item = (u32, u32)> {
    std::iter::successors(Some(chunks), |children| Some(children / 512))
        .take_while(|children| *children > 1)
        .map(|children| (children, (children / 512).max(1)))
}

/// Nodes of the tree that make the path of chunk `index`, lowest first.
pub fn path_nodes(chunks: u32, index: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(chunks.saturating_add(index)), |node| Some(node / 2))
        .take_while(|node| *node > 1)
        .map(|node| node ^ 1)
}

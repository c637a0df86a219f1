//! What a proof allocates on the device, and where in it everything is.

use pow_kernels::Parameters;
use pow_kernels::launch::{RowChunk, tree_bytes};
use pow_kernels::proof::{CHUNK_BYTES, MAX_PATH};
use runner_protocol::prove::MAX_OPENINGS;

use super::driver::to_u64;
use crate::prove::{Stop, refused};

/// Bytes of an opening with the longest path, as it arrives from the device.
pub(super) const OPENING_BYTES: usize = CHUNK_BYTES + 32 * MAX_PATH;

/// Where parts of the second allocation begin: enough for any load or asynchronous copy.
const ALIGNMENT: u64 = 256;

/// Two allocations: the memory that is proven, and all the rest. Offsets are into the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of the first allocation.
    pub(super) memory: u64,
    /// Bytes of the second.
    pub(super) rest: u64,
    /// One product, used again for each.
    pub(super) product: u64,
    /// The records of all chains.
    pub(super) records: u64,
    /// The tree over the records.
    pub(super) record_tree: u64,
    /// The trees over the products, one after another.
    pub(super) product_trees: u64,
    /// The chunks of products that are opened, [`MAX_OPENINGS`] at once.
    pub(super) opened: u64,
    /// What to open.
    pub(super) to_open: u64,
    /// Chunks of the records.
    pub(super) record_chunks: u32,
    /// Chunks of a product.
    pub(super) product_chunks: u32,
}

impl Layout {
    /// The layout, if it is not more than all of the device's memory.
    pub(super) fn new(parameters: &Parameters, device_bytes: u64) -> Result<Self, Stop> {
        let layout = Self::of(parameters)
            .ok_or_else(|| refused("too_large", "the sizes are more than any device has"))?;
        let total = layout.total();
        if total > device_bytes {
            let message = format!(
                "the proof needs {total} bytes of device memory, and the device has {device_bytes}"
            );
            return Err(refused("too_large", message));
        }
        Ok(layout)
    }

    fn of(parameters: &Parameters) -> Option<Self> {
        let mut end = 0_u64;
        let mut place = |bytes: u64| {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            end = start.checked_add(bytes)?;
            Some(start)
        };
        let record_chunks = parameters.chains;
        let chunk = to_u64(CHUNK_BYTES);
        let product_chunks = u32::try_from(parameters.product_bytes() / chunk).ok()?;
        let openings = to_u64(MAX_OPENINGS);
        let product = place(parameters.product_bytes())?;
        let records = place(parameters.record_bytes())?;
        let record_tree = place(tree_bytes(record_chunks))?;
        let trees = tree_bytes(product_chunks).checked_mul(parameters.gemms.into())?;
        let product_trees = place(trees)?;
        let opened = place(openings.checked_mul(chunk)?)?;
        let to_open = place(openings.checked_mul(to_u64(size_of::<RowChunk>()))?)?;
        let memory = parameters.memory_bytes();
        // So that the total can be told.
        memory.checked_add(end)?;
        Some(Self {
            memory,
            rest: end,
            product,
            records,
            record_tree,
            product_trees,
            opened,
            to_open,
            record_chunks,
            product_chunks,
        })
    }

    /// Bytes of both allocations.
    pub(super) fn total(&self) -> u64 {
        self.memory.saturating_add(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pow_kernels::Sizes;

    fn sizes(blocks: u64) -> Parameters {
        Parameters::new(Sizes {
            leaf_iterations: 4,
            blocks,
            chains: 1 << 17,
            steps: 32,
            windows: 5,
            window_shift: 1,
            gemms: 4,
            gemm_dimension: 16_384,
        })
        .unwrap()
    }

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        let parameters = sizes(4_697_798);
        let layout = Layout::new(&parameters, u64::MAX).ok().unwrap();
        let starts = [
            layout.product,
            layout.records,
            layout.record_tree,
            layout.product_trees,
            layout.opened,
            layout.to_open,
            layout.rest,
        ];
        let needed = [1 << 30, 1 << 27, 1 << 23, 4 << 26, 512 * 1024, 512 * 16];
        for (pair, bytes) in starts.windows(2).zip(needed) {
            assert_eq!(pair[0] % ALIGNMENT, 0);
            assert!(pair[1] >= pair[0] + bytes, "{layout:?}");
        }
        assert_eq!(layout.memory, 4_697_798 * 16_384);
        // Less than two gibibytes beside the memory of an H100's challenge.
        assert!(layout.rest < 2 << 30);
    }

    #[test]
    fn more_than_the_device_has_is_refused_before_anything_is_allocated() {
        let parameters = sizes(1 << 40);
        assert!(matches!(
            Layout::new(&parameters, 80 << 30),
            Err(Stop::Refused { code: "too_large", .. })
        ));
    }
}

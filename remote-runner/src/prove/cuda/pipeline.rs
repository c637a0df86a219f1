//! A filled memory, and what is committed to: `kernels/SPEC.md` sections 6 to 9.

use std::rc::Rc;

use pow_kernels::keys::{ProbeKeys, Slice, fill_key};
use pow_kernels::launch::{self, Blake3Key, ProbeShape, RowChunk};
use pow_kernels::parameters::INNER_DIMENSION;
use pow_kernels::proof::{CHUNK_BYTES, Commitments};
use pow_kernels::{Chunk, Context, GemmQuery, Path, Queries, QueryCounts};
use runner_protocol::prove::{Digest, MAX_OPENINGS, Opening};

use super::driver::{Buffer, Part, Pinned, Session, Stream, to_u64};
use super::error::CudaError;
use super::kernels::Kernels;
use super::layout::Layout;
use crate::prove::{Stop, refused};

/// Bytes of a node of a tree.
const NODE: u64 = 32;

/// What a probe bound itself to.
struct Committed {
    nonce_probe: [u8; 32],
    commitments: Commitments,
    /// What each product multiplied.
    slices: Vec<Slice>,
}

/// A filled memory. Fields are given back in this order.
pub(super) struct Pipeline {
    /// Taken by `open`: a commitment is opened once.
    committed: Option<Committed>,
    context: Context,
    context_hash: [u8; 32],
    layout: Layout,
    probe_grid: u32,
    memory: Buffer,
    rest: Buffer,
    kernels: Rc<Kernels>,
    stream: Rc<Stream>,
}

impl Pipeline {
    /// Allocates everything, then fills the memory.
    pub(super) fn fill(
        session: &Rc<Session>,
        stream: &Rc<Stream>,
        kernels: &Rc<Kernels>,
        layout: Layout,
        context: Context,
        free: u64,
    ) -> Result<Self, Stop> {
        if !kernels.has_product(context.variant) {
            let message =
                format!("CUDA kernels required: the image has no product {:?}", context.variant);
            return Err(refused("no_kernels", message));
        }
        let asked = |error: CudaError| {
            let total = layout.total();
            error.refusal(&format!("allocating {total} bytes of device memory, {free} were free"))
        };
        let memory = Buffer::new(session, layout.memory).map_err(asked)?;
        let rest = Buffer::new(session, layout.rest).map_err(asked)?;
        let (resident_fill, resident_probe) = kernels.resident();
        let parameters = context.parameters;
        let pipeline = Self {
            committed: None,
            context_hash: context.hash(),
            layout,
            probe_grid: launch::probe_grid(&parameters, resident_probe),
            memory,
            rest,
            kernels: Rc::clone(kernels),
            stream: Rc::clone(stream),
            context,
        };
        let failed = |error: CudaError| error.refusal("the fill");
        let grid = launch::fill_grid(&parameters, resident_fill);
        let key = fill_key(&pipeline.context);
        let leaves = parameters.leaf_iterations.into();
        let (memory, blocks) = (pipeline.blocks(0, parameters.blocks)?, parameters.blocks);
        let filled = kernels.fill(stream, grid, memory, blocks, key, leaves);
        // Waited for in any case: a failure gives the memory back.
        let waited = stream.synchronize();
        filled.and(waited).map_err(failed)?;
        Ok(pipeline)
    }

    /// Whether there is a commitment to be opened.
    pub(super) fn is_committed(&self) -> bool {
        self.committed.is_some()
    }

    /// Walks and multiplies. Each root is handed to `say` as soon as it is on the host, with the number
    /// of its product and whether it is the last.
    pub(super) fn probe(
        &mut self,
        nonce: &[u8; 32],
        pinned: &mut Pinned,
        say: &mut dyn FnMut(Option<u8>, Digest, bool) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.committed = None;
        let parameters = self.context.parameters;
        let layout = self.layout;
        let keys = ProbeKeys::new(&self.context_hash, nonce);
        let memory = self.blocks(0, parameters.blocks)?;
        let records = self.part(layout.records, parameters.record_bytes())?;
        let tree = self.tree(layout.record_tree, layout.record_chunks)?;
        let failed = |error: CudaError| error.refusal("the probe");
        let (kernels, stream) = (&self.kernels, &self.stream);
        let shape = ProbeShape::new(&parameters);
        let launched = kernels
            .probe(stream, self.probe_grid, memory, records, shape, keys.chains)
            .and_then(|()| {
                let key = Blake3Key::new(&keys.commit_probe);
                kernels.commit(stream, records, tree, layout.record_chunks, key)
            });
        let probe_root = self.root(launched, layout.record_tree, pinned, &failed)?;
        say(None, probe_root, parameters.gemms == 0)?;
        let failed = |error: CudaError| error.refusal("a product");
        let dimension = u64::from(parameters.gemm_dimension);
        let grid = launch::gemm_grid(self.context.variant, &parameters);
        let product = self.part(layout.product, parameters.product_bytes())?;
        let (mut previous, mut gemm_roots, mut slices) = (probe_root, Vec::new(), Vec::new());
        for number in 0..parameters.gemms {
            let slice = Slice::new(&parameters, &previous.0, number);
            let operands = [
                self.blocks(slice.first_row, dimension)?,
                self.blocks(slice.first_column, dimension)?,
            ];
            let place = self.product_tree(number);
            let tree = self.tree(place, layout.product_chunks)?;
            let log2 = parameters.gemm_dimension.ilog2();
            let launched = kernels
                .multiply(stream, self.context.variant, grid, operands, product, log2)
                .and_then(|()| {
                    let key = Blake3Key::new(&keys.commit_gemm(number));
                    kernels.commit(stream, product, tree, layout.product_chunks, key)
                });
            previous = self.root(launched, place, pinned, &failed)?;
            say(Some(number), previous, number.checked_add(1) == Some(parameters.gemms))?;
            gemm_roots.push(previous);
            slices.push(slice);
        }
        let commitments = Commitments { probe_root, gemm_roots };
        self.committed = Some(Committed { nonce_probe: *nonce, commitments, slices });
        Ok(())
    }

    /// Answers the queries that follow from the commitment and `nonce`: records, then products.
    pub(super) fn open(
        &mut self,
        nonce: &[u8; 32],
        counts: QueryCounts,
        pinned: &mut Pinned,
    ) -> Result<(Vec<Opening>, Vec<Opening>), Stop> {
        let Some(committed) = self.committed.take() else {
            return Err(refused("unexpected", "there is no commitment to open"));
        };
        let queries = Queries::derive(
            &self.context.parameters,
            &self.context_hash,
            &committed.nonce_probe,
            &committed.commitments,
            nonce,
            counts,
        );
        let layout = self.layout;
        let (mut records, mut products) = (Vec::new(), Vec::new());
        for batch in queries.probe.chunks(MAX_OPENINGS) {
            let openings = batch.iter().map(|query| Place {
                chunk: layout.records.saturating_add(u64::from(query.chain) * to_u64(CHUNK_BYTES)),
                tree: layout.record_tree,
                chunks: layout.record_chunks,
                index: query.chain,
            });
            records.extend(self.fetch(&openings.collect::<Vec<_>>(), pinned)?);
        }
        for batch in queries.gemm.chunks(MAX_OPENINGS) {
            products.extend(self.open_products(batch, &committed.slices, pinned)?);
        }
        Ok((records, products))
    }

    /// Computes the chunks of a batch again, and fetches them with their paths.
    fn open_products(
        &self,
        batch: &[GemmQuery],
        slices: &[Slice],
        pinned: &mut Pinned,
    ) -> Result<Vec<Opening>, Stop> {
        let failed = |error: CudaError| error.refusal("opening products");
        let mut rows = Vec::with_capacity(batch.len().saturating_mul(size_of::<RowChunk>()));
        let mut places = Vec::with_capacity(batch.len());
        for (query, opened) in batch.iter().zip(0_u64..) {
            let slice = slices.get(usize::from(query.product)).ok_or_else(nowhere)?;
            let row = RowChunk {
                row: slice.first_row.saturating_add(query.row.into()),
                // 256 columns to a chunk.
                column: slice.first_column.saturating_add(u64::from(query.column / 256) * 256),
            };
            rows.extend_from_slice(&row.row.to_le_bytes());
            rows.extend_from_slice(&row.column.to_le_bytes());
            let (index, _) = query.chunk(&self.context.parameters);
            places.push(Place {
                chunk: self.layout.opened.saturating_add(opened * to_u64(CHUNK_BYTES)),
                tree: self.product_tree(query.product),
                chunks: self.layout.product_chunks,
                index: u32::try_from(index).map_err(|_| nowhere())?,
            });
        }
        let count = u32::try_from(batch.len()).map_err(|_| nowhere())?;
        let to_open = self.part(self.layout.to_open, to_u64(rows.len()))?;
        let opened = self.part(self.layout.opened, u64::from(count) * to_u64(CHUNK_BYTES))?;
        let memory = self.blocks(0, self.context.parameters.blocks)?;
        self.stream.store(&rows, to_open, pinned).map_err(failed)?;
        let launched = self.kernels.row_chunks(&self.stream, memory, opened, to_open, count);
        launched.map_err(failed)?;
        self.fetch(&places, pinned)
    }

    /// Fetches chunks and their paths, at most [`MAX_OPENINGS`].
    fn fetch(&self, places: &[Place], pinned: &mut Pinned) -> Result<Vec<Opening>, Stop> {
        let mut parts = Vec::new();
        for place in places {
            parts.push(self.part(place.chunk, to_u64(CHUNK_BYTES))?);
            for node in launch::path_nodes(place.chunks, place.index) {
                parts.push(self.node(place.tree, node)?);
            }
        }
        let failed = |error: CudaError| error.refusal("fetching openings");
        let mut bytes = self.stream.fetch(parts, pinned).map_err(failed)?;
        let mut openings = Vec::with_capacity(places.len());
        for place in places {
            let (chunk, rest) = bytes.split_first_chunk::<CHUNK_BYTES>().ok_or_else(nowhere)?;
            let nodes = launch::path_nodes(place.chunks, place.index).count();
            let (path, rest) = rest.as_chunks::<32>().0.split_at_checked(nodes).map_or_else(
                || Err(nowhere()),
                |(path, _)| Ok((path, rest.get(nodes.saturating_mul(32)..).unwrap_or_default())),
            )?;
            openings.push(Opening {
                chunk: Chunk(Box::new(*chunk)),
                path: Path::from(path.iter().copied().map(Digest).collect::<Vec<_>>()),
            });
            bytes = rest;
        }
        Ok(openings)
    }

    /// Waits for what was launched, and fetches the root of a tree.
    fn root(
        &self,
        launched: Result<(), CudaError>,
        tree: u64,
        pinned: &mut Pinned,
        failed: &dyn Fn(CudaError) -> Stop,
    ) -> Result<Digest, Stop> {
        launched.map_err(failed)?;
        let bytes = self.stream.fetch([self.node(tree, 1)?], pinned).map_err(failed)?;
        bytes.try_into().map(Digest).map_err(|_| nowhere())
    }

    /// `count` blocks of the memory.
    fn blocks(&self, first: u64, count: u64) -> Result<Part, Stop> {
        let bytes = |blocks: u64| blocks.checked_mul(INNER_DIMENSION.into());
        let part = bytes(first).zip(bytes(count));
        part.and_then(|(start, bytes)| self.memory.part(start, bytes)).ok_or_else(nowhere)
    }

    fn part(&self, offset: u64, bytes: u64) -> Result<Part, Stop> {
        self.rest.part(offset, bytes).ok_or_else(nowhere)
    }

    fn tree(&self, offset: u64, chunks: u32) -> Result<Part, Stop> {
        self.part(offset, launch::tree_bytes(chunks))
    }

    fn node(&self, tree: u64, node: u32) -> Result<Part, Stop> {
        self.part(tree.saturating_add(u64::from(node) * NODE), NODE)
    }

    /// Where the tree of a product is.
    fn product_tree(&self, product: u8) -> u64 {
        let bytes = launch::tree_bytes(self.layout.product_chunks);
        self.layout.product_trees.saturating_add(u64::from(product) * bytes)
    }
}

/// A chunk to be opened. Offsets are into the second allocation.
struct Place {
    chunk: u64,
    tree: u64,
    chunks: u32,
    index: u32,
}

/// An offset that the layout does not have: the checks of the context exclude it.
fn nowhere() -> Stop {
    refused("bug", "a part of the proof is outside of what was allocated")
}

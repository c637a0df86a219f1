//! The loaded kernels, and their launches with the parameters that `pow_kernels::launch` documents.

use std::ffi::{CString, c_void};
use std::rc::Rc;

use pow_kernels::KernelVariant;
use pow_kernels::keys::PhiloxKey;
use pow_kernels::launch::{self, Blake3Key, Kernel, ProbeShape, SELFTEST_ANSWERS};

use super::driver::{Buffer, Function, Module, Part, Pinned, Session, Stream, to_u64};
use super::error::CudaError;
use crate::prove::{Stop, refused};

/// `EM_CUDA` of the ELF header's `e_machine`.
const MACHINE_CUDA: u64 = 190;
/// Bytes of a 64-bit ELF header.
const ELF_HEADER: usize = 64;

/// The CUDA version of the oldest driver that loads an image, if it is one: cubins of CUDA 12 need 12.0,
/// PTX in the version that is used here 11.0.
pub(super) fn driver_needed(image: &[u8]) -> Result<u32, Stop> {
    if image.starts_with(b"\x7fELF") {
        if is_whole_cubin(image) {
            return Ok(12_000);
        }
    } else if std::str::from_utf8(image).is_ok_and(|text| {
        text.contains(".version") && text.contains(".target") && !text.contains('\0')
    }) {
        return Ok(11_000);
    }
    let message = "CUDA kernels required: the image is neither a whole cubin nor PTX";
    Err(refused("no_kernels", message))
}

/// Whether the headers of an ELF file name no place outside of it: the driver reads it by these alone.
fn is_whole_cubin(image: &[u8]) -> bool {
    let number = |offset: usize, bytes: usize| -> Option<u64> {
        let field = image.get(offset..offset.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let inside = |offset: u64, bytes: u64| {
        offset.checked_add(bytes).is_some_and(|end| end <= to_u64(image.len()))
    };
    // A table of `count` entries of `entry` bytes, from `offset` on.
    let table = |offset: usize, entry: usize, count: usize| -> Option<(u64, u64, u64)> {
        let (start, size) = (number(offset, 8)?, number(entry, 2)?);
        let count = number(count, 2)?;
        inside(start, size.checked_mul(count)?).then_some((start, size, count))
    };
    let whole = || -> Option<bool> {
        // 64 bit, little-endian.
        if image.get(4..6)? != [2, 1] || number(18, 2)? != MACHINE_CUDA {
            return None;
        }
        table(32, 54, 56)?;
        let (start, size, count) = table(40, 58, 60)?;
        if count == 0 || size != 64 {
            return None;
        }
        // The contents of each section. SHT_NOBITS (8) has none in the file.
        Some((0..count).all(|index| {
            let header = usize::try_from(start.saturating_add(index.saturating_mul(size)));
            header.ok().is_some_and(|header| {
                let field = |at: usize, bytes| number(header.saturating_add(at), bytes);
                matches!((field(4, 4), field(24, 8), field(32, 8)),
                    (Some(kind), Some(offset), Some(bytes)) if kind == 8 || inside(offset, bytes))
            })
        }))
    };
    image.len() >= ELF_HEADER && whole() == Some(true)
}

/// A kernel, and how many of its thread blocks the device holds at once.
struct Loaded {
    function: Function,
    resident: u32,
}

/// What an image has. Functions are good as long as the module, which is given back last.
pub(super) struct Kernels {
    fill: Loaded,
    probe: Loaded,
    chunks: Loaded,
    parents: Loaded,
    row_chunks: Loaded,
    selftest: Loaded,
    /// Those that the image has; at least one.
    products: Vec<(KernelVariant, Loaded)>,
    _module: Module,
}

/// The pointers to parameters that a launch takes. The places live to the end of the statement.
macro_rules! parameters {
    ($($value:expr),*) => { &mut [$((&raw const $value).cast_mut().cast::<c_void>()),*] };
}

impl Kernels {
    /// Loads an image that [`driver_needed`] accepted, and finds every kernel that a proof needs.
    pub(super) fn load(session: &Rc<Session>, mut image: Vec<u8>) -> Result<Self, Stop> {
        // PTX is a C string.
        image.push(0);
        // SAFETY: it was checked to be a whole cubin or text without a zero byte, and has one now.
        let module = unsafe { Module::load(session, &image) };
        let module = module.map_err(|error| error.refusal("CUDA kernels required"))?;
        let find = |kernel: Kernel| -> Result<Loaded, CudaError> {
            let name = CString::new(kernel.name).unwrap_or_default();
            let function = module.function(&name, kernel.threads, kernel.dynamic_shared_bytes)?;
            let resident = module.resident(&function)?;
            Ok(Loaded { function, resident })
        };
        let required = |kernel: Kernel| {
            find(kernel).map_err(|error| {
                error.refusal(&format!("CUDA kernels required: looking for {}", kernel.name))
            })
        };
        let variants = [KernelVariant::Dp4a, KernelVariant::Mma, KernelVariant::Wgmma];
        let products: Vec<_> = variants
            .into_iter()
            .filter_map(|variant| Some((variant, find(launch::gemm(variant)?).ok()?)))
            .collect();
        if products.is_empty() {
            return Err(refused("no_kernels", "CUDA kernels required: the image has no product"));
        }
        Ok(Self {
            fill: required(launch::FILL)?,
            probe: required(launch::PROBE)?,
            chunks: required(launch::CHUNKS)?,
            parents: required(launch::PARENTS)?,
            row_chunks: required(launch::ROW_CHUNKS)?,
            selftest: required(launch::SELFTEST)?,
            products,
            _module: module,
        })
    }

    /// Has the device compute small things whose answers are known.
    pub(super) fn test(
        &self,
        session: &Rc<Session>,
        stream: &Stream,
        pinned: &mut Pinned,
    ) -> Result<(), Stop> {
        let failed = |error: CudaError| error.refusal("the self-test");
        let bytes = to_u64(size_of_val(&SELFTEST_ANSWERS));
        let out = Buffer::new(session, bytes).map_err(failed)?;
        let Some(part) = out.part(0, bytes) else {
            return Err(refused("bug", "the self-test has no place"));
        };
        let (zero, ones) = (0_u32, u32::MAX);
        // SAFETY: the parameters of SELFTEST; it writes 30 words, which `out` has.
        let launched = unsafe {
            stream.launch(&self.selftest.function, 1, parameters![part.address, zero, ones])
        };
        // Waited for in any case: `out` is given back at the end.
        let answers = stream.fetch([part], pinned);
        launched.map_err(failed)?;
        let answers = answers.map_err(failed)?.as_chunks::<4>().0;
        let right = SELFTEST_ANSWERS
            .iter()
            .zip(answers)
            .filter(|(expected, answer)| **expected == u32::from_le_bytes(**answer));
        match right.count() {
            count if count == SELFTEST_ANSWERS.len() => Ok(()),
            count => Err(refused(
                "selftest_failed",
                format!(
                    "the device computes wrong: {count} of {} words of the self-test are right",
                    SELFTEST_ANSWERS.len()
                ),
            )),
        }
    }

    /// Whether the image has the product kernel of a variant.
    pub(super) fn has_product(&self, variant: KernelVariant) -> bool {
        self.products.iter().any(|(known, _)| *known == variant)
    }

    /// Thread blocks of the fill and of the probe that the device holds at once.
    pub(super) fn resident(&self) -> (u32, u32) {
        (self.fill.resident, self.probe.resident)
    }

    /// Fills all `blocks` of the memory.
    pub(super) fn fill(
        &self,
        stream: &Stream,
        grid: u32,
        memory: Part,
        blocks: u64,
        key: PhiloxKey,
        leaf_iterations: u32,
    ) -> Result<(), CudaError> {
        let function = &self.fill.function;
        // SAFETY: the parameters of FILL; the memory is 16 KiB times `blocks`.
        unsafe {
            stream.launch(function, grid, parameters![memory.address, blocks, key, leaf_iterations])
        }
    }

    /// Walks all chains over the memory and writes their records.
    pub(super) fn probe(
        &self,
        stream: &Stream,
        grid: u32,
        memory: Part,
        records: Part,
        shape: ProbeShape,
        key: PhiloxKey,
    ) -> Result<(), CudaError> {
        let function = &self.probe.function;
        // SAFETY: the parameters of PROBE; the memory has the shape's blocks, the records its chains.
        unsafe {
            let parameters = parameters![memory.address, records.address, shape, key];
            stream.launch(function, grid, parameters)
        }
    }

    /// Builds the tree over `chunks` chunks of data; its root is node 1.
    pub(super) fn commit(
        &self,
        stream: &Stream,
        data: Part,
        tree: Part,
        chunks: u32,
        key: Blake3Key,
    ) -> Result<(), CudaError> {
        let grid = launch::chunks_grid(chunks);
        // SAFETY: the parameters of CHUNKS; the data has as many chunks, the tree twice as many nodes.
        unsafe {
            let parameters = parameters![data.address, tree.address, chunks, key];
            stream.launch(&self.chunks.function, grid, parameters)?;
        }
        for (children, grid) in launch::parent_launches(chunks) {
            // SAFETY: the parameters of PARENTS, over the same tree.
            unsafe {
                let parameters = parameters![tree.address, children, key];
                stream.launch(&self.parents.function, grid, parameters)?;
            }
        }
        Ok(())
    }

    /// Multiplies two operands of as many blocks as the dimension, with the kernel of a variant.
    pub(super) fn multiply(
        &self,
        stream: &Stream,
        variant: KernelVariant,
        grid: u32,
        operands: [Part; 2],
        product: Part,
        log2_dimension: u32,
    ) -> Result<(), CudaError> {
        let found = self.products.iter().find(|(known, _)| *known == variant);
        let Some((_, kernel)) = found else {
            let result = cudarc::driver::sys::CUresult::CUDA_ERROR_NOT_FOUND as std::ffi::c_int;
            return Err(CudaError { call: "cuModuleGetFunction", result });
        };
        let [rows, columns] = operands;
        let inner = pow_kernels::parameters::INNER_DIMENSION;
        // SAFETY: the parameters of every product kernel; the operands are whole blocks of the memory.
        unsafe {
            let parameters =
                parameters![rows.address, columns.address, product.address, log2_dimension, inner];
            stream.launch(&kernel.function, grid, parameters)
        }
    }

    /// Computes chunks of a product again, one for each of `count` entries at `to_open`.
    pub(super) fn row_chunks(
        &self,
        stream: &Stream,
        memory: Part,
        opened: Part,
        to_open: Part,
        count: u32,
    ) -> Result<(), CudaError> {
        let function = &self.row_chunks.function;
        // SAFETY: the parameters of ROW_CHUNKS; `to_open` names blocks of the memory, and `opened` has
        // a chunk for each.
        unsafe {
            let parameters = parameters![memory.address, opened.address, to_open.address];
            stream.launch(function, count, parameters)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pow_kernels::artifacts::{CUBINS, PTX};

    #[test]
    fn every_module_that_is_sent_is_accepted() {
        for cubin in &CUBINS {
            assert_eq!(driver_needed(cubin.bytes).ok(), Some(12_000), "{}", cubin.name);
        }
        assert_eq!(driver_needed(PTX.bytes).ok(), Some(11_000));
    }

    #[test]
    fn what_is_cut_or_no_image_is_refused_before_the_driver_sees_it() {
        let cubin = CUBINS[0].bytes;
        for image in [
            &b""[..],
            b"\x7fELF",
            b"not an image at all",
            b".version 7.0\n.target sm_75\n\0",
            &cubin[..63],
            &cubin[..cubin.len() / 2],
            &cubin[..cubin.len() - 1],
        ] {
            assert!(
                matches!(driver_needed(image), Err(Stop::Refused { code: "no_kernels", .. })),
                "{} bytes",
                image.len()
            );
        }
        let mut elsewhere = cubin.to_vec();
        elsewhere[40..48].fill(0xff);
        assert!(driver_needed(&elsewhere).is_err());
    }
}

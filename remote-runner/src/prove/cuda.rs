//! One NVIDIA GPU, through the driver's own API: no toolkit and no runtime library on the host.
//!
//! `driver` has all `unsafe`: the calls, and handles that give back what they hold. `kernels` are the
//! loaded image, `layout` says what is allocated, `pipeline` fills, probes and opens, `error` says what
//! a result of the driver means.
//!
//! All that the proof needs is allocated by Fill, before anything is timed; later rounds allocate
//! nothing on the device. There is one stream, and everything on it is in order.

use std::rc::Rc;

use pow_kernels::queries::MAX_QUERIES;
use pow_kernels::{Context, KernelVariant};
use runner_protocol::prove::{Device, MAX_OPENINGS, Opened};
use runner_protocol::{ProveEvent, Round};

use super::{Prover, Stop, openings, out_of_order, refused, step};

mod driver;
mod error;
mod kernels;
mod layout;
mod pipeline;

use driver::{Pinned, Session, Stream};
use kernels::Kernels;
use layout::OPENING_BYTES;
use pipeline::Pipeline;

/// The oldest driver that anything here runs on, by its CUDA version: 11.0, R450, which reads the
/// fallback PTX.
const OLDEST_DRIVER: u32 = 11_000;

/// A device and how far its proof is. Fields are given back in this order.
pub(super) struct Cuda {
    filled: Option<Pipeline>,
    kernels: Option<Rc<Kernels>>,
    /// Where results arrive: pinned, so that copies do not go through a buffer of the driver's.
    pinned: Pinned,
    stream: Rc<Stream>,
    uuid: [u8; 16],
    driver_version: u32,
    memory_bytes: u64,
    session: Rc<Session>,
}

impl Cuda {
    /// Makes a context on the one device that this process sees, which must be `uuid`.
    pub(super) fn start(uuid: &str) -> Result<(Self, Device), Stop> {
        driver::load().map_err(|why| {
            refused(
                "no_driver",
                format!("No NVIDIA driver found: NVML is there, CUDA is not: {why}"),
            )
        })?;
        let driver_version = driver::version().map_err(|error| error.starting())?;
        if driver_version < OLDEST_DRIVER {
            return Err(too_old(driver_version, OLDEST_DRIVER));
        }
        driver::init().map_err(|error| error.starting())?;
        let found = driver::only_device().map_err(|error| error.starting())?;
        let Some(found) = found.filter(|found| text(&found.uuid) == uuid) else {
            return Err(refused("gpu_not_found", format!("CUDA does not show the GPU {uuid}")));
        };
        let session = Session::new(&found).map_err(|error| error.starting())?;
        let stream = Rc::new(Stream::new(&session).map_err(|error| error.starting())?);
        let pinned = Pinned::new(&session, MAX_OPENINGS.saturating_mul(OPENING_BYTES))
            .map_err(|error| error.starting())?;
        let device = Device {
            uuid: uuid.to_owned(),
            name: found.name.clone(),
            compute_capability: found.compute_capability,
            memory_bytes: found.memory_bytes,
            free_bytes: session.free_bytes().map_err(|error| error.starting())?,
            multiprocessors: found.multiprocessors,
            driver_cuda_version: driver_version,
        };
        let cuda = Self {
            filled: None,
            kernels: None,
            pinned,
            stream,
            uuid: found.uuid,
            driver_version,
            memory_bytes: found.memory_bytes,
            session,
        };
        Ok((cuda, device))
    }

    fn load(&mut self, image: Vec<u8>) -> Result<(), Stop> {
        let needed = kernels::driver_needed(&image)?;
        if self.driver_version < needed {
            return Err(too_old(self.driver_version, needed));
        }
        let kernels = Kernels::load(&self.session, image)?;
        kernels.test(&self.session, &self.stream, &mut self.pinned)?;
        self.kernels = Some(Rc::new(kernels));
        step(ProveEvent::Loaded {}, true)
    }

    fn fill(&mut self, kernels: &Rc<Kernels>, context: &[u8]) -> Result<(), Stop> {
        let context = Context::decode(context)
            .map_err(|error| refused("context", format!("the context cannot be used: {error}")))?;
        if context.variant == KernelVariant::Reference {
            let message = "the context asks for the CPU reference, and this is a GPU";
            return Err(refused("context", message));
        }
        if context.gpu_uuid != self.uuid {
            let message = format!(
                "the context is of {}, and this is {}",
                text(&context.gpu_uuid),
                text(&self.uuid)
            );
            return Err(refused("context", message));
        }
        let layout = layout::Layout::new(&context.parameters, self.memory_bytes)?;
        let free = self.session.free_bytes().map_err(|error| error.refusal("asking for memory"))?;
        if layout.total() > free {
            let message = format!(
                "the proof needs {} bytes of device memory, {free} are free",
                layout.total()
            );
            return Err(refused("out_of_memory", message));
        }
        let filled = Pipeline::fill(&self.session, &self.stream, kernels, layout, context, free)?;
        self.filled = Some(filled);
        step(ProveEvent::Filled {}, true)
    }
}

impl Prover for Cuda {
    fn answer(&mut self, round: Round) -> Result<(), Stop> {
        match (round, &self.kernels, &mut self.filled) {
            (Round::Load { image }, None, _) => self.load(image.0),
            (Round::Fill { context }, Some(kernels), None) => {
                let kernels = Rc::clone(kernels);
                self.fill(&kernels, &context.0)
            }
            (Round::Probe { nonce }, _, Some(filled)) => {
                filled.probe(&nonce.0, &mut self.pinned, &mut |product, root, last| {
                    step(ProveEvent::Root { product, root }, last)
                })
            }
            (Round::Open { nonce, counts }, _, Some(filled)) if filled.is_committed() => {
                if counts.probe > MAX_QUERIES || counts.gemm > MAX_QUERIES {
                    return Err(refused("too_large", format!("more than {MAX_QUERIES} queries")));
                }
                let (records, products) = filled.open(&nonce.0, counts, &mut self.pinned)?;
                openings(Opened::Records, &records, false)?;
                openings(Opened::Products, &products, true)
            }
            (round, _, _) => Err(out_of_order(&round)),
        }
    }
}

/// A UUID as the driver writes it.
fn text(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn too_old(found: u32, needed: u32) -> Stop {
    let words = |version: u32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let release = if needed >= 12_000 { "R525" } else { "R450" };
    refused(
        "driver_too_old",
        format!(
            "the NVIDIA driver is too old: it is of CUDA {}, and CUDA {} ({release}) or later is needed",
            words(found),
            words(needed)
        ),
    )
}

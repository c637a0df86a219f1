//! The slow, plain prover of `kernels/` on one core.
//!
//! It shows that protocol, transport and verifier work on a host without a GPU, and nothing of a
//! GPU. Its sizes are capped far below any GPU's, so that it cannot be used to load a host.

use pow_kernels::queries::MAX_QUERIES;
use pow_kernels::reference::{self, Committed};
use pow_kernels::{Context, KernelVariant, Parameters};
use runner_protocol::prove::Opened;
use runner_protocol::{ProveEvent, Round};

use super::{Prover, Stop, openings, out_of_order, refused, step};

/// The largest memory that the reference fills, in bytes (64 MiB).
const MAX_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// The most steps over all chains: with the longest leaves a few seconds of one core.
const MAX_STEPS: u64 = 1 << 20;
/// The most entries over all products: 2^19 dot products of 16384 bytes, a few seconds of one core.
const MAX_ENTRIES: u64 = 1 << 19;
/// The most applications of Philox per leaf.
const MAX_LEAF_ITERATIONS: u8 = 8;

/// How far the proof is.
#[derive(Default)]
pub(super) struct Reference {
    filled: Option<reference::Prover>,
    /// Taken by `open`: a commitment is opened once.
    committed: Option<Committed>,
}

impl Prover for Reference {
    fn answer(&mut self, round: Round) -> Result<(), Stop> {
        match round {
            Round::Fill { context } if self.filled.is_none() => {
                let context = Context::decode(&context.0).map_err(|error| {
                    refused("context", format!("the context cannot be used: {error}"))
                })?;
                check(&context)?;
                self.filled = Some(reference::Prover::fill(&context));
                step(ProveEvent::Filled {}, true)
            }
            Round::Probe { nonce } => {
                let Some(prover) = &self.filled else {
                    return Err(out_of_order(&Round::Probe { nonce }));
                };
                // The commitment of an earlier probe is given up: its memory too.
                self.committed = None;
                let products = prover.context().parameters.gemms;
                let (mut told, mut product) = (Ok(()), None);
                let committed =
                    prover.commit_telling(&nonce.0, prover.walk(&nonce.0), &mut |root| {
                        if told.is_ok() {
                            let last = product == products.checked_sub(1);
                            told = step(ProveEvent::Root { product, root }, last);
                        }
                        product = Some(product.map_or(0, |product: u8| product.saturating_add(1)));
                    });
                told?;
                self.committed = Some(committed);
                Ok(())
            }
            Round::Open { nonce, counts } => {
                let Some(committed) = self.committed.take() else {
                    return Err(out_of_order(&round));
                };
                if counts.probe > MAX_QUERIES || counts.gemm > MAX_QUERIES {
                    return Err(refused("too_large", format!("more than {MAX_QUERIES} queries")));
                }
                let proof = committed.open(&nonce.0, counts);
                openings(Opened::Records, &proof.probe_openings, false)?;
                openings(Opened::Products, &proof.gemm_openings, true)
            }
            // There is nothing to load, and the rest does not come here.
            round => Err(out_of_order(&round)),
        }
    }
}

/// Refuses what is not for the reference, before anything is allocated.
fn check(context: &Context) -> Result<(), Stop> {
    if context.variant != KernelVariant::Reference {
        let message = "the context asks for kernels, and this is the CPU reference";
        return Err(refused("context", message.to_owned()));
    }
    match too_large(&context.parameters) {
        None => Ok(()),
        Some(message) => Err(refused("too_large", message)),
    }
}

/// What is too much for the CPU reference. No product overflows: the factors have bounds of 2^20
/// or less by the checked parameters.
fn too_large(sizes: &Parameters) -> Option<String> {
    let steps = u64::from(sizes.chains)
        .saturating_mul(u64::from(pow_kernels::parameters::SEGMENTS))
        .saturating_mul(sizes.steps.into());
    let dimension = u64::from(sizes.gemm_dimension);
    let entries = u64::from(sizes.gemms).saturating_mul(dimension).saturating_mul(dimension);
    let limits = [
        ("bytes of memory", sizes.memory_bytes(), MAX_MEMORY_BYTES),
        ("steps of chains", steps, MAX_STEPS),
        ("entries of products", entries, MAX_ENTRIES),
        ("leaf iterations", sizes.leaf_iterations.into(), MAX_LEAF_ITERATIONS.into()),
    ];
    limits.into_iter().find(|(_, asked, most)| asked > most).map(|(what, asked, most)| {
        format!("{asked} {what} are too many for the CPU reference, which takes {most}")
    })
}

//! The child's side of the reference proof-of-work: the slow, plain prover of `kernels/` on one core.
//!
//! It shows that protocol, transport and verifier work on a host without a GPU, and nothing of a
//! GPU. Its sizes are capped far below any GPU's, so that it cannot be used to load a host.

use std::io::{self, Read};

use pow_kernels::queries::MAX_QUERIES;
use pow_kernels::reference::{Committed, Prover};
use pow_kernels::{Context, KernelVariant, Parameters};
use runner_protocol::prove::{MAX_OPENINGS, Opened, Opening};
use runner_protocol::{ExitCode, FrameDecoder, ProveEvent, Round, decode};
use serde::{Deserialize, Serialize};

use crate::subprocess::{bind_to_parent, say_to_parent};

/// The largest memory that the reference fills, in bytes (64 MiB).
const MAX_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// The most steps over all chains: with the longest leaves a few seconds of one core.
const MAX_STEPS: u64 = 1 << 20;
/// The most entries over all products: 2^19 dot products of 16384 bytes, a few seconds of one core.
const MAX_ENTRIES: u64 = 1 << 19;
/// The most applications of Philox per leaf.
const MAX_LEAF_ITERATIONS: u8 = 8;

/// What the child tells its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromProver {
    /// A step of the proof.
    Step {
        /// The step.
        event: ProveEvent,
        /// Whether it ends the round. The parent must know before the orchestrator does, which may
        /// answer at once.
        last: bool,
    },
    /// The round cannot be done; the child ends.
    Refused {
        /// A stable word.
        code: String,
        /// Why.
        message: String,
    },
}

/// Why a round is not done.
enum Stop {
    Refused {
        code: &'static str,
        message: String,
    },
    /// The parent is gone.
    Silent,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

/// Answers rounds until standard input ends.
pub(crate) fn run(parent: u32) -> ExitCode {
    if !bind_to_parent(parent) {
        return ExitCode::Environment;
    }
    let mut state = State::default();
    let mut decoder = FrameDecoder::new();
    let mut chunk = vec![0; 1024];
    while let Ok(length @ 1..) = io::stdin().read(&mut chunk) {
        let mut bytes = chunk.get(..length).unwrap_or_default();
        loop {
            let round = match decoder.push(&mut bytes) {
                Ok(None) => break,
                Ok(Some(body)) => decode::<Round>(&body),
                Err(error) => Err(error),
            };
            let Ok(round) = round else { return ExitCode::ProtocolError };
            match state.answer(round) {
                Ok(()) => {}
                Err(Stop::Silent) => return ExitCode::StdoutClosed,
                Err(Stop::Refused { code, message }) => {
                    let refused = FromProver::Refused { code: code.to_owned(), message };
                    return match say_to_parent(&refused) {
                        Ok(()) => ExitCode::Ok,
                        Err(_) => ExitCode::StdoutClosed,
                    };
                }
            }
        }
    }
    ExitCode::Ok
}

/// How far the proof is.
#[derive(Default)]
struct State {
    filled: Option<Prover>,
    /// Taken by `open`: a commitment is opened once.
    committed: Option<Committed>,
}

impl State {
    fn answer(&mut self, round: Round) -> Result<(), Stop> {
        match round {
            Round::Fill { context } if self.filled.is_none() => {
                let context = Context::decode(&context.0).map_err(|error| {
                    refused("context", format!("the context cannot be used: {error}"))
                })?;
                check(&context)?;
                self.filled = Some(Prover::fill(&context));
                step(ProveEvent::Filled {}, true)
            }
            Round::Probe { nonce } => {
                let Some(prover) = &self.filled else { return Err(out_of_order("probe")) };
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
                    return Err(out_of_order("open"));
                };
                if counts.probe > MAX_QUERIES || counts.gemm > MAX_QUERIES {
                    return Err(refused("too_large", format!("more than {MAX_QUERIES} queries")));
                }
                let proof = committed.open(&nonce.0, counts);
                openings(Opened::Records, &proof.probe_openings, false)?;
                openings(Opened::Products, &proof.gemm_openings, true)
            }
            Round::Fill { .. } => Err(out_of_order("fill")),
            // The parent answers these itself.
            Round::Release {}
            | Round::Send { .. }
            | Round::Grant { .. }
            | Round::End {}
            | Round::Unknown { .. } => Err(out_of_order("release")),
        }
    }
}

/// Sends openings in replies of a bounded size, at least one; `last` says that they end the round.
fn openings(of: Opened, all: &[Opening], last: bool) -> Result<(), Stop> {
    let (mut now, mut rest) = all.split_at(all.len().min(MAX_OPENINGS));
    loop {
        let openings = now.to_vec();
        step(ProveEvent::Openings { of, openings }, last && rest.is_empty())?;
        if rest.is_empty() {
            return Ok(());
        }
        (now, rest) = rest.split_at(rest.len().min(MAX_OPENINGS));
    }
}

fn step(event: ProveEvent, last: bool) -> Result<(), Stop> {
    Ok(say_to_parent(&FromProver::Step { event, last })?)
}

fn refused(code: &'static str, message: String) -> Stop {
    Stop::Refused { code, message }
}

fn out_of_order(round: &str) -> Stop {
    refused("unexpected", format!("the round {round} has no place here"))
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

//! The child's side of a proof-of-work: one GPU, or the CPU reference, for one request.
//!
//! It runs in a process of its own because what it calls may hang, crash or be poisoned by an error of
//! the hardware; killing it gives everything back. Rounds come on standard input, one after another;
//! steps go to standard output. It has one thread.

use std::io::{self, Read};

use runner_protocol::prove::{MAX_OPENINGS, Opened, Opening};
use runner_protocol::{ExitCode, FrameDecoder, ProveEvent, Round, decode};
use serde::{Deserialize, Serialize};

use crate::args::ProveOptions;
use crate::subprocess::{bind_to_parent, say_to_parent};

mod cuda;
mod reference;

/// How much is read at once: all rounds but one are far smaller.
const CHUNK: usize = 16 * 1024;

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

/// What can prove.
trait Prover {
    /// Answers a round: says its steps. [`Round::Release`] does not come here.
    fn answer(&mut self, round: Round) -> Result<(), Stop>;
}

/// Answers rounds until released, or until standard input ends.
pub(crate) fn run(options: &ProveOptions) -> ExitCode {
    if !bind_to_parent(options.parent) {
        return ExitCode::Environment;
    }
    let mut prover = None;
    let done = prove(options, &mut prover);
    // Said before the prover is dropped: giving back what a broken device holds may never end.
    let said = match done {
        Ok(()) => Ok(()),
        Err(Stop::Silent) => return ExitCode::StdoutClosed,
        Err(Stop::Refused { code, message }) => {
            say_to_parent(&FromProver::Refused { code: code.to_owned(), message })
        }
    };
    match said {
        Ok(()) => ExitCode::Ok,
        Err(_) => ExitCode::StdoutClosed,
    }
}

/// Makes the prover and has it answer.
fn prove(options: &ProveOptions, place: &mut Option<Box<dyn Prover>>) -> Result<(), Stop> {
    let (prover, device): (Box<dyn Prover>, _) = match &options.gpu {
        Some(uuid) => {
            let (prover, device) = cuda::Cuda::start(uuid)?;
            (Box::new(prover), Some(device))
        }
        None => (Box::new(reference::Reference::default()), None),
    };
    let prover = place.insert(prover);
    step(ProveEvent::Prepared { device }, true)?;
    let mut decoder = FrameDecoder::new();
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = io::stdin().read(&mut chunk) {
        let mut bytes = chunk.get(..length).unwrap_or_default();
        loop {
            let round = match decoder.push(&mut bytes) {
                Ok(None) => break,
                Ok(Some(body)) => decode::<Round>(&body),
                Err(error) => Err(error),
            };
            match round {
                // Everything is given back in order when this returns.
                Ok(Round::Release {}) => return Ok(()),
                Ok(round) => prover.answer(round)?,
                Err(error) => return Err(refused("bug", error.to_string())),
            }
        }
    }
    Ok(())
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

fn refused(code: &'static str, message: impl Into<String>) -> Stop {
    Stop::Refused { code, message: message.into() }
}

fn out_of_order(round: &Round) -> Stop {
    refused("unexpected", format!("the round {} has no place here", round.name()))
}

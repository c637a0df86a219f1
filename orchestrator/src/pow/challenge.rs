//! Issuing a challenge, and its form in documents.

use pow_kernels::{
    Challenge, Context, ContextError, KernelVariant, Mode, Parameters, QueryCounts, Sizes,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use runner_protocol::ByteArray;
use runner_protocol::prove::CONTEXT_BYTES;
use serde::{Deserialize, Serialize};

/// What the CPU reference is asked: 12 MiB, a second or two of one core, with every feature of a
/// real challenge (three windows, the last one shorter, and more than one product).
pub const REFERENCE_SIZES: Sizes = Sizes {
    leaf_iterations: 1,
    blocks: 769,
    chains: 64,
    steps: 8,
    windows: 3,
    window_shift: 2,
    gemms: 2,
    gemm_dimension: 256,
};

/// The system gave no random bytes, without which there is no challenge.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// A fresh challenge to the CPU reference of the host whose SSH host key has this SHA-256.
///
/// # Errors
/// [`NoRandomness`].
pub fn reference_challenge(
    host_id: [u8; 32],
    issued_at_ms: u64,
) -> Result<Challenge, NoRandomness> {
    let mode = Mode::Quick;
    let context = Context {
        mode,
        nonce_fill: random()?,
        // No validator asked, and this orchestrator has no hotkey yet: its own key signs the proof.
        validator_hotkey: [0; 32],
        orchestrator_hotkey: [0; 32],
        host_id,
        // No GPU and no model of the table.
        gpu_uuid: [0; 16],
        gpu_index: 0,
        gpu_count: 1,
        model_id: 0,
        variant: KernelVariant::Reference,
        parameters: Parameters::new(REFERENCE_SIZES)
            .expect("these constants are inside the protocol's limits, as a test holds"),
        issued_at_ms,
        challenge_id: random()?,
    };
    let counts = QueryCounts::for_mode(mode);
    Ok(Challenge { context, nonce_probe: random()?, nonce_open: random()?, counts })
}

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A challenge as it is stored and signed: the context in its one encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRecord {
    /// The encoded context.
    pub context: Box<ByteArray<CONTEXT_BYTES>>,
    /// What was sent with Probe.
    pub nonce_probe: ByteArray<32>,
    /// What was sent with Open.
    pub nonce_open: ByteArray<32>,
    /// How many queries were asked.
    pub counts: QueryCounts,
}

impl From<&Challenge> for ChallengeRecord {
    fn from(challenge: &Challenge) -> Self {
        Self {
            context: Box::new(ByteArray(challenge.context.encode())),
            nonce_probe: ByteArray(challenge.nonce_probe),
            nonce_open: ByteArray(challenge.nonce_open),
            counts: challenge.counts,
        }
    }
}

impl TryFrom<&ChallengeRecord> for Challenge {
    type Error = ContextError;
    fn try_from(record: &ChallengeRecord) -> Result<Self, ContextError> {
        Ok(Self {
            context: Context::decode(&record.context.0)?,
            nonce_probe: record.nonce_probe.0,
            nonce_open: record.nonce_open.0,
            counts: record.counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_challenge_is_fresh_and_reads_back() {
        let one = reference_challenge([7; 32], 5).unwrap();
        let other = reference_challenge([7; 32], 5).unwrap();
        let secrets =
            |c: &Challenge| [c.context.nonce_fill, c.nonce_probe, c.nonce_open, c.context.hash()];
        let mut all = [secrets(&one), secrets(&other)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8, "no two are equal");
        assert_ne!(one.context.challenge_id, other.context.challenge_id);
        assert_eq!(Challenge::try_from(&ChallengeRecord::from(&one)).unwrap(), one);
    }
}

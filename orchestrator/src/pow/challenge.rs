//! Issuing a challenge, and its form in documents.

use std::time::Duration;

use pow_kernels::{
    Challenge, Context, ContextError, KernelVariant, Mode, Model, Parameters, QueryCounts, Sizes,
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

/// One GPU of a host that is to be challenged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuTarget<'m> {
    /// What it is claimed to be: the sizes follow from it.
    pub model: &'m Model,
    /// Its UUID as raw bytes.
    pub uuid: [u8; 16],
    /// Its place among the GPUs that are challenged together.
    pub index: u16,
    /// How many those are.
    pub count: u16,
}

/// Who asks and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How long the challenge is.
    pub mode: Mode,
    /// SHA-256 of the host's SSH public key blob.
    pub host_id: [u8; 32],
    /// sr25519 public key of the validator that asked, or zero.
    pub validator_hotkey: [u8; 32],
    /// sr25519 public key of the orchestrator, or zero where it has none.
    pub orchestrator_hotkey: [u8; 32],
    /// Milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
}

/// A fresh challenge to a GPU, with the sizes that the table has for its model.
///
/// # Errors
/// [`NoRandomness`].
pub fn gpu_challenge(asked: &Asked, target: &GpuTarget<'_>) -> Result<Challenge, NoRandomness> {
    let context = Context {
        mode: asked.mode,
        nonce_fill: random()?,
        validator_hotkey: asked.validator_hotkey,
        orchestrator_hotkey: asked.orchestrator_hotkey,
        host_id: asked.host_id,
        gpu_uuid: target.uuid,
        gpu_index: target.index,
        gpu_count: target.count,
        model_id: target.model.id,
        variant: target.model.variant,
        parameters: target.model.profile(asked.mode).sizes,
        issued_at_ms: asked.issued_at_ms,
        challenge_id: random()?,
    };
    let counts = QueryCounts::for_mode(asked.mode);
    Ok(Challenge { context, nonce_probe: random()?, nonce_open: random()?, counts })
}

/// The challenge with the filling nonce of somebody who chooses the nonces itself. Those of the rounds
/// are zero until they come.
#[must_use]
pub fn asked_by_another(challenge: Challenge, nonce_fill: [u8; 32]) -> Challenge {
    let context = Context { nonce_fill, ..challenge.context };
    Challenge { context, nonce_probe: [0; 32], nonce_open: [0; 32], ..challenge }
}

/// The same memory probed once more: fresh nonces, the same context.
///
/// # Errors
/// [`NoRandomness`].
pub fn probed_again(challenge: &Challenge) -> Result<Challenge, NoRandomness> {
    Ok(Challenge { nonce_probe: random()?, nonce_open: random()?, ..challenge.clone() })
}

/// `count` random moments within `hold`, in their order, from its beginning.
///
/// # Errors
/// [`NoRandomness`].
pub fn random_moments(hold: Duration, count: usize) -> Result<Vec<Duration>, NoRandomness> {
    let whole = u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX);
    let mut moments = Vec::new();
    for _ in 0..count {
        let fraction = u64::from_le_bytes(random()?);
        let scaled = (u128::from(whole) * u128::from(fraction)) >> 64;
        moments.push(Duration::from_nanos(u64::try_from(scaled).unwrap_or(whole)));
    }
    moments.sort_unstable();
    Ok(moments)
}

/// A device's UUID as the driver writes it (`GPU-` and RFC 9562 text) as raw bytes.
#[must_use]
pub fn raw_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix("GPU-")?;
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] {
        return None;
    }
    let digits = groups.concat();
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
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
    fn a_uuid_is_what_the_driver_writes_and_nothing_else() {
        let raw = raw_uuid("GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10").unwrap();
        assert_eq!((raw[0], raw[15]), (0x6a, 0x10));
        for text in [
            "",
            "6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10",
            "MIG-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10",
            "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f1",
            "GPU-6a1f0c1e52a4-4a44-9a39-1b1d-3b7c0f10",
            "GPU-+a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10",
            "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10\n",
        ] {
            assert_eq!(raw_uuid(text), None, "{text:?}");
        }
    }

    #[test]
    fn moments_lie_within_the_hold_in_order() {
        let hold = Duration::from_secs(60);
        let moments = random_moments(hold, 100).unwrap();
        assert_eq!(moments.len(), 100);
        assert!(moments.is_sorted() && moments.iter().all(|moment| *moment < hold));
        assert_eq!(random_moments(Duration::ZERO, 2).unwrap(), [Duration::ZERO; 2]);
    }

    #[test]
    fn a_gpu_is_asked_what_the_table_has_for_its_model() {
        let model = pow_kernels::ModelTable::embedded().by_id(4).unwrap();
        let asked = Asked {
            mode: Mode::Deep,
            host_id: [1; 32],
            validator_hotkey: [2; 32],
            orchestrator_hotkey: [3; 32],
            issued_at_ms: 4,
        };
        let target = GpuTarget { model, uuid: [5; 16], index: 6, count: 8 };
        let one = gpu_challenge(&asked, &target).unwrap();
        let context = &one.context;
        assert_eq!((context.parameters, context.variant), (model.deep.sizes, model.variant));
        assert_eq!((context.gpu_index, context.gpu_count, context.model_id), (6, 8, 4));
        assert_eq!(Context::decode(&context.encode()).unwrap(), *context);
        let again = probed_again(&one).unwrap();
        assert_eq!(again.context, one.context);
        assert_ne!(again.nonce_probe, one.nonce_probe);
        assert_ne!(again.nonce_open, one.nonce_open);
    }

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

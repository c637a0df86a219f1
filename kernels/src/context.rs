//! What a challenge is bound to: 256 bytes that enter every key. `SPEC.md` section 3.

use serde::{Deserialize, Serialize};

use crate::parameters::{
    INNER_DIMENSION, LINES_PER_STEP, ParameterError, Parameters, SEGMENTS, Sizes,
};

/// Bytes of an encoded [`Context`].
pub const CONTEXT_BYTES: usize = 256;
/// Bytes that carry a field; the rest is zero.
const USED_BYTES: usize = 212;
const MAGIC: [u8; 4] = *b"GPW1";
/// Version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// How long a challenge is allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A fraction of a second: over a LAN, or often.
    Quick,
    /// Long chains, so that the network's share of the time is small.
    Deep,
    /// The fill is held and probed again after a random time.
    Hold,
}

/// Which kernels multiply. It tells which baseline applies; the result is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelVariant {
    /// The CPU reference.
    Reference,
    /// Four-byte dot products on the ordinary cores; any device from `sm_61`.
    Dp4a,
    /// Warp-level integer matrix instructions, `sm_75` and later.
    Mma,
    /// Warpgroup-level matrix instructions of Hopper, `sm_90a` alone.
    Wgmma,
}

/// One challenge to one GPU of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// How long the challenge is.
    pub mode: Mode,
    /// Fresh random bytes; the memory's content follows from them.
    pub nonce_fill: [u8; 32],
    /// sr25519 public key of the validator that asked, or zero.
    pub validator_hotkey: [u8; 32],
    /// sr25519 public key of the orchestrator.
    pub orchestrator_hotkey: [u8; 32],
    /// SHA-256 of the host's SSH public key blob.
    pub host_id: [u8; 32],
    /// The GPU's UUID as raw bytes: a claim of the host.
    pub gpu_uuid: [u8; 16],
    /// Which of the host's GPUs, from 0.
    pub gpu_index: u16,
    /// GPUs that are challenged together on this host.
    pub gpu_count: u16,
    /// The model's `id` in the model table.
    pub model_id: u16,
    /// Kernels to be used.
    pub variant: KernelVariant,
    /// All sizes.
    pub parameters: Parameters,
    /// When it was issued, milliseconds since 1970-01-01 UTC.
    pub issued_at_ms: u64,
    /// The verifier's name for the challenge.
    pub challenge_id: [u8; 16],
}

/// Why 256 bytes are no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Not 256 bytes.
    #[error("a context has 256 bytes, not {0}")]
    Length(usize),
    /// A field has a value that this version does not know.
    #[error("the context's {field} is {value}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The sizes are impossible.
    #[error("the context's sizes are impossible")]
    Sizes(#[from] ParameterError),
}

impl Context {
    /// The 256 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; CONTEXT_BYTES] {
        let s = &self.parameters;
        let fields: [&[u8]; 26] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &[self.mode.code()],
            &[s.leaf_iterations],
            &self.nonce_fill,
            &self.validator_hotkey,
            &self.orchestrator_hotkey,
            &self.host_id,
            &self.gpu_uuid,
            &self.gpu_index.to_le_bytes(),
            &self.gpu_count.to_le_bytes(),
            &self.model_id.to_le_bytes(),
            &[self.variant.code()],
            &[LINES_PER_STEP],
            &s.blocks.to_le_bytes(),
            &s.chains.to_le_bytes(),
            &(SEGMENTS as u16).to_le_bytes(),
            &s.steps.to_le_bytes(),
            &[s.windows],
            &[s.window_shift],
            &[s.gemms],
            &[0],
            &s.gemm_dimension.to_le_bytes(),
            &INNER_DIMENSION.to_le_bytes(),
            &self.issued_at_ms.to_le_bytes(),
            &self.challenge_id,
        ];
        let mut bytes = [0; CONTEXT_BYTES];
        let mut rest = bytes.iter_mut();
        for byte in fields.iter().flat_map(|field| field.iter()) {
            if let Some(slot) = rest.next() {
                *slot = *byte;
            }
        }
        bytes
    }

    /// Reads 256 bytes back. Whatever decodes, encodes to the same bytes.
    ///
    /// # Errors
    /// [`ContextError`] when the length, a constant, an enumeration, the padding, the GPU index or
    /// a size is not what version 1 allows.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContextError> {
        let bytes: &[u8; CONTEXT_BYTES] =
            bytes.try_into().map_err(|_| ContextError::Length(bytes.len()))?;
        let (used, padding) = bytes.split_at(USED_BYTES);
        let mut fields = Fields(used);
        fields.constant("magic", u32::from_le_bytes(MAGIC).into(), 4)?;
        fields.constant("version", VERSION.into(), 2)?;
        let mode = Mode::from_code(fields.byte())?;
        let leaf_iterations = fields.byte();
        let nonce_fill = fields.take();
        let validator_hotkey = fields.take();
        let orchestrator_hotkey = fields.take();
        let host_id = fields.take();
        let gpu_uuid = fields.take();
        let gpu_index = u16::from_le_bytes(fields.take());
        let gpu_count = u16::from_le_bytes(fields.take());
        let model_id = u16::from_le_bytes(fields.take());
        let variant = KernelVariant::from_code(fields.byte())?;
        fields.constant("lines per step", LINES_PER_STEP.into(), 1)?;
        let blocks = u64::from_le_bytes(fields.take());
        let chains = u32::from_le_bytes(fields.take());
        fields.constant("segment count", SEGMENTS.into(), 2)?;
        let steps = u16::from_le_bytes(fields.take());
        let [windows, window_shift, gemms] = fields.take();
        fields.constant("padding", 0, 1)?;
        let gemm_dimension = u32::from_le_bytes(fields.take());
        fields.constant("inner dimension", INNER_DIMENSION.into(), 4)?;
        let issued_at_ms = u64::from_le_bytes(fields.take());
        let challenge_id = fields.take();
        if let Some(byte) = padding.iter().find(|byte| **byte != 0) {
            return Err(ContextError::Unknown { field: "padding", value: u64::from(*byte) });
        }
        if gpu_index >= gpu_count {
            return Err(ContextError::Unknown { field: "GPU index", value: gpu_index.into() });
        }
        let parameters = Parameters::new(Sizes {
            leaf_iterations,
            blocks,
            chains,
            steps,
            windows,
            window_shift,
            gemms,
            gemm_dimension,
        })?;
        Ok(Self {
            mode,
            nonce_fill,
            validator_hotkey,
            orchestrator_hotkey,
            host_id,
            gpu_uuid,
            gpu_index,
            gpu_count,
            model_id,
            variant,
            parameters,
            issued_at_ms,
            challenge_id,
        })
    }

    /// `ctx_hash`: BLAKE3 of the encoding.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }
}

impl Mode {
    fn code(self) -> u8 {
        match self {
            Self::Quick => 0,
            Self::Deep => 1,
            Self::Hold => 2,
        }
    }

    fn from_code(code: u8) -> Result<Self, ContextError> {
        match code {
            0 => Ok(Self::Quick),
            1 => Ok(Self::Deep),
            2 => Ok(Self::Hold),
            _ => Err(ContextError::Unknown { field: "mode", value: code.into() }),
        }
    }
}

impl KernelVariant {
    fn code(self) -> u8 {
        match self {
            Self::Reference => 0,
            Self::Dp4a => 1,
            Self::Mma => 2,
            Self::Wgmma => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, ContextError> {
        match code {
            0 => Ok(Self::Reference),
            1 => Ok(Self::Dp4a),
            2 => Ok(Self::Mma),
            3 => Ok(Self::Wgmma),
            _ => Err(ContextError::Unknown { field: "kernel variant", value: code.into() }),
        }
    }
}

/// Reads fields off the front. The caller reads no more than [`USED_BYTES`] in all; past the end it
/// would read zeros, which the encoding test would show.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn constant(
        &mut self,
        field: &'static str,
        expected: u64,
        bytes: u8,
    ) -> Result<(), ContextError> {
        let value = (0..bytes).fold(0, |value, i| value | u64::from(self.byte()) << (8 * i));
        if value == expected { Ok(()) } else { Err(ContextError::Unknown { field, value }) }
    }
}

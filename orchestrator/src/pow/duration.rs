//! How long a proof took, so that it can be compared with others of its kind.

use pow_kernels::{Context, Timings};

/// How long a GPU took for one proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofDuration {
    /// The GPU's UUID as the driver writes it; `host` for the reference, which is of no GPU.
    pub gpu: String,
    /// A hash of the mode, the kernels and the sizes: only times of one kind are comparable.
    pub kind: i64,
    /// Nanoseconds of the chains and all products.
    pub nanos: i64,
}

impl ProofDuration {
    /// The duration of a proof; `None` if it is beyond any that can be kept.
    #[must_use]
    pub fn of(context: &Context, timings: &Timings) -> Option<Self> {
        let sizes = serde_json::to_vec(&context.parameters).ok()?;
        let variant = serde_json::to_vec(&(context.mode, context.variant)).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &[variant, sizes].concat());
        let kind = digest.as_ref().first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes))?;
        let sum = timings.gemm_ns.iter().fold(timings.chain_ns, |sum, it| sum.saturating_add(*it));
        Some(Self { gpu: gpu_name(&context.gpu_uuid), kind, nanos: i64::try_from(sum).ok()? })
    }
}

/// A UUID as the driver writes it; none is the host.
fn gpu_name(uuid: &[u8; 16]) -> String {
    if uuid == &[0; 16] {
        return "host".to_owned();
    }
    let hex = crate::hex::encode(uuid);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let [a, b, c, d, e] = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    format!("GPU-{a}-{b}-{c}-{d}-{e}")
}

//! The compiled kernels, one module per architecture, made by `scripts/build-kernels`.
//!
//! A cubin runs on its own compute capability and on later minor ones of the same major; the one
//! with Hopper's warpgroup instructions on 9.0 alone. Everything else from 7.5 on gets PTX, which
//! the driver compiles when it is loaded.

use crate::context::KernelVariant;

/// A module to be loaded into a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Artifact {
    /// File name, for the upload and for messages.
    pub name: &'static str,
    /// Compute capability it was compiled for.
    pub compute_capability: [u8; 2],
    /// The product kernel to use from it.
    pub variant: KernelVariant,
    /// A cubin, or PTX as text.
    pub bytes: &'static [u8],
}

macro_rules! artifact {
    ($name:literal, $major:literal, $minor:literal, $variant:ident) => {
        Artifact {
            name: $name,
            compute_capability: [$major, $minor],
            variant: KernelVariant::$variant,
            bytes: include_bytes!(concat!("../artifacts/", $name)),
        }
    };
}

/// All cubins, later capabilities last; of two for the same capability the better one last.
pub static CUBINS: [Artifact; 9] = [
    artifact!("gpow-sm_70.cubin", 7, 0, Dp4a),
    artifact!("gpow-sm_75.cubin", 7, 5, Mma),
    artifact!("gpow-sm_80.cubin", 8, 0, Mma),
    artifact!("gpow-sm_86.cubin", 8, 6, Mma),
    artifact!("gpow-sm_89.cubin", 8, 9, Mma),
    artifact!("gpow-sm_90.cubin", 9, 0, Mma),
    artifact!("gpow-sm_90a.cubin", 9, 0, Wgmma),
    artifact!("gpow-sm_100.cubin", 10, 0, Mma),
    artifact!("gpow-sm_120.cubin", 12, 0, Mma),
];

/// The fallback: PTX for compute capability 7.5, in a version that drivers since 450 read.
pub static PTX: Artifact = artifact!("gpow-compute_75.ptx", 7, 5, Mma);

/// The module with this product kernel for a device; `None` where the device cannot run it.
#[must_use]
pub fn with_variant([major, minor]: [u8; 2], variant: KernelVariant) -> Option<&'static Artifact> {
    let best = for_capability(major, minor)?;
    if best.variant == variant {
        return Some(best);
    }
    let runs = |artifact: &&Artifact| runs_on(artifact, major, minor);
    CUBINS.iter().filter(runs).rfind(|artifact| artifact.variant == variant)
}

fn runs_on(artifact: &Artifact, major: u8, minor: u8) -> bool {
    let [its_major, its_minor] = artifact.compute_capability;
    its_major == major
        && match artifact.variant {
            KernelVariant::Wgmma => its_minor == minor,
            _ => its_minor <= minor,
        }
}

/// The module for a device, `None` below compute capability 7.0.
#[must_use]
pub fn for_capability(major: u8, minor: u8) -> Option<&'static Artifact> {
    let runs = |artifact: &&Artifact| runs_on(artifact, major, minor);
    CUBINS.iter().rfind(runs).or(((major, minor) >= (7, 5)).then_some(&PTX))
}

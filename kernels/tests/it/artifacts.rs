//! The committed modules: the files that the sums name, and the right one for each device.

use pow_kernels::artifacts::{self, Artifact, CUBINS, PTX};
use pow_kernels::{KernelVariant, ModelTable, launch};

const SUMS: &str = include_str!("../../artifacts/SHA256SUMS");

fn all() -> impl Iterator<Item = &'static Artifact> {
    CUBINS.iter().chain([&PTX])
}

#[test]
fn every_module_is_the_one_that_the_sums_name() {
    assert_eq!(SUMS.lines().count(), all().count());
    for artifact in all() {
        let digest = ring::digest::digest(&ring::digest::SHA256, artifact.bytes);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{hex}  {}", artifact.name);
        assert!(SUMS.lines().any(|known| known == line), "{line}");
    }
}

#[test]
fn every_module_has_the_kernels_that_are_launched_from_it() {
    let common = [
        launch::FILL,
        launch::PROBE,
        launch::CHUNKS,
        launch::PARENTS,
        launch::ROW_CHUNKS,
        launch::SELFTEST,
    ];
    for artifact in all() {
        let product = launch::gemm(artifact.variant).unwrap();
        for kernel in common.iter().chain([&product]) {
            let name = kernel.name.as_bytes();
            assert!(
                artifact.bytes.windows(name.len()).any(|window| window == name),
                "{} has no {}",
                artifact.name,
                kernel.name
            );
        }
    }
}

#[test]
fn cubins_are_elf_files_for_cuda_and_the_fallback_is_text_for_old_drivers() {
    for cubin in &CUBINS {
        assert_eq!(cubin.bytes[..4], *b"\x7fELF", "{}", cubin.name);
        // e_machine EM_CUDA, the ELF specification's number 190.
        assert_eq!(cubin.bytes[18..20], 190_u16.to_le_bytes(), "{}", cubin.name);
    }
    let text = std::str::from_utf8(PTX.bytes).unwrap();
    assert!(text.contains("\n.version 7.0\n") && text.contains("\n.target sm_75\n"));
}

#[test]
fn each_device_gets_its_module() {
    let name = |major, minor| artifacts::for_capability(major, minor).map(|found| found.name);
    assert_eq!(name(6, 1), None);
    assert_eq!(name(7, 0), Some("gpow-sm_70.cubin"));
    assert_eq!(name(7, 2), Some("gpow-sm_70.cubin"));
    assert_eq!(name(7, 5), Some("gpow-sm_75.cubin"));
    assert_eq!(name(8, 0), Some("gpow-sm_80.cubin"));
    assert_eq!(name(8, 6), Some("gpow-sm_86.cubin"));
    assert_eq!(name(8, 7), Some("gpow-sm_86.cubin"));
    assert_eq!(name(8, 9), Some("gpow-sm_89.cubin"));
    assert_eq!(name(9, 0), Some("gpow-sm_90a.cubin"));
    assert_eq!(name(9, 1), Some("gpow-sm_90.cubin"), "arch-specific code runs on 9.0 alone");
    assert_eq!(name(10, 0), Some("gpow-sm_100.cubin"));
    assert_eq!(name(10, 3), Some("gpow-sm_100.cubin"));
    assert_eq!(name(12, 1), Some("gpow-sm_120.cubin"));
    assert_eq!(name(11, 0), Some("gpow-compute_75.ptx"));
    assert_eq!(name(13, 0), Some("gpow-compute_75.ptx"));
}

/// A model's times are for the variant that its devices are given.
#[test]
fn the_model_table_names_the_variants_that_are_launched() {
    for model in ModelTable::embedded().models() {
        let [major, minor] = model.compute_capability;
        let artifact = artifacts::for_capability(major, minor).unwrap();
        assert_eq!(artifact.variant, model.variant, "{}", model.name);
        assert_ne!(artifact.variant, KernelVariant::Reference);
    }
}

/// What the table promises can be loaded: each model has a module with the kernels of its times.
#[test]
fn every_model_of_the_table_has_its_module() {
    for model in ModelTable::embedded().models() {
        let found = artifacts::with_variant(model.compute_capability, model.variant).unwrap();
        assert_eq!(found.variant, model.variant, "{}", model.name);
    }
    let name = |capability, variant| {
        artifacts::with_variant(capability, variant).map(|artifact| artifact.name)
    };
    assert_eq!(name([9, 0], KernelVariant::Mma), Some("gpow-sm_90.cubin"), "the other of the two");
    assert_eq!(name([9, 0], KernelVariant::Wgmma), Some("gpow-sm_90a.cubin"));
    assert_eq!(name([8, 0], KernelVariant::Wgmma), None);
    assert_eq!(name([7, 0], KernelVariant::Mma), None);
    assert_eq!(name([13, 0], KernelVariant::Mma), Some("gpow-compute_75.ptx"), "as text");
    assert_eq!(name([6, 1], KernelVariant::Dp4a), None);
}

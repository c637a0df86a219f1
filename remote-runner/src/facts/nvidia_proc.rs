//! What the NVIDIA kernel module says of itself in `/proc/driver/nvidia`, apart from NVML.

use std::fs;

use super::root::{self, Root};

/// The kernel module's own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KernelModule {
    /// The module's version; `None` if it is not loaded.
    pub(super) version: Option<String>,
    /// The devices it has taken.
    pub(super) gpus: Vec<ModuleGpu>,
}

/// One device; a value that the module does not know yet is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModuleGpu {
    pub(super) address: String,
    pub(super) model: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) vbios: Option<String>,
}

/// Reads the module's files.
pub(super) fn read(root: &Root) -> KernelModule {
    let version = root.read("/proc/driver/nvidia/version").ok();
    let folder = fs::read_dir(root.path("/proc/driver/nvidia/gpus"));
    let gpus = folder.into_iter().flatten().flatten().filter_map(|entry| {
        let text = root::read(&entry.path().join("information")).ok()?;
        Some(gpu(&entry.file_name().to_string_lossy(), &text))
    });
    let mut gpus: Vec<ModuleGpu> = gpus.collect();
    gpus.sort_by(|a, b| a.address.cmp(&b.address));
    KernelModule { version: version.and_then(|text| module_version(&text)), gpus }
}

/// The version in a line such as
/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024`: the
/// first word of numbers and dots alone.
fn module_version(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    line.split_ascii_whitespace().find(is_version).map(str::to_owned)
}

/// The fields of an `information` file. Unknown values are written with question marks.
fn gpu(folder: &str, text: &str) -> ModuleGpu {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.trim();
            (key.trim() == name && !value.is_empty() && !value.contains("??"))
                .then(|| value.to_owned())
        })
    };
    ModuleGpu {
        address: value("Bus Location").unwrap_or_else(|| folder.to_owned()).to_ascii_lowercase(),
        model: value("Model"),
        uuid: value("GPU UUID"),
        vbios: value("Video BIOS"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::tests::tree;
    use super::*;

    #[test]
    fn versions_of_both_kernel_modules() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 \
                      22:23:56 UTC 2024\nGCC version:  gcc version 12.3.0 (Ubuntu)\n";
        assert_eq!(module_version(closed).as_deref(), Some("550.54.15"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release \
                    Build  (dvs-builder@U16-I3-B03-4-3)  Thu Oct 10 12:29:05 UTC 2024\n";
        assert_eq!(module_version(open).as_deref(), Some("565.57.01"));
        assert_eq!(module_version("GCC version: gcc 12.3.0\n"), None);
    }

    #[test]
    fn devices_with_known_and_unknown_values() {
        let known = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\n\
                     GPU UUID: \t GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10\n\
                     Video BIOS: \t 96.00.74.00.01\nBus Type: \t PCIe\n\
                     Bus Location: \t 0000:3B:00.0\nDevice Minor: \t 0\n";
        let unknown = "Model: \t\t NVIDIA A100\n\
                       GPU UUID: \t GPU-????????-????-????-????-????????????\n\
                       Video BIOS: \t ??.??.??.??.??\n";
        let (_folder, root) = tree(&[
            ("/proc/driver/nvidia/gpus/0000:3b:00.0/information", known),
            ("/proc/driver/nvidia/gpus/0000:5e:00.0/information", unknown),
        ]);
        let module = read(&root);
        assert_eq!(module.version, None);
        assert_eq!(module.gpus[0].address, "0000:3b:00.0");
        assert_eq!(module.gpus[0].vbios.as_deref(), Some("96.00.74.00.01"));
        assert_eq!(module.gpus[1].address, "0000:5e:00.0");
        assert_eq!((&module.gpus[1].uuid, &module.gpus[1].vbios), (&None, &None));
    }
}

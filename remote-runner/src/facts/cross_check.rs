//! NVML against the kernel module's own files and the PCI bus.
//!
//! The three come from different places: a library in user space, a kernel module's `/proc` files,
//! and the kernel's own view of the bus. A host that fakes one of them, or whose update is half
//! done, contradicts itself here.

use runner_protocol::facts::{Disagreement, DriverState, Gpu, HostFacts, MAX_ENTRIES};

use super::nvidia_proc::{self, KernelModule, ModuleGpu};
use super::root::Root;

/// Where the kernel module says its version.
const MODULE: &str = "/proc/driver/nvidia/version";

/// Where the kernel module says what its devices are.
const MODULE_GPUS: &str = "/proc/driver/nvidia/gpus";

/// Where the kernel lists the PCI bus.
const PCI: &str = "/sys/bus/pci/devices";

/// Fills in where the sources disagree, and what the kernel module adds to a missing driver.
pub(crate) fn cross_check(root: &Root, facts: &mut HostFacts) {
    let module = nvidia_proc::read(root);
    if let (DriverState::NoDriver { message }, Some(version)) =
        (&mut facts.gpus.driver, &module.version)
        && message == DriverState::NO_DRIVER_MESSAGE
    {
        message.push_str(&format!(
            ": kernel module {version} is loaded, the NVML library (libnvidia-ml.so.1) is missing"
        ));
    }
    let mut found = driver(facts, &module);
    if matches!(facts.gpus.driver, DriverState::Present { .. }) {
        found.extend(devices(facts, &module));
    }
    found.truncate(MAX_ENTRIES);
    facts.disagreements = found;
}

fn disagreement(code: &str, subject: &str, nvml: &str, source: &str, other: &str) -> Disagreement {
    Disagreement {
        code: code.to_owned(),
        subject: subject.to_owned(),
        nvml: nvml.to_owned(),
        other_source: source.to_owned(),
        other: other.to_owned(),
    }
}

/// The driver's version in the library and in the kernel.
fn driver(facts: &HostFacts, module: &KernelModule) -> Vec<Disagreement> {
    match (&facts.gpus.driver, module.version.as_deref()) {
        (DriverState::Present { driver_version, .. }, Some(version))
            if driver_version != version =>
        {
            vec![disagreement("driver_version", "driver", driver_version, MODULE, version)]
        }
        (DriverState::Present { driver_version, .. }, None) => {
            vec![disagreement("driver_version", "driver", driver_version, MODULE, "")]
        }
        _ => Vec::new(),
    }
}

/// Every device in every source.
fn devices(facts: &HostFacts, module: &KernelModule) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for gpu in &facts.gpus.devices {
        // A lost device has no address to compare; its loss is reported by itself.
        let Some(address) = gpu.pci_address.as_deref() else { continue };
        if !facts.pci_gpus.iter().any(|pci| pci.address == address) {
            found.push(disagreement("gpu_only_in_nvml", address, &gpu.model, PCI, ""));
        }
        match module.gpus.iter().find(|known| known.address == address) {
            None => {
                found.push(disagreement("gpu_only_in_nvml", address, &gpu.model, MODULE_GPUS, ""))
            }
            Some(known) => found.extend(device(address, gpu, known)),
        }
    }
    let in_nvml = |address: &str| {
        facts.gpus.devices.iter().any(|gpu| gpu.pci_address.as_deref() == Some(address))
    };
    for pci in facts.pci_gpus.iter().filter(|pci| !in_nvml(&pci.address)) {
        let other = pci.kernel_driver.as_deref().unwrap_or("no kernel driver");
        found.push(disagreement("gpu_only_on_pci", &pci.address, "", PCI, other));
    }
    for known in module.gpus.iter().filter(|known| !in_nvml(&known.address)) {
        let model = known.model.as_deref().unwrap_or_default();
        found.push(disagreement("gpu_only_in_proc", &known.address, "", MODULE_GPUS, model));
    }
    found
}

/// One device in NVML and in the kernel module's files. What either does not know is no contradiction.
fn device(address: &str, gpu: &Gpu, known: &ModuleGpu) -> Vec<Disagreement> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let pairs = [
        ("gpu_model", text(&gpu.model), &known.model),
        ("gpu_uuid", text(&gpu.uuid), &known.uuid),
        ("gpu_vbios", gpu.vbios.clone(), &known.vbios),
    ];
    let differing = pairs.into_iter().filter_map(|(code, nvml, known)| {
        let (nvml, known) = (nvml?, known.as_deref()?);
        (!nvml.eq_ignore_ascii_case(known))
            .then(|| disagreement(code, address, &nvml, MODULE_GPUS, known))
    });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use runner_protocol::facts::{GpuFacts, PciGpu};

    use super::super::root::tests::tree;
    use super::*;

    const ADDRESS: &str = "0000:3b:00.0";

    fn facts(driver: DriverState) -> HostFacts {
        let gpu = Gpu {
            uuid: "GPU-1".into(),
            model: "NVIDIA H100 80GB HBM3".into(),
            vbios: Some("96.00.74.00.01".into()),
            pci_address: Some(ADDRESS.into()),
            ..Gpu::default()
        };
        let devices =
            if matches!(driver, DriverState::Present { .. }) { vec![gpu] } else { Vec::new() };
        HostFacts {
            gpus: GpuFacts { driver, devices },
            pci_gpus: vec![PciGpu { address: ADDRESS.into(), ..PciGpu::default() }],
            ..HostFacts::default()
        }
    }

    fn present() -> DriverState {
        DriverState::Present {
            driver_version: "550.54.15".into(),
            cuda_version: None,
            nvml_version: None,
        }
    }

    fn codes(files: &[(&str, &str)], mut facts: HostFacts) -> Vec<(String, String)> {
        let (_folder, root) = tree(files);
        cross_check(&root, &mut facts);
        facts.disagreements.into_iter().map(|found| (found.code, found.subject)).collect()
    }

    const VERSION: (&str, &str) =
        (MODULE, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n");
    const GPU: (&str, &str) = (
        "/proc/driver/nvidia/gpus/0000:3b:00.0/information",
        "Model: NVIDIA H100 80GB HBM3\nGPU UUID: gpu-1\nVideo BIOS: 96.00.74.00.01\n\
         Bus Location: 0000:3b:00.0\n",
    );

    #[test]
    fn three_sources_that_agree() {
        assert_eq!(codes(&[VERSION, GPU], facts(present())), []);
    }

    #[test]
    fn a_library_that_no_kernel_module_stands_behind() {
        let found = codes(&[], facts(present()));
        let expected = [("driver_version", "driver"), ("gpu_only_in_nvml", ADDRESS)];
        assert_eq!(found, expected.map(|(code, subject)| (code.to_owned(), subject.to_owned())));
    }

    #[test]
    fn a_device_that_calls_itself_otherwise() {
        let other =
            "Model: NVIDIA A100\nGPU UUID: GPU-2\nVideo BIOS: 1\nBus Location: 0000:3b:00.0\n";
        let found = codes(&[VERSION, (GPU.0, other)], facts(present()));
        let found: Vec<_> = found.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(found, ["gpu_model", "gpu_uuid", "gpu_vbios"]);
    }

    #[test]
    fn a_device_that_nvml_does_not_show() {
        let mut facts = facts(present());
        facts.gpus.devices.clear();
        let found = codes(&[VERSION, GPU], facts);
        let found: Vec<_> = found.iter().map(|(code, _)| code.as_str()).collect();
        assert_eq!(found, ["gpu_only_on_pci", "gpu_only_in_proc"]);
    }

    #[test]
    fn a_missing_library_says_that_the_kernel_module_is_there() {
        let (_folder, root) = tree(&[VERSION]);
        let mut facts = facts(DriverState::default());
        cross_check(&root, &mut facts);
        let DriverState::NoDriver { message } = facts.gpus.driver else { panic!("a driver") };
        assert!(
            message.starts_with("No NVIDIA driver found: kernel module 550.54.15"),
            "{message}"
        );
        assert_eq!(facts.disagreements, []);
    }
}

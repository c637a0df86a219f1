//! The NVIDIA driver as a whole, and where its words and the kernel's differ.

use runner_protocol::HostFacts;
use runner_protocol::facts::DriverState;

use crate::sweep::{Code, Finding};

pub(super) fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut found: Vec<Finding> = state(facts).into_iter().collect();
    found.extend(facts.disagreements.iter().map(|it| {
        let [nvml, other] = [&it.nvml, &it.other].map(|text| match text.as_str() {
            "" => "nothing",
            text => text,
        });
        let seen = format!("{}: NVML: {nvml}; {}: {other}", it.code, it.other_source);
        Finding::new(Code::SourcesDisagree, &it.subject, seen, "the same")
    }));
    found
}

fn state(facts: &HostFacts) -> Option<Finding> {
    let expected = "an NVIDIA driver that answers";
    match &facts.gpus.driver {
        DriverState::Present { .. } => None,
        // A host without GPUs needs no driver.
        DriverState::NoDriver { .. } if facts.pci_gpus.is_empty() => None,
        DriverState::NoDriver { message } => {
            let seen =
                format!("{message}, and {} NVIDIA GPUs on the PCI bus", facts.pci_gpus.len());
            Some(Finding::new(Code::DriverMissing, "driver", seen, expected))
        }
        DriverState::Failed { code, message } => {
            let kind = match code.as_str() {
                "library_mismatch" => Code::DriverLibraryMismatch,
                "stalled" => Code::DriverStalled,
                "crashed" => Code::DriverCrashed,
                _ => Code::DriverFailed,
            };
            Some(Finding::new(kind, "driver", format!("{code}: {message}"), expected))
        }
    }
}

//! The NVIDIA driver as a whole.

use runner_protocol::facts::DriverState;
use runner_protocol::{Finding, HostFacts, Severity};

use super::finding;

pub(super) fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut found: Vec<Finding> = state(facts).into_iter().collect();
    found.extend(facts.disagreements.iter().map(|it| {
        let message = format!("NVML and {} contradict each other: {}", it.other_source, it.code);
        let [nvml, other] = [&it.nvml, &it.other].map(|text| match text.as_str() {
            "" => "nothing",
            text => text,
        });
        let seen = format!("NVML: {nvml}; {}: {other}", it.other_source);
        finding(Severity::Warning, "sources_disagree", &it.subject, &message, seen, "the same")
    }));
    found
}

fn state(facts: &HostFacts) -> Option<Finding> {
    let (code, message, seen) = match &facts.gpus.driver {
        DriverState::Present { .. } => return None,
        // A host without GPUs needs no driver.
        DriverState::NoDriver { .. } if facts.pci_gpus.is_empty() => return None,
        DriverState::NoDriver { message } => {
            let count = facts.pci_gpus.len();
            ("driver_missing", format!("{message}, and {count} NVIDIA GPUs on the PCI bus"), "none")
        }
        DriverState::Failed { code, message } => {
            let finding = match code.as_str() {
                "library_mismatch" => "driver_library_mismatch",
                "stalled" => "driver_stalled",
                "crashed" => "driver_crashed",
                _ => "driver_failed",
            };
            (finding, message.clone(), code.as_str())
        }
    };
    let expected = "an NVIDIA driver that answers";
    Some(finding(Severity::Critical, code, "driver", &message, seen, expected))
}

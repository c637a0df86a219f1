//! What the fleet file claims of a host's GPUs against what was found.

use runner_protocol::HostFacts;
use runner_protocol::facts::DriverState;

use crate::host_spec::GpuClaim;
use crate::printable::printable;
use crate::reason::Reason;

/// Compares the claim with the facts. `None` when they agree or nothing is claimed.
#[must_use]
pub fn mismatch(claim: Option<&GpuClaim>, facts: &HostFacts) -> Option<(Reason, String)> {
    let claim = claim?;
    match &facts.gpus.driver {
        DriverState::Present { .. } => {}
        _ if claim.count == 0 => return None,
        DriverState::NoDriver { message } => {
            return Some((Reason::NoDriver, printable(message)));
        }
        DriverState::Failed { code, message } => {
            return Some((Reason::NoDriver, printable(&format!("{code}: {message}"))));
        }
    }
    let matching = facts.gpus.devices.iter().filter(|gpu| gpu.model.trim() == claim.model.trim());
    let matching = matching.count();
    let found = facts.gpus.devices.len();
    if matching == found && u32::try_from(found).is_ok_and(|found| found == claim.count) {
        return None;
    }
    let claimed = format!("{} x {}", claim.count, claim.model);
    Some((Reason::ClaimMismatch, format!("claimed {claimed}, found {}", gpu_summary(facts))))
}

/// The models that were found on a host, and how many of each.
#[must_use]
pub fn models_of(facts: &HostFacts) -> Vec<(&str, usize)> {
    let mut models: Vec<(&str, usize)> = Vec::new();
    for gpu in &facts.gpus.devices {
        match models.iter_mut().find(|(model, _)| *model == gpu.model) {
            Some((_, count)) => *count += 1,
            None => models.push((&gpu.model, 1)),
        }
    }
    models
}

/// The GPUs of a host in a few words: `8 x NVIDIA H100 80GB HBM3`.
#[must_use]
pub fn gpu_summary(facts: &HostFacts) -> String {
    let models = models_of(facts);
    if models.is_empty() {
        return match &facts.gpus.driver {
            DriverState::NoDriver { message } => printable(message),
            DriverState::Failed { code, .. } => format!("driver failed: {}", printable(code)),
            DriverState::Present { .. } => "no GPUs".to_owned(),
        };
    }
    let parts: Vec<String> =
        models.iter().map(|(model, count)| format!("{count} x {}", printable(model))).collect();
    parts.join(", ")
}

/// The driver's version, if there is a driver.
#[must_use]
pub fn driver_version(facts: &HostFacts) -> Option<String> {
    match &facts.gpus.driver {
        DriverState::Present { driver_version, .. } => Some(printable(driver_version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use runner_protocol::facts::{Gpu, GpuFacts};

    use super::*;

    fn facts(models: &[&str]) -> HostFacts {
        let devices =
            models.iter().map(|model| Gpu { model: (*model).to_owned(), ..Gpu::default() });
        let driver = DriverState::Present {
            driver_version: "550.54".to_owned(),
            cuda_version: None,
            nvml_version: None,
        };
        HostFacts { gpus: GpuFacts { driver, devices: devices.collect() }, ..HostFacts::default() }
    }

    fn claim(model: &str, count: u32) -> GpuClaim {
        GpuClaim { model: model.to_owned(), count }
    }

    #[test]
    fn what_is_claimed_and_found_agrees() {
        assert_eq!(mismatch(Some(&claim("A", 2)), &facts(&["A", "A"])), None);
        assert_eq!(mismatch(None, &facts(&["A"])), None);
        assert_eq!(mismatch(Some(&claim("A", 0)), &HostFacts::default()), None);
    }

    #[test]
    fn a_missing_a_surplus_and_a_foreign_gpu_are_told() {
        for models in [&["A"][..], &["A", "A", "A"], &["A", "B"], &[]] {
            let (reason, message) = mismatch(Some(&claim("A", 2)), &facts(models)).unwrap();
            assert_eq!(reason, Reason::ClaimMismatch);
            assert!(message.starts_with("claimed 2 x A, found "), "{message}");
        }
    }

    #[test]
    fn a_claim_without_a_driver_is_no_driver() {
        let (reason, message) = mismatch(Some(&claim("A", 1)), &HostFacts::default()).unwrap();
        assert_eq!((reason, message.as_str()), (Reason::NoDriver, "No NVIDIA driver found"));
    }

    #[test]
    fn models_are_counted_in_the_order_in_which_they_come() {
        assert_eq!(gpu_summary(&facts(&["B", "A", "B"])), "2 x B, 1 x A");
        assert_eq!(gpu_summary(&HostFacts::default()), "No NVIDIA driver found");
    }
}

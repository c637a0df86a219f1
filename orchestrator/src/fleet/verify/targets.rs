//! Which GPUs are challenged, and as what: pure decisions over the facts, the claim and the table.

use pow_kernels::artifacts::{self, Artifact};
use pow_kernels::{Model, ModelTable, Status};
use runner_protocol::HostFacts;
use runner_protocol::facts::{DriverState, Gpu};
use serde::Serialize;

use super::VerifyError;
use crate::host_spec::GpuClaim;
use crate::pow::{CheckRow, raw_uuid};
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner;

/// Who says which model a GPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// The fleet file.
    FleetFile,
    /// The GPU's driver, for want of a claim.
    Driver,
}

/// A GPU as its host names it. Cleaned for printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuName {
    /// Its place in the driver's order.
    pub index: u32,
    /// Its UUID.
    pub uuid: String,
    /// Its product name.
    pub name: String,
}

/// A GPU that is challenged.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Target {
    pub(in crate::fleet) gpu: GpuName,
    pub(in crate::fleet) raw_uuid: [u8; 16],
    pub(in crate::fleet) model: Model,
    pub(in crate::fleet) source: ModelSource,
    pub(in crate::fleet) kernels: &'static Artifact,
}

/// A GPU that cannot be challenged.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Unfit {
    pub(in crate::fleet) gpu: GpuName,
    pub(in crate::fleet) reason: Reason,
    pub(in crate::fleet) message: String,
    pub(in crate::fleet) hint: Option<String>,
    /// Set where this is a judgement and no accident.
    pub(in crate::fleet) failed: Option<CheckRow>,
}

/// What is to be done on a host.
#[derive(Debug, Clone, Default)]
pub(in crate::fleet) struct Plan {
    pub(in crate::fleet) targets: Vec<Target>,
    pub(in crate::fleet) unfit: Vec<Unfit>,
    /// What the host as a whole was found to be.
    pub(in crate::fleet) checks: Vec<CheckRow>,
}

/// What is wanted of a host.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) struct Wanted<'w> {
    pub(in crate::fleet) claim: Option<&'w GpuClaim>,
    /// UUIDs; none are all.
    pub(in crate::fleet) gpus: &'w [String],
    pub(in crate::fleet) table: &'w ModelTable,
    /// Where the table is from, for messages.
    pub(in crate::fleet) table_name: &'w str,
}

/// Chooses the GPUs and what each is taken for.
pub(in crate::fleet) fn plan(facts: &HostFacts, wanted: &Wanted<'_>) -> Result<Plan, VerifyError> {
    match &facts.gpus.driver {
        DriverState::Present { .. } => {}
        DriverState::NoDriver { message } => return Err(no_driver(printable(message))),
        DriverState::Failed { code, message } => {
            let words = format!("the NVIDIA driver failed: {code}: {message}");
            return Err(no_driver(printable(&words)));
        }
    }
    let chosen = choose(facts, wanted.gpus)?;
    let mut plan = Plan { checks: claim_check(&chosen, wanted), ..Plan::default() };
    for gpu in &chosen {
        let twice = chosen.iter().filter(|other| other.uuid == gpu.uuid).count() > 1;
        match fit(gpu, twice, wanted) {
            Ok(target) => plan.targets.push(target),
            Err(unfit) => plan.unfit.push(*unfit),
        }
    }
    Ok(plan)
}

fn no_driver(message: String) -> VerifyError {
    runner::Error::Failed { code: "no_driver".to_owned(), message }.into()
}

fn choose<'f>(facts: &'f HostFacts, wanted: &[String]) -> Result<Vec<&'f Gpu>, VerifyError> {
    let all = &facts.gpus.devices;
    let known = || all.iter().map(|gpu| printable(&gpu.uuid)).collect::<Vec<_>>();
    if wanted.is_empty() {
        if all.is_empty() {
            return Err(VerifyError::NoGpus);
        }
        return Ok(all.iter().collect());
    }
    if let Some(missing) = wanted.iter().find(|uuid| all.iter().all(|gpu| gpu.uuid != **uuid)) {
        return Err(VerifyError::UnknownGpu { uuid: missing.clone(), known: known() });
    }
    Ok(all.iter().filter(|gpu| wanted.contains(&gpu.uuid)).collect())
}

/// Whether the GPUs are as many and as named as the fleet file claims. Nothing where it claims
/// nothing, or where only some were asked for.
fn claim_check(chosen: &[&Gpu], wanted: &Wanted<'_>) -> Vec<CheckRow> {
    let Some(claim) = wanted.claim.filter(|_| wanted.gpus.is_empty()) else { return Vec::new() };
    let named = chosen.iter().filter(|gpu| gpu.model.trim() == claim.model.trim()).count();
    let agrees = named == chosen.len() && u32::try_from(named).is_ok_and(|n| n == claim.count);
    let found = match named == chosen.len() {
        true => format!("{named}"),
        false => format!("{} GPUs, {named} of this name", chosen.len()),
    };
    vec![CheckRow {
        check: "claim",
        status: if agrees { Status::Passed } else { Status::Failed },
        detail: format!(
            "the fleet file claims {} x {}, the driver shows {found}",
            claim.count,
            printable(&claim.model)
        ),
    }]
}

fn fit(gpu: &Gpu, twice: bool, wanted: &Wanted<'_>) -> Result<Target, Box<Unfit>> {
    let name =
        GpuName { index: gpu.index, uuid: printable(&gpu.uuid), name: printable(&gpu.model) };
    let unfit = |reason, message: String, hint: Option<String>| {
        Box::new(Unfit { gpu: name.clone(), reason, message, hint, failed: None })
    };
    if let Some(problem) = &gpu.problem {
        let message = format!("the GPU does not answer: {}", printable(problem));
        return Err(unfit(Reason::GpuLost, message, hint_of("gpu_lost")));
    }
    let Some(raw_uuid) = raw_uuid(&gpu.uuid) else {
        let message = "the driver does not say its UUID, so nothing can be bound to it".to_owned();
        return Err(unfit(Reason::GpuNotFound, message, None));
    };
    if twice {
        let detail = "two GPUs of this host have this UUID".to_owned();
        let failed = CheckRow { check: "identity", status: Status::Failed, detail: detail.clone() };
        let unfit = unfit(Reason::DuplicateGpu, detail, None);
        return Err(Box::new(Unfit { failed: Some(failed), ..*unfit }));
    }
    let (claimed, source) = match wanted.claim {
        Some(claim) => (claim.model.as_str(), ModelSource::FleetFile),
        None => (gpu.model.as_str(), ModelSource::Driver),
    };
    let Some(model) = wanted.table.by_driver_name(claimed.trim()) else {
        let says = match source {
            ModelSource::FleetFile => "the fleet file claims",
            ModelSource::Driver => "the driver says",
        };
        let message = format!(
            "{says} {:?}, which is not in the model table {}",
            printable(claimed),
            wanted.table_name
        );
        let hint = format!(
            "measure a card of this model that you trust with `orchestrator calibrate HOST --gpu {} --out FILE`, \
             and give the file with --models FILE",
            name.uuid
        );
        return Err(unfit(Reason::UnknownModel, message, Some(hint)));
    };
    let Some(kernels) = artifacts::with_variant(model.compute_capability, model.variant) else {
        let [major, minor] = model.compute_capability;
        let message = format!("there are no such kernels for compute capability {major}.{minor}");
        return Err(unfit(Reason::NoKernels, message, None));
    };
    Ok(Target { gpu: name, raw_uuid, model: model.clone(), source, kernels })
}

fn hint_of(code: &str) -> Option<String> {
    runner::Error::Failed { code: code.to_owned(), message: String::new() }.hint()
}

#[cfg(test)]
mod tests {
    use runner_protocol::facts::GpuFacts;

    use super::*;

    const H100: &str = "NVIDIA H100 80GB HBM3";

    fn uuid(number: u32) -> String {
        format!("GPU-{number:08x}-52a4-4a44-9a39-1b1d3b7c0f10")
    }

    fn facts(names: &[&str]) -> HostFacts {
        let gpu = |(index, name): (usize, &&str)| Gpu {
            index: u32::try_from(index).unwrap(),
            uuid: uuid(u32::try_from(index).unwrap()),
            model: (*name).to_owned(),
            ..Gpu::default()
        };
        let driver = DriverState::Present {
            driver_version: "550.54".to_owned(),
            cuda_version: None,
            nvml_version: None,
        };
        let devices = names.iter().enumerate().map(gpu).collect();
        HostFacts { gpus: GpuFacts { driver, devices }, ..HostFacts::default() }
    }

    fn of(facts: &HostFacts, claim: Option<&GpuClaim>, gpus: &[String]) -> Result<Plan, Reason> {
        let table = ModelTable::embedded();
        plan(facts, &Wanted { claim, gpus, table, table_name: "the built-in one" })
            .map_err(|error| error.reason())
    }

    fn claim(model: &str, count: u32) -> GpuClaim {
        GpuClaim { model: model.to_owned(), count }
    }

    #[test]
    fn all_gpus_are_challenged_as_the_driver_names_them_or_as_they_are_claimed() {
        let found = of(&facts(&[H100, "NVIDIA L40S"]), None, &[]).unwrap();
        let models: Vec<_> = found.targets.iter().map(|target| target.model.id).collect();
        assert_eq!((models, found.checks.len()), (vec![4, 9], 0));
        assert!(found.targets.iter().all(|target| target.source == ModelSource::Driver));
        assert_eq!(found.targets[0].kernels.name, "gpow-sm_90a.cubin");
        let found = of(&facts(&[H100, H100]), Some(&claim(H100, 2)), &[]).unwrap();
        assert!(found.targets.iter().all(|target| target.source == ModelSource::FleetFile));
        assert_eq!(found.checks[0].status, Status::Passed);
    }

    #[test]
    fn fewer_more_and_other_gpus_than_claimed_are_a_failed_check() {
        for names in [&[H100][..], &[H100; 3], &[H100, "NVIDIA GeForce GT 1030"]] {
            let found = of(&facts(names), Some(&claim(H100, 2)), &[]).unwrap();
            assert_eq!(found.checks[0].status, Status::Failed, "{}", found.checks[0].detail);
            assert_eq!(found.targets.len(), names.len(), "each is challenged as what is claimed");
        }
        let one = of(&facts(&[H100; 2]), Some(&claim(H100, 8)), &[uuid(1)]).unwrap();
        assert_eq!((one.targets.len(), one.checks.len()), (1, 0), "only one was asked for");
        assert_eq!(one.targets[0].gpu.uuid, uuid(1));
    }

    #[test]
    fn what_cannot_be_challenged_says_why() {
        let found = of(&facts(&["NVIDIA A10", H100]), None, &[]).unwrap();
        assert_eq!((found.targets.len(), found.unfit[0].reason), (1, Reason::UnknownModel));
        let hint = found.unfit[0].hint.as_ref().unwrap();
        assert!(hint.contains("calibrate") && hint.contains(&uuid(0)), "{hint}");
        assert!(found.unfit[0].message.contains("the built-in one"));
        let mut broken = facts(&[H100, H100, H100, H100]);
        broken.gpus.devices[1].problem = Some("GPU is lost".to_owned());
        broken.gpus.devices[2].uuid = "none".to_owned();
        let reasons: Vec<_> =
            of(&broken, None, &[]).unwrap().unfit.iter().map(|unfit| unfit.reason).collect();
        assert_eq!(reasons, [Reason::GpuLost, Reason::GpuNotFound]);
    }

    #[test]
    fn two_gpus_of_one_uuid_fail_both() {
        let mut twins = facts(&[H100; 3]);
        twins.gpus.devices[2].uuid = uuid(0);
        let found = of(&twins, None, &[]).unwrap();
        assert_eq!((found.targets.len(), found.unfit.len()), (1, 2));
        for unfit in &found.unfit {
            assert_eq!(unfit.failed.as_ref().unwrap().check, "identity");
        }
    }

    #[test]
    fn a_host_without_what_is_asked_is_an_error() {
        assert_eq!(of(&HostFacts::default(), None, &[]).unwrap_err(), Reason::NoDriver);
        assert_eq!(of(&facts(&[]), None, &[]).unwrap_err(), Reason::GpuNotFound);
        assert_eq!(of(&facts(&[H100]), None, &[uuid(7)]).unwrap_err(), Reason::GpuNotFound);
    }
}

//! Whether the host has the GPUs of its passport.

use runner_protocol::HostFacts;
use runner_protocol::facts::DriverState;

use crate::sweep::{Code, Finding, Passport, PassportGpu};

pub(super) fn findings(facts: &HostFacts, passport: Option<&Passport>) -> Vec<Finding> {
    // Without a driver that answers the set is not known, which is a finding of its own.
    let known = matches!(facts.gpus.driver, DriverState::Present { .. });
    let Some(passport) = passport.filter(|_| known) else { return Vec::new() };
    let devices = &facts.gpus.devices;
    // A device that does not even say its UUID is told as silent.
    let silent = devices.iter().filter(|gpu| gpu.uuid.is_empty()).count();
    let is_here = |uuid: &str| devices.iter().any(|gpu| gpu.uuid == uuid);
    let gone = passport.gpus.iter().filter(|gpu| !is_here(&gpu.uuid));
    let new = devices.iter().filter(|gpu| {
        !gpu.uuid.is_empty() && !passport.gpus.iter().any(|known| known.uuid == gpu.uuid)
    });
    let mut new: Vec<_> = new.collect();
    let mut found = Vec::new();
    let mut silent_left = silent;
    for lost in gone {
        let same_place = new
            .iter()
            .position(|gpu| lost.pci_address.is_some() && gpu.pci_address == lost.pci_address);
        if let Some(place) = same_place {
            let gpu = new.remove(place);
            let at = lost.pci_address.as_deref().unwrap_or_default();
            let seen = format!("{} {} at {at}", gpu.model, gpu.uuid);
            found.push(Finding::new(Code::GpuSwapped, &lost.uuid, seen, name(lost)));
        } else if silent_left > 0 {
            // One of the devices without a name is this one, most likely.
            silent_left -= 1;
        } else {
            let seen = format!("{} GPUs, not this one", devices.len());
            found.push(Finding::new(Code::GpuMissing, &lost.uuid, seen, name(lost)));
        }
    }
    found.extend(new.into_iter().map(|gpu| {
        let expected = format!("the {} GPUs of the passport", passport.gpus.len());
        Finding::new(Code::GpuNew, &gpu.uuid, &gpu.model, expected)
    }));
    found
}

fn name(gpu: &PassportGpu) -> String {
    let place = gpu.pci_address.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
    format!("{} {}{place}", gpu.model, gpu.uuid)
}

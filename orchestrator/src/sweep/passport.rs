//! The passport of a host: what does not change by itself, from its last good facts.

use runner_protocol::HostFacts;
use runner_protocol::facts::DriverState;
use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// What a host is known by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passport {
    /// Its GPUs.
    pub gpus: Vec<PassportGpu>,
    /// The driver's version, if there is a driver.
    pub driver: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Main memory, in bytes.
    pub memory_bytes: u64,
}

/// One GPU of a passport.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassportGpu {
    /// Its UUID.
    pub uuid: String,
    /// Its model.
    pub model: String,
    /// Where it sits.
    pub pci_address: Option<String>,
}

impl Passport {
    /// The passport that these facts are good for; `None` while the driver does not work, since the
    /// GPUs are then not known.
    #[must_use]
    pub fn of(facts: &HostFacts) -> Option<Self> {
        let driver = match &facts.gpus.driver {
            DriverState::Failed { .. } => return None,
            DriverState::NoDriver { .. } if !facts.pci_gpus.is_empty() => return None,
            DriverState::NoDriver { .. } => None,
            DriverState::Present { driver_version, .. } => Some(printable(driver_version)),
        };
        let gpu = |gpu: &runner_protocol::facts::Gpu| PassportGpu {
            uuid: printable(&gpu.uuid),
            model: printable(&gpu.model),
            pci_address: gpu.pci_address.as_deref().map(printable),
        };
        // A device that is lost has no UUID, and its passport is not this one.
        if facts.gpus.devices.iter().any(|gpu| gpu.uuid.is_empty()) {
            return None;
        }
        Some(Self {
            gpus: facts.gpus.devices.iter().map(gpu).collect(),
            driver,
            kernel: printable(&facts.kernel),
            machine_id: facts.machine_id.as_deref().map(printable),
            memory_bytes: facts.memory.total_bytes,
        })
    }

    /// Whether both have the same GPUs, in whatever order.
    #[must_use]
    pub fn has_gpus_of(&self, other: &Self) -> bool {
        let ids = |passport: &Self| {
            let mut ids: Vec<String> = passport.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
            ids.sort_unstable();
            ids
        };
        ids(self) == ids(other)
    }
}

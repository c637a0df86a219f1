//! Which GPUs of a host, and which host of the fleet.

use std::fmt;

use runner_protocol::HostFacts;

use super::error::ContainerError;
use crate::host_spec::HostSpec;
use crate::host_state::HostState;
use crate::ids::HostName;
use crate::printable::printable;
use crate::store::{GpuRequest, HostRecord, Lease};

/// Which GPUs a container shall have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wish {
    /// None.
    #[default]
    Nothing,
    /// So many, of this model if one is named.
    Count {
        /// How many.
        count: usize,
        /// The product name, as NVML says it.
        model: Option<String>,
    },
    /// These, by UUID.
    These(Vec<String>),
}

/// Why a host was not chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDoesNotFit {
    /// The host.
    pub host: HostName,
    /// Why.
    pub why: String,
}

impl fmt::Display for HostDoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.why)
    }
}

impl Wish {
    /// What this comes to on a host, by what was last found there.
    ///
    /// # Errors
    /// The host has not these GPUs, or not so many.
    pub fn on(&self, host: &HostName, facts: Option<&HostFacts>) -> Result<GpuRequest, ContainerError> {
        let devices = facts.map(|facts| facts.gpus.devices.as_slice()).unwrap_or_default();
        match self {
            Self::Nothing => Ok(GpuRequest::none()),
            Self::These(gpus) => {
                let missing = gpus.iter().find(|gpu| !devices.iter().any(|it| it.uuid == **gpu));
                match missing {
                    None => Ok(GpuRequest::These(gpus.clone())),
                    Some(gpu) => {
                        Err(ContainerError::Gpus(format!("{host} has no GPU {}", printable(gpu))))
                    }
                }
            }
            Self::Count { count, model } => {
                let fits = |it: &&runner_protocol::facts::Gpu| {
                    model.as_ref().is_none_or(|model| it.model.trim() == model.trim())
                };
                let of: Vec<String> =
                    devices.iter().filter(fits).map(|it| it.uuid.clone()).collect();
                if of.len() < *count {
                    let kind = model.as_ref().map(|model| format!(" of model {model}"));
                    let kind = kind.unwrap_or_default();
                    return Err(ContainerError::Gpus(format!(
                        "{host} has {} GPUs{kind}, and {count} are wanted",
                        of.len()
                    )));
                }
                Ok(GpuRequest::Any { count: *count, of })
            }
        }
    }
}

/// The hosts that may take the wish, the least loaded first, and why the others may not. What is
/// known is from the store; the lease decides.
#[must_use]
pub fn rank(
    wish: &Wish,
    hosts: &[(HostRecord, Option<HostFacts>)],
    leases: &[Lease],
) -> (Vec<HostSpec>, Vec<HostDoesNotFit>) {
    let mut fitting = Vec::new();
    let mut others = Vec::new();
    for (record, facts) in hosts {
        let host = &record.spec.name;
        let of_host = || leases.iter().filter(|lease| lease.host == *host);
        let held: Vec<&String> = of_host().flat_map(|lease| &lease.gpus).collect();
        let why = match (record.state, wish.on(host, facts.as_ref())) {
            (HostState::Ready | HostState::Leased, Ok(request)) => match request {
                GpuRequest::Any { count, of } => {
                    let free = of.iter().filter(|gpu| !held.contains(gpu)).count();
                    (free < count).then(|| format!("{free} of {} GPUs are free", of.len()))
                }
                GpuRequest::These(gpus) => {
                    let taken = gpus.iter().find(|gpu| held.contains(gpu));
                    taken.map(|gpu| format!("{gpu} is held"))
                }
            },
            (HostState::Ready | HostState::Leased, Err(error)) => Some(error.to_string()),
            (state, _) => {
                let note = record.drain_note.as_ref().or(record.last_message.as_ref());
                let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
                Some(format!("it is {state}{note}"))
            }
        };
        match why {
            Some(why) => others.push(HostDoesNotFit { host: host.clone(), why }),
            None => {
                let load = facts.as_ref().map_or(0, |facts| facts.load.one_milli);
                fitting.push((of_host().count(), held.len(), load, record.spec.clone()));
            }
        }
    }
    fitting.sort_by(|a, b| {
        (a.0, a.1, a.2, &a.3.name).cmp(&(b.0, b.1, b.2, &b.3.name))
    });
    (fitting.into_iter().map(|(.., spec)| spec).collect(), others)
}

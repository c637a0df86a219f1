//! How a container is named on the command line, and which one that is.

use super::error::ContainerError;
use crate::docker::{ContainerSummary, labels};
use crate::ids::{HostName, InvalidHostName};
use crate::store::{LeaseKind, Store};

/// How a container is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST/NAME`, `HOST/ID`: by its name, or the beginning of the engine's id or of ours.
    OnHost {
        /// The host.
        host: HostName,
        /// The name or the beginning of an id.
        what: String,
    },
    /// The beginning of our own id.
    Own(String),
}

/// Which container an address is.
#[derive(Debug, Clone)]
pub struct Found {
    /// The container.
    pub container: ContainerSummary,
    /// Our id of it.
    pub id: String,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// The part before the slash is no name of a host.
    pub fn parse(text: &str) -> Result<Self, InvalidHostName> {
        match text.split_once('/') {
            Some((host, what)) => {
                Ok(Self::OnHost { host: HostName::new(host)?, what: what.to_owned() })
            }
            None => Ok(Self::Own(text.to_owned())),
        }
    }

    /// The host and what to look for there. For our own ids the store knows the host.
    ///
    /// # Errors
    /// The id is not one of ours, or stands for several.
    pub async fn place(&self, store: &Store) -> Result<(HostName, String), ContainerError> {
        let prefix = match self {
            Self::OnHost { host, what } => return Ok((host.clone(), what.clone())),
            Self::Own(prefix) => prefix,
        };
        let mut leases = store.leases_by_prefix(prefix, 8).await?;
        leases.retain(|lease| lease.kind == LeaseKind::Container);
        match leases.as_slice() {
            [lease] => Ok((lease.host.clone(), lease.id.clone())),
            [] => Err(ContainerError::NotFound { what: prefix.clone(), host: None }),
            several => Err(ContainerError::Ambiguous {
                what: prefix.clone(),
                ids: several.iter().map(|lease| short(&lease.id)).collect(),
            }),
        }
    }
}

/// The one of `containers` that `what` names: by name, else by the beginning of an id.
pub(super) fn find(
    containers: Vec<ContainerSummary>,
    what: &str,
    host: &HostName,
) -> Result<Found, ContainerError> {
    let id = |container: &ContainerSummary| {
        container.labels.get(labels::LEASE).cloned().unwrap_or_default()
    };
    let found = |container: ContainerSummary| Found { id: id(&container), container };
    let lower = what.to_ascii_lowercase();
    let begins = |container: &ContainerSummary| {
        !what.is_empty() && (container.id.starts_with(&lower) || id(container).starts_with(&lower))
    };
    let mut named = containers.iter().filter(|container| container.name() == what).cloned();
    if let Some(container) = named.next() {
        return Ok(found(container));
    }
    let mut begun: Vec<ContainerSummary> = containers.into_iter().filter(begins).collect();
    match (begun.pop(), begun.is_empty()) {
        (Some(container), true) => Ok(found(container)),
        (None, _) => Err(ContainerError::NotFound { what: what.to_owned(), host: Some(host.clone()) }),
        (Some(last), false) => Err(ContainerError::Ambiguous {
            what: what.to_owned(),
            ids: begun.iter().chain([&last]).map(|container| short(&container.id)).collect(),
        }),
    }
}

/// The beginning of an id, as people see it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, lease: &str, name: &str) -> ContainerSummary {
        ContainerSummary {
            id: id.to_owned(),
            names: vec![format!("/{name}")],
            labels: [(labels::LEASE.to_owned(), lease.to_owned())].into(),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn a_container_is_found_by_name_and_by_the_beginning_of_either_id() {
        let host = HostName::new("h").unwrap();
        let all = || {
            vec![container("aa11", "ff01", "train"), container("aa22", "ff02", "aa1"), container("bb", "ee", "x")]
        };
        let find = |what: &str| super::find(all(), what, &host);
        for (what, id) in [("train", "aa11"), ("aa2", "aa22"), ("FF01", "aa11"), ("b", "bb"), ("e", "bb")] {
            assert_eq!(find(what).unwrap().container.id, id, "{what}");
        }
        // A name goes before the beginning of an id.
        assert_eq!(find("aa1").unwrap().container.id, "aa22");
        assert!(matches!(find("aa"), Err(ContainerError::Ambiguous { ids, .. }) if ids.len() == 2));
        assert!(matches!(find("cc"), Err(ContainerError::NotFound { .. })));
        assert!(matches!(find(""), Err(ContainerError::NotFound { .. })));
        assert_eq!(Address::parse("0a1b").unwrap(), Address::Own("0a1b".to_owned()));
        assert!(Address::parse("no host/x").is_err());
    }
}

//! What is needed of a runtime, and what to say when it is not there.

use std::fmt;

use subxt::Metadata;

/// The pallet that subnets live in.
pub(super) const SUBTENSOR: &str = "SubtensorModule";

/// Storage that the reads of this folder name.
pub(super) const STORAGE: [&str; 12] = [
    "NetworksAdded",
    "SubnetworkN",
    "Tempo",
    "ServingRateLimit",
    "Uids",
    "Keys",
    "Axons",
    "NeuronCertificates",
    "ValidatorPermit",
    "Active",
    "LastUpdate",
    "TotalHotkeyAlpha",
];

/// The calls that are ever made.
pub(super) const CALLS: [&str; 2] = ["serve_axon", "serve_axon_tls"];

/// The runtime API that gives the whole metagraph.
pub(super) const METAGRAPH_API: (&str, &str) = ("SubnetInfoRuntimeApi", "get_metagraph");

/// The older one, which gives the same in another form.
pub(super) const NEURONS_API: (&str, &str) = ("NeuronInfoRuntimeApi", "get_neurons_lite");

/// An item that the metadata does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct MissingItem {
    /// The pallet, or the trait of a runtime API.
    pub pallet: String,
    /// What kind of item: `storage`, `call`, `runtime API`.
    pub kind: &'static str,
    /// The item.
    pub item: String,
    /// The runtime's version.
    pub spec_version: u32,
}

impl fmt::Display for MissingItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pallet, kind, item, spec_version } = self;
        write!(f, "the chain's runtime {spec_version} has no {kind} {pallet}.{item}")
    }
}

/// Everything that this release may need and the metadata does not have. The runtime APIs are not
/// among it: without them storage is read.
#[must_use]
pub fn missing_items(metadata: &Metadata, spec_version: u32) -> Vec<MissingItem> {
    let pallet = metadata.pallet_by_name(SUBTENSOR);
    let storage = pallet.and_then(|pallet| pallet.storage());
    let has_storage =
        |item: &&str| storage.is_some_and(|storage| storage.entry_by_name(item).is_some());
    let has_call =
        |item: &&str| pallet.is_some_and(|pallet| pallet.call_variant_by_name(item).is_some());
    let missing = |kind| {
        move |item: &str| MissingItem {
            pallet: SUBTENSOR.to_owned(),
            kind,
            item: item.to_owned(),
            spec_version,
        }
    };
    let storage = STORAGE.into_iter().filter(|item| !has_storage(item)).map(missing("storage"));
    let calls = CALLS.into_iter().filter(|item| !has_call(item)).map(missing("call"));
    storage.chain(calls).collect()
}

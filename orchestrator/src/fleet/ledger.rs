//! The identity ledger in words: which GPUs a host shows, and what it means that another does too.

use pow_kernels::Status;
use runner_protocol::HostFacts;

use crate::pow::{CheckRow, raw_uuid};
use crate::store::Duplicate;

/// The UUIDs that a host shows, as far as they are UUIDs: what else it says is no identity.
#[must_use]
pub fn shown_uuids(facts: &HostFacts) -> Vec<String> {
    let all = facts.gpus.devices.iter().map(|gpu| gpu.uuid.clone());
    all.filter(|uuid| raw_uuid(uuid).is_some()).collect()
}

/// The check `identity` of a GPU.
#[must_use]
pub fn check(duplicate: Option<&Duplicate>) -> CheckRow {
    let (status, detail) = match duplicate {
        None => (Status::Passed, "no other host shows this GPU".to_owned()),
        Some(duplicate) => (Status::Failed, words(duplicate)),
    };
    CheckRow { check: "identity", status, detail }
}

/// Where a GPU is shown besides here, and since when.
#[must_use]
pub fn words(duplicate: &Duplicate) -> String {
    let proven = match duplicate.other_proven_ms {
        Some(at) => format!("proven there {}", utc(at)),
        None => "never proven there".to_owned(),
    };
    format!(
        "{} is shown by {} too: first {}, last {}, {proven}",
        duplicate.uuid,
        duplicate.other_host,
        utc(duplicate.other_first_seen_ms),
        utc(duplicate.other_last_seen_ms),
    )
}

fn utc(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(
        |_| "at an impossible time".to_owned(),
        |at| at.strftime("%F %T UTC").to_string(),
    )
}

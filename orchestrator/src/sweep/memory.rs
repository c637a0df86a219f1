//! What the sweeps remember of a host from one to the next.

use serde::{Deserialize, Serialize};

use super::Passport;

/// For how long corrected errors are counted before the mark moves on, in milliseconds: a day, the
/// unit of the threshold.
const ECC_MARK_MS: i64 = 86_400_000;

/// What is remembered of a host: small, one document for each, rewritten by each sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostMemory {
    /// What it looked like when it last answered.
    pub seen: Option<Passport>,
    /// The boot id when it last answered.
    pub boot_id: Option<String>,
    /// Sweeps in a row that found nothing wrong.
    pub well_in_row: u32,
    /// When its state last changed between good and bad, oldest first, milliseconds.
    pub changes_ms: Vec<i64>,
    /// Where the count of each GPU's corrected errors started.
    pub ecc: Vec<EccMark>,
    /// What was tried to mend it, oldest first.
    pub repairs: Vec<RepairMark>,
}

/// The corrected errors of one GPU at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EccMark {
    /// The GPU.
    pub uuid: String,
    /// When, milliseconds.
    pub at_ms: i64,
    /// Corrected errors in its life by then.
    pub corrected: u64,
}

/// A way to mend a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// The runner is uploaded again.
    UploadRunner,
    /// The container runtime is restarted.
    RestartContainerRuntime,
    /// Persistence mode is switched on.
    EnablePersistence,
    /// Containers and leases that are over are ended.
    EndContainers,
    /// The lines and sessions of grants that are over are taken away.
    EndGrants,
}

impl Repair {
    /// Whether it is everyday work and no mending of a fault: then only the attempts that fail are
    /// counted.
    #[must_use]
    pub fn is_routine(self) -> bool {
        matches!(self, Self::EndContainers | Self::EndGrants)
    }

    /// The word in JSON and in the audit chain.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadRunner => "upload_runner",
            Self::RestartContainerRuntime => "restart_container_runtime",
            Self::EnablePersistence => "enable_persistence",
            Self::EndContainers => "end_containers",
            Self::EndGrants => "end_grants",
        }
    }
}

/// A repair that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairMark {
    /// When, milliseconds.
    pub at_ms: i64,
    /// What.
    pub repair: Repair,
}

impl HostMemory {
    /// Whether another repair of this kind is within the limit.
    #[must_use]
    pub fn may_repair(&self, repair: Repair, now_ms: i64, window_ms: i64, attempts: u32) -> bool {
        let recent = self
            .repairs
            .iter()
            .filter(|mark| mark.repair == repair && mark.at_ms > now_ms.saturating_sub(window_ms));
        recent.count() < usize::try_from(attempts).unwrap_or(usize::MAX)
    }

    /// Notes a repair, and forgets those that no limit counts any more.
    pub fn note_repair(&mut self, repair: Repair, now_ms: i64, window_ms: i64) {
        self.repairs.retain(|mark| mark.at_ms > now_ms.saturating_sub(window_ms));
        self.repairs.push(RepairMark { at_ms: now_ms, repair });
    }

    /// Moves the marks of corrected errors on: a day has passed, or the device or its count is
    /// another one.
    pub fn note_ecc(&mut self, now_ms: i64, counts: &[(String, u64)]) {
        let old = std::mem::take(&mut self.ecc);
        self.ecc = counts
            .iter()
            .map(|(uuid, corrected)| {
                let kept = old.iter().find(|mark| {
                    mark.uuid == *uuid
                        && mark.corrected <= *corrected
                        && now_ms.saturating_sub(mark.at_ms) < ECC_MARK_MS
                });
                kept.cloned().unwrap_or_else(|| EccMark {
                    uuid: uuid.clone(),
                    at_ms: now_ms,
                    corrected: *corrected,
                })
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_are_limited_by_kind_and_window() {
        let mut memory = HostMemory::default();
        for at in [0, 10, 20] {
            assert!(memory.may_repair(Repair::UploadRunner, at, 100, 3));
            memory.note_repair(Repair::UploadRunner, at, 100);
        }
        assert!(!memory.may_repair(Repair::UploadRunner, 30, 100, 3));
        assert!(memory.may_repair(Repair::EnablePersistence, 30, 100, 3));
        assert!(!memory.may_repair(Repair::EnablePersistence, 30, 100, 0));
        assert!(memory.may_repair(Repair::UploadRunner, 100, 100, 3), "the first is over");
        memory.note_repair(Repair::UploadRunner, 115, 100);
        assert_eq!(memory.repairs.len(), 2);
    }

    #[test]
    fn a_mark_of_errors_stays_for_a_day_and_starts_anew_for_another_count() {
        let mut memory = HostMemory::default();
        let count = |count| vec![("GPU-1".to_owned(), count)];
        memory.note_ecc(0, &count(5));
        memory.note_ecc(ECC_MARK_MS - 1, &count(50));
        assert_eq!((memory.ecc[0].at_ms, memory.ecc[0].corrected), (0, 5));
        memory.note_ecc(ECC_MARK_MS, &count(60));
        assert_eq!((memory.ecc[0].at_ms, memory.ecc[0].corrected), (ECC_MARK_MS, 60));
        memory.note_ecc(ECC_MARK_MS + 1, &count(2));
        assert_eq!(memory.ecc[0].corrected, 2, "a count that went back is another count");
        memory.note_ecc(ECC_MARK_MS + 2, &[]);
        assert_eq!(memory.ecc, []);
    }
}

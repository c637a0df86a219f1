//! A GPU that somebody holds is never filled: a verification takes a lease of what it challenges, and
//! leaves out what others hold.

use std::time::Duration;

use super::VerifyError;
use super::targets::{Plan, Unfit};
use crate::fleet::link::Fleet;
use crate::ids::HostName;
use crate::printable::printable;
use crate::reason::Reason;
use crate::store::{GpuRequest, HeldGpu, LeaseError, LeaseKind, NewLease, now_ms};

/// How long the lease outlives the hold, if nobody comes to release it: the phases' own deadlines end a
/// verification before.
const LEASE: Duration = Duration::from_secs(30 * 60);

/// Takes a lease of the plan's targets. Those that others hold are unfit from then on. Returns the
/// lease's id; none where nothing is left, or where the host is not one of ours yet, so that nobody can
/// hold anything of it.
pub(super) async fn take(
    fleet: &Fleet,
    host: &HostName,
    plan: &mut Plan,
    hold: Duration,
) -> Result<Option<String>, VerifyError> {
    let lasts = i64::try_from(LEASE.saturating_add(hold).as_millis()).unwrap_or(i64::MAX);
    // Each turn but the last takes at least one target out.
    while !plan.targets.is_empty() {
        let gpus = plan.targets.iter().map(|target| target.gpu.uuid.clone()).collect();
        let wanted = NewLease {
            host: host.clone(),
            kind: LeaseKind::Verify,
            gpus: GpuRequest::These(gpus),
            expires_ms: Some(now_ms().saturating_add(lasts)),
        };
        let held = match fleet.store.acquire_lease(&fleet.actor, &wanted).await {
            Ok(lease) => return Ok(Some(lease.id)),
            Err(LeaseError::UnknownHost(_)) => return Ok(None),
            Err(LeaseError::Held(held)) => held,
            Err(error) => return Err(VerifyError::Lease(error)),
        };
        let before = plan.targets.len();
        leave_out(plan, &held);
        if plan.targets.len() == before {
            return Err(VerifyError::Lease(LeaseError::Held(held)));
        }
    }
    Ok(None)
}

fn leave_out(plan: &mut Plan, held: &[HeldGpu]) {
    let holder = |uuid: &str| held.iter().find(|held| held.gpu == uuid);
    for target in &plan.targets {
        let Some(held) = holder(&target.gpu.uuid) else { continue };
        plan.unfit.push(Unfit {
            gpu: target.gpu.clone(),
            reason: Reason::Lease,
            message: format!(
                "leased: {} holds it ({}), and nothing was done on it",
                printable(&held.actor),
                held.kind.name()
            ),
            hint: Some("verify it when the lease has ended, or drain the host".to_owned()),
            failed: None,
        });
    }
    plan.targets.retain(|target| holder(&target.gpu.uuid).is_none());
}

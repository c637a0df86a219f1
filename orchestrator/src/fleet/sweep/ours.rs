//! What is ours on a host and should not be there any more: containers, leases and grants. The facts
//! of the look tell of it, so that a host where all is as it should be costs no further command; where
//! something seems wrong, the database is asked again, since others may have been at work meanwhile.

use std::collections::HashSet;

use runner_protocol::{FactsQuery, HostFacts};
use tokio::time::timeout_at;

use super::host::Visit;
use crate::error_chain::causes;
use crate::fleet::containers::{self, HostEngine};
use crate::fleet::grants::{self, known};
use crate::host_spec::HostSpec;
use crate::printable::printable;
use crate::store::{Error, GrantRow, HostKnowledge, now_ms};
use crate::sweep::{
    Code, Finding, Grants, KnownGrant, Leases, Repair, container_findings, grant_findings,
};

/// Lines of unknown grants that the database is asked about: a host can make them up.
const MOST_UNKNOWN: usize = 200;

/// What a look asks for besides the facts of the machine.
pub(super) fn query(spec: &HostSpec, known: &HostKnowledge, keys_file: &str) -> FactsQuery {
    let mut key_files = vec![keys_file.to_owned()];
    for grant in &known.grants {
        let room = key_files.len() < runner_protocol::facts::MAX_KEY_FILES;
        if room && !key_files.contains(&grant.keys_file) {
            key_files.push(grant.keys_file.clone());
        }
    }
    FactsQuery { socket: spec.containers.socket.clone(), key_files }
}

/// What ends what a finding is about, if that is everyday work.
fn ending(code: Code) -> Option<Repair> {
    match code {
        Code::ContainerOverdue
        | Code::ContainerAbandoned
        | Code::ContainerLeftBehind
        | Code::LeaseOutlived => Some(Repair::EndContainers),
        Code::GrantExpired | Code::GrantRevoked => Some(Repair::EndGrants),
        _ => None,
    }
}

/// What would end what these findings are about.
pub(super) fn endings(findings: &[Finding]) -> Vec<Repair> {
    let is_wanted = |repair: &Repair| findings.iter().any(|it| ending(it.code) == Some(*repair));
    [Repair::EndContainers, Repair::EndGrants].into_iter().filter(is_wanted).collect()
}

/// Whether a finding is over once this was done.
pub(super) fn ends(repair: Repair, finding: &Finding) -> bool {
    ending(finding.code) == Some(repair)
}

/// What is wrong with containers, leases and grants. A host that says nothing of them, has none.
pub(super) async fn findings(
    visit: &Visit,
    spec: &HostSpec,
    before: &HostKnowledge,
    facts: &HostFacts,
    looked_ms: i64,
) -> Vec<Finding> {
    let of_containers = of_containers(visit, spec, before, facts, looked_ms).await;
    let of_grants = of_grants(visit, spec, before, facts, looked_ms).await;
    let mut found = Vec::new();
    for result in [of_containers, of_grants] {
        match result {
            Ok(findings) => found.extend(findings),
            // What cannot be read cannot be recorded either, and the pass ends with that.
            Err(error) => {
                tracing::warn!(host = %spec.name, %error, "containers and grants are not judged");
            }
        }
    }
    let ignored = &visit.options.config.ignore;
    found.retain(|finding| !ignored.iter().any(|code| code == finding.code.name()));
    found
}

async fn of_containers(
    visit: &Visit,
    spec: &HostSpec,
    before: &HostKnowledge,
    facts: &HostFacts,
    looked_ms: i64,
) -> Result<Vec<Finding>, Error> {
    let runtimes = &facts.container_runtimes;
    let owner = visit.owner.as_ref();
    let known = Leases { owner, before: &before.leases, after: &before.leases };
    let found = container_findings(runtimes, &known, now_ms());
    if found.is_empty() {
        return Ok(found);
    }
    let after = visit.fleet.store.held_leases_of(&spec.name, looked_ms).await?;
    Ok(container_findings(runtimes, &Leases { after: &after, ..known }, now_ms()))
}

async fn of_grants(
    visit: &Visit,
    spec: &HostSpec,
    before: &HostKnowledge,
    facts: &HostFacts,
    looked_ms: i64,
) -> Result<Vec<Finding>, Error> {
    let open: Vec<KnownGrant> = before.grants.iter().map(known).collect();
    let first = Grants { before: &open, after: &open, looked_ms };
    let suspects = grant_findings(&facts.grants, &first);
    if suspects.is_empty() {
        return Ok(suspects);
    }
    let store = &visit.fleet.store;
    let mut rows: Vec<GrantRow> = Vec::new();
    for suspect in suspects.iter().take(MOST_UNKNOWN) {
        let row = store.grant(&suspect.subject).await?;
        // A line that was copied from another host is none of this one's.
        rows.extend(row.filter(|row| row.host == spec.name.as_str()));
    }
    let asked: HashSet<&str> =
        suspects.iter().take(MOST_UNKNOWN).map(|it| it.subject.as_str()).collect();
    let lines: Vec<_> =
        facts.grants.iter().filter(|line| asked.contains(line.grant.as_str())).cloned().collect();
    let after: Vec<KnownGrant> = rows.iter().map(known).collect();
    let found = grant_findings(&lines, &Grants { after: &after, ..first });
    for row in &rows {
        let is_back = found.iter().any(|it| it.subject == row.id && ending(it.code).is_some());
        // Noted whatever is done about it: it is to be taken out again.
        if is_back && row.state == crate::store::GrantState::Gone {
            store.grant_returned(&visit.fleet.actor, row).await?;
        }
    }
    Ok(found)
}

/// Ends what is over on a host, within the time of the pass. Whether it worked, and what happened.
///
/// # Cancel safety
/// Both reconciliations go on where they stopped at the next call.
pub(super) async fn end(visit: &Visit, spec: &HostSpec, repair: Repair) -> (bool, String) {
    let work = async {
        match repair {
            Repair::EndContainers => end_containers(visit, spec).await,
            _ => end_grants(visit, spec).await,
        }
    };
    match timeout_at(visit.deadline, work).await {
        Ok(Ok(message)) => (true, message),
        Ok(Err(message)) => (false, printable(&message)),
        Err(_) => (false, "the time of the sweep was over".to_owned()),
    }
}

async fn end_containers(visit: &Visit, spec: &HostSpec) -> Result<String, String> {
    let artifact = Some(visit.options.artifact.clone());
    let host = HostEngine::open(&visit.fleet, spec, artifact).await.map_err(told)?;
    let done = containers::reconcile(&visit.fleet, &host).await;
    host.close().await;
    let done = done.map_err(told)?;
    let (ended, left) = (done.expired.len(), done.leases.len());
    Ok(format!("{ended} containers stopped; {left} leases are live"))
}

async fn end_grants(visit: &Visit, spec: &HostSpec) -> Result<String, String> {
    let done = grants::reconcile(&visit.fleet, spec).await.map_err(told)?;
    let (removed, ended) = (done.removed.len(), done.processes_ended);
    Ok(format!("{removed} grants taken out, {ended} processes of theirs ended"))
}

/// An error with what is behind it.
fn told(error: impl std::error::Error + 'static) -> String {
    let mut words = vec![error.to_string()];
    words.extend(causes(&error));
    words.join(": ")
}

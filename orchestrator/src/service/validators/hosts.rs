//! `ListHosts`: what a validator is told of the hosts that are assigned to it.

use serde_json::{Map, Value, json};

use super::{Validators, failed};
use crate::axon::{Answer, Call, Refusal, RouteDoc, schema};
use crate::fleet::models_of;
use crate::host_state::HostState;
use crate::printable::printable;
use crate::store::{GpuProof, HostRecord};

/// The hosts of the caller.
pub(super) async fn list(this: &Validators, call: &Call) -> Answer {
    let assigned = this.assigned(call).await?;
    let mut hosts = Vec::with_capacity(assigned.len());
    for host in assigned.values() {
        hosts.push(view(this, host).await?);
    }
    Ok(Map::from_iter([("hosts".to_owned(), Value::from(hosts))]))
}

/// What it takes and answers.
pub(super) fn doc() -> RouteDoc {
    let models = |what: &str| {
        let model = schema::answer(&[
            ("model", schema::text("the product name, as NVML reports it")),
            ("count", schema::number("how many")),
        ]);
        schema::list(model, what)
    };
    let time = |what: &str| schema::nullable(schema::number(what));
    let mode = |what: &str| schema::nullable(schema::word(&["quick", "deep", "hold"], what));
    let outcomes = ["accepted", "unproven", "rejected", "failed"];
    let proof = schema::answer(&[
        ("gpu", schema::text("the GPU's UUID")),
        ("accepted_ms", time("when its last accepted proof ended, ms since the Unix epoch")),
        ("accepted_mode", mode("the mode of that proof")),
        ("tried_ms", time("when it was last challenged")),
        ("tried_mode", mode("the mode of that challenge")),
        (
            "outcome",
            schema::nullable(schema::word(&outcomes, "how that ended; null if it did not")),
        ),
    ]);
    let states: Vec<&str> = HostState::ALL.iter().map(|state| state.name()).collect();
    let host = schema::answer(&[
        ("host", schema::text("its name")),
        ("address", schema::text("where its sshd is")),
        ("port", schema::number("the port of its sshd")),
        ("user", schema::text("the login")),
        ("state", schema::word(&states, "its state")),
        ("claimed", schema::nullable(models("what the operator says it has; null if nothing"))),
        ("found", schema::nullable(models("what was last found on it; null if nothing was"))),
        ("found_ms", time("when that was found")),
        ("proofs", schema::list(proof, "the GPUs that were last seen on it")),
    ]);
    RouteDoc {
        summary: "The hosts that are assigned to the caller",
        request: schema::request(&[], &[]),
        answer: schema::answer(&[("hosts", schema::list(host, "by name"))]),
    }
}

async fn view(this: &Validators, host: &HostRecord) -> Result<Value, Refusal> {
    let store = &this.0.store;
    let name = &host.spec.name;
    let facts = store.facts_history(name, 1).await.map_err(failed)?.pop();
    let proofs: Vec<GpuProof> = store.gpu_proofs(name).await.map_err(failed)?;
    let found = facts.as_ref().map(|record| {
        let models = models_of(&record.facts).into_iter();
        models.map(|(model, count)| counted(model, count)).collect::<Vec<_>>()
    });
    let claimed = host.spec.gpus.as_ref();
    Ok(json!({
        "host": name,
        "address": host.spec.endpoint.address,
        "port": host.spec.endpoint.port,
        "user": host.spec.endpoint.user,
        "state": host.state,
        "claimed": claimed.map(|claim| [counted(&claim.model, claim.count as usize)]),
        "found": found,
        "found_ms": facts.map(|record| record.taken_ms),
        "proofs": proofs,
    }))
}

fn counted(model: &str, count: usize) -> Value {
    json!({ "model": printable(model), "count": count })
}

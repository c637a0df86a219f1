//! What a validator reads of a challenge: stable words that say nothing of the fleet's inside.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use pow_kernels::ModelTable;
use serde_json::{Map, Value, json};

use super::internal;
use crate::axon::Refusal;
use crate::fleet::{GpuName, GpuStep, HostVerdict, VerifyError, VerifyEvent, VerifyStep};
use crate::pow::outcome_name;
use crate::reason::Reason;

/// What was told of one challenge so far.
pub struct Sheet {
    models: Arc<ModelTable>,
    names: Vec<GpuName>,
    left_out: Vec<Value>,
    /// A row for each challenge that was issued.
    issued: Vec<Value>,
    /// The roots of each GPU, by its place.
    roots: BTreeMap<usize, Vec<String>>,
}

impl Sheet {
    pub fn new(models: Arc<ModelTable>) -> Self {
        let (names, left_out, issued) = (Vec::new(), Vec::new(), Vec::new());
        Self { models, names, left_out, issued, roots: BTreeMap::new() }
    }

    /// Takes an event and returns what it says in lines.
    pub fn note(&mut self, event: VerifyEvent) -> Vec<Value> {
        match event {
            VerifyEvent::Step(step) => {
                vec![json!({ "event": "phase", "phase": step_name(step) })]
            }
            VerifyEvent::LeftOut(gpus) => {
                let row = |(gpu, reason): &(GpuName, Reason)| json!({ "gpu": gpu.uuid, "reason": gpu_reason(*reason) });
                self.left_out = gpus.iter().map(row).collect();
                let line = |row: &Value| json!({ "event": "left_out", "gpu": row["gpu"], "reason": row["reason"] });
                self.left_out.iter().map(line).collect()
            }
            VerifyEvent::Gpus(names) => {
                self.names = names;
                Vec::new()
            }
            VerifyEvent::Issued { gpu, context } => {
                let model = self.models.by_id(context.model_id);
                let row = json!({
                    "gpu": self.uuid(gpu),
                    "model": model.map(|model| &model.name),
                    "context": crate::hex::encode(&context.encode()),
                });
                let mut line = row.clone();
                if let Some(fields) = line.as_object_mut() {
                    fields.insert("event".to_owned(), Value::from("issued"));
                }
                self.issued.push(row);
                vec![line]
            }
            VerifyEvent::Gpu { gpu, step } => {
                let (gpu, phase) = (self.uuid(gpu), gpu_step_name(step));
                vec![json!({ "event": "gpu", "gpu": gpu, "phase": phase })]
            }
            VerifyEvent::Root { gpu, product, root } => {
                let root = root.to_string();
                self.roots.entry(gpu).or_default().push(root.clone());
                let gpu = self.uuid(gpu);
                vec![json!({ "event": "root", "gpu": gpu, "product": product, "root": root })]
            }
            VerifyEvent::Awaiting(_) | VerifyEvent::Again(_) => Vec::new(),
        }
    }

    /// The answer when the memories are filled.
    pub fn opened(&self) -> Map<String, Value> {
        // Not `gpus`: `Dendrite` puts the answer's fields over those of its request.
        result([("issued", json!(self.issued)), ("left_out", json!(self.left_out))])
    }

    /// The answer when every root is there. A GPU that failed has fewer.
    pub fn probed(&self) -> Map<String, Value> {
        let row = |(place, roots): (&usize, &Vec<String>)| {
            let (probe_root, gemm_roots) = (roots.first(), roots.get(1..).unwrap_or_default());
            json!({ "gpu": self.uuid(*place), "probe_root": probe_root, "gemm_roots": gemm_roots })
        };
        result([("roots", Value::Array(self.roots.iter().map(row).collect()))])
    }

    fn uuid(&self, place: usize) -> Option<&str> {
        self.names.get(place).map(|gpu| gpu.uuid.as_str())
    }
}

/// A line for each signed proof.
pub fn proofs(verdict: &HostVerdict) -> Result<Vec<Value>, Refusal> {
    let mut lines = Vec::new();
    for gpu in &verdict.gpus {
        let Some(name) = gpu.gpu.as_ref().filter(|_| !gpu.probes.is_empty()) else { continue };
        // One spelling is signed, so that it is handed on as text.
        let document = gpu.documents().map_err(|_| internal())?;
        lines.push(json!({ "event": "proof", "gpu": name.uuid, "document": document }));
    }
    Ok(lines)
}

/// How it was judged here.
pub fn judged(verdict: &HostVerdict) -> Map<String, Value> {
    let rows: Vec<Value> = verdict
        .gpus
        .iter()
        .map(|gpu| {
            json!({
                "gpu": gpu.gpu.as_ref().map(|gpu| &gpu.uuid),
                "ok": gpu.passed,
                "outcome": gpu.outcome.map(outcome_name),
                "failed_check": gpu.first_failure().map(|row| row.check),
                "reason": gpu.reason.map(gpu_reason),
            })
        })
        .collect();
    result([("passed", Value::from(verdict.passed)), ("gpus", Value::Array(rows))])
}

/// Why a challenge came to its end without a proof.
pub fn why_none(verdict: &HostVerdict) -> Refusal {
    let leased = |reason: Option<Reason>| reason == Some(Reason::Lease);
    if !verdict.gpus.is_empty() && verdict.gpus.iter().all(|gpu| leased(gpu.reason)) {
        return leased_refusal();
    }
    let reasons: Vec<&str> =
        verdict.gpus.iter().filter_map(|gpu| gpu.reason.map(gpu_reason)).collect();
    let detail = format!("no GPU could be challenged: {}", reasons.join(", "));
    Refusal::new(StatusCode::CONFLICT, "gpus_failed", detail)
}

/// Why a challenge has failed as a whole.
pub fn told_error(error: &VerifyError) -> Refusal {
    let no_gpu = || Refusal::new(StatusCode::NOT_FOUND, "no_gpu", "the host has no such GPU");
    match error {
        // Without a driver there is none to be challenged.
        VerifyError::Link(link) if link.reason() == Reason::NoDriver => no_gpu(),
        VerifyError::Link(_) => {
            let detail = "the host was not reached, or did not do its part";
            Refusal::new(StatusCode::BAD_GATEWAY, "host_failed", detail)
        }
        VerifyError::NoGpus | VerifyError::UnknownGpu { .. } => no_gpu(),
        VerifyError::Lease(_) => leased_refusal(),
        VerifyError::NoNonce(_) => {
            let detail = "the nonce of the round did not come in time, and the challenge is over";
            Refusal::new(StatusCode::GONE, "round_timeout", detail)
        }
        VerifyError::Cancelled => {
            Refusal::new(StatusCode::GONE, "cancelled", "the challenge was cancelled")
        }
        _ => internal(),
    }
}

fn leased_refusal() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "gpus_leased", "the GPUs are held by others")
}

fn result<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let event = ("event".to_owned(), Value::from("result"));
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    std::iter::once(event).chain(fields).collect()
}

/// What is said of one GPU: what it is itself, and of the rest that the host failed.
fn gpu_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Lease => "leased",
        Reason::UnknownModel
        | Reason::GpuBusy
        | Reason::MigEnabled
        | Reason::OutOfMemory
        | Reason::SelftestFailed
        | Reason::EccError
        | Reason::GpuLost
        | Reason::NoKernels
        | Reason::DriverTooOld
        | Reason::DuplicateGpu
        | Reason::ClaimMismatch
        | Reason::Rejected => reason.code(),
        _ => "host_failed",
    }
}

fn step_name(step: VerifyStep) -> &'static str {
    match step {
        VerifyStep::Connecting => "connecting",
        VerifyStep::Starting => "starting",
        VerifyStep::Looking => "looking",
        VerifyStep::Challenging => "challenging",
        VerifyStep::Judging => "judging",
    }
}

fn gpu_step_name(step: GpuStep) -> &'static str {
    match step {
        GpuStep::Preparing => "preparing",
        GpuStep::Loading => "loading",
        GpuStep::Filling => "filling",
        GpuStep::Filled => "filled",
        GpuStep::Probing => "probing",
        GpuStep::Opening => "opening",
        GpuStep::Holding => "holding",
        GpuStep::Releasing => "releasing",
        GpuStep::Failed => "failed",
    }
}

//! What is said of each GPU and of the host as a whole.

use pow_kernels::{Backend, Evidence, Mode, Outcome, Status, Timings, Verdict};
use serde::Serialize;

use super::proving::GpuFailure;
use super::targets::{GpuName, ModelSource, Unfit};
use super::telemetry::Observed;
use crate::error_chain::causes;
use crate::ids::HostName;
use crate::pow::{self, CheckRow, SignedProof};
use crate::printable::printable;
use crate::reason::Reason;

/// One probe of a filled memory: its times and its signed proof.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What was measured.
    pub timings: Timings,
    /// The signed proof.
    pub document: SignedProof,
}

/// One GPU, judged, or the reason why there is nothing to judge.
#[derive(Debug, Clone)]
pub struct GpuVerdict {
    /// Its names; `None` for the CPU reference.
    pub gpu: Option<GpuName>,
    /// The model it was challenged as, by our name, and who says that it is one.
    pub model: Option<(String, ModelSource)>,
    /// What was asked to compute.
    pub backend: Backend,
    /// Whether the caller has what it asked for.
    pub passed: bool,
    /// Why not.
    pub reason: Option<Reason>,
    /// The same in one sentence, or that all is well.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
    /// The sum of the checks; `None` where there is no proof.
    pub outcome: Option<Outcome>,
    /// Every check.
    pub checks: Vec<CheckRow>,
    /// The weakest evidence behind the times that judged it.
    pub evidence: Option<Evidence>,
    /// The id of its last challenge, in hexadecimal.
    pub challenge: Option<String>,
    /// Its probes: one, and one more for each later one of a hold.
    pub probes: Vec<Probe>,
    /// What it was at meanwhile, as the host said.
    pub observed: Option<Observed>,
}

/// A host with all its GPUs.
#[derive(Debug, Clone)]
pub struct HostVerdict {
    /// The host.
    pub host: HostName,
    /// Whether every GPU passed and the host is as it is claimed to be.
    pub passed: bool,
    /// Why not: that of the first GPU that did not pass, a judgement before an accident.
    pub reason: Option<Reason>,
    /// The same in one sentence.
    pub message: String,
    /// How long the challenges were.
    pub mode: Mode,
    /// How many times the GPUs were challenged: more than once where only times were wrong.
    pub tries: u32,
    /// The smallest round trip of the session, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// What the network was allowed, in nanoseconds.
    pub allowance_ns: u64,
    /// What the host as a whole was found to be.
    pub checks: Vec<CheckRow>,
    /// Every GPU, in the driver's order.
    pub gpus: Vec<GpuVerdict>,
}

impl GpuVerdict {
    /// The first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&CheckRow> {
        self.checks.iter().find(|row| row.status == Status::Failed)
    }

    /// The last part of its UUID, or what it is instead.
    #[must_use]
    pub fn short_name(&self) -> String {
        match &self.gpu {
            Some(gpu) => format!("GPU {} ({})", gpu.index, short_uuid(&gpu.uuid)),
            None => "the CPU reference".to_owned(),
        }
    }

    /// The signed proofs as they are stored and exported, one document a line.
    ///
    /// # Errors
    /// A document cannot be written.
    pub fn documents(&self) -> Result<String, serde_json::Error> {
        self.probes.iter().map(|probe| probe.document.to_json()).collect()
    }

    pub(super) fn of_unfit(unfit: Unfit) -> Self {
        let outcome = unfit.failed.as_ref().map(|_| Outcome::Rejected);
        Self {
            gpu: Some(unfit.gpu),
            model: None,
            backend: Backend::Cuda,
            passed: false,
            reason: Some(unfit.reason),
            message: unfit.message,
            hint: unfit.hint,
            outcome,
            checks: unfit.failed.into_iter().collect(),
            evidence: None,
            challenge: None,
            probes: Vec::new(),
            observed: None,
        }
    }

    /// Without a proof.
    pub(super) fn failed(mut self, failure: GpuFailure) -> Self {
        match failure {
            GpuFailure::Runner(error) => {
                let words = std::iter::once(error.to_string()).chain(causes(&error));
                self.message = printable(&words.collect::<Vec<_>>().join(": "));
                self.reason = Some(error.reason());
                self.hint = error.hint();
            }
            GpuFailure::NotTheModel(detail) => {
                self.reason = Some(Reason::ClaimMismatch);
                self.outcome = Some(Outcome::Rejected);
                self.message.clone_from(&detail);
                self.checks = vec![CheckRow { check: "claim", status: Status::Failed, detail }];
            }
        }
        self.passed = false;
        self
    }

    /// Puts the checks together to an outcome.
    pub(super) fn conclude(mut self, allow_reference: bool) -> Self {
        let has = |status| self.checks.iter().any(|row| row.status == status);
        let outcome = if has(Status::Failed) {
            Outcome::Rejected
        } else if has(Status::NotJudged) || self.checks.is_empty() {
            Outcome::Unproven
        } else {
            Outcome::Accepted
        };
        let reference = self.backend == Backend::Reference;
        self.passed = match outcome {
            Outcome::Accepted => true,
            Outcome::Unproven => reference && allow_reference,
            Outcome::Rejected => false,
        };
        let failure = self.first_failure().cloned();
        self.reason = match &failure {
            Some(row) if row.check == "identity" => Some(Reason::DuplicateGpu),
            _ => (!self.passed).then_some(Reason::Rejected),
        };
        self.message = match (&failure, outcome) {
            (Some(row), _) => format!("{}: {}", row.check, row.detail),
            (None, outcome) => sentence(self.passed, outcome, self.backend).to_owned(),
        };
        self.outcome = Some(outcome);
        self
    }
}

/// A verdict in one sentence.
#[must_use]
pub fn sentence(passed: bool, outcome: Outcome, backend: Backend) -> &'static str {
    match (outcome, backend, passed) {
        (Outcome::Accepted, _, true) => "the proof is accepted",
        (Outcome::Unproven, Backend::Reference, true) => {
            "reference backend: the answer is right, and nothing is shown of a GPU"
        }
        (Outcome::Rejected, Backend::Reference, _) => "the proof of the reference is rejected",
        (Outcome::Rejected, Backend::Cuda, _) => "the proof is rejected",
        (_, Backend::Reference, _) => "reference backend: nothing is proven",
        (_, Backend::Cuda, _) => "nothing failed, and not everything could be judged: not proven",
    }
}

/// The first and the last digits of a UUID, which a person compares.
#[must_use]
pub fn short_uuid(uuid: &str) -> String {
    let plain = uuid.strip_prefix("GPU-").unwrap_or(uuid);
    match plain.split_once('-') {
        Some((first, _)) => first.to_owned(),
        None => plain.chars().take(8).collect(),
    }
}

/// The checks of all probes of one memory as one list: each with its worst result, and where that
/// was.
pub(super) fn merged(verdicts: &[Verdict]) -> Vec<CheckRow> {
    let Some((first, later)) = verdicts.split_first() else { return Vec::new() };
    let weight = |status| match status {
        Status::Failed => 2,
        Status::NotJudged => 1,
        Status::Passed => 0,
    };
    let merge = |place: usize| {
        let mut worst = first.checks.get(place)?.clone();
        let mut number = 0;
        for (later_number, verdict) in later.iter().enumerate() {
            if let Some(result) = verdict.checks.get(place)
                && weight(result.status) > weight(worst.status)
            {
                worst = result.clone();
                number = later_number + 1;
            }
        }
        let detail = match number {
            0 => worst.detail,
            number => format!("later probe {number} of the hold: {}", worst.detail),
        };
        Some(CheckRow { check: worst.check.name(), status: worst.status, detail })
    };
    (0..first.checks.len()).filter_map(merge).collect()
}

/// The host's verdict from those of its GPUs.
pub(super) fn of_host(verdict: HostVerdict) -> HostVerdict {
    let passed_gpus = verdict.gpus.iter().filter(|gpu| gpu.passed).count();
    let failed_check = verdict.checks.iter().find(|row| row.status == Status::Failed);
    // A judgement before an accident: the one is said of the host, the other may be gone tomorrow.
    let first = verdict
        .gpus
        .iter()
        .find(|gpu| !gpu.passed && gpu.outcome.is_some())
        .or_else(|| verdict.gpus.iter().find(|gpu| !gpu.passed));
    let total = verdict.gpus.len();
    let (reason, message) = match (first, failed_check) {
        (Some(gpu), _) if gpu.outcome.is_some() || failed_check.is_none() => {
            let others = match total - passed_gpus {
                1 => String::new(),
                several => format!(" ({several} of {total} GPUs did not pass)"),
            };
            (gpu.reason, format!("{}: {}{others}", gpu.short_name(), gpu.message))
        }
        (_, Some(row)) => (Some(Reason::ClaimMismatch), row.detail.clone()),
        (_, None) => (None, all_passed(&verdict.gpus)),
    };
    HostVerdict { passed: first.is_none() && failed_check.is_none(), reason, message, ..verdict }
}

fn all_passed(gpus: &[GpuVerdict]) -> String {
    match gpus {
        [only] => sentence(only.passed, only.outcome.unwrap_or(Outcome::Unproven), only.backend)
            .to_owned(),
        several => format!("all {} GPUs are proven, all at once", several.len()),
    }
}

/// What the audit chain says of a GPU.
pub(super) fn audit_row(verdict: &GpuVerdict) -> serde_json::Value {
    serde_json::json!({
        "uuid": verdict.gpu.as_ref().map(|gpu| &gpu.uuid),
        "model": verdict.model.as_ref().map(|(name, _)| name),
        "backend": pow::backend_name(verdict.backend),
        "challenge": verdict.challenge,
        "outcome": verdict.outcome.map(pow::outcome_name),
        "failed_check": verdict.first_failure().map(|row| row.check),
        "reason": verdict.reason,
        "message": verdict.message,
        "transcripts": verdict.probes.iter()
            .map(|probe| probe.document.record.transcript).collect::<Vec<_>>(),
    })
}

/// One GPU of `--json`.
#[derive(Debug, Serialize)]
pub struct GpuReport<'v> {
    index: Option<u32>,
    uuid: Option<&'v str>,
    name: Option<&'v str>,
    model: Option<&'v str>,
    model_from: Option<ModelSource>,
    backend: &'static str,
    ok: bool,
    reason: Option<Reason>,
    message: &'v str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'v str>,
    outcome: Option<&'static str>,
    failed_check: Option<&'static str>,
    checks: &'v [CheckRow],
    evidence: Option<Evidence>,
    challenge: Option<&'v str>,
    transcript: Option<String>,
    timings: Option<&'v Timings>,
    /// Of the later probes of a hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held_timings: Vec<&'v Timings>,
    telemetry: Option<&'v Observed>,
}

impl<'v> From<&'v GpuVerdict> for GpuReport<'v> {
    fn from(verdict: &'v GpuVerdict) -> Self {
        let gpu = verdict.gpu.as_ref();
        Self {
            index: gpu.map(|gpu| gpu.index),
            uuid: gpu.map(|gpu| gpu.uuid.as_str()),
            name: gpu.map(|gpu| gpu.name.as_str()),
            model: verdict.model.as_ref().map(|(name, _)| name.as_str()),
            model_from: verdict.model.as_ref().map(|(_, source)| *source),
            backend: pow::backend_name(verdict.backend),
            ok: verdict.passed,
            reason: verdict.reason,
            message: &verdict.message,
            hint: verdict.hint.as_deref(),
            outcome: verdict.outcome.map(pow::outcome_name),
            failed_check: verdict.first_failure().map(|row| row.check),
            checks: &verdict.checks,
            evidence: verdict.evidence,
            challenge: verdict.challenge.as_deref(),
            transcript: verdict
                .probes
                .first()
                .map(|probe| probe.document.record.transcript.to_string()),
            timings: verdict.probes.first().map(|probe| &probe.timings),
            held_timings: verdict.probes.iter().skip(1).map(|probe| &probe.timings).collect(),
            telemetry: verdict.observed.as_ref(),
        }
    }
}

//! What is made of one GPU's answers: every check, the signed documents, what is kept.

use std::sync::Arc;

use pow_kernels::{ModelTable, Timings, Verdict};
use runner_protocol::ByteArray;
use serde_json::json;

use super::error::VerifyError;
use super::proving::{Answers, GpuFailure};
use super::verdict::{self, GpuVerdict, Probe};
use crate::ids::HostName;
use crate::pow::{
    self, ChallengeRecord, CheckRow, GpuLabel, Judgement, ProofDuration, ProofRecord, SignedProof,
};
use crate::reason::Reason;
use crate::signing_key::SigningKey;
use crate::store::{ChallengeEnd, JudgedProof};

/// One GPU's part of a try, once it is judged.
pub(super) struct Judged {
    pub(super) verdict: GpuVerdict,
    pub(super) end: ChallengeEnd,
    /// Nothing but slowness is held against it.
    pub(super) only_slow: bool,
}

/// Everything that the judgement of one GPU needs, away from the runtime: some hundred block
/// regenerations are tens of milliseconds.
pub(super) struct Judging {
    pub(super) blank: GpuVerdict,
    pub(super) answers: Answers,
    pub(super) identity: Option<CheckRow>,
    pub(super) table: Arc<ModelTable>,
    pub(super) key: Arc<SigningKey>,
    pub(super) allow_reference: bool,
    pub(super) least_rtt_ns: u64,
    pub(super) rtt_ns: u64,
    pub(super) host: HostName,
    pub(super) runner: String,
}

impl Judging {
    pub(super) fn run(self) -> Result<Judged, VerifyError> {
        // The probes of a hold are not alike, and compare with nothing.
        let duration = match self.answers.as_slice() {
            [(challenge, _, timings)] => ProofDuration::of(&challenge.context, timings),
            _ => None,
        };
        let mut verdict = self.blank;
        let mut verdicts: Vec<Verdict> = Vec::new();
        for (number, (challenge, proof, timings)) in self.answers.into_iter().enumerate() {
            let by = Judgement {
                table: &self.table,
                allow_reference: self.allow_reference,
                least_rtt_ns: Some(self.least_rtt_ns),
                held: number > 0,
            };
            verdicts.push(pow::judge(&challenge, &proof, &timings, &by));
            let held = u32::try_from(number).ok().filter(|number| *number > 0);
            let gpu = verdict.gpu.as_ref().zip(verdict.model.as_ref());
            let record = ProofRecord {
                host: self.host.clone(),
                backend: proof.backend,
                runner: self.runner.clone(),
                gpu: gpu.map(|(gpu, (model, _))| GpuLabel {
                    uuid: gpu.uuid.clone(),
                    model: model.clone(),
                }),
                held,
                allowance_ns: Some(by.allowance_ns(challenge.context.mode)),
                challenge: ChallengeRecord::from(&challenge),
                transcript: ByteArray(challenge.transcript_hash(&proof, &timings)),
                timings: timings.clone(),
                proof,
            };
            let document = SignedProof::new(record, &self.key)?;
            verdict.probes.push(Probe { timings, document });
        }
        verdict.evidence = verdicts.iter().filter_map(|verdict| verdict.evidence).min();
        verdict.checks = verdict::merged(&verdicts);
        let disturbed = |verdict: &Verdict| pow::only_slow(verdict);
        let wrong = |verdict: &Verdict| verdict.first_failure().is_some() && !disturbed(verdict);
        let only_slow = verdicts.iter().any(disturbed) && !verdicts.iter().any(wrong);
        let duplicate =
            self.identity.as_ref().is_some_and(|row| row.status == pow_kernels::Status::Failed);
        verdict.checks.extend(self.identity);
        let verdict = verdict.conclude(self.allow_reference);
        let first: Option<&Timings> = verdict.probes.first().map(|probe| &probe.timings);
        let end = ChallengeEnd::Judged(Box::new(JudgedProof {
            outcome: verdict.outcome.map_or("rejected", pow::outcome_name),
            failed_check: verdict.first_failure().map(|row| row.check.to_owned()),
            verdict_json: json!({ "checks": verdict.checks, "evidence": verdict.evidence })
                .to_string(),
            proof_json: verdict.documents()?,
            duration,
            fill_ns: first.and_then(|timings| timings.fill_ns),
            chain_ns: first.map(|timings| timings.chain_ns),
            gemm_ns: first.and_then(|timings| timings.gemm_ns.iter().max().copied()),
            rtt_ns: Some(self.rtt_ns),
            telemetry_json: verdict.observed.as_ref().map(|seen| json!(seen).to_string()),
        }));
        Ok(Judged { verdict, end, only_slow: only_slow && !duplicate })
    }
}

pub(super) fn failed(blank: GpuVerdict, failure: GpuFailure) -> Judged {
    let verdict = blank.failed(failure);
    let reason = verdict.reason.unwrap_or(Reason::Bug);
    let end = ChallengeEnd::Failed { reason, message: verdict.message.clone() };
    Judged { verdict, end, only_slow: false }
}

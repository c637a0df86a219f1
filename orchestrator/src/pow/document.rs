//! The signed proof: one JSON document that has everything a later check needs.
//!
//! There is exactly one spelling of a document, the one that [`SignedProof::to_json`] writes, and any
//! other is refused; the signature covers the rest. So no byte of a file can be changed unnoticed.

use pow_kernels::{Backend, Challenge, KernelVariant, ModelTable, Outcome, Proof, Status, Timings};
use runner_protocol::ByteArray;
use serde::{Deserialize, Serialize};

use super::challenge::{ChallengeRecord, raw_uuid};
use super::judge::{Judgement, judge, passes};
use crate::ids::HostName;
use crate::signing_key::{SigningKey, is_signed};

/// The largest document that is read, in bytes: a proof has at most 15 MB, twice that in hexadecimal.
pub const MAX_DOCUMENT_BYTES: u64 = 32 * 1024 * 1024;

const FORMAT: &str = "orchestrator-proof";
const VERSION: u32 = 1;

/// Separates these signatures from any other use of the key.
const DOMAIN: &[u8] = b"orchestrator proof 1\n";

/// What was asked, what came, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRecord {
    /// The operator's name of the host.
    pub host: HostName,
    /// What computed the proof; said first, and again inside the proof.
    pub backend: Backend,
    /// SHA-256 of the runner, in hexadecimal.
    pub runner: String,
    /// Which GPU; absent for the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuLabel>,
    /// Which probe of the same filled memory, from 1; absent for the first one, after the fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u32>,
    /// What the network was allowed to add to a phase, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance_ns: Option<u64>,
    /// What was asked.
    pub challenge: ChallengeRecord,
    /// Times of arrival as this orchestrator measured them, from message to message.
    pub timings: Timings,
    /// Hash of the whole exchange, `kernels/SPEC.md` section 12.
    pub transcript: ByteArray<32>,
    /// What came.
    pub proof: Proof,
}

/// The names of a GPU: what its host and its driver say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuLabel {
    /// Its UUID, as the driver writes it.
    pub uuid: String,
    /// The model that the challenge was for, by our name.
    pub model: String,
}

/// A record and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedProof {
    format: String,
    version: u32,
    /// The ed25519 public key of the orchestrator that measured.
    pub signer: ByteArray<32>,
    /// Its signature.
    pub signature: ByteArray<64>,
    /// What is signed.
    pub record: ProofRecord,
}

/// Why a text is no signed proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is no JSON of that form, or a length or a size in it is impossible.
    #[error("this is no signed proof")]
    Json(#[from] serde_json::Error),
    /// It says that it is something else.
    #[error("this is no signed proof of version {VERSION}")]
    Format,
    /// It is spelled in another way than it was written: spaces, order, repeated or other fields.
    #[error("the document was changed: it is not spelled as it was written")]
    Spelling,
}

impl SignedProof {
    /// Signs a record.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn new(record: ProofRecord, key: &SigningKey) -> Result<Self, serde_json::Error> {
        let signer = ByteArray(key.public_key());
        let signature = ByteArray(key.sign(&signed_bytes(&signer, &record)?));
        Ok(Self { format: FORMAT.to_owned(), version: VERSION, signer, signature, record })
    }

    /// The document: one line.
    ///
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`DocumentError`]: it is none, or it is not byte for byte as one is written. The signature is
    /// not looked at.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentError> {
        let document: Self = serde_json::from_slice(text)?;
        if document.format != FORMAT || document.version != VERSION {
            return Err(DocumentError::Format);
        }
        if document.to_json()?.as_bytes() != text {
            return Err(DocumentError::Spelling);
        }
        Ok(document)
    }
}

/// What the signature is of.
fn signed_bytes(
    signer: &ByteArray<32>,
    record: &ProofRecord,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = [DOMAIN, &signer.0].concat();
    serde_json::to_writer(&mut bytes, record)?;
    Ok(bytes)
}

/// One check and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRow {
    /// A stable name.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// One line for a person, of our own words.
    pub detail: String,
}

/// What an examination of a document found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Every check, also after one that failed.
    pub checks: Vec<CheckRow>,
    /// The sum of the checks.
    pub outcome: Outcome,
    /// Whether the caller has what it asked for.
    pub passed: bool,
}

impl Examination {
    /// The first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&CheckRow> {
        self.checks.iter().find(|row| row.status == Status::Failed)
    }
}

/// Examines a document without asking anybody: who signed it, whether that is one of `trusted`, and
/// every check of the verifier once more. The times are judged by `table`, never by what a document
/// brings along.
///
/// # Errors
/// The record cannot be written as JSON, which one that was read always can.
pub fn examine(
    document: &SignedProof,
    trusted: &[[u8; 32]],
    table: &ModelTable,
    allow_reference: bool,
) -> Result<Examination, serde_json::Error> {
    let record = &document.record;
    let known = trusted.contains(&document.signer.0);
    let message = signed_bytes(&document.signer, record)?;
    let signed = is_signed(&document.signer.0, &message, &document.signature.0);
    let mut checks = vec![
        row("signer", known, "a key that is trusted here", "a key that is not trusted here"),
        row("signature", signed, "of this document by its signer", "not of this document"),
    ];
    let mut passed = known && signed;
    match Challenge::try_from(&record.challenge) {
        Err(error) => {
            passed = false;
            checks.push(CheckRow {
                check: "context",
                status: Status::Failed,
                detail: error.to_string(),
            });
        }
        Ok(challenge) => {
            let backend = record.proof.backend;
            let of_reference = challenge.context.variant == KernelVariant::Reference;
            let named =
                record.backend == backend && of_reference == (backend == Backend::Reference);
            let gpu = match &record.gpu {
                Some(gpu) => raw_uuid(&gpu.uuid) == Some(challenge.context.gpu_uuid),
                None => challenge.context.gpu_uuid == [0; 16],
            };
            let named = named && gpu;
            let other = "names another backend or GPU than the one that was asked";
            checks.push(row("label", named, "names what was asked", other));
            let transcript = challenge.transcript_hash(&record.proof, &record.timings);
            let same = transcript == record.transcript.0;
            checks.push(row("transcript", same, "of this exchange", "of another exchange"));
            let by = Judgement {
                table,
                allow_reference,
                least_rtt_ns: record.allowance_ns,
                held: record.held.is_some(),
            };
            let verdict = judge(&challenge, &record.proof, &record.timings, &by);
            passed &= named && same && passes(&verdict, backend, allow_reference);
            checks.extend(verdict.checks.into_iter().map(|result| CheckRow {
                check: result.check.name(),
                status: result.status,
                detail: result.detail,
            }));
        }
    }
    let has = |status| checks.iter().any(|row| row.status == status);
    let outcome = match (has(Status::Failed), has(Status::NotJudged)) {
        (true, _) => Outcome::Rejected,
        (false, true) => Outcome::Unproven,
        (false, false) => Outcome::Accepted,
    };
    Ok(Examination { checks, outcome, passed })
}

fn row(check: &'static str, well: bool, good: &str, bad: &str) -> CheckRow {
    let (status, detail) = if well { (Status::Passed, good) } else { (Status::Failed, bad) };
    CheckRow { check, status, detail: detail.to_owned() }
}

//! Verify: one challenge to one host, from its issue to its verdict in the store.
//!
//! The challenge is stored before any of it is sent; what comes back is timed here, judged by the
//! pure verifier, signed, and stored beside it. Only the CPU reference can be challenged so far: a
//! request for CUDA ends with what the host lacks for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pow_kernels::proof::Commitments;
use pow_kernels::{Backend, Challenge, Digest, Proof, Timings, Verdict};
use runner_protocol::prove::Opened;
use runner_protocol::{ByteArray, ProveEvent, ProveReply, Reply, Round, Unit};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::deploy::{not_placed, start_runner};
use super::link::{Fleet, Link, LinkError};
use crate::error_chain::causes;
use crate::host_spec::HostSpec;
use crate::pow::{self, ChallengeRecord, NoRandomness, ProofRecord, SignedProof};
use crate::printable::printable;
use crate::reason::Reason;
use crate::runner::{self, Artifact, Exchange, Session, Started, UnitEvent};
use crate::signing_key::SigningKey;
use crate::store::{self, ChallengeEnd, NewChallenge, NewEvent, now_ms};

/// For the whole exchange. The runner gives the reference two minutes in all.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(150);

/// What a verification needs besides the host.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The runner that the host shall have.
    pub artifact: Arc<Artifact>,
    /// Whether to ask the CPU reference, which proves nothing of a GPU, and let its proof pass.
    pub allow_reference: bool,
    /// What signs the proof.
    pub key: Arc<SigningKey>,
}

/// What a verification is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyStep {
    /// Reaching the host.
    Connecting,
    /// Starting the runner, after uploading it if it is missing.
    Starting,
    /// Waiting for the backend.
    Preparing,
    /// The memory is being filled.
    Filling,
    /// It is being walked and multiplied; the clock runs.
    Probing,
    /// The openings are on their way.
    Opening,
    /// The verifier is at work here.
    Judging,
}

/// A proof that came, and what was found.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The challenge id, in hexadecimal.
    pub challenge: String,
    /// What computed the proof.
    pub backend: Backend,
    /// The judgement.
    pub verdict: Verdict,
    /// Whether the caller has what it asked for.
    pub passed: bool,
    /// What was measured.
    pub timings: Timings,
    /// The signed proof.
    pub document: SignedProof,
    /// The same as it is stored and exported.
    pub document_json: String,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The host could not be reached, or did not do its part.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The challenge or its end could not be recorded.
    #[error("cannot record the challenge")]
    Store(#[source] store::Error),
    /// No challenge could be made.
    #[error("cannot issue a challenge")]
    Random(#[from] NoRandomness),
    /// The proof could not be written as a document.
    #[error("cannot write the proof as a document")]
    Document(#[from] serde_json::Error),
    /// The runner has CUDA kernels, and nothing here can challenge them yet.
    #[error("CUDA kernels required: this release cannot challenge a GPU yet")]
    CudaNotBuilt,
    /// The host's key has no SHA-256 fingerprint to bind the challenge to.
    #[error("the host key has no SHA-256 fingerprint")]
    HostId,
    /// The verifier's thread died.
    #[error("the verifier did not end")]
    Verifier(#[source] tokio::task::JoinError),
    /// The caller stopped it.
    #[error("stopped before it ended")]
    Cancelled,
}

impl From<runner::Error> for VerifyError {
    fn from(error: runner::Error) -> Self {
        Self::Link(LinkError::Runner(error))
    }
}

impl VerifyError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Link(error) => error.reason(),
            Self::Store(_) => Reason::Store,
            Self::CudaNotBuilt => Reason::NoKernels,
            Self::Cancelled => Reason::Cancelled,
            Self::Random(_) | Self::Document(_) | Self::HostId | Self::Verifier(_) => Reason::Bug,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Link(error) => error.hint(),
            _ => None,
        }
    }
}

/// Challenges the host and records how that ended, with an audit event.
///
/// # Errors
/// There is no verdict: [`VerifyError`] says why, and so does the store. A negative verdict is no
/// error.
///
/// # Cancel safety
/// When `cancel` fires, the connection is dropped, the runner ends by that, and the end is recorded.
/// Dropping the future does the same but for the record: the challenge then has no end.
pub async fn verify(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &VerifyOptions,
    on_step: &(dyn Fn(VerifyStep) + Sync),
    cancel: &CancellationToken,
) -> Result<Verified, VerifyError> {
    let mut issued = None;
    let attempt = Attempt { fleet, spec, options, on_step };
    // Cancel safety: the attempt is dropped whole.
    let result = tokio::select! {
        result = attempt.run(&mut issued) => result,
        () = cancel.cancelled() => Err(VerifyError::Cancelled),
    };
    record(fleet, spec, issued, &result).await.map_err(VerifyError::Store)?;
    result
}

async fn record(
    fleet: &Fleet,
    spec: &HostSpec,
    issued: Option<String>,
    result: &Result<Verified, VerifyError>,
) -> Result<(), store::Error> {
    let (passed, detail, end) = match result {
        Ok(verified) => {
            let outcome = pow::outcome_name(verified.verdict.outcome());
            let failure = verified.verdict.first_failure().map(|result| result.check.name());
            let detail = json!({
                "challenge": verified.challenge,
                "backend": pow::backend_name(verified.backend),
                "outcome": outcome,
                "failed_check": failure,
                "transcript": verified.document.record.transcript,
                "signer": verified.document.signer,
            });
            let end = ChallengeEnd::Judged {
                outcome,
                verdict_json: json!(verified.verdict).to_string(),
                proof_json: verified.document_json.clone(),
            };
            (verified.passed, detail, end)
        }
        Err(error) => {
            let words = std::iter::once(error.to_string()).chain(causes(error));
            let message = printable(&words.collect::<Vec<_>>().join(": "));
            let reason = error.reason();
            let detail = json!({ "challenge": issued, "reason": reason, "message": message });
            (false, detail, ChallengeEnd::Failed { reason, message })
        }
    };
    let kind = if passed { "verify.passed" } else { "verify.failed" };
    let event = NewEvent { kind, host: Some(spec.name.clone()), detail };
    match issued {
        Some(id) => fleet.store.record_challenge_end(&fleet.actor, &id, &end, event).await,
        None => fleet.store.append_events(&fleet.actor, &[event]).await,
    }
}

struct Attempt<'a> {
    fleet: &'a Fleet,
    spec: &'a HostSpec,
    options: &'a VerifyOptions,
    on_step: &'a (dyn Fn(VerifyStep) + Sync),
}

impl Attempt<'_> {
    /// From the connection to the verdict. `issued` is the challenge's id once it is stored.
    async fn run(&self, issued: &mut Option<String>) -> Result<Verified, VerifyError> {
        (self.on_step)(VerifyStep::Connecting);
        let link = self.fleet.connect(self.spec, false).await?;
        let answer = self.on_host(&link, issued).await;
        link.close().await;
        let (challenge, proof, timings) = answer?;
        (self.on_step)(VerifyStep::Judging);
        let allow_reference = self.options.allow_reference;
        // A few hundred block regenerations: tens of milliseconds, too long for the runtime's thread.
        let (challenge, proof, timings, verdict) = tokio::task::spawn_blocking(move || {
            let verdict = pow::judge(&challenge, &proof, &timings, allow_reference);
            (challenge, proof, timings, verdict)
        })
        .await
        .map_err(VerifyError::Verifier)?;
        let record = ProofRecord {
            host: self.spec.name.clone(),
            backend: proof.backend,
            runner: self.options.artifact.sha256.clone(),
            challenge: ChallengeRecord::from(&challenge),
            transcript: ByteArray(challenge.transcript_hash(&proof, &timings)),
            timings: timings.clone(),
            proof,
        };
        let backend = record.backend;
        let document = SignedProof::new(record, &self.options.key)?;
        Ok(Verified {
            challenge: crate::hex::encode(&challenge.context.challenge_id),
            backend,
            passed: pow::passes(&verdict, backend, allow_reference),
            verdict,
            timings,
            document_json: document.to_json()?,
            document,
        })
    }

    async fn on_host(
        &self,
        link: &Link,
        issued: &mut Option<String>,
    ) -> Result<(Challenge, Proof, Timings), VerifyError> {
        (self.on_step)(VerifyStep::Starting);
        let artifact = &self.options.artifact;
        let mut quietly = |_, _| ();
        let mut session = match start_runner(self.spec, artifact, link, Some(&mut quietly)).await? {
            Started::Running { session, .. } => session,
            Started::NotThere(host) => return Err(not_placed(artifact, &host).into()),
        };
        let host_id = link.host_id().ok_or(VerifyError::HostId)?;
        let work = self.challenge(&mut session, host_id, issued);
        let answer = match tokio::time::timeout(EXCHANGE_TIMEOUT, work).await {
            Ok(answer) => answer,
            Err(_) => Err(VerifyError::from(runner::Error::TimedOut {
                operation: "prove",
                seconds: EXCHANGE_TIMEOUT.as_secs(),
            })),
        };
        session.close().await;
        answer
    }

    async fn challenge(
        &self,
        session: &mut Session,
        host_id: [u8; 32],
        issued: &mut Option<String>,
    ) -> Result<(Challenge, Proof, Timings), VerifyError> {
        (self.on_step)(VerifyStep::Preparing);
        let backend = if self.options.allow_reference { Backend::Reference } else { Backend::Cuda };
        let exchange = session.open(Unit::Prove { backend, gpu: None }).await?;
        let mut rounds = Rounds { exchange, backend };
        rounds
            .expect("prepared", |event| matches!(event, ProveEvent::Prepared { .. }).then_some(()))
            .await?;
        if backend == Backend::Cuda {
            return Err(VerifyError::CudaNotBuilt);
        }
        let issued_at_ms = u64::try_from(now_ms()).unwrap_or_default();
        let challenge = pow::reference_challenge(host_id, issued_at_ms)?;
        let id = crate::hex::encode(&challenge.context.challenge_id);
        let new = NewChallenge {
            id: id.clone(),
            host: self.spec.name.clone(),
            backend: pow::backend_name(backend),
            challenge_json: serde_json::to_string(&ChallengeRecord::from(&challenge))?,
        };
        self.fleet
            .store
            .record_challenge(&self.fleet.actor, &new)
            .await
            .map_err(VerifyError::Store)?;
        *issued = Some(id);
        let (commitments, timings) = rounds.commit(&challenge, self.on_step).await?;
        let proof = rounds.open(&challenge, commitments, self.on_step).await?;
        Ok((challenge, proof, timings))
    }
}

/// The rounds with a host that may say anything.
struct Rounds<'s> {
    exchange: Exchange<'s>,
    backend: Backend,
}

impl Rounds<'_> {
    /// Fills, then probes, and measures when each answer arrives.
    async fn commit(
        &mut self,
        challenge: &Challenge,
        on_step: &(dyn Fn(VerifyStep) + Sync),
    ) -> Result<(Commitments, Timings), runner::Error> {
        let context = Box::new(ByteArray(challenge.context.encode()));
        let mut clock = Instant::now();
        self.exchange.proceed(Round::Fill { context }).await?;
        on_step(VerifyStep::Filling);
        self.expect("filled", |event| (event == ProveEvent::Filled {}).then_some(())).await?;
        let fill_ns = Some(lap(&mut clock));

        clock = Instant::now();
        let nonce = ByteArray(challenge.nonce_probe);
        self.exchange.proceed(Round::Probe { nonce }).await?;
        on_step(VerifyStep::Probing);
        let probe_root = self.root(None).await?;
        let chain_ns = lap(&mut clock);
        let (mut gemm_roots, mut gemm_ns) = (Vec::new(), Vec::new());
        for product in 0..challenge.context.parameters.gemms {
            gemm_roots.push(self.root(Some(product)).await?);
            gemm_ns.push(lap(&mut clock));
        }
        Ok((Commitments { probe_root, gemm_roots }, Timings { fill_ns, chain_ns, gemm_ns }))
    }

    /// Asks for the openings and lets the runner go.
    async fn open(
        &mut self,
        challenge: &Challenge,
        commitments: Commitments,
        on_step: &(dyn Fn(VerifyStep) + Sync),
    ) -> Result<Proof, runner::Error> {
        let nonce = ByteArray(challenge.nonce_open);
        self.exchange.proceed(Round::Open { nonce, counts: challenge.counts }).await?;
        on_step(VerifyStep::Opening);
        let probe_openings = self.openings(Opened::Records, challenge.counts.probe).await?;
        let gemm_openings = self.openings(Opened::Products, challenge.counts.gemm).await?;
        self.exchange.proceed(Round::Release {}).await?;
        while let Some(event) = self.exchange.next().await? {
            if matches!(event, UnitEvent::Reply(_)) {
                return Err(unexpected("the end of the proof", "more of it"));
            }
        }
        Ok(Proof {
            backend: self.backend,
            context_hash: Digest(challenge.context.hash()),
            commitments,
            probe_openings,
            gemm_openings,
        })
    }

    async fn root(&mut self, of: Option<u8>) -> Result<Digest, runner::Error> {
        let due = if of.is_none() { "the root of the records" } else { "the next product's root" };
        self.expect(due, |event| match event {
            ProveEvent::Root { product, root } if product == of => Some(root),
            _ => None,
        })
        .await
    }

    /// Exactly `count` openings, which come in replies of at least one.
    async fn openings(
        &mut self,
        kind: Opened,
        count: u16,
    ) -> Result<Vec<pow_kernels::Opening>, runner::Error> {
        let mut all = Vec::new();
        while all.len() < usize::from(count) {
            let some = self.expect("openings", |event| match event {
                ProveEvent::Openings { of, openings } if of == kind => Some(openings),
                _ => None,
            });
            let some = some.await?;
            if some.is_empty() || all.len() + some.len() > usize::from(count) {
                return Err(unexpected("as many openings as asked", "another number"));
            }
            all.extend(some);
        }
        Ok(all)
    }

    /// The next step, which must be of the backend that was asked and the one that is due.
    async fn expect<T>(
        &mut self,
        due: &'static str,
        wanted: impl FnOnce(ProveEvent) -> Option<T>,
    ) -> Result<T, runner::Error> {
        loop {
            return match self.exchange.next().await? {
                Some(UnitEvent::Progress(_)) => continue,
                Some(UnitEvent::Reply(Reply::Prove(ProveReply { backend, event }))) => {
                    if backend != self.backend {
                        return Err(unexpected(due, "a step of another backend"));
                    }
                    wanted(event).ok_or(unexpected(due, "another step"))
                }
                Some(UnitEvent::Reply(_)) => Err(unexpected(due, "another reply")),
                None => Err(unexpected(due, "the end of the request")),
            };
        }
    }
}

fn unexpected(expected: &'static str, found: &'static str) -> runner::Error {
    runner::Error::Unexpected { expected, found }
}

/// Nanoseconds since `clock`, which is set to now.
fn lap(clock: &mut Instant) -> u64 {
    let now = Instant::now();
    let passed = now.saturating_duration_since(*clock).as_nanos();
    *clock = now;
    u64::try_from(passed).unwrap_or(u64::MAX)
}

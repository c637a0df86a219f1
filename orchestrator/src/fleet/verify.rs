//! Verify: every GPU of a host challenged at once, from the issue of the challenges to the verdicts in
//! the store.
//!
//! Each GPU gets a challenge of its own, and all of them are stored before any is sent. The memories
//! are filled at the same time and probed in one write when the last is full, so that no card can
//! answer for two. What comes back is timed here, judged by the pure verifier, signed, and stored.
//!
//! Where nothing but times was wrong, all GPUs are challenged again with fresh challenges: all of
//! them, because a card that is free could else stand in for the one that is asked again. What counts
//! is one try in which everybody answers at once.
//!
//! Who does not trust us chooses the nonces itself, and sends each when the round before has been
//! answered ([`AskedNonces`]). There is one try then: another one is another challenge.
//!
//! - `targets`: which GPUs, and what each is taken for. Pure.
//! - `leases`: what others hold is left alone, and what is challenged is held meanwhile.
//! - `rounds`: what one GPU must answer, in order. Pure.
//! - `nonces`: nonces that somebody else chooses, each awaited in its turn.
//! - `proving`: the talk with all of them in one session; the barrier is there.
//! - `judging`: what is made of one GPU's answers.
//! - `verdict`: what is said of each GPU and of the host.
//! - `telemetry`: what the GPUs were at meanwhile.

mod error;
mod event;
mod judging;
mod leases;
mod nonces;
pub(super) mod proving;
mod rounds;
pub(super) mod targets;
pub(super) mod telemetry;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pow_kernels::{Backend, Challenge, Mode, ModelTable};
use runner_protocol::facts::DriverState;
use runner_protocol::{ByteArray, FactsQuery};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::judging::{Judged, Judging, failed};
use self::proving::{Answers, Issued, Proving};
use self::targets::{Plan, Target, Wanted};
use self::telemetry::Watched;
use super::deploy::{not_placed, start_runner};
use super::link::{Fleet, Link};
use crate::error_chain::causes;
use crate::host_spec::HostSpec;
use crate::pow::{self, Asked, ChallengeRecord, CheckRow, GpuTarget, Judgement, NoRandomness};
use crate::printable::printable;
use crate::runner::{self, Artifact, Session, Started};
use crate::signing_key::SigningKey;
use crate::store::{ChallengeEnd, Duplicate, NewChallenge, NewEvent, SeenBy, now_ms};

pub use self::error::VerifyError;
pub use self::event::{GpuStep, VerifyEvent, VerifyStep};
pub use self::nonces::{AskedNonces, AskedRound, NoNonce, NonceSender};
pub use self::targets::{GpuName, ModelSource};
pub use self::telemetry::{Observed, Span};
pub use self::verdict::{GpuReport, GpuVerdict, HostVerdict, Probe, sentence, short_uuid};

/// How many small questions measure the round trip: the least of a few is near the truth, and a host
/// that lies about it only lowers what it is allowed.
const ROUND_TRIPS: usize = 8;

/// One later probe of a hold for each so much of it, at least one.
const HOLD_PER_PROBE: Duration = Duration::from_secs(20);

/// The most later probes of a hold: each is a proof to be judged, signed and kept.
const MAX_HELD_PROBES: usize = 16;

/// What a verification needs besides the host.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The runner that the host shall have.
    pub artifact: Arc<Artifact>,
    /// What signs the proofs.
    pub key: Arc<SigningKey>,
    /// The GPUs, by UUID; none are all of the host.
    pub gpus: Vec<String>,
    /// How long the challenges are.
    pub mode: Mode,
    /// In [`Mode::Hold`]: how long the filled memories are held after the first probe.
    pub hold_for: Duration,
    /// How often the GPUs are challenged at most, where nothing but times is wrong.
    pub tries: u32,
    /// The models, their sizes and times.
    pub models: Arc<ModelTable>,
    /// Where those are from, for messages.
    pub models_name: String,
    /// Whether to ask the CPU reference, which proves nothing of a GPU, and let its proof pass.
    pub allow_reference: bool,
    /// Whether this machine is meant instead of a host: without SSH, and without the GPU ledger.
    pub local: bool,
    /// sr25519 public key of the validator that asks, or zero.
    pub validator_hotkey: [u8; 32],
    /// sr25519 public key of this orchestrator, or zero.
    pub orchestrator_hotkey: [u8; 32],
    /// Who chooses the nonces; without anybody they are random and ours. Then there is one try, and
    /// the mode is not [`Mode::Hold`].
    pub asked: Option<Arc<AskedNonces>>,
}

impl VerifyOptions {
    /// All GPUs, quick challenges, three tries, the built-in table.
    #[must_use]
    pub fn new(artifact: Arc<Artifact>, key: Arc<SigningKey>) -> Self {
        Self {
            artifact,
            key,
            gpus: Vec::new(),
            mode: Mode::Quick,
            hold_for: Duration::from_secs(60),
            tries: 3,
            models: Arc::new(ModelTable::embedded().clone()),
            models_name: "that is built in".to_owned(),
            allow_reference: false,
            local: false,
            validator_hotkey: [0; 32],
            orchestrator_hotkey: [0; 32],
            asked: None,
        }
    }
}

/// Challenges the GPUs of a host and records how that ended, with an audit event.
///
/// # Errors
/// There is no verdict on any GPU: [`VerifyError`] says why, and so does the store. A negative verdict
/// is no error, and neither is a GPU that could not be challenged beside others that could.
///
/// # Cancel safety
/// When `cancel` fires, the connection is dropped, the runner ends by that, and the end is recorded.
/// Dropping the future does the same but for the record: the challenges then have no end.
pub async fn verify(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &VerifyOptions,
    on_event: &(dyn Fn(VerifyEvent) + Sync),
    cancel: &CancellationToken,
) -> Result<HostVerdict, VerifyError> {
    let (open, lease) = (Mutex::new(Vec::new()), Mutex::new(None));
    let run = Run { fleet, spec, options, on_event, open: &open, lease: &lease };
    // Cancel safety: the run is dropped whole.
    let result = tokio::select! {
        result = run.whole() => result,
        () = cancel.cancelled() => Err(VerifyError::Cancelled),
    };
    let open = open.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Whatever came of it: the runner has ended, or ends by its lost connection.
    if let Some(lease) = lease.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let released = fleet.store.release_lease(&fleet.actor, &lease, "the verification ended");
        released.await.map_err(VerifyError::Store)?;
    }
    record(fleet, spec, options, open, result).await
}

/// Ends what is open in the store, and says in the audit chain how it went.
async fn record(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &VerifyOptions,
    open: Vec<String>,
    result: Result<(HostVerdict, Vec<(String, ChallengeEnd)>), VerifyError>,
) -> Result<HostVerdict, VerifyError> {
    let (passed, detail, ends) = match &result {
        Ok((verdict, ends)) => {
            let gpus: Vec<_> = verdict.gpus.iter().map(verdict::audit_row).collect();
            let detail = json!({
                "mode": pow::mode_name(verdict.mode),
                "tries": verdict.tries,
                "reason": verdict.reason,
                "message": verdict.message,
                "gpus": gpus,
                "signer": ByteArray(options.key.public_key()),
            });
            (verdict.passed, detail, ends.clone())
        }
        Err(error) => {
            let words = std::iter::once(error.to_string()).chain(causes(error));
            let message = printable(&words.collect::<Vec<_>>().join(": "));
            let reason = error.reason();
            let detail = json!({ "challenges": open, "reason": reason, "message": message });
            let end = |id| (id, ChallengeEnd::Failed { reason, message: message.clone() });
            (false, detail, open.into_iter().map(end).collect())
        }
    };
    let kind = if passed { "verify.passed" } else { "verify.failed" };
    let event = NewEvent { kind, host: Some(spec.name.clone()), detail };
    fleet
        .store
        .record_challenge_ends(&fleet.actor, &ends, &[event])
        .await
        .map_err(VerifyError::Store)?;
    let (verdict, _) = result?;
    if !options.local {
        let proven: Vec<String> = verdict
            .gpus
            .iter()
            .filter(|gpu| gpu.passed && gpu.backend == Backend::Cuda)
            .filter_map(|gpu| gpu.gpu.as_ref().map(|gpu| gpu.uuid.clone()))
            .collect();
        fleet.store.record_proven(&spec.name, &proven).await.map_err(VerifyError::Store)?;
    }
    Ok(verdict)
}

/// A host whose runner is up.
pub(super) struct Reached {
    pub(super) link: Link,
    pub(super) session: Session,
    /// What challenges are bound to.
    pub(super) host_id: [u8; 32],
    /// The least round trip of a few small questions.
    pub(super) rtt_ns: u64,
}

impl Reached {
    /// Reaches a host, or this machine, and starts the runner there.
    pub(super) async fn start(
        fleet: &Fleet,
        spec: &HostSpec,
        options: &VerifyOptions,
        on_event: &(dyn Fn(VerifyEvent) + Sync),
    ) -> Result<Self, VerifyError> {
        on_event(VerifyEvent::Step(VerifyStep::Connecting));
        let link = if options.local { Link::local() } else { fleet.connect(spec, false).await? };
        match Self::start_over(&link, spec, options, on_event).await {
            Ok((session, host_id, rtt_ns)) => Ok(Self { link, session, host_id, rtt_ns }),
            Err(error) => {
                link.close().await;
                Err(error)
            }
        }
    }

    async fn start_over(
        link: &Link,
        spec: &HostSpec,
        options: &VerifyOptions,
        on_event: &(dyn Fn(VerifyEvent) + Sync),
    ) -> Result<(Session, [u8; 32], u64), VerifyError> {
        on_event(VerifyEvent::Step(VerifyStep::Starting));
        let artifact = &options.artifact;
        let mut quietly = |_, _| ();
        let mut session = match start_runner(spec, artifact, link, Some(&mut quietly)).await? {
            Started::Running { session, .. } => *session,
            Started::NotThere(host) => return Err(not_placed(artifact, &host).into()),
        };
        let host_id = link.host_id().ok_or(VerifyError::HostId)?;
        let mut least = Duration::MAX;
        for _ in 0..ROUND_TRIPS {
            least = least.min(session.round_trip().await?);
        }
        Ok((session, host_id, u64::try_from(least.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Ends the runner and the connection.
    pub(super) async fn close(self) {
        self.session.close().await;
        self.link.close().await;
    }
}

struct Run<'a> {
    fleet: &'a Fleet,
    spec: &'a HostSpec,
    options: &'a VerifyOptions,
    on_event: &'a (dyn Fn(VerifyEvent) + Sync),
    /// The challenges that are stored and have no end there.
    open: &'a Mutex<Vec<String>>,
    /// The lease that is held.
    lease: &'a Mutex<Option<String>>,
}

type Ended = (HostVerdict, Vec<(String, ChallengeEnd)>);

impl Run<'_> {
    async fn whole(&self) -> Result<Ended, VerifyError> {
        let mut reached =
            Reached::start(self.fleet, self.spec, self.options, self.on_event).await?;
        let ended = self.on_host(&mut reached).await;
        reached.close().await;
        ended
    }

    async fn on_host(&self, reached: &mut Reached) -> Result<Ended, VerifyError> {
        let (mut plan, duplicates) = match self.options.allow_reference {
            true => (Plan::default(), Vec::new()),
            false => self.look(&mut reached.session).await?,
        };
        if !self.options.local && !plan.targets.is_empty() {
            let hold = self.options.hold_for;
            let lease = leases::take(self.fleet, &self.spec.name, &mut plan, hold).await?;
            *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
        }
        let known =
            self.fleet.store.least_rtt_ns(&self.spec.name).await.map_err(VerifyError::Store)?;
        let least_rtt_ns = known.unwrap_or(u64::MAX).min(reached.rtt_ns);
        if !plan.unfit.is_empty() {
            let left_out = plan.unfit.iter().map(|unfit| (unfit.gpu.clone(), unfit.reason));
            (self.on_event)(VerifyEvent::LeftOut(left_out.collect()));
        }
        let names = plan.targets.iter().map(|target| target.gpu.clone()).collect();
        (self.on_event)(VerifyEvent::Gpus(names));
        let (gpus, ends, tries) =
            self.tries(reached, &plan.targets, &duplicates, least_rtt_ns).await?;
        let mut gpus: Vec<GpuVerdict> =
            gpus.into_iter().chain(plan.unfit.into_iter().map(GpuVerdict::of_unfit)).collect();
        gpus.sort_by_key(|verdict| verdict.gpu.as_ref().map_or(0, |gpu| gpu.index));
        let by = self.judgement(least_rtt_ns, false);
        let verdict = verdict::of_host(HostVerdict {
            host: self.spec.name.clone(),
            passed: false,
            reason: None,
            message: String::new(),
            mode: self.options.mode,
            tries,
            rtt_ns: Some(reached.rtt_ns),
            allowance_ns: by.allowance_ns(self.options.mode),
            checks: plan.checks,
            gpus,
        });
        Ok((verdict, ends))
    }

    /// Reads the facts, chooses the GPUs, and asks the ledger who else shows them.
    async fn look(&self, session: &mut Session) -> Result<(Plan, Vec<Duplicate>), VerifyError> {
        (self.on_event)(VerifyEvent::Step(VerifyStep::Looking));
        let facts = session.facts(FactsQuery::default()).await?;
        let wanted = Wanted {
            claim: self.spec.gpus.as_ref(),
            gpus: &self.options.gpus,
            table: &self.options.models,
            table_name: &self.options.models_name,
        };
        // Seen before it is judged whether they can be challenged: a GPU of an unknown model is seen.
        let shown = !matches!(facts.gpus.driver, DriverState::Failed { .. });
        let duplicates = if shown && !self.options.local {
            let uuids = super::ledger::shown_uuids(&facts);
            self.fleet
                .store
                .record_sightings(&self.fleet.actor, &self.spec.name, SeenBy::Verify, &uuids)
                .await
                .map_err(VerifyError::Store)?
        } else {
            Vec::new()
        };
        Ok((targets::plan(&facts, &wanted)?, duplicates))
    }

    /// Challenges all of them, again where only times were wrong. The verdicts, the ends of the last
    /// try, which are not recorded yet, and how many tries there were.
    async fn tries(
        &self,
        reached: &mut Reached,
        targets: &[Target],
        duplicates: &[Duplicate],
        least_rtt_ns: u64,
    ) -> Result<(Vec<GpuVerdict>, Vec<(String, ChallengeEnd)>, u32), VerifyError> {
        // The reference stands in the place of one GPU.
        let places = if self.options.allow_reference { 1 } else { targets.len() };
        let mut verdicts: Vec<GpuVerdict> =
            (0..places).map(|place| blank(targets.get(place))).collect();
        let mut alive: Vec<usize> = (0..places).collect();
        let mut tries = 0;
        let mut last_ends = Vec::new();
        while !alive.is_empty() {
            tries += 1;
            if tries > 1 {
                (self.on_event)(VerifyEvent::Again(tries));
            }
            let judged = self
                .one_try(reached, targets, &alive, &mut verdicts, duplicates, least_rtt_ns)
                .await?;
            let may_again = self.options.asked.is_none() && tries < self.options.tries;
            let again = may_again && judged.iter().any(|(_, one)| one.only_slow);
            alive.retain(|place| {
                judged.iter().any(|(of, one)| of == place && (one.only_slow || one.verdict.passed))
            });
            last_ends = Vec::new();
            for (place, one) in judged {
                if let Some(id) = &one.verdict.challenge {
                    last_ends.push((id.clone(), one.end));
                }
                if let Some(slot) = verdicts.get_mut(place) {
                    *slot = one.verdict;
                }
            }
            if !again {
                break;
            }
            self.end(&last_ends).await?;
        }
        Ok((verdicts, last_ends, tries))
    }

    /// Records the ends of a try that another one follows.
    async fn end(&self, ends: &[(String, ChallengeEnd)]) -> Result<(), VerifyError> {
        self.fleet
            .store
            .record_challenge_ends(&self.fleet.actor, ends, &[])
            .await
            .map_err(VerifyError::Store)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    async fn one_try(
        &self,
        reached: &mut Reached,
        targets: &[Target],
        alive: &[usize],
        verdicts: &mut [GpuVerdict],
        duplicates: &[Duplicate],
        least_rtt_ns: u64,
    ) -> Result<Vec<(usize, Judged)>, VerifyError> {
        let moments = self.hold_moments()?;
        let issued = self.issue(reached.host_id, targets, alive, &moments).await?;
        for (place, one) in &issued {
            if let (Some(slot), Some(first)) = (verdicts.get_mut(*place), one.probes.first()) {
                slot.challenge = Some(crate::hex::encode(&first.context.challenge_id));
            }
        }
        for (place, one) in &issued {
            if let Some(first) = one.probes.first() {
                let context = Box::new(first.context.clone());
                (self.on_event)(VerifyEvent::Issued { gpu: *place, context });
            }
        }
        (self.on_event)(VerifyEvent::Step(VerifyStep::Challenging));
        let mut watched = Watched::new(targets.iter().map(|target| target.gpu.uuid.as_str()));
        let proving = Proving::new(&mut reached.session, issued, &mut watched, self.on_event);
        let answers = proving.asking(self.options.asked.clone()).run(&moments).await?;
        (self.on_event)(VerifyEvent::Step(VerifyStep::Judging));
        let mut tasks = JoinSet::new();
        let mut judged = Vec::new();
        for (place, answer) in alive.iter().copied().zip(answers) {
            let Some(blank) = verdicts.get(place).cloned() else { continue };
            let blank = self.observed(blank, &watched);
            match answer {
                Err(failure) => judged.push((place, failed(blank, failure))),
                Ok(answers) => {
                    let identity = identity(&blank, duplicates, self.options.local);
                    let judging =
                        self.judging(blank, answers, identity, least_rtt_ns, reached.rtt_ns);
                    tasks.spawn_blocking(move || judging.run().map(|judged| (place, judged)));
                }
            }
        }
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                judged.push(ended.map_err(VerifyError::Verifier)??);
            }
            Ok::<_, VerifyError>(())
        };
        // Cancel safety: messages that nobody waits for any more are dropped, and the session stays
        // alive for another try.
        tokio::select! {
            done = all => done?,
            error = listen(&mut reached.session) => return Err(error.into()),
        }
        judged.sort_by_key(|(place, _)| *place);
        Ok(judged)
    }

    /// Makes the challenges of a try and stores them, before anything of them is sent.
    async fn issue(
        &self,
        host_id: [u8; 32],
        targets: &[Target],
        alive: &[usize],
        moments: &[Duration],
    ) -> Result<Vec<(usize, Issued)>, VerifyError> {
        let issued_at_ms = u64::try_from(now_ms()).unwrap_or_default();
        let asked = Asked {
            mode: self.options.mode,
            host_id,
            validator_hotkey: self.options.validator_hotkey,
            orchestrator_hotkey: self.options.orchestrator_hotkey,
            issued_at_ms,
        };
        let count = u16::try_from(alive.len()).unwrap_or(u16::MAX);
        let (mut issued, mut rows) = (Vec::new(), Vec::new());
        for (index, place) in alive.iter().copied().enumerate() {
            let target = targets.get(place).filter(|_| !self.options.allow_reference);
            let challenge = match target {
                None => pow::reference_challenge(host_id, issued_at_ms)?,
                Some(target) => {
                    let index = u16::try_from(index).unwrap_or(u16::MAX);
                    let (model, uuid) = (&target.model, target.raw_uuid);
                    pow::gpu_challenge(&asked, &GpuTarget { model, uuid, index, count })?
                }
            };
            let challenge = match &self.options.asked {
                // The nonces of the rounds are not known yet.
                Some(asked) => pow::asked_by_another(challenge, asked.fill()),
                None => challenge,
            };
            let one = self.with_later_probes(challenge, target, moments.len())?;
            rows.push(self.row(&one, moments)?);
            issued.push((place, one));
        }
        let store = &self.fleet.store;
        store.record_challenges(&self.fleet.actor, &rows).await.map_err(VerifyError::Store)?;
        let ids = rows.into_iter().map(|row| row.id);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        Ok(issued)
    }

    fn with_later_probes(
        &self,
        challenge: Challenge,
        target: Option<&Target>,
        later: usize,
    ) -> Result<Issued, NoRandomness> {
        let mut probes = Vec::new();
        for _ in 0..later {
            probes.push(pow::probed_again(&challenge)?);
        }
        probes.insert(0, challenge);
        Ok(Issued {
            backend: if target.is_some() { Backend::Cuda } else { Backend::Reference },
            uuid: target.map(|target| target.gpu.uuid.clone()),
            model: target.map(|target| (target.model.clone(), target.kernels)),
            probes,
        })
    }

    fn row(&self, issued: &Issued, moments: &[Duration]) -> Result<NewChallenge, VerifyError> {
        let records: Vec<_> = issued.probes.iter().map(ChallengeRecord::from).collect();
        let id = issued.probes.first().map(|first| crate::hex::encode(&first.context.challenge_id));
        // The first as it was always written, then what comes after a while.
        let mut document = serde_json::to_value(records.first())?;
        if let Some(fields) = document.as_object_mut()
            && !moments.is_empty()
        {
            let later: Vec<_> = moments
                .iter()
                .zip(records.iter().skip(1))
                .map(|(moment, record)| {
                    json!({
                        "after_ms": u64::try_from(moment.as_millis()).unwrap_or(u64::MAX),
                        "nonce_probe": record.nonce_probe,
                        "nonce_open": record.nonce_open,
                    })
                })
                .collect();
            fields.insert("held".to_owned(), json!(later));
        }
        if let Some(fields) = document.as_object_mut()
            && self.options.asked.is_some()
        {
            // They come later, and stand in the proof.
            fields.remove("nonce_probe");
            fields.remove("nonce_open");
            fields.insert("nonces".to_owned(), json!("of the one who asked"));
        }
        Ok(NewChallenge {
            id: id.unwrap_or_default(),
            host: self.spec.name.clone(),
            backend: pow::backend_name(issued.backend),
            gpu_uuid: issued.uuid.clone(),
            mode: pow::mode_name(self.options.mode),
            model: issued.model.as_ref().map(|(model, _)| model.name.clone()),
            challenge_json: document.to_string(),
        })
    }

    /// The random moments of a hold, as many as it is long; none in the other modes.
    fn hold_moments(&self) -> Result<Vec<Duration>, NoRandomness> {
        if self.options.mode != Mode::Hold || self.options.asked.is_some() {
            return Ok(Vec::new());
        }
        let hold = self.options.hold_for;
        let each = hold.as_secs() / HOLD_PER_PROBE.as_secs();
        let count = usize::try_from(each).unwrap_or(usize::MAX).clamp(1, MAX_HELD_PROBES);
        pow::random_moments(hold, count)
    }

    fn observed(&self, verdict: GpuVerdict, watched: &Watched) -> GpuVerdict {
        let observed = verdict.gpu.as_ref().and_then(|gpu| watched.of(&gpu.uuid));
        GpuVerdict { observed, ..verdict }
    }

    fn judgement(&self, least_rtt_ns: u64, held: bool) -> Judgement<'_> {
        Judgement {
            table: &self.options.models,
            allow_reference: self.options.allow_reference,
            least_rtt_ns: Some(least_rtt_ns),
            held,
        }
    }

    fn judging(
        &self,
        blank: GpuVerdict,
        answers: Answers,
        identity: Option<CheckRow>,
        least_rtt_ns: u64,
        rtt_ns: u64,
    ) -> Judging {
        let options = self.options;
        Judging {
            blank,
            answers,
            identity,
            table: Arc::clone(&options.models),
            key: Arc::clone(&options.key),
            allow_reference: options.allow_reference,
            least_rtt_ns,
            rtt_ns,
            host: self.spec.name.clone(),
            runner: options.artifact.sha256.clone(),
        }
    }
}

fn blank(target: Option<&Target>) -> GpuVerdict {
    GpuVerdict {
        gpu: target.map(|target| target.gpu.clone()),
        model: target.map(|target| (target.model.name.clone(), target.source)),
        backend: if target.is_some() { Backend::Cuda } else { Backend::Reference },
        passed: false,
        reason: None,
        message: String::new(),
        hint: None,
        outcome: None,
        checks: Vec::new(),
        evidence: None,
        challenge: None,
        probes: Vec::new(),
        observed: None,
    }
}

/// The ledger's word on a GPU; nothing for the reference and for this machine, which is in no ledger.
fn identity(verdict: &GpuVerdict, duplicates: &[Duplicate], local: bool) -> Option<CheckRow> {
    let gpu = verdict.gpu.as_ref().filter(|_| !local)?;
    let other = duplicates.iter().find(|duplicate| duplicate.uuid == gpu.uuid);
    Some(super::ledger::check(other))
}

/// Takes what comes and does nothing with it, until the session breaks.
pub(super) async fn listen(session: &mut Session) -> runner::Error {
    loop {
        if let Err(error) = session.incoming().await {
            return error;
        }
    }
}

//! The talk with all GPUs of a host at once, in one session of its runner.
//!
//! Each GPU is a request of its own and goes through its phases by itself; here is the barrier. A
//! phase begins for all of them in one write, and ends when each has answered, failed, or run out of
//! time: a GPU that fails takes nobody with it, and holds the others up no longer than its deadline.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pow_kernels::artifacts::Artifact;
use pow_kernels::{Backend, Challenge, Digest, Model, Proof, Timings};
use runner_protocol::prove::Image;
use runner_protocol::{ByteArray, ProveEvent, ProveReply, Reply, RequestId, Round, ToRunner, Unit};
use tokio::time::Instant;

use super::nonces::{AskedNonces, AskedRound};
use super::rounds::{Phase, Rounds};
use super::telemetry::Watched;
use super::{GpuStep, VerifyError, VerifyEvent};
use crate::runner::{self, Incoming, Session, UnitEvent};

/// For phases whose time no table knows: a driver that has to start eight GPUs, or to compile the
/// kernels, and the openings of a slow line.
const PHASE_ALLOWANCE: Duration = Duration::from_secs(90);

/// The runner gives the reference two minutes in all.
const REFERENCE_LIMIT: Duration = Duration::from_secs(150);

/// How often the GPUs' clocks are asked for meanwhile. A fill takes about this long.
const WATCH_INTERVAL_MS: u64 = 100;

/// The most requests that a runner takes at once, the watch included.
const MAX_REQUESTS: usize = 40;

/// One GPU's challenge, ready to be sent.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Issued {
    pub(in crate::fleet) backend: Backend,
    /// The GPU's UUID; `None` for the reference.
    pub(in crate::fleet) uuid: Option<String>,
    /// What it is claimed to be, and the kernels for that; `None` for the reference.
    pub(in crate::fleet) model: Option<(Model, &'static Artifact)>,
    /// The challenge of the first probe, and of each later one.
    pub(in crate::fleet) probes: Vec<Challenge>,
}

impl Issued {
    /// How long a phase may take before the GPU is given up: what the table expects, twice over and
    /// with the slack, and a good while for everything that it does not know.
    fn limit(&self, phase: Phase) -> Duration {
        let (Some((model, _)), Some(challenge)) = (&self.model, self.probes.first()) else {
            return REFERENCE_LIMIT;
        };
        let profile = model.profile(challenge.context.mode);
        let expected_us = match phase {
            Phase::Fill => profile.fill.expected_us,
            Phase::Probe => profile
                .gemm
                .expected_us
                .saturating_mul(challenge.context.parameters.gemms.into())
                .saturating_add(profile.chain.expected_us),
            Phase::Prepare | Phase::Load | Phase::Open | Phase::Release => 0,
        };
        PHASE_ALLOWANCE.saturating_add(Duration::from_micros(expected_us.saturating_mul(4)))
    }
}

/// Why a GPU has no proof.
#[derive(Debug)]
pub(in crate::fleet) enum GpuFailure {
    /// The runner, or the GPU, could not.
    Runner(runner::Error),
    /// The device is not what is claimed.
    NotTheModel(String),
}

/// What a GPU answered to each probe.
pub(in crate::fleet) type Answers = Vec<(Challenge, Proof, Timings)>;

/// The exchange of one try.
pub(in crate::fleet) struct Proving<'s> {
    session: &'s mut Session,
    provers: Vec<Prover>,
    watch: Option<RequestId>,
    watched: &'s mut Watched,
    /// Who chooses the nonces of the rounds; without anybody they stand in the challenges.
    asked: Option<Arc<AskedNonces>>,
    on_event: &'s (dyn Fn(VerifyEvent) + Sync),
}

struct Prover {
    /// Its place among the GPUs of the host, for the events.
    place: usize,
    issued: Issued,
    id: Option<RequestId>,
    rounds: Rounds,
    answers: Answers,
    failure: Option<GpuFailure>,
    /// Whether `Finished` has come.
    finished: bool,
}

impl<'s> Proving<'s> {
    /// `issued` has the GPUs with their places.
    pub(in crate::fleet) fn new(
        session: &'s mut Session,
        issued: Vec<(usize, Issued)>,
        watched: &'s mut Watched,
        on_event: &'s (dyn Fn(VerifyEvent) + Sync),
    ) -> Self {
        let prover = |(place, issued): (usize, Issued)| {
            let first = issued.probes.first();
            let rounds = first.map(|first| Rounds::new(issued.backend, issued.uuid.clone(), first));
            rounds.map(|rounds| Prover {
                place,
                id: None,
                rounds,
                answers: Vec::new(),
                failure: None,
                finished: false,
                issued,
            })
        };
        let provers = issued.into_iter().filter_map(prover).collect();
        Self { session, provers, watch: None, watched, asked: None, on_event }
    }

    /// Takes the nonces of the rounds from somebody else, each when it is its turn.
    pub(in crate::fleet) fn asking(self, asked: Option<Arc<AskedNonces>>) -> Self {
        Self { asked, ..self }
    }

    /// Goes through all phases; between the probes of a hold it waits until these moments after the
    /// first one was opened. Each GPU's answers, in the order of the GPUs.
    ///
    /// # Errors
    /// The session is of no more use, or a nonce did not come, and no GPU has an answer.
    pub(in crate::fleet) async fn run(
        mut self,
        moments: &[Duration],
    ) -> Result<Vec<Result<Answers, GpuFailure>>, VerifyError> {
        self.start_watch().await?;
        self.prepare().await?;
        let load = self.messages(|prover: &Prover, id| {
            let (_, kernels) = prover.issued.model.as_ref()?;
            let image = Image(kernels.bytes.to_vec());
            Some(ToRunner::Continue { id, round: Round::Load { image } })
        });
        self.phase(Phase::Load, GpuStep::Loading, load).await?;
        let fill = self.messages(|prover: &Prover, id| {
            let context = prover.issued.probes.first()?.context.encode();
            let round = Round::Fill { context: Box::new(ByteArray(context)) };
            Some(ToRunner::Continue { id, round })
        });
        self.phase(Phase::Fill, GpuStep::Filling, fill).await?;
        self.probe(0).await?;
        let opened = Instant::now();
        for (number, moment) in moments.iter().enumerate() {
            self.hold_until(opened + *moment).await?;
            self.probe(number + 1).await?;
        }
        self.release().await?;
        Ok(self.provers.into_iter().map(Prover::end).collect())
    }

    async fn start_watch(&mut self) -> Result<(), runner::Error> {
        let cuda = self.provers.iter().any(|prover| prover.issued.backend == Backend::Cuda);
        if cuda && self.provers.len() < MAX_REQUESTS {
            let watch = Unit::Watch { interval_ms: WATCH_INTERVAL_MS };
            self.watch = Some(self.session.open(watch).await?);
        }
        Ok(())
    }

    async fn prepare(&mut self) -> Result<(), runner::Error> {
        self.tell(GpuStep::Preparing);
        let units: Vec<_> = self
            .provers
            .iter()
            .map(|prover| Unit::Prove {
                backend: prover.issued.backend,
                gpu: prover.issued.uuid.clone(),
            })
            .collect();
        let begun = Instant::now();
        let ids = within(PHASE_ALLOWANCE, Phase::Prepare, self.session.open_all(units)).await?;
        for (prover, id) in self.provers.iter_mut().zip(ids) {
            prover.id = Some(id);
            prover.rounds.begin(Phase::Prepare, begun.into_std());
        }
        self.await_answers(Phase::Prepare, begun).await?;
        for prover in &mut self.provers {
            let Some((model, _)) = &prover.issued.model else { continue };
            let Some(device) = prover.rounds.device() else { continue };
            let ([major, minor], [its_major, its_minor]) =
                (model.compute_capability, device.compute_capability);
            if prover.failure.is_none() && (major, minor) != (its_major, its_minor) {
                prover.failure = Some(GpuFailure::NotTheModel(format!(
                    "a {} has compute capability {major}.{minor}, and this GPU says {its_major}.{its_minor}",
                    model.name
                )));
            }
        }
        self.give_up_failed().await
    }

    /// Probes all filled memories at once, then has all commitments opened.
    async fn probe(&mut self, number: usize) -> Result<(), VerifyError> {
        self.ask(AskedRound::Probe, number).await?;
        let probe = self.messages(|prover: &Prover, id| {
            let nonce = ByteArray(prover.issued.probes.get(number)?.nonce_probe);
            Some(ToRunner::Continue { id, round: Round::Probe { nonce } })
        });
        self.phase(Phase::Probe, GpuStep::Probing, probe).await?;
        self.ask(AskedRound::Open, number).await?;
        let open = self.messages(|prover: &Prover, id| {
            let challenge = prover.issued.probes.get(number)?;
            let nonce = ByteArray(challenge.nonce_open);
            let round = Round::Open { nonce, counts: challenge.counts };
            Some(ToRunner::Continue { id, round })
        });
        self.phase(Phase::Open, GpuStep::Opening, open).await?;
        for prover in self.provers.iter_mut().filter(|prover| prover.failure.is_none()) {
            let Some(challenge) = prover.issued.probes.get(number) else { continue };
            if let Some((proof, timings)) = prover.rounds.answer(challenge) {
                prover.answers.push((challenge.clone(), proof, timings));
            }
        }
        Ok(())
    }

    /// Waits for the nonce of a round, where somebody else chooses it, and writes it into the
    /// challenges. The session is kept alive meanwhile. Nobody is asked for GPUs that have all failed.
    async fn ask(&mut self, round: AskedRound, number: usize) -> Result<(), VerifyError> {
        let Some(asked) = self.asked.clone() else { return Ok(()) };
        if self.none_left() {
            return Ok(());
        }
        (self.on_event)(VerifyEvent::Awaiting(round));
        let mut next = pin!(asked.next(round));
        let nonce = loop {
            // Cancel safety: the wait for the nonce is kept, and a message that was not taken stays
            // in the session.
            let message = tokio::select! {
                nonce = &mut next => break nonce?,
                message = self.session.incoming() => message?,
            };
            // Nothing is due now, so whatever a GPU says but that it failed is out of order.
            self.take(message, Phase::Open);
            if self.none_left() {
                break [0; 32];
            }
        };
        for prover in &mut self.provers {
            let Some(challenge) = prover.issued.probes.get_mut(number) else { continue };
            match round {
                AskedRound::Probe => challenge.nonce_probe = nonce,
                AskedRound::Open => challenge.nonce_open = nonce,
            }
        }
        Ok(self.give_up_failed().await?)
    }

    fn none_left(&self) -> bool {
        self.provers.iter().all(|prover| prover.failure.is_some())
    }

    async fn release(&mut self) -> Result<(), runner::Error> {
        let release = self
            .messages(|_: &Prover, id| Some(ToRunner::Continue { id, round: Round::Release {} }));
        self.phase(Phase::Release, GpuStep::Releasing, release).await?;
        let watch = self.watch.take().map(|id| ToRunner::Cancel { id });
        self.session.say(watch).await.map(drop)
    }

    /// What each GPU that has not failed is told, with its place among the provers.
    fn messages(
        &self,
        message: impl Fn(&Prover, RequestId) -> Option<ToRunner>,
    ) -> Vec<(usize, ToRunner)> {
        let of = |(place, prover): (usize, &Prover)| {
            let id = prover.id.filter(|_| prover.failure.is_none())?;
            Some((place, message(prover, id)?))
        };
        self.provers.iter().enumerate().filter_map(of).collect()
    }

    /// One phase of these GPUs: what they are told goes out in one write.
    async fn phase(
        &mut self,
        phase: Phase,
        step: GpuStep,
        messages: Vec<(usize, ToRunner)>,
    ) -> Result<(), runner::Error> {
        self.tell(step);
        let (told, messages): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let begun = within(PHASE_ALLOWANCE, phase, self.session.say(messages)).await?;
        for place in told {
            if let Some(prover) = self.provers.get_mut(place) {
                prover.rounds.begin(phase, begun);
            }
        }
        self.await_answers(phase, Instant::from_std(begun)).await?;
        self.give_up_failed().await
    }

    /// Takes messages until every GPU has answered the phase, failed, or run out of time.
    async fn await_answers(&mut self, phase: Phase, begun: Instant) -> Result<(), runner::Error> {
        loop {
            let waiting = |prover: &&mut Prover| prover.waits(phase);
            let limit = |prover: &Prover| prover.issued.limit(phase);
            let Some(next) =
                self.provers.iter().filter(|prover| prover.waits(phase)).map(limit).min()
            else {
                return Ok(());
            };
            let message = tokio::time::timeout_at(begun + next, self.session.incoming()).await;
            if let Ok(message) = message {
                self.take(message?, phase);
            }
            // Also after a message: a host that never pauses must not keep the clock from being read.
            let now = Instant::now();
            for prover in self.provers.iter_mut().filter(waiting) {
                let limit = prover.issued.limit(phase);
                if now >= begun + limit {
                    let (operation, seconds) = (phase.words(), limit.as_secs());
                    let error = runner::Error::TimedOut { operation, seconds };
                    prover.failure = Some(GpuFailure::Runner(error));
                }
            }
        }
    }

    /// Waits, keeping the session alive, until a moment.
    async fn hold_until(&mut self, moment: Instant) -> Result<(), runner::Error> {
        self.tell(GpuStep::Holding);
        while Instant::now() < moment && self.provers.iter().any(|prover| prover.failure.is_none())
        {
            let message = tokio::time::timeout_at(moment, self.session.incoming()).await;
            if let Ok(message) = message {
                // Nothing is due now, so whatever a GPU says but that it failed is out of order.
                self.take(message?, Phase::Open);
            }
        }
        self.give_up_failed().await
    }

    fn take(&mut self, message: Incoming, phase: Phase) {
        let Incoming { id, event, at } = message;
        if self.watch == Some(id) {
            match event {
                UnitEvent::Reply(Reply::Telemetry(sample)) => self.watched.take(&sample),
                UnitEvent::Finished(_) => self.watch = None,
                _ => {}
            }
            return;
        }
        // A request of an earlier try, or the end of the watch.
        let Some(prover) = self.provers.iter_mut().find(|prover| prover.id == Some(id)) else {
            return;
        };
        let gpu = prover.place;
        let root = root_of(&event);
        prover.take(event, phase, at);
        if prover.failure.is_some() {
            return;
        }
        if let Some((product, root)) = root {
            (self.on_event)(VerifyEvent::Root { gpu, product, root });
        }
        if prover.rounds.is_answered() && phase == Phase::Fill {
            (self.on_event)(VerifyEvent::Gpu { gpu, step: GpuStep::Filled });
        }
    }

    /// Cancels the requests of GPUs that have failed here and not there.
    async fn give_up_failed(&mut self) -> Result<(), runner::Error> {
        let mut cancelled = Vec::new();
        for prover in self.provers.iter_mut().filter(|prover| prover.failure.is_some()) {
            let Some(id) = prover.id.take() else { continue };
            (self.on_event)(VerifyEvent::Gpu { gpu: prover.place, step: GpuStep::Failed });
            if !prover.finished {
                cancelled.push(ToRunner::Cancel { id });
            }
        }
        if cancelled.is_empty() {
            return Ok(());
        }
        within(PHASE_ALLOWANCE, Phase::Release, self.session.say(cancelled)).await.map(drop)
    }

    fn tell(&self, step: GpuStep) {
        for prover in self.provers.iter().filter(|prover| prover.failure.is_none()) {
            (self.on_event)(VerifyEvent::Gpu { gpu: prover.place, step });
        }
    }
}

impl Prover {
    fn waits(&self, phase: Phase) -> bool {
        let answered = match phase {
            Phase::Release => self.finished,
            _ => self.rounds.is_answered(),
        };
        self.failure.is_none() && self.id.is_some() && !answered
    }

    fn take(&mut self, event: UnitEvent, phase: Phase, at: std::time::Instant) {
        let unexpected =
            |found| runner::Error::Unexpected { expected: "the end of the proof", found };
        let taken = match event {
            UnitEvent::Progress(_) => return,
            UnitEvent::Finished(end) => {
                self.finished = true;
                match (end, phase) {
                    (Ok(()), Phase::Release) => return,
                    (Ok(()), _) => Err(runner::Error::Unexpected {
                        expected: "an answer to the round",
                        found: "the end of the request",
                    }),
                    (Err(error), _) => Err(error),
                }
            }
            UnitEvent::Reply(Reply::Prove(_)) if phase == Phase::Release => {
                Err(unexpected("more of it"))
            }
            UnitEvent::Reply(Reply::Prove(reply)) => self.rounds.take(reply, at),
            UnitEvent::Reply(_) => Err(unexpected("another reply")),
        };
        if let Err(error) = taken
            && self.failure.is_none()
        {
            self.failure = Some(GpuFailure::Runner(error));
        }
    }

    fn end(self) -> Result<Answers, GpuFailure> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.answers),
        }
    }
}

/// The root in a message, and of which product it is.
fn root_of(event: &UnitEvent) -> Option<(Option<u8>, Digest)> {
    match event {
        UnitEvent::Reply(Reply::Prove(ProveReply {
            event: ProveEvent::Root { product, root },
            ..
        })) => Some((*product, *root)),
        _ => None,
    }
}

/// Bounds the time of a write: a runner that reads nothing is as dead as one that says nothing.
async fn within<T>(
    limit: Duration,
    phase: Phase,
    work: impl Future<Output = Result<T, runner::Error>>,
) -> Result<T, runner::Error> {
    tokio::time::timeout(limit, work).await.map_err(|_| runner::Error::TimedOut {
        operation: phase.words(),
        seconds: limit.as_secs(),
    })?
}

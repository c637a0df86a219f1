//! Challenges with the nonces of the validator, who so need not trust us: it keeps the nonce of a round
//! until the round before has been answered, and takes the times itself.
//!
//! A challenge is a task, which ends by itself: when its proofs are judged, when a nonce is late, when
//! it is cancelled. Requests talk with it one at a time: each hands in a nonce and passes on what
//! the task tells, up to the next nonce or the end. Who hangs up meanwhile ends the challenge. What
//! must *not* be here: how GPUs are challenged, which is [`crate::fleet::verify`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use pow_kernels::{Mode, ModelTable};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::lines::{Sheet, told_error};
use super::requests::{gpus, nonce, required};
use super::{Validators, actor, failed, internal, text};
use crate::axon::{Answer, Call, Lines, Refusal, Route, Routes, handler, streaming};
use crate::config::ValidatorChallenges;
use crate::fleet::{
    AskedNonces, AskedRound, HostVerdict, NonceSender, VerifyError, VerifyEvent, VerifyOptions,
    verify,
};
use crate::hotkey::Hotkey;
use crate::ids::HostName;
use crate::runner::Artifact;
use crate::signing_key::SigningKey;
use crate::store::{HostRecord, LeaseKind, now_ms};

mod docs;
mod lines;

/// More GPUs than a host has.
const MOST_GPUS: usize = 64;

/// What challenges are made with.
#[derive(Debug, Clone)]
pub struct ChallengeParts {
    /// The limits.
    pub config: ValidatorChallenges,
    /// The runner that hosts shall have.
    pub artifact: Arc<Artifact>,
    /// What signs the proofs that are stored.
    pub key: Arc<SigningKey>,
    /// The models, their sizes and times.
    pub models: Arc<ModelTable>,
    /// Where those are from, for messages.
    pub models_name: String,
    /// Our own hotkey, which challenges are bound to.
    pub miner: Hotkey,
}

/// The challenges of validators.
#[derive(Clone)]
pub struct Challenges(Arc<Shared>);

struct Shared {
    validators: Validators,
    parts: ChallengeParts,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// By their ids.
    under_way: Mutex<BTreeMap<String, UnderWay>>,
}

#[derive(Clone)]
struct UnderWay {
    validator: Hotkey,
    host: HostName,
    cancel: CancellationToken,
    /// Fires when nothing of it is left.
    ended: CancellationToken,
    /// Whose turn it is: one request at a time.
    talk: Arc<Turn<Talk>>,
}

/// What a request needs to go on with a challenge.
struct Talk {
    nonces: NonceSender,
    told: mpsc::UnboundedReceiver<Told>,
    /// The nonce that it waits for; `None` while it works.
    due: Option<AskedRound>,
    sheet: Sheet,
}

/// What a challenge tells. How much that is follows from the number of GPUs, not from what a host
/// sends: so nobody need wait for a slow reader, which would spoil the times.
enum Told {
    Event(VerifyEvent),
    Ended(Box<Result<HostVerdict, VerifyError>>),
}

/// Up to where a request follows a challenge.
enum Reached {
    Awaiting(AskedRound),
    Ended(HostVerdict),
}

impl Challenges {
    /// Challenges on the hosts that are assigned to validators. All end when `cancel` fires.
    #[must_use]
    pub fn new(validators: Validators, parts: ChallengeParts, cancel: CancellationToken) -> Self {
        let (tasks, under_way) = (TaskTracker::new(), Mutex::default());
        Self(Arc::new(Shared { validators, parts, cancel, tasks, under_way }))
    }

    /// Adds what can be called.
    #[must_use]
    pub fn routes(&self, routes: Routes) -> Routes {
        let (open, probe, commitments, cancel) =
            (self.clone(), self.clone(), self.clone(), self.clone());
        routes
            .with(Route::post(
                "OpenChallenge",
                "/v1/challenges",
                &["name", "host", "gpus", "mode", "nonce_fill"],
                docs::open(),
                streaming(move |call, lines| {
                    let this = open.clone();
                    async move { this.open(&call, &lines).await }
                }),
            ))
            .with(Route::post(
                "ProbeChallenge",
                "/v1/challenges/probe",
                &["name", "challenge", "nonce_probe"],
                docs::probe(),
                streaming(move |call, lines| {
                    let this = probe.clone();
                    async move { this.probe(&call, &lines).await }
                }),
            ))
            .with(Route::post(
                "OpenCommitments",
                "/v1/challenges/open",
                &["name", "challenge", "nonce_open"],
                docs::commitments(),
                streaming(move |call, lines| {
                    let this = commitments.clone();
                    async move { this.commitments(&call, &lines).await }
                }),
            ))
            .with(Route::post(
                "CancelChallenge",
                "/v1/challenges/cancel",
                &["name", "challenge"],
                docs::cancel(),
                handler(move |call| {
                    let this = cancel.clone();
                    async move { this.cancel(&call).await }
                }),
            ))
    }

    /// Waits for the end of those under way, which `cancel` brings about.
    pub async fn drain(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn open(&self, call: &Call, lines: &Lines) -> Answer {
        let wanted = Wanted::of(call)?;
        let host = self.0.validators.assigned_host(call, &wanted.host).await?;
        self.within_rate(call).await?;
        let id = new_id()?;
        let under_way = self.begin(call, &id, &host, wanted)?;
        let ends_it = under_way.cancel.clone().drop_guard();
        let mut talk = under_way.talk.clone().lock_owned().await;
        say(lines, json!({ "event": "opened", "challenge": id, "host": host.spec.name })).await?;
        match follow(&mut talk, lines).await? {
            Reached::Awaiting(AskedRound::Probe) => {}
            Reached::Awaiting(AskedRound::Open) => return Err(internal()),
            // Nothing could be challenged, or all failed.
            Reached::Ended(verdict) => return Err(lines::why_none(&verdict)),
        }
        let mut answer = talk.sheet.opened();
        let patience = self.0.parts.config.round_timeout.as_millis();
        answer.insert("challenge".to_owned(), Value::from(id));
        answer.insert("host".to_owned(), json!(host.spec.name));
        answer.insert("round_timeout_ms".to_owned(), json!(u64::try_from(patience).ok()));
        ends_it.disarm();
        Ok(answer)
    }

    async fn probe(&self, call: &Call, lines: &Lines) -> Answer {
        let (id, under_way, mut talk) =
            self.hand_in(call, AskedRound::Probe, "nonce_probe").await?;
        let ends_it = under_way.cancel.drop_guard();
        match follow(&mut talk, lines).await? {
            Reached::Awaiting(AskedRound::Open) => {}
            Reached::Awaiting(AskedRound::Probe) => return Err(internal()),
            Reached::Ended(verdict) => return Err(lines::why_none(&verdict)),
        }
        let mut answer = talk.sheet.probed();
        answer.insert("challenge".to_owned(), Value::from(id));
        ends_it.disarm();
        Ok(answer)
    }

    async fn commitments(&self, call: &Call, lines: &Lines) -> Answer {
        let (id, under_way, mut talk) = self.hand_in(call, AskedRound::Open, "nonce_open").await?;
        let _ends_it = under_way.cancel.drop_guard();
        let Reached::Ended(verdict) = follow(&mut talk, lines).await? else {
            return Err(internal());
        };
        for line in lines::proofs(&verdict)? {
            say(lines, line).await?;
        }
        let mut answer = lines::judged(&verdict);
        answer.insert("challenge".to_owned(), Value::from(id));
        Ok(answer)
    }

    async fn cancel(&self, call: &Call) -> Answer {
        let (_, under_way) = self.find(call)?;
        under_way.cancel.cancel();
        under_way.ended.cancelled().await;
        Ok(Map::from_iter([("cancelled".to_owned(), Value::from(true))]))
    }

    /// Whether the caller may begin one more for now. What has held GPUs counts; that several at once
    /// may pass together is bounded by how many may be under way.
    async fn within_rate(&self, call: &Call) -> Result<(), Refusal> {
        let config = &self.0.parts.config;
        let window = i64::try_from(config.rate_limit_window.as_millis()).unwrap_or(i64::MAX);
        let since = now_ms().saturating_sub(window);
        let store = &self.0.validators.0.store;
        let counted = store.count_leases(&actor(&call.hotkey), LeaseKind::Verify, since).await;
        let (_, begun) = counted.map_err(failed)?;
        if usize::try_from(begun).is_ok_and(|begun| begun >= config.rate_limit) {
            let detail = "this hotkey has begun as many challenges as it may for now";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "limit", detail));
        }
        Ok(())
    }

    /// Begins a challenge, where it is within the limits.
    fn begin(
        &self,
        call: &Call,
        id: &str,
        host: &HostRecord,
        wanted: Wanted,
    ) -> Result<UnderWay, Refusal> {
        let parts = &self.0.parts;
        let fleet = self.0.validators.fleet()?;
        let fleet = fleet.acting_for(actor(&call.hotkey));
        let (nonces, asked) = AskedNonces::new(wanted.nonce_fill, parts.config.round_timeout);
        let (tell, told) = mpsc::unbounded_channel();
        let talk = Talk { nonces, told, due: None, sheet: Sheet::new(Arc::clone(&parts.models)) };
        let under_way = UnderWay {
            validator: call.hotkey,
            host: host.spec.name.clone(),
            cancel: self.0.cancel.child_token(),
            ended: CancellationToken::new(),
            talk: Arc::new(Turn::new(talk)),
        };
        let entry = self.enter(id, under_way.clone())?;
        let options = VerifyOptions {
            gpus: wanted.gpus,
            mode: wanted.mode,
            tries: 1,
            models: Arc::clone(&parts.models),
            models_name: parts.models_name.clone(),
            validator_hotkey: *call.hotkey.public_key(),
            orchestrator_hotkey: *parts.miner.public_key(),
            asked: Some(asked),
            ..VerifyOptions::new(Arc::clone(&parts.artifact), Arc::clone(&parts.key))
        };
        let (spec, cancel) = (host.spec.clone(), under_way.cancel.clone());
        self.0.tasks.spawn(async move {
            let on_event = |event| {
                let _gone = tell.send(Told::Event(event));
            };
            let result = verify(&fleet, &spec, &options, &on_event, &cancel).await;
            if let Err(error) = &result {
                let causes = crate::error_chain::causes(error);
                tracing::warn!(host = %spec.name, %error, ?causes, "a validator's challenge ended");
            }
            // Before it is told: who hears of the end may begin another at once.
            drop(entry);
            let _gone = tell.send(Told::Ended(Box::new(result)));
        });
        Ok(under_way)
    }

    fn enter(&self, id: &str, under_way: UnderWay) -> Result<Entry, Refusal> {
        let mut all = self.under_way();
        if all.values().any(|other| other.host == under_way.host) {
            let detail = "the host is being challenged";
            return Err(Refusal::new(StatusCode::CONFLICT, "host_busy", detail));
        }
        let own = all.values().filter(|other| other.validator == under_way.validator).count();
        if own >= self.0.parts.config.max_per_validator {
            let detail = "this hotkey has as many challenges under way as it may have";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "limit", detail));
        }
        let ended = under_way.ended.clone();
        all.insert(id.to_owned(), under_way);
        Ok(Entry { challenges: self.clone(), id: id.to_owned(), ended })
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, UnderWay>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's own challenge; another's is as unknown as none.
    fn find(&self, call: &Call) -> Result<(String, UnderWay), Refusal> {
        let id = required(call, "challenge")?;
        let found = self.under_way().get(id).cloned();
        let found = found.filter(|found| found.validator == call.hotkey);
        found.map(|found| (id.to_owned(), found)).ok_or_else(no_challenge)
    }

    /// Hands in the nonce of a round, where it is its turn.
    async fn hand_in(
        &self,
        call: &Call,
        round: AskedRound,
        field: &str,
    ) -> Result<(String, UnderWay, OwnedMutexGuard<Talk>), Refusal> {
        let nonce = nonce(call, field)?;
        let (id, under_way) = self.find(call)?;
        let not_its_turn = || {
            let detail = "the challenge does not wait for this nonce";
            Refusal::new(StatusCode::CONFLICT, "wrong_round", detail)
        };
        let mut talk = under_way.talk.clone().try_lock_owned().map_err(|_| not_its_turn())?;
        if talk.due != Some(round) {
            return Err(not_its_turn());
        }
        talk.due = None;
        if !talk.nonces.send(round, nonce).await {
            return Err(no_challenge());
        }
        Ok((id, under_way, talk))
    }
}

/// A challenge's place among those under way, until it is dropped.
struct Entry {
    challenges: Challenges,
    id: String,
    ended: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.challenges.under_way().remove(&self.id);
        self.ended.cancel();
    }
}

/// Passes on what a challenge tells, up to its next nonce or its end.
async fn follow(talk: &mut Talk, lines: &Lines) -> Result<Reached, Refusal> {
    loop {
        match talk.told.recv().await {
            Some(Told::Event(VerifyEvent::Awaiting(round))) => {
                talk.due = Some(round);
                return Ok(Reached::Awaiting(round));
            }
            Some(Told::Event(event)) => {
                for line in talk.sheet.note(event) {
                    say(lines, line).await?;
                }
            }
            Some(Told::Ended(result)) => {
                return result.map(Reached::Ended).map_err(|error| told_error(&error));
            }
            // Its task died; the log has more.
            None => return Err(internal()),
        }
    }
}

async fn say(lines: &Lines, line: Value) -> Result<(), Refusal> {
    let Value::Object(line) = line else { return Ok(()) };
    // Nobody hears the refusal.
    lines.say(line).await.map_err(|_| internal())
}

/// What is asked for.
struct Wanted {
    host: String,
    gpus: Vec<String>,
    mode: Mode,
    nonce_fill: [u8; 32],
}

impl Wanted {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let mode = match text(call, "mode")? {
            None | Some("quick") => Mode::Quick,
            Some("deep") => Mode::Deep,
            Some(_) => return Err(Refusal::bad_request("`mode` is \"quick\" or \"deep\"")),
        };
        Ok(Self {
            host: required(call, "host")?.to_owned(),
            gpus: gpus(call, MOST_GPUS)?,
            mode,
            nonce_fill: nonce(call, "nonce_fill")?,
        })
    }
}

fn no_challenge() -> Refusal {
    let detail = "this hotkey has no such challenge, or it is over";
    Refusal::new(StatusCode::NOT_FOUND, "no_challenge", detail)
}

/// A name that nobody guesses.
fn new_id() -> Result<String, Refusal> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| internal())?;
    Ok(crate::hex::encode(&bytes))
}

//! Calibrate: how long the phases take on a card that the operator trusts, and the band that follows.
//!
//! Every run is a whole challenge with fresh nonces, and every proof is checked: a card that computes
//! wrongly calibrates nothing. Nothing here is a verdict, so nothing is stored but an audit event.

use pow_kernels::artifacts;
use pow_kernels::{Challenge, Mode, Model, ModelTable, Outcome, Proof, Timings};
use runner_protocol::facts::Gpu;
use runner_protocol::{FactsQuery, HostFacts};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::link::Fleet;
use super::verify::proving::{GpuFailure, Issued, Proving};
use super::verify::targets::{self, Wanted};
use super::verify::telemetry::Watched;
use super::verify::{GpuName, Reached, VerifyError, VerifyEvent, VerifyOptions};
use crate::host_spec::HostSpec;
use crate::pow::{
    self, Asked, GpuTarget, Judgement, LEAST_MEMORY_BYTES, PhaseStatistics, derived_sizes,
    unmeasured,
};
use crate::printable::printable;
use crate::reason::Reason;
use crate::store::{NewEvent, now_ms};

/// Numbers of models that are not in the built-in table begin here.
const FIRST_OWN_ID: u16 = 1000;

/// What one phase took.
#[derive(Debug, Clone, Serialize)]
pub struct MeasuredPhase {
    /// `quick` or `deep`.
    pub mode: &'static str,
    /// `fill`, `chain` or `gemm`.
    pub phase: &'static str,
    /// The runs.
    #[serde(flatten)]
    pub statistics: PhaseStatistics,
    /// The middle of the band that follows, in microseconds.
    pub expected_us: u64,
    /// Its floor.
    pub floor_us: u64,
}

/// A calibrated card.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// The card.
    pub gpu: GpuName,
    /// Its model with the measured bands.
    pub model: Model,
    /// Whether the table had the model before.
    pub was_known: bool,
    /// What was measured.
    pub phases: Vec<MeasuredPhase>,
    /// The given table with this model in it.
    pub table: ModelTable,
    /// The smallest round trip of the session, in nanoseconds.
    pub rtt_ns: u64,
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The host could not be reached, or did not do its part.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// More than one GPU could be meant.
    #[error("the host has {} GPUs of different models", known.len())]
    Several {
        /// Their UUIDs.
        known: Vec<String>,
    },
    /// There are no sizes for such a card.
    #[error("{0}")]
    Unfit(String),
    /// The card answered, and the answer is wrong.
    #[error("the card computed something wrong, and calibrates nothing: {0}")]
    Wrong(String),
    /// The measured bands contradict themselves.
    #[error("the measured times are no model table")]
    Table(#[from] pow_kernels::models::ModelTableError),
}

impl CalibrateError {
    /// The stable code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Verify(error) => error.reason(),
            Self::Several { .. } | Self::Unfit(_) => Reason::Input,
            Self::Wrong(_) => Reason::Rejected,
            Self::Table(_) => Reason::Bug,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Verify(error) => error.hint(),
            Self::Several { known } => Some(format!("choose one: --gpu {}", known.join(" | "))),
            _ => None,
        }
    }
}

/// Runs `runs` challenges of each mode on one card, after one to warm up.
///
/// # Errors
/// [`CalibrateError`]: the host, the card or its answers were no good. The reference is never asked.
///
/// # Cancel safety
/// When `cancel` fires or the future is dropped, the connection is dropped, and the runner ends by
/// that. Nothing is recorded then.
pub async fn calibrate(
    fleet: &Fleet,
    spec: &HostSpec,
    options: &VerifyOptions,
    runs: u32,
    on_event: &(dyn Fn(VerifyEvent) + Sync),
    on_run: &(dyn Fn(&'static str, u32) + Sync),
    cancel: &CancellationToken,
) -> Result<Calibration, CalibrateError> {
    let work = async {
        let mut reached = Reached::start(fleet, spec, options, on_event).await?;
        let measured = on_host(&mut reached, options, runs, on_event, on_run).await;
        reached.close().await;
        measured
    };
    // Cancel safety: the work is dropped whole.
    let calibration = tokio::select! {
        done = work => done?,
        () = cancel.cancelled() => return Err(VerifyError::Cancelled.into()),
    };
    let event = NewEvent {
        kind: "calibrate.measured",
        host: Some(spec.name.clone()),
        detail: json!({
            "gpu": calibration.gpu,
            "model": calibration.model.name,
            "runs": runs,
            "phases": calibration.phases,
        }),
    };
    fleet.store.append_events(&fleet.actor, &[event]).await.map_err(VerifyError::Store)?;
    Ok(calibration)
}

async fn on_host(
    reached: &mut Reached,
    options: &VerifyOptions,
    runs: u32,
    on_event: &(dyn Fn(VerifyEvent) + Sync),
    on_run: &(dyn Fn(&'static str, u32) + Sync),
) -> Result<Calibration, CalibrateError> {
    let facts = reached.session.facts(FactsQuery::default()).await.map_err(VerifyError::from)?;
    // Its errors are those of a verification; what it says of models is no matter here.
    let wanted = Wanted {
        claim: None,
        gpus: &options.gpus,
        table: &options.models,
        table_name: &options.models_name,
    };
    targets::plan(&facts, &wanted)?;
    let gpu = choose(&facts, &options.gpus)?;
    let name =
        GpuName { index: gpu.index, uuid: printable(&gpu.uuid), name: printable(&gpu.model) };
    on_event(VerifyEvent::Gpus(vec![name.clone()]));
    let (mut model, was_known) = match options.models.by_driver_name(gpu.model.trim()) {
        Some(model) => (model.clone(), true),
        None => (new_model(gpu, &options.models)?, false),
    };
    let mut card = Card { reached, gpu: &name, model: model.clone(), on_event };
    let mut phases = Vec::new();
    for mode in [Mode::Quick, Mode::Deep] {
        let all = card.runs(mode, runs, on_run).await?;
        let profile = match mode {
            Mode::Quick | Mode::Hold => &mut model.quick,
            Mode::Deep => &mut model.deep,
        };
        let floors = was_known.then_some([
            profile.fill.floor_us,
            profile.chain.floor_us,
            profile.gemm.floor_us,
        ]);
        let rtt_ns = card.reached.rtt_ns;
        let times: [(&'static str, Vec<u64>, u64); 3] = [
            ("fill", all.iter().filter_map(|one| one.fill_ns).collect(), rtt_ns),
            ("chain", all.iter().map(|one| one.chain_ns).collect(), rtt_ns),
            ("gemm", all.iter().flat_map(|one| one.gemm_ns.iter().copied()).collect(), 0),
        ];
        for (place, (phase, times, round_trip_ns)) in times.into_iter().enumerate() {
            let statistics = PhaseStatistics::of(&times)
                .ok_or_else(|| CalibrateError::Unfit("nothing was measured".to_owned()))?;
            let floor = floors.and_then(|floors| floors.get(place).copied());
            let band = statistics.baseline(round_trip_ns, floor);
            match phase {
                "fill" => profile.fill = band,
                "chain" => profile.chain = band,
                _ => profile.gemm = band,
            }
            let (expected_us, floor_us) = (band.expected_us, band.floor_us);
            let mode = pow::mode_name(mode);
            phases.push(MeasuredPhase { mode, phase, statistics, expected_us, floor_us });
        }
    }
    let mut models = options.models.models().to_vec();
    match models.iter_mut().find(|known| known.id == model.id) {
        Some(known) => *known = model.clone(),
        None => models.push(model.clone()),
    }
    let (table, rtt_ns) = (ModelTable::checked(models)?, card.reached.rtt_ns);
    Ok(Calibration { gpu: name, model, was_known, phases, table, rtt_ns })
}

/// The card that is meant: the one that is named, or any of a host where all are alike.
fn choose<'f>(facts: &'f HostFacts, wanted: &[String]) -> Result<&'f Gpu, CalibrateError> {
    let chosen: Vec<&Gpu> = facts
        .gpus
        .devices
        .iter()
        .filter(|gpu| wanted.is_empty() || wanted.contains(&gpu.uuid))
        .collect();
    let Some(first) = chosen.first() else { return Err(VerifyError::NoGpus.into()) };
    if chosen.iter().any(|gpu| gpu.model != first.model) || wanted.len() > 1 {
        let known = chosen.iter().map(|gpu| printable(&gpu.uuid)).collect();
        return Err(CalibrateError::Several { known });
    }
    Ok(first)
}

/// An entry for a model that the table does not know, with sizes from the card's memory.
fn new_model(gpu: &Gpu, table: &ModelTable) -> Result<Model, CalibrateError> {
    let unfit = |what: &str| {
        CalibrateError::Unfit(format!("the driver of {} {what}", printable(&gpu.model)))
    };
    let capability =
        gpu.compute_capability.ok_or_else(|| unfit("does not say its compute capability"))?;
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let (major, minor) = (small(capability.major), small(capability.minor));
    let kernels = artifacts::for_capability(major, minor).ok_or_else(|| {
        unfit("says a compute capability below 7.0, for which there are no kernels")
    })?;
    let memory_bytes =
        gpu.memory_total_bytes.ok_or_else(|| unfit("does not say how much memory it has"))?;
    let sizes = |mode| {
        derived_sizes(memory_bytes, mode).ok_or_else(|| {
            unfit(&format!(
                "says {memory_bytes} bytes of memory; sizes can be derived from {LEAST_MEMORY_BYTES} on"
            ))
        })
    };
    let own = table.models().iter().map(|model| model.id).filter(|id| *id >= FIRST_OWN_ID);
    Ok(Model {
        id: own.max().map_or(FIRST_OWN_ID, |last| last.saturating_add(1)),
        name: printable(gpu.model.trim()),
        driver_names: vec![gpu.model.trim().to_owned()],
        compute_capability: [major, minor],
        memory_bytes,
        variant: kernels.variant,
        quick: unmeasured(sizes(Mode::Quick)?),
        deep: unmeasured(sizes(Mode::Deep)?),
    })
}

/// The card under measurement.
struct Card<'a> {
    reached: &'a mut Reached,
    gpu: &'a GpuName,
    model: Model,
    on_event: &'a (dyn Fn(VerifyEvent) + Sync),
}

impl Card<'_> {
    /// The times of so many runs; one before them warms up and is not counted.
    async fn runs(
        &mut self,
        mode: Mode,
        runs: u32,
        on_run: &(dyn Fn(&'static str, u32) + Sync),
    ) -> Result<Vec<Timings>, CalibrateError> {
        let mut all = Vec::new();
        for run in 0..=runs {
            on_run(pow::mode_name(mode), run);
            let timings = self.one(mode).await?;
            if run > 0 {
                all.push(timings);
            }
        }
        Ok(all)
    }

    async fn one(&mut self, mode: Mode) -> Result<Timings, CalibrateError> {
        let asked = Asked {
            mode,
            host_id: self.reached.host_id,
            validator_hotkey: [0; 32],
            orchestrator_hotkey: [0; 32],
            issued_at_ms: u64::try_from(now_ms()).unwrap_or_default(),
        };
        let uuid = pow::raw_uuid(&self.gpu.uuid).ok_or_else(|| {
            CalibrateError::Unfit("the driver does not say the UUID of the card".to_owned())
        })?;
        let target = GpuTarget { model: &self.model, uuid, index: 0, count: 1 };
        let challenge = pow::gpu_challenge(&asked, &target).map_err(VerifyError::from)?;
        let kernels = artifacts::with_variant(self.model.compute_capability, self.model.variant)
            .ok_or_else(|| CalibrateError::Unfit("there are no kernels for the card".to_owned()))?;
        let issued = Issued {
            backend: pow_kernels::Backend::Cuda,
            uuid: Some(self.gpu.uuid.clone()),
            model: Some((self.model.clone(), kernels)),
            probes: vec![challenge],
        };
        let mut watched = Watched::default();
        let session = &mut self.reached.session;
        let proving = Proving::new(session, vec![(0, issued)], &mut watched, self.on_event);
        let mut answers = proving.run(&[]).await?;
        let (challenge, proof, timings) = match answers.pop() {
            Some(Ok(answers)) => answers
                .into_iter()
                .next()
                .ok_or_else(|| CalibrateError::Wrong("there is no answer".to_owned()))?,
            Some(Err(GpuFailure::Runner(error))) => return Err(VerifyError::from(error).into()),
            Some(Err(GpuFailure::NotTheModel(words))) => return Err(CalibrateError::Unfit(words)),
            None => return Err(CalibrateError::Wrong("there is no answer".to_owned())),
        };
        self.check(challenge, proof, timings).await
    }

    /// That the answer is right; its times are what is to be found out.
    async fn check(
        &mut self,
        challenge: Challenge,
        proof: Proof,
        timings: Timings,
    ) -> Result<Timings, CalibrateError> {
        let judging = tokio::task::spawn_blocking(move || {
            // A table without the model leaves the times unjudged.
            let table = ModelTable::checked(Vec::new());
            let verdict = table.map(|table| {
                let by = Judgement {
                    table: &table,
                    allow_reference: false,
                    least_rtt_ns: None,
                    held: false,
                };
                pow::judge(&challenge, &proof, &timings, &by)
            });
            (verdict, timings)
        });
        let listening = super::verify::listen(&mut self.reached.session);
        // Cancel safety: as where a verification judges.
        let (verdict, timings) = tokio::select! {
            judged = judging => judged.map_err(VerifyError::Verifier)?,
            error = listening => return Err(VerifyError::from(error).into()),
        };
        let verdict = verdict?;
        match (verdict.outcome(), verdict.first_failure()) {
            (Outcome::Rejected, Some(result)) => {
                Err(CalibrateError::Wrong(format!("{}: {}", result.check, result.detail)))
            }
            _ => Ok(timings),
        }
    }
}

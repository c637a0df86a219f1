//! A runner that shows GPUs and proves for them with the CPU reference, which no host may do: as a
//! stand-in for GPUs where nothing of CUDA matters, and for lies in every round.

use std::collections::BTreeMap;

use orchestrator::pow::raw_uuid;
use pow_kernels::reference::{Committed, Prover};
use pow_kernels::{Chunk, Context, Digest, Opening};
use runner_protocol::facts::{ComputeCapability, DriverState, Gpu, GpuFacts};
use runner_protocol::message::Progress;
use runner_protocol::prove::{Device, Opened};
use runner_protocol::telemetry::GpuTelemetry;
use runner_protocol::{
    Backend, FromRunner, HostFacts, Outcome, ProveEvent, ProveReply, Reply, RequestId, Round,
    Telemetry, ToRunner, Unit, encode_frame,
};

/// A lie of one GPU, and the round in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It is another GPU that answers.
    AnotherGpu,
    /// It is a device of another compute capability.
    AnotherCapability,
    /// It says filled before it was asked to.
    FilledEarly,
    /// It is the CPU that says filled.
    AnotherBackend,
    /// It sends the roots before the nonce.
    RootsEarly,
    /// It sends a root too many.
    RootTooMany,
    /// It leaves a product out.
    RootLeftOut,
    /// It sends the root of the records twice.
    RootTwice,
    /// It sends an opening too many.
    OpeningTooMany,
    /// It sends none.
    NoOpenings,
    /// It says progress and nothing else, a million times and more.
    EndlessProgress,
    /// It ends well in the middle.
    EndsEarly,
    /// It goes on after the release.
    GoesOn,
    /// One bit of a record is another.
    WrongRecord,
    /// Facts come in the place of a step.
    AnotherReply,
    /// Everything has its shape, and nothing was computed.
    Hollow,
    /// It fails with this code in the fill.
    Fails(&'static str),
}

/// What a session of such a runner knows.
pub struct Provers {
    gpus: Vec<(String, Option<Lie>)>,
    names: Vec<&'static str>,
    requests: BTreeMap<RequestId, Request>,
}

struct Request {
    gpu: usize,
    filled: Option<Prover>,
    committed: Option<Committed>,
}

impl Provers {
    /// GPUs by UUID, with their lies.
    pub fn new(gpus: &[(&str, Option<Lie>)]) -> Self {
        let gpus: Vec<_> = gpus.iter().map(|(uuid, lie)| ((*uuid).to_owned(), *lie)).collect();
        assert!(gpus.iter().all(|(uuid, _)| raw_uuid(uuid).is_some()));
        let names = vec![NAME; gpus.len()];
        Self { gpus, names, requests: BTreeMap::new() }
    }

    /// What the runner answers.
    pub fn hear(&mut self, message: ToRunner) -> Vec<u8> {
        match message {
            ToRunner::Request { id, unit } => self.request(id, unit),
            ToRunner::Continue { id, round } => self.round(id, round),
            ToRunner::Cancel { id } => finished(id, Outcome::Cancelled {}),
            ToRunner::Renew {} | ToRunner::Shutdown {} => Vec::new(),
        }
    }

    fn request(&mut self, id: RequestId, unit: Unit) -> Vec<u8> {
        match unit {
            Unit::Facts(_) => {
                [reply(id, Reply::Facts(Box::new(self.facts()))), finished(id, Outcome::Ok {})]
                    .concat()
            }
            Unit::Watch { .. } => {
                let gpu = |(uuid, _): &(String, Option<Lie>)| GpuTelemetry {
                    uuid: uuid.clone(),
                    sm_clock_mhz: Some(1980),
                    throttle_reasons: vec!["sw_power_cap".to_owned()],
                    ..GpuTelemetry::default()
                };
                let gpus = self.gpus.iter().map(gpu).collect();
                reply(id, Reply::Telemetry(Telemetry { gpus, ..Telemetry::default() }))
            }
            Unit::Prove { gpu, .. } => {
                let gpu = self.gpus.iter().position(|(uuid, _)| Some(uuid) == gpu.as_ref());
                let gpu = gpu.unwrap();
                self.requests.insert(id, Request { gpu, filled: None, committed: None });
                let lie = self.gpus[gpu].1;
                let uuid = match lie {
                    Some(Lie::AnotherGpu) => "GPU-ffffffff-0000-0000-0000-000000000000".to_owned(),
                    _ => self.gpus[gpu].0.clone(),
                };
                let major = if lie == Some(Lie::AnotherCapability) { 7 } else { 9 };
                let device = Device {
                    uuid,
                    name: NAME.to_owned(),
                    compute_capability: [major, 0],
                    memory_bytes: 64 << 20,
                    free_bytes: 60 << 20,
                    multiprocessors: 2,
                    driver_cuda_version: 12_040,
                };
                step(id, ProveEvent::Prepared { device: Some(device) })
            }
            Unit::Unknown { name } => finished(id, Outcome::Unsupported { unit: name }),
            // Nothing of this is asked of a prover.
            Unit::Health {} | Unit::Dial { .. } | Unit::Hold(_) => finished(id, Outcome::Ok {}),
        }
    }

    fn round(&mut self, id: RequestId, round: Round) -> Vec<u8> {
        let Some(request) = self.requests.get_mut(&id) else { return Vec::new() };
        let lie = self.gpus[request.gpu].1;
        let filled = || step(id, ProveEvent::Filled {});
        let root = |product| step(id, ProveEvent::Root { product, root: Digest([1; 32]) });
        match round {
            Round::Load { .. } => match lie {
                Some(Lie::FilledEarly) => filled(),
                Some(Lie::AnotherReply) => reply(id, Reply::Facts(Box::default())),
                _ => step(id, ProveEvent::Loaded {}),
            },
            Round::Fill { context } => match lie {
                Some(Lie::RootsEarly) => [filled(), root(None)].concat(),
                Some(Lie::AnotherBackend) => {
                    let event = ProveEvent::Filled {};
                    let backend = Backend::Reference;
                    reply(id, Reply::Prove(ProveReply { backend, event }))
                }
                Some(Lie::Fails(code)) => finished(
                    id,
                    Outcome::Failed { code: code.to_owned(), message: "so it is".to_owned() },
                ),
                Some(Lie::EndsEarly) => finished(id, Outcome::Ok {}),
                Some(Lie::EndlessProgress) => {
                    let progress = Progress { id, stage: "filling".to_owned(), done: 1, total: 2 };
                    encode_frame(&FromRunner::Progress(progress)).unwrap().repeat(1_000_001)
                }
                None | Some(Lie::WrongRecord) => {
                    let context = Context::decode(&context.0).unwrap();
                    request.filled = Some(Prover::fill(&context));
                    filled()
                }
                // What comes to no judgement, or has nothing right in it, needs no memory.
                Some(_) => filled(),
            },
            Round::Probe { nonce } => {
                let Some(prover) = request.filled.as_ref() else {
                    return hollow_roots(lie, &root);
                };
                let mut records = prover.walk(&nonce.0);
                if lie == Some(Lie::WrongRecord) {
                    // In every record, so that whichever is asked for is wrong.
                    records.iter_mut().for_each(|byte| *byte ^= 1);
                }
                let committed = prover.commit(&nonce.0, records);
                let roots = &committed.commitments;
                let event = |product, root| step(id, ProveEvent::Root { product, root });
                let mut said = event(None, roots.probe_root);
                for (number, root) in (0_u8..).zip(&roots.gemm_roots) {
                    said.extend(event(Some(number), *root));
                }
                request.committed = Some(committed);
                said
            }
            Round::Open { nonce, counts } => {
                let (mut records, products) = match request.committed.take() {
                    Some(committed) => {
                        let proof = committed.open(&nonce.0, counts);
                        (proof.probe_openings, proof.gemm_openings)
                    }
                    None => {
                        let opening =
                            Opening { chunk: Chunk(Box::new([1; 1024])), path: Vec::new().into() };
                        let all = |count: u16| vec![opening.clone(); usize::from(count)];
                        (all(counts.probe), all(counts.gemm))
                    }
                };
                match lie {
                    Some(Lie::NoOpenings) => records.clear(),
                    Some(Lie::OpeningTooMany) => records.push(records[0].clone()),
                    _ => {}
                }
                let say = |of, openings| step(id, ProveEvent::Openings { of, openings });
                [say(Opened::Records, records), say(Opened::Products, products)].concat()
            }
            Round::Release {} => match lie {
                Some(Lie::GoesOn) => [filled(), finished(id, Outcome::Ok {})].concat(),
                _ => finished(id, Outcome::Ok {}),
            },
            Round::Unknown { name } => finished(id, Outcome::Unsupported { unit: name }),
            // Of other units.
            Round::Send { .. } | Round::Grant { .. } | Round::End {} => Vec::new(),
        }
    }

    fn facts(&self) -> HostFacts {
        let gpu = |(index, (uuid, _)): (usize, &(String, Option<Lie>))| Gpu {
            uuid: uuid.clone(),
            index: u32::try_from(index).unwrap(),
            model: self.names[index].to_owned(),
            compute_capability: Some(ComputeCapability { major: 9, minor: 0 }),
            memory_total_bytes: Some(64 << 20),
            ..Gpu::default()
        };
        let driver = DriverState::Present {
            driver_version: "550.54.15".to_owned(),
            cuda_version: None,
            nvml_version: None,
        };
        let devices = self.gpus.iter().enumerate().map(gpu).collect();
        HostFacts { gpus: GpuFacts { driver, devices }, ..HostFacts::default() }
    }
}

/// The roots of nothing, with what a GPU lies about them. The tests' table has two products.
fn hollow_roots(lie: Option<Lie>, root: &dyn Fn(Option<u8>) -> Vec<u8>) -> Vec<u8> {
    match lie {
        Some(Lie::RootLeftOut) => [root(None), root(Some(1))].concat(),
        Some(Lie::RootTooMany) => {
            [root(None), root(Some(0)), root(Some(1)), root(Some(2))].concat()
        }
        Some(Lie::RootTwice) => [root(None), root(None)].concat(),
        _ => [root(None), root(Some(0)), root(Some(1))].concat(),
    }
}

/// What the GPUs are called.
pub const NAME: &str = "FAKE GPU (SIMT shim)";

fn step(id: RequestId, event: ProveEvent) -> Vec<u8> {
    reply(id, Reply::Prove(ProveReply { backend: Backend::Cuda, event }))
}

fn reply(id: RequestId, reply: Reply) -> Vec<u8> {
    encode_frame(&FromRunner::Reply { id, reply }).unwrap()
}

fn finished(id: RequestId, outcome: Outcome) -> Vec<u8> {
    encode_frame(&FromRunner::Finished { id, outcome }).unwrap()
}

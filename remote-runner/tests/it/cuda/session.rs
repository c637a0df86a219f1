//! A runner with fake GPUs, and several requests at once.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Command;

use pow_kernels::artifacts::{self, Artifact};
use pow_kernels::proof::Commitments;
use pow_kernels::{Backend, Digest};
use pow_kernels::{Challenge, Context, KernelVariant, Mode, Parameters, Proof, QueryCounts, Sizes};
use runner_protocol::prove::{Device, Image, Opened};
use runner_protocol::{
    ByteArray, FromRunner, Outcome, ProveEvent, ProveReply, Reply, RequestId, Round, Telemetry,
    ToRunner, Unit,
};

use crate::harness::{Runner, command, fake_gpu};

pub const FIRST: &str = "GPU-11111111-0000-0000-0000-000000000001";
pub const SECOND: &str = "GPU-22222222-0000-0000-0000-00000000000f";

/// A shorter last window, chains that are no multiple of what the device holds, and two products.
pub const SMALL: Sizes = Sizes {
    leaf_iterations: 2,
    blocks: 541,
    chains: 64,
    steps: 3,
    windows: 3,
    window_shift: 2,
    gemms: 1,
    gemm_dimension: 256,
};

/// The surroundings of a runner with fake GPUs.
pub struct Host {
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, String)>,
    log: tempfile::TempDir,
}

impl Host {
    /// One device of 64 MiB for each UUID and capability.
    pub fn new(gpus: &[(&str, &str)]) -> Self {
        let gpus: Vec<_> =
            gpus.iter().map(|(uuid, capability)| format!("{uuid}:64:{capability}")).collect();
        let log = tempfile::tempdir().unwrap();
        let path = log.path().join("log").to_str().unwrap().to_owned();
        let environment = vec![("FAKE_GPUS", gpus.join(";")), ("FAKE_CUDA_LOG", path)];
        // On a busy machine a whole challenge takes longer than a lease, and nobody renews here.
        Self { arguments: vec!["--lease-ms", "3600000"], environment, log }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    pub fn start(&self) -> Session {
        let mut command: Command = command(&self.arguments);
        command.env("LD_LIBRARY_PATH", fake_gpu());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        Session { runner: Runner::start(&mut command), inbox: BTreeMap::new() }
    }

    /// What the fake driver was asked, as `CALL DETAIL`.
    pub fn calls(&self) -> Vec<String> {
        let log: PathBuf = self.log.path().join("log");
        let log = std::fs::read_to_string(log).unwrap_or_default();
        log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

/// What is said of a request.
#[derive(Debug, PartialEq)]
pub enum Said {
    Step(ProveEvent),
    Telemetry(Telemetry),
    Finished(Outcome),
}

pub struct Session {
    pub runner: Runner,
    inbox: BTreeMap<u64, VecDeque<Said>>,
}

impl Session {
    pub fn prove(&mut self, id: u64, gpu: &str) {
        self.runner.request(id, Unit::Prove { backend: Backend::Cuda, gpu: Some(gpu.to_owned()) });
    }

    pub fn round(&mut self, id: u64, round: Round) {
        self.runner.send(&ToRunner::Continue { id: RequestId(id), round });
    }

    /// The next thing said of a request; what is said of others is kept.
    pub fn said(&mut self, id: u64) -> Said {
        loop {
            if let Some(said) = self.inbox.get_mut(&id).and_then(VecDeque::pop_front) {
                return said;
            }
            let (of, said) = match self.runner.next().expect("an answer before the end") {
                FromRunner::Reply {
                    id,
                    reply: Reply::Prove(ProveReply { backend: Backend::Cuda, event }),
                } => (id, Said::Step(event)),
                FromRunner::Reply { id, reply: Reply::Telemetry(sample) } => {
                    (id, Said::Telemetry(sample))
                }
                FromRunner::Finished { id, outcome } => (id, Said::Finished(outcome)),
                other => panic!("{other:?}"),
            };
            self.inbox.entry(of.0).or_default().push_back(said);
        }
    }

    pub fn step(&mut self, id: u64) -> ProveEvent {
        match self.said(id) {
            Said::Step(event) => event,
            other => panic!("no step but {other:?}"),
        }
    }

    pub fn prepared(&mut self, id: u64, gpu: &str) -> Device {
        self.prove(id, gpu);
        match self.step(id) {
            ProveEvent::Prepared { device: Some(device) } => device,
            other => panic!("no device but {other:?}"),
        }
    }

    pub fn load(&mut self, id: u64, image: &[u8]) {
        self.round(id, load(image));
        assert_eq!(self.step(id), ProveEvent::Loaded {});
    }

    pub fn fill(&mut self, id: u64, challenge: &Challenge) {
        self.round(id, fill(challenge));
        assert_eq!(self.step(id), ProveEvent::Filled {});
    }

    /// The roots, which come in order.
    pub fn roots(&mut self, id: u64, challenge: &Challenge) -> Commitments {
        let mut root = |expected: Option<u8>| match self.step(id) {
            ProveEvent::Root { product, root } if product == expected => root,
            other => panic!("no root of {expected:?} but {other:?}"),
        };
        let probe_root = root(None);
        let gemms = challenge.context.parameters.gemms;
        Commitments { probe_root, gemm_roots: (0..gemms).map(|g| root(Some(g))).collect() }
    }

    /// Asks for the openings and gives the whole proof.
    pub fn open(&mut self, id: u64, challenge: &Challenge, commitments: Commitments) -> Proof {
        self.round(id, open(challenge));
        let (mut probe_openings, mut gemm_openings) = (Vec::new(), Vec::new());
        while gemm_openings.len() < usize::from(challenge.counts.gemm) {
            match self.step(id) {
                ProveEvent::Openings { of: Opened::Records, openings } => {
                    assert!(gemm_openings.is_empty(), "records come first");
                    probe_openings.extend(openings);
                }
                ProveEvent::Openings { of: Opened::Products, openings } => {
                    gemm_openings.extend(openings);
                }
                other => panic!("no openings but {other:?}"),
            }
        }
        let context_hash = Digest(challenge.context.hash());
        Proof { backend: Backend::Cuda, context_hash, commitments, probe_openings, gemm_openings }
    }

    pub fn release(&mut self, id: u64) {
        self.round(id, Round::Release {});
        assert_eq!(self.said(id), Said::Finished(Outcome::Ok {}));
    }

    /// The failure that a request ends with, next.
    pub fn failure(&mut self, id: u64) -> (String, String) {
        match self.said(id) {
            Said::Finished(Outcome::Failed { code, message }) => (code, message),
            other => panic!("no failure but {other:?}"),
        }
    }
}

pub fn artifact(major: u8, minor: u8) -> &'static Artifact {
    artifacts::for_capability(major, minor).unwrap()
}

pub fn challenge(gpu: &str, variant: KernelVariant, sizes: Sizes) -> Challenge {
    let digits: String = gpu[4..].chars().filter(|digit| *digit != '-').collect();
    let mut gpu_uuid = [0; 16];
    for (byte, pair) in gpu_uuid.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    Challenge {
        context: Context {
            mode: Mode::Quick,
            nonce_fill: [11; 32],
            validator_hotkey: [0; 32],
            orchestrator_hotkey: [0; 32],
            host_id: [2; 32],
            gpu_uuid,
            gpu_index: 0,
            gpu_count: 1,
            model_id: 0,
            variant,
            parameters: Parameters::new(sizes).unwrap(),
            issued_at_ms: 1_700_000_000_000,
            challenge_id: [3; 16],
        },
        nonce_probe: [4; 32],
        nonce_open: [5; 32],
        // More than one batch of each kind.
        counts: QueryCounts { probe: 530, gemm: 520 },
    }
}

pub fn load(image: &[u8]) -> Round {
    Round::Load { image: Image(image.to_vec()) }
}

pub fn fill(challenge: &Challenge) -> Round {
    Round::Fill { context: Box::new(ByteArray(challenge.context.encode())) }
}

pub fn probe(challenge: &Challenge) -> Round {
    Round::Probe { nonce: ByteArray(challenge.nonce_probe) }
}

pub fn open(challenge: &Challenge) -> Round {
    Round::Open { nonce: ByteArray(challenge.nonce_open), counts: challenge.counts }
}

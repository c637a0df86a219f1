//! What one GPU must answer, in which order, and what is kept of it. Pure: a host may say anything,
//! and everything out of order is an error of this GPU.

use std::time::Instant;

use pow_kernels::proof::Commitments;
use pow_kernels::{Backend, Challenge, Digest, Opening, Proof, QueryCounts, Timings};
use runner_protocol::prove::{Device, Opened};
use runner_protocol::{ProveEvent, ProveReply};

use crate::runner;

/// A part of the exchange: one message there, its answers back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Prepare,
    Load,
    Fill,
    Probe,
    Open,
    Release,
}

impl Phase {
    /// What the host did not do when the time is over.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Prepare => "prepare the GPU",
            Self::Load => "load the kernels",
            Self::Fill => "fill the memory",
            Self::Probe => "walk the memory and multiply",
            Self::Open => "open the commitments",
            Self::Release => "release the GPU",
        }
    }
}

/// What is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    Prepared,
    Loaded,
    Filled,
    /// The root of the records, or of a product.
    Root(Option<u8>),
    /// So many openings more.
    Openings(Opened, u16),
}

/// One GPU's answers.
#[derive(Debug)]
pub(super) struct Rounds {
    backend: Backend,
    /// The GPU that was asked for; `None` for the reference.
    gpu: Option<String>,
    gemms: u8,
    counts: QueryCounts,
    due: Due,
    clock: Instant,
    device: Option<Device>,
    fill_ns: Option<u64>,
    chain_ns: u64,
    gemm_ns: Vec<u64>,
    probe_root: Option<Digest>,
    gemm_roots: Vec<Digest>,
    probe_openings: Vec<Opening>,
    gemm_openings: Vec<Opening>,
}

impl Rounds {
    pub(super) fn new(backend: Backend, gpu: Option<String>, challenge: &Challenge) -> Self {
        Self {
            backend,
            gpu,
            gemms: challenge.context.parameters.gemms,
            counts: challenge.counts,
            due: Due::Nothing,
            clock: Instant::now(),
            device: None,
            fill_ns: None,
            chain_ns: 0,
            gemm_ns: Vec::new(),
            probe_root: None,
            gemm_roots: Vec::new(),
            probe_openings: Vec::new(),
            gemm_openings: Vec::new(),
        }
    }

    /// The device, as its driver said once it was prepared.
    pub(super) fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The phase's message went out at `at`.
    pub(super) fn begin(&mut self, phase: Phase, at: Instant) {
        self.clock = at;
        self.due = match phase {
            Phase::Prepare => Due::Prepared,
            Phase::Load => Due::Loaded,
            Phase::Fill => Due::Filled,
            Phase::Probe => {
                self.probe_root = None;
                self.gemm_roots.clear();
                self.gemm_ns.clear();
                Due::Root(None)
            }
            Phase::Open => {
                self.probe_openings.clear();
                self.gemm_openings.clear();
                Due::Openings(Opened::Records, self.counts.probe)
            }
            Phase::Release => Due::Nothing,
        };
    }

    /// Whether every answer of the phase is there.
    pub(super) fn is_answered(&self) -> bool {
        self.due == Due::Nothing
    }

    /// Takes a step that came at `at`.
    pub(super) fn take(&mut self, reply: ProveReply, at: Instant) -> Result<(), runner::Error> {
        let expected = self.due_words();
        if reply.backend != self.backend {
            return Err(unexpected(expected, "a step of another backend"));
        }
        match (self.due, reply.event) {
            (Due::Prepared, ProveEvent::Prepared { device }) => {
                let named = device.as_ref().map(|device| device.uuid.as_str());
                if named != self.gpu.as_deref() {
                    return Err(unexpected(expected, "another GPU"));
                }
                self.device = device;
                self.due = Due::Nothing;
            }
            (Due::Loaded, ProveEvent::Loaded {}) => self.due = Due::Nothing,
            (Due::Filled, ProveEvent::Filled {}) => {
                self.fill_ns = Some(self.lap(at));
                self.due = Due::Nothing;
            }
            (Due::Root(of), ProveEvent::Root { product, root }) if product == of => {
                let passed = self.lap(at);
                let next = match of {
                    None => {
                        (self.probe_root, self.chain_ns) = (Some(root), passed);
                        0
                    }
                    Some(number) => {
                        self.gemm_roots.push(root);
                        self.gemm_ns.push(passed);
                        number.saturating_add(1)
                    }
                };
                self.due = if next < self.gemms { Due::Root(Some(next)) } else { Due::Nothing };
            }
            (Due::Openings(kind, left), ProveEvent::Openings { of, openings }) if of == kind => {
                let count = u16::try_from(openings.len()).unwrap_or(u16::MAX);
                if count == 0 || count > left {
                    return Err(unexpected("as many openings as asked", "another number"));
                }
                let all = match kind {
                    Opened::Records => &mut self.probe_openings,
                    Opened::Products => &mut self.gemm_openings,
                };
                all.extend(openings);
                self.due = match (left - count, kind) {
                    (0, Opened::Records) => Due::Openings(Opened::Products, self.counts.gemm),
                    (0, Opened::Products) => Due::Nothing,
                    (left, kind) => Due::Openings(kind, left),
                };
            }
            _ => return Err(unexpected(expected, "another step")),
        }
        Ok(())
    }

    /// The proof of the probe that was opened last, and its times. `None` before that.
    pub(super) fn answer(&mut self, challenge: &Challenge) -> Option<(Proof, Timings)> {
        let proof = Proof {
            backend: self.backend,
            context_hash: Digest(challenge.context.hash()),
            commitments: Commitments {
                probe_root: self.probe_root?,
                gemm_roots: self.gemm_roots.clone(),
            },
            probe_openings: std::mem::take(&mut self.probe_openings),
            gemm_openings: std::mem::take(&mut self.gemm_openings),
        };
        let timings = Timings {
            fill_ns: self.fill_ns.take(),
            chain_ns: self.chain_ns,
            gemm_ns: self.gemm_ns.clone(),
        };
        Some((proof, timings))
    }

    /// Nanoseconds since the clock, which is set to `at`.
    fn lap(&mut self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.clock).as_nanos();
        self.clock = at;
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    fn due_words(&self) -> &'static str {
        match self.due {
            Due::Nothing => "nothing more of the round",
            Due::Prepared => "prepared",
            Due::Loaded => "loaded",
            Due::Filled => "filled",
            Due::Root(None) => "the root of the records",
            Due::Root(Some(_)) => "the next product's root",
            Due::Openings(..) => "openings",
        }
    }
}

fn unexpected(expected: &'static str, found: &'static str) -> runner::Error {
    runner::Error::Unexpected { expected, found }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pow_kernels::reference::Prover;

    use super::*;

    const UUID: &str = "GPU-6a1f0c1e-52a4-4a44-9a39-1b1d3b7c0f10";

    fn challenge() -> Challenge {
        let mut challenge = crate::pow::reference_challenge([1; 32], 2).unwrap();
        challenge.counts = QueryCounts { probe: 2, gemm: 3 };
        challenge
    }

    fn rounds(challenge: &Challenge) -> Rounds {
        Rounds::new(Backend::Cuda, Some(UUID.to_owned()), challenge)
    }

    fn cuda(event: ProveEvent) -> ProveReply {
        ProveReply { backend: Backend::Cuda, event }
    }

    fn prepared(uuid: &str) -> ProveReply {
        let device = Device {
            uuid: uuid.to_owned(),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            compute_capability: [9, 0],
            memory_bytes: 0,
            free_bytes: 0,
            multiprocessors: 132,
            driver_cuda_version: 12040,
        };
        cuda(ProveEvent::Prepared { device: Some(device) })
    }

    fn root(product: Option<u8>) -> ProveReply {
        cuda(ProveEvent::Root { product, root: Digest([9; 32]) })
    }

    fn openings(of: Opened, count: usize) -> ProveReply {
        let opening =
            Opening { chunk: pow_kernels::Chunk(Box::new([0; 1024])), path: Vec::new().into() };
        cuda(ProveEvent::Openings { of, openings: vec![opening; count] })
    }

    #[test]
    fn an_honest_exchange_is_a_proof_with_the_times_between_its_messages() {
        let challenge = challenge();
        let honest = Prover::prove(
            &challenge.context,
            &challenge.nonce_probe,
            &challenge.nonce_open,
            challenge.counts,
        );
        let mut rounds = rounds(&challenge);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        rounds.begin(Phase::Prepare, start);
        rounds.take(prepared(UUID), at(1)).unwrap();
        rounds.begin(Phase::Load, at(1));
        rounds.take(cuda(ProveEvent::Loaded {}), at(2)).unwrap();
        assert!(rounds.is_answered());
        rounds.begin(Phase::Fill, at(10));
        rounds.take(cuda(ProveEvent::Filled {}), at(50)).unwrap();
        rounds.begin(Phase::Probe, at(100));
        let root = |product, root| cuda(ProveEvent::Root { product, root });
        rounds.take(root(None, honest.commitments.probe_root), at(107)).unwrap();
        for (number, at_ms) in [(0, 110), (1, 114)] {
            assert!(!rounds.is_answered());
            let this = honest.commitments.gemm_roots[usize::from(number)];
            rounds.take(root(Some(number), this), at(at_ms)).unwrap();
        }
        rounds.begin(Phase::Open, at(120));
        for (of, all) in
            [(Opened::Records, &honest.probe_openings), (Opened::Products, &honest.gemm_openings)]
        {
            for opening in all {
                assert!(!rounds.is_answered());
                let openings = vec![opening.clone()];
                rounds.take(cuda(ProveEvent::Openings { of, openings }), at(130)).unwrap();
            }
        }
        assert!(rounds.is_answered());
        let (proof, timings) = rounds.answer(&challenge).unwrap();
        assert_eq!(proof, Proof { backend: Backend::Cuda, ..honest });
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!((timings.fill_ns, timings.chain_ns), (Some(ms(40)), ms(7)));
        assert_eq!(timings.gemm_ns, [ms(3), ms(4)]);
    }

    #[test]
    fn a_second_probe_starts_anew_and_has_no_fill() {
        let challenge = challenge();
        let mut rounds = rounds(&challenge);
        let start = Instant::now();
        rounds.begin(Phase::Fill, start);
        rounds.take(cuda(ProveEvent::Filled {}), start).unwrap();
        for probe in 0..2 {
            rounds.begin(Phase::Probe, start);
            for product in [None, Some(0), Some(1)] {
                rounds.take(root(product), start).unwrap();
            }
            rounds.begin(Phase::Open, start);
            rounds.take(openings(Opened::Records, 2), start).unwrap();
            rounds.take(openings(Opened::Products, 3), start).unwrap();
            let (proof, timings) = rounds.answer(&challenge).unwrap();
            assert_eq!(proof.commitments.gemm_roots.len(), 2);
            assert_eq!((proof.probe_openings.len(), proof.gemm_openings.len()), (2, 3));
            assert_eq!(timings.fill_ns.is_some(), probe == 0);
        }
    }

    /// Every lie, and the phase in which it is told.
    #[test]
    fn what_is_out_of_order_is_refused() {
        let challenge = challenge();
        let reference = |event| ProveReply { backend: Backend::Reference, event };
        let none = || cuda(ProveEvent::Prepared { device: None });
        let cases: Vec<(&str, Phase, Vec<ProveReply>)> = vec![
            ("another GPU", Phase::Prepare, vec![prepared("GPU-other")]),
            ("no GPU", Phase::Prepare, vec![none()]),
            ("the CPU", Phase::Prepare, vec![reference(ProveEvent::Prepared { device: None })]),
            ("loaded early", Phase::Prepare, vec![cuda(ProveEvent::Loaded {})]),
            ("filled instead of loaded", Phase::Load, vec![cuda(ProveEvent::Filled {})]),
            ("roots before the nonce", Phase::Fill, vec![root(None)]),
            ("filled by the CPU", Phase::Fill, vec![reference(ProveEvent::Filled {})]),
            ("a product first", Phase::Probe, vec![root(Some(0))]),
            ("the records twice", Phase::Probe, vec![root(None), root(None)]),
            ("a product left out", Phase::Probe, vec![root(None), root(Some(1))]),
            (
                "too many roots",
                Phase::Probe,
                vec![root(None), root(Some(0)), root(Some(1)), root(Some(2))],
            ),
            ("openings before the nonce", Phase::Probe, vec![openings(Opened::Records, 2)]),
            ("products first", Phase::Open, vec![openings(Opened::Products, 3)]),
            ("no openings", Phase::Open, vec![openings(Opened::Records, 0)]),
            ("too many openings", Phase::Open, vec![openings(Opened::Records, 3)]),
            (
                "more after the last",
                Phase::Open,
                vec![
                    openings(Opened::Records, 2),
                    openings(Opened::Products, 3),
                    openings(Opened::Products, 1),
                ],
            ),
            ("more after the release", Phase::Release, vec![openings(Opened::Records, 1)]),
        ];
        for (name, phase, replies) in cases {
            let mut rounds = rounds(&challenge);
            rounds.begin(phase, Instant::now());
            let last = replies.len() - 1;
            for (place, reply) in replies.into_iter().enumerate() {
                let taken = rounds.take(reply, Instant::now());
                assert_eq!(taken.is_err(), place == last, "{name}: {taken:?}");
            }
        }
    }
}

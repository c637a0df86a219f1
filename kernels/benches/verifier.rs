//! What a verification costs at the sizes of an H100: `cargo bench -p pow-kernels`.
//!
//! The proof is honest and is accepted. To make one on a CPU, the prover regenerates what it reads and has
//! two chains and products of dimension 256; memory, leaf iterations, steps and query counts are
//! those of the H100 in quick mode, so the verifier regenerates the same 2 * 32 * 32 lines and
//! 2 * 128 blocks. Only the paths are shorter: openings of full depth are a benchmark of their own,
//! whose time adds to that of the verification. Times are processor time of the thread, so that other
//! work on the machine does not count.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark of fixed inputs; criterion's macro makes an undocumented function"
)]

use std::hint::black_box;

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use pow_kernels::keys::{ProbeKeys, Slice, fill_key};
use pow_kernels::proof::CHUNK_BYTES;
use pow_kernels::timing::TimingPolicy;
use pow_kernels::verify::Policy;
use pow_kernels::{
    BLOCK_WORDS, Backend, BlockGenerator, Challenge, Check, Chunk, Commitments, Context, Digest,
    KernelVariant, Mode, ModelTable, Opening, Parameters, Path, Proof, Queries, QueryCounts, Sizes,
    Status, check_opening, reference, verify,
};

/// Processor time of this thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec that the call may write.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        assert_eq!(result, 0);
        Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        static WALL: WallTime = WallTime;
        WALL.formatter()
    }
}

fn challenge(driver_name: &str) -> Challenge {
    let model = ModelTable::embedded().by_driver_name(driver_name).unwrap();
    let sizes = Sizes {
        chains: 2,
        gemm_dimension: 256,
        gemms: 1,
        ..Sizes::from(model.profile(Mode::Quick).sizes)
    };
    let context = Context {
        mode: Mode::Quick,
        nonce_fill: [1; 32],
        validator_hotkey: [0; 32],
        orchestrator_hotkey: [3; 32],
        host_id: [4; 32],
        gpu_uuid: [5; 16],
        gpu_index: 0,
        gpu_count: 1,
        model_id: model.id,
        variant: KernelVariant::Wgmma,
        parameters: Parameters::new(sizes).unwrap(),
        issued_at_ms: 0,
        challenge_id: [7; 16],
    };
    Challenge {
        context,
        nonce_probe: [8; 32],
        nonce_open: [9; 32],
        counts: QueryCounts::for_mode(Mode::Quick),
    }
}

/// A prover that stores nothing.
fn prove(challenge: &Challenge) -> Proof {
    let parameters = &challenge.context.parameters;
    let ctx_hash = challenge.context.hash();
    let generator = BlockGenerator::new(fill_key(&challenge.context), parameters.leaf_iterations);
    let keys = ProbeKeys::new(&ctx_hash, &challenge.nonce_probe);
    let key = [keys.chains.k[0], keys.chains.k[1], keys.chains.s[0], keys.chains.s[1]];
    let line = |index: u64| generator.line(index / 128, (index % 128) as usize);
    let records: Vec<u8> = (0..parameters.chains)
        .flat_map(|chain| reference::probe_chain(parameters, key, &line, chain))
        .collect();
    let probe_root = *blake3::keyed_hash(&keys.commit_probe, &records).as_bytes();
    let slice = Slice::new(parameters, &probe_root, 0);
    let rows = |first: u64| -> Vec<[u32; BLOCK_WORDS]> {
        (0..u64::from(parameters.gemm_dimension))
            .map(|i| {
                let mut words = [0; BLOCK_WORDS];
                generator.block(first + i, &mut words);
                words
            })
            .collect()
    };
    let (rows, columns) = (rows(slice.first_row), rows(slice.first_column));
    let product: Vec<u8> = rows
        .iter()
        .flat_map(|row| columns.iter().map(move |column| (row, column)))
        .flat_map(|(row, column)| reference::gemm_element(row, column).to_le_bytes())
        .collect();
    let gemm_root = *blake3::keyed_hash(&keys.commit_gemm(0), &product).as_bytes();
    let commitments =
        Commitments { probe_root: Digest(probe_root), gemm_roots: vec![Digest(gemm_root)] };
    let queries = Queries::derive(
        parameters,
        &ctx_hash,
        &challenge.nonce_probe,
        &commitments,
        &challenge.nonce_open,
        challenge.counts,
    );
    Proof {
        backend: Backend::Cuda,
        context_hash: Digest(ctx_hash),
        commitments,
        probe_openings: queries
            .probe
            .iter()
            .map(|query| reference::open(&keys.commit_probe, &records, query.chain as usize))
            .collect(),
        gemm_openings: queries
            .gemm
            .iter()
            .map(|query| {
                let (chunk, _) = query.chunk(parameters);
                reference::open(&keys.commit_gemm(0), &product, chunk as usize)
            })
            .collect(),
    }
}

fn verification(criterion: &mut Criterion<CpuTime>) {
    let policy = Policy {
        allow_reference: false,
        baseline: None,
        timing: TimingPolicy::for_mode(Mode::Quick, None),
        held: false,
    };
    for (name, driver_name) in
        [("h100_h4", "NVIDIA H100 80GB HBM3"), ("rtx4090_h16", "NVIDIA GeForce RTX 4090")]
    {
        let challenge = challenge(driver_name);
        let proof = prove(&challenge);
        let verdict = verify(&challenge, &proof, None, &policy);
        for check in [Check::Parameters, Check::Openings, Check::ProbeReplay, Check::Gemm] {
            assert_eq!(verdict.status(check), Some(Status::Passed), "{verdict:#?}");
        }
        criterion.bench_function(&format!("verify/{name}"), |bencher| {
            bencher.iter(|| verify(black_box(&challenge), black_box(&proof), None, &policy));
        });
    }
}

/// The proofs of eight H100, one after the other on one core. What a caller spreads over cores takes as
/// much less: the proofs share nothing.
fn eight_gpus(criterion: &mut Criterion<CpuTime>) {
    let policy = Policy {
        allow_reference: false,
        baseline: None,
        timing: TimingPolicy::for_mode(Mode::Quick, None),
        held: false,
    };
    let all: Vec<(Challenge, Proof)> = (0..8)
        .map(|gpu| {
            let mut challenge = challenge("NVIDIA H100 80GB HBM3");
            challenge.context.gpu_index = gpu;
            challenge.context.gpu_count = 8;
            challenge.context.nonce_fill = [gpu as u8; 32];
            let proof = prove(&challenge);
            (challenge, proof)
        })
        .collect();
    criterion.bench_function("verify/eight_h100", |bencher| {
        bencher.iter(|| {
            let judged = all.iter().map(|(challenge, proof)| {
                verify(black_box(challenge), black_box(proof), None, &policy)
            });
            judged.filter(|verdict| verdict.first_failure().is_none()).count()
        });
    });
}

fn full_depth_openings(criterion: &mut Criterion<CpuTime>) {
    let opening = |depth: usize| Opening {
        chunk: Chunk(Box::new([1; CHUNK_BYTES])),
        path: Path::from(vec![Digest([2; 32]); depth]),
    };
    let (record, entry) = (opening(17), opening(20));
    criterion.bench_function("openings/32_of_depth_17_and_128_of_depth_20", |bencher| {
        bencher.iter(|| {
            let records = (0..32).filter(|i| check_opening(&[3; 32], &[4; 32], *i, 17, &record));
            let entries = (0..128).filter(|i| check_opening(&[3; 32], &[4; 32], *i, 20, &entry));
            records.count() + entries.count()
        });
    });
}

fn regeneration(criterion: &mut Criterion<CpuTime>) {
    let challenge = challenge("NVIDIA H100 80GB HBM3");
    let key = fill_key(&challenge.context);
    for (name, generator) in
        [("best", BlockGenerator::new(key, 4)), ("portable", BlockGenerator::portable(key, 4))]
    {
        let mut words = [0; BLOCK_WORDS];
        let mut index = 0;
        criterion.bench_function(&format!("block_h4/{name}"), |bencher| {
            bencher.iter(|| {
                index += 1;
                generator.block(black_box(index), &mut words);
            });
        });
        criterion.bench_function(&format!("line_h4/{name}"), |bencher| {
            bencher.iter(|| {
                index += 1;
                generator.line(black_box(index), (index % 128) as usize)
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).sample_size(20);
    targets = verification, eight_gpus, full_depth_openings, regeneration
}
criterion_main!(benches);

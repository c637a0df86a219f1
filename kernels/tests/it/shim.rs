//! The kernels' own source, compiled for the host and run thread by thread, against the reference.
//!
//! This needs `g++`; without it the tests fail and say so. It shows that the sources compute the
//! right thing, not that a GPU does: see `kernels/README.md`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use pow_kernels::keys::{ProbeKeys, Slice, fill_key};
use pow_kernels::launch::{self, Blake3Key, ProbeShape};
use pow_kernels::{KernelVariant, Sizes, reference};

use crate::support::{TINY, TINY_PROVER, challenge, context};

static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpow-simt-shim");
    let output = Command::new("g++")
        .args(["-O2", "-std=c++17", "-fwrapv", "-Wall", "-Wextra", "-Werror"])
        .args(["-Wno-unknown-pragmas", "-Wno-unused-function"])
        .arg("-I")
        .arg(&sources)
        .arg("-I")
        .arg(sources.join("shim"))
        .arg(sources.join("shim/run.cpp"))
        .arg("-o")
        .arg(&binary)
        .output()
        .unwrap_or_else(|error| panic!("g++ is needed to test the kernels: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    binary
});

fn run(arguments: &[String], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(&*BINARY)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program reads all of its input before it writes.
        scope.spawn(move || stdin.write_all(input).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
        output.stdout
    })
}

fn arguments(command: &str, numbers: &[u64]) -> Vec<String> {
    std::iter::once(command.to_owned()).chain(numbers.iter().map(u64::to_string)).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Bytes that look random and hold the extremes -128 and 127.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn the_selftest_kernel_gives_the_answers_a_runner_expects() {
    let expected = bytes(&launch::SELFTEST_ANSWERS);
    assert_eq!(run(&arguments("selftest", &[]), &[]), expected);
    // The expected answers are themselves the published ones.
    let answers = &launch::SELFTEST_ANSWERS;
    assert_eq!(answers[..4], reference::philox(10, [0; 4], [0; 2]));
    assert_eq!(answers[16..20], reference::philox(4, [!0; 4], [!0; 2]));
    let (a, b) = reference::mix(!0, !0, reference::layer_constant(6));
    assert_eq!(answers[28..], [a, b]);
}

#[test]
fn the_fill_kernel_makes_the_reference_memory() {
    let context = context(Sizes { leaf_iterations: 3, ..TINY });
    let key = fill_key(&context);
    let words = [key.k[0], key.k[1], key.s[0], key.s[1]];
    // A device that holds five thread blocks, which do not divide the memory.
    let grid = launch::fill_grid(&context.parameters, 5);
    let numbers = [grid.into(), launch::FILL.threads.into(), 17, 3];
    let numbers = numbers.into_iter().chain(words.map(u64::from));
    let memory = run(&arguments("fill", &numbers.collect::<Vec<_>>()), &[]);
    let expected: Vec<u8> =
        (0..17).flat_map(|block| bytes(&*reference::block(words, 3, block))).collect();
    assert!(memory == expected);
}

/// On a device that holds one thread block: 64 chains at once.
fn probe(sizes: Sizes, memory: &[u32], key: [u32; 4]) -> Vec<u8> {
    let parameters = context(sizes).parameters;
    let shape = ProbeShape::new(&parameters);
    let numbers = [
        launch::probe_grid(&parameters, 1).into(),
        launch::PROBE.threads.into(),
        shape.blocks,
        shape.window_lines,
        shape.windows.into(),
        shape.window_shift.into(),
        shape.chains.into(),
        shape.steps.into(),
    ];
    let numbers: Vec<u64> = numbers.into_iter().chain(key.map(u64::from)).collect();
    run(&arguments("probe", &numbers), &bytes(memory))
}

fn tree(key: &[u8; 32], data: &[u8]) -> Vec<u8> {
    let chunks = u32::try_from(data.len() / 1024).unwrap();
    let launches = [launch::chunks_grid(chunks), launch::CHUNKS.threads, launch::PARENTS.threads]
        .into_iter()
        .chain(Blake3Key::new(key).0)
        .chain(launch::parent_launches(chunks).flat_map(|(children, grid)| [children, grid]));
    run(&arguments("tree", &launches.map(u64::from).collect::<Vec<_>>()), data)
}

#[test]
fn the_probe_kernel_walks_the_reference_chains() {
    let challenge = challenge(TINY);
    let (prover, committed) = &*TINY_PROVER;
    let key = prover.chain_key(&challenge.nonce_probe);
    assert!(probe(TINY, &prover.memory, key) == committed.records);
}

/// More chains than one pass holds, fewer than a warp holds, windows of one step, shorter last window.
#[test]
fn the_probe_kernel_walks_odd_shapes() {
    let (prover, _) = &*TINY_PROVER;
    let key = [11, 22, 33, 44];
    for edge in [
        Sizes { chains: 128, steps: 1, ..TINY },
        Sizes { chains: 2, steps: 3, windows: 16, window_shift: 0, ..TINY },
        Sizes { chains: 4, windows: 7, window_shift: 3, ..TINY },
        Sizes { chains: 4, windows: 1, window_shift: 14, ..TINY },
    ] {
        let parameters = context(edge).parameters;
        let expected: Vec<u8> = (0..edge.chains)
            .flat_map(|w| reference::probe_chain(&parameters, key, &|i| prover.line(i), w))
            .collect();
        assert!(probe(edge, &prover.memory, key) == expected, "{edge:?}");
    }
}

/// The root is BLAKE3's own, and the nodes named by `path_nodes` are the reference's path.
#[test]
fn the_tree_kernels_make_the_blake3_tree() {
    let key = *b"whats the Elvish word for friend";
    for log2_chunks in [1, 2, 5, 9, 10, 12] {
        let chunks = 1_u32 << log2_chunks;
        let data = noise("tree", 1024 * chunks as usize);
        let tree = tree(&key, &data);
        assert_eq!(tree.len() as u64, launch::tree_bytes(chunks));
        assert_eq!(tree[32..64], *blake3::keyed_hash(&key, &data).as_bytes(), "{chunks}");
        for index in [0, 1, chunks / 2, chunks - 1] {
            let path: Vec<&[u8]> = launch::path_nodes(chunks, index)
                .map(|node| &tree[32 * node as usize..][..32])
                .collect();
            let expected = reference::open(&key, &data, index as usize);
            let siblings: Vec<&[u8]> =
                expected.path.siblings().iter().map(|digest| digest.0.as_slice()).collect();
            assert_eq!(path, siblings, "chunk {index} of {chunks}");
        }
    }
}

#[test]
fn parent_launches_reach_the_root() {
    let launches = |chunks| launch::parent_launches(chunks).collect::<Vec<_>>();
    assert_eq!(launches(2), [(2, 1)]);
    assert_eq!(launches(512), [(512, 1)]);
    assert_eq!(launches(1024), [(1024, 2), (2, 1)]);
    assert_eq!(launches(1 << 20), [(1 << 20, 2048), (2048, 4), (4, 1)]);
}

/// Runs a product kernel with the launch that [`launch`] gives for dimension `n`.
fn gemm(variant: KernelVariant, n: usize, inner: usize, operands: &[u8]) -> Vec<u8> {
    let kernel = launch::gemm(variant).unwrap();
    let sizes = Sizes { blocks: 2048, gemm_dimension: n as u32, ..TINY };
    let grid = launch::gemm_grid(variant, &context(sizes).parameters);
    let numbers = [grid, kernel.threads, kernel.dynamic_shared_bytes, n.ilog2(), inner as u32];
    let mut command = vec!["gemm".to_owned(), kernel.name.to_owned()];
    command.extend(numbers.map(|number| number.to_string()));
    run(&command, operands)
}

fn naive(operands: &[u8], n: usize, inner: usize) -> Vec<u8> {
    let (rows, columns) = operands.split_at(n * inner);
    rows.chunks_exact(inner)
        .flat_map(|row| columns.chunks_exact(inner).map(move |column| (row, column)))
        .flat_map(|(row, column)| {
            let products =
                row.iter().zip(column).map(|(a, b)| i32::from(*a as i8) * i32::from(*b as i8));
            products.sum::<i32>().to_le_bytes()
        })
        .collect()
}

/// Matrix instructions are emulated by their documented layouts; the wgmma case also decodes the
/// descriptors and the swizzle.
#[test]
fn every_product_kernel_multiplies() {
    for (variant, n, inner) in [
        (KernelVariant::Dp4a, 256, 32),
        (KernelVariant::Dp4a, 512, 64),
        (KernelVariant::Mma, 512, 128),
        (KernelVariant::Mma, 256, 512),
        (KernelVariant::Wgmma, 512, 128),
        (KernelVariant::Wgmma, 256, 1024),
    ] {
        let mut operands = noise(&format!("{variant:?}"), 2 * n * inner);
        // The largest sums: a whole row and a whole column of -128.
        operands[..inner].fill(0x80);
        operands[n * inner..][..inner].fill(0x80);
        let product = gemm(variant, n, inner, &operands);
        assert!(product == naive(&operands, n, inner), "{variant:?} {n} {inner}");
        assert_eq!(product[..4], (16_384 * inner as i32).to_le_bytes());
    }
}

/// At the inner dimension of the protocol, over a real memory.
#[test]
fn the_row_chunk_kernel_gives_the_chunk_that_is_opened() {
    let (prover, _) = &*TINY_PROVER;
    let row = |block: u64| &prover.memory[block as usize * 4096..][..4096];
    let expected: Vec<u8> = (0..256)
        .flat_map(|j| reference::gemm_element(row(7), row(305 + j)).to_le_bytes())
        .collect();
    assert!(run(&arguments("row_chunk", &[7, 305]), &bytes(&prover.memory)) == expected);
}

/// A challenge answered by the kernels, with the crate's keys and slices: the reference's roots.
#[test]
fn the_kernels_commit_to_what_the_reference_commits_to() {
    let challenge = challenge(TINY);
    let (prover, committed) = &*TINY_PROVER;
    let keys = ProbeKeys::new(&challenge.context.hash(), &challenge.nonce_probe);
    let chains = [keys.chains.k[0], keys.chains.k[1], keys.chains.s[0], keys.chains.s[1]];
    let records = probe(TINY, &prover.memory, chains);
    let root = |key: &[u8; 32], data: &[u8]| tree(key, data)[32..64].to_vec();
    assert_eq!(root(&keys.commit_probe, &records), committed.commitments.probe_root.0);
    let slice = Slice::new(&challenge.context.parameters, &committed.commitments.probe_root.0, 0);
    let rows = |first: u64| bytes(&prover.memory[first as usize * 4096..][..256 * 4096]);
    let operands = [rows(slice.first_row), rows(slice.first_column)].concat();
    let product = gemm(KernelVariant::Dp4a, 256, 16_384, &operands);
    assert_eq!(root(&keys.commit_gemm(0), &product), committed.commitments.gemm_roots[0].0);
}

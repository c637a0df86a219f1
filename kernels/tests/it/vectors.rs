//! `vectors/*.json`: numbers for whoever implements the protocol again, with the reason of each case.
//!
//! They are made by the reference alone. The test makes them again and compares byte for byte; with
//! `UPDATE_VECTORS=1` in the environment it writes them instead, and the change shows in the diff.

use std::path::PathBuf;

use pow_kernels::reference::{self, Prover};
use pow_kernels::{Queries, QueryCounts, Sizes};
use serde_json::{Value, json};

use crate::support::{TINY, challenge};

const KEY: [u32; 4] = [0x0123_4567, 0x89ab_cdef, 0xdead_beef, 0x0bad_f00d];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn words(words: &[u32]) -> Vec<String> {
    words.iter().map(|word| format!("{word:08x}")).collect()
}

fn check(name: &str, value: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let text = format!("{value:#}\n");
    if std::env::var_os("UPDATE_VECTORS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == text,
        "{} is not what the reference gives; UPDATE_VECTORS=1 rewrites it",
        path.display()
    );
}

#[test]
fn philox_vectors_regenerate() {
    let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    let cases = [
        ("Random123: all zero", 10, [0; 4], [0; 2]),
        ("Random123: all ones", 10, [!0; 4], [!0; 2]),
        ("Random123: digits of pi", 10, pi.0, pi.1),
        ("four rounds, all zero; no published answer exists", 4, [0; 4], [0; 2]),
        ("four rounds, all ones: the key wraps in each round", 4, [!0; 4], [!0; 2]),
        ("four rounds, digits of pi", 4, pi.0, pi.1),
        ("one round: shows which product goes where", 1, [1, 2, 3, 4], [5, 6]),
    ];
    let cases = cases.map(|(reason, rounds, counter, key)| {
        let output = reference::philox(rounds, counter, key);
        json!({"reason": reason, "rounds": rounds, "counter": words(&counter),
               "key": words(&key), "output": words(&output)})
    });
    check("philox.json", &json!({"section": 5, "cases": cases}));
}

#[test]
fn mix_vectors_regenerate() {
    let cases = [
        ("small inputs", 1, 2, 0),
        ("zero inputs: only the constant is left", 0, 0, 0),
        ("all ones in the last layer: every sum wraps", !0, !0, 6),
        ("one input zero: the first product is the constant", 0, !0, 3),
        ("inputs exchanged: the function is not symmetric", !0, 0, 3),
    ];
    let cases = cases.map(|(reason, a, b, layer)| {
        let constant = reference::layer_constant(layer);
        let (x, y) = reference::mix(a, b, constant);
        json!({"reason": reason, "a": words(&[a]), "b": words(&[b]), "layer": layer,
               "output": words(&[x, y])})
    });
    let constants: Vec<_> =
        (0..7).map(|layer| format!("{:016x}", reference::layer_constant(layer))).collect();
    check("mix.json", &json!({"section": 6, "constants": constants, "cases": cases}));
}

#[test]
fn block_vectors_regenerate() {
    let cases = [
        ("one leaf iteration, first block", 1, 0),
        ("four leaf iterations, first block", 4, 0),
        ("sixteen leaf iterations, as on GDDR cards", 16, 1),
        ("a block number of 23 bits, as in 80 GB", 4, 4_697_797),
        ("the last block number of 32 bits", 1, (1 << 32) - 1),
        (
            "the first of 33 bits: the upper part shares counter word 1 with quad and column",
            1,
            1 << 32,
        ),
        ("both parts of the number at once", 2, (1 << 33) + 5),
    ];
    let cases = cases.map(|(reason, h, index): (&str, u32, u64)| {
        let block = reference::block(KEY, h, index);
        let bytes: Vec<u8> = block.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sha256 = ring::digest::digest(&ring::digest::SHA256, &bytes);
        json!({"reason": reason, "leaf_iterations": h, "block": index,
               "first_words": words(&block[..4]), "last_words": words(&block[4092..]),
               "sha256": hex(sha256.as_ref()), "blake3": blake3::hash(&bytes).to_hex().as_str()})
    });
    check("block.json", &json!({"section": 6, "key": words(&KEY), "cases": cases}));
}

#[test]
fn window_vectors_regenerate() {
    let cases = [
        ("one window is the whole memory", 4_697_798, 1, 5, 12_345),
        ("the last of three windows is shorter", 515, 3, 2, 11),
        ("after the last window comes the first", 515, 3, 2, 12),
        ("a step before a change of window", 1000, 4, 3, 7),
        ("the step of the change", 1000, 4, 3, 8),
        ("the largest memory", 1 << 40, 16, 14, 16_383),
    ];
    let cases = cases.map(|(reason, blocks, windows, shift, t): (&str, u64, u8, u8, u32)| {
        let (base, size) = reference::window(blocks, windows, shift, t);
        json!({"reason": reason, "blocks": blocks, "windows": windows, "window_shift": shift,
               "step": t, "first_line": base, "lines": size})
    });
    check("window.json", &json!({"section": 7, "cases": cases}));
}

/// A whole challenge of the smallest sizes, from the context's bytes to the openings.
#[test]
fn challenge_vectors_regenerate() {
    let variants = [
        ("three windows, the last one shorter; two products of different slices", TINY),
        (
            "an odd memory, so that halves differ; two leaf iterations; two chains, so that a path has one sibling",
            Sizes { leaf_iterations: 2, blocks: 517, chains: 2, windows: 1, gemms: 1, ..TINY },
        ),
    ];
    let counts = QueryCounts { probe: 4, gemm: 4 };
    let cases = variants.map(|(reason, sizes)| {
        let challenge = challenge(sizes);
        let prover = Prover::fill(&challenge.context);
        let records = prover.walk(&challenge.nonce_probe);
        let committed = prover.commit(&challenge.nonce_probe, records);
        let proof = committed.open(&challenge.nonce_open, counts);
        let queries = Queries::derive(
            &challenge.context.parameters,
            &challenge.context.hash(),
            &challenge.nonce_probe,
            &committed.commitments,
            &challenge.nonce_open,
            counts,
        );
        let roots: Vec<_> =
            committed.commitments.gemm_roots.iter().map(|root| root.to_string()).collect();
        json!({
            "reason": reason,
            "context": hex(&challenge.context.encode()),
            "context_hash": hex(&challenge.context.hash()),
            "nonce_probe": hex(&challenge.nonce_probe),
            "nonce_open": hex(&challenge.nonce_open),
            "first_words_of_memory": words(&prover.memory[..4]),
            "chain_key": words(&prover.chain_key(&challenge.nonce_probe)),
            "first_checkpoint": hex(&committed.records[..16]),
            "last_checkpoint": hex(&committed.records[committed.records.len() - 16..]),
            "probe_root": committed.commitments.probe_root.to_string(),
            "first_entries": committed.products.iter().map(|p| hex(&p[..8])).collect::<Vec<_>>(),
            "gemm_roots": roots,
            "probe_queries": queries.probe.iter().map(|q| json!([q.chain, q.segment])).collect::<Vec<_>>(),
            "gemm_queries": queries.gemm.iter().map(|q| json!([q.product, q.row, q.column])).collect::<Vec<_>>(),
            "openings_hash": hex(&proof.openings_hash()),
        })
    });
    check("challenge.json", &json!({"sections": [3, 4, 7, 8, 9, 11], "cases": cases}));
}

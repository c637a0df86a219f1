//! Bytes from outside: contexts and proofs, right and hostile.

use pow_kernels::proof::{CHUNK_BYTES, MAX_PATH};
use pow_kernels::queries::MAX_QUERIES;
use pow_kernels::{
    Backend, Chunk, Commitments, Context, ContextError, Digest, Mode, ModelTable, Opening, Outcome,
    ParameterError, Parameters, Path, Proof, QueryCounts, Sizes, verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{TINY, challenge, context, honest_proof, honest_times, policy};

#[test]
fn a_context_survives_the_round_trip() {
    let context = context(TINY);
    let bytes = context.encode();
    assert_eq!(&bytes[..4], b"GPW1");
    assert_eq!(Context::decode(&bytes).unwrap(), context);
    assert_eq!(context.hash(), *blake3::hash(&bytes).as_bytes());
}

/// Offsets of the specification's table, by writing a field and looking where it is.
#[test]
fn context_fields_are_where_the_specification_says() {
    let bytes = context(TINY).encode();
    assert_eq!(bytes[7], 1);
    assert_eq!(bytes[8..40], [1; 32]);
    assert_eq!(bytes[40..72], [2; 32]);
    assert_eq!(bytes[72..104], [3; 32]);
    assert_eq!(bytes[104..136], [4; 32]);
    assert_eq!(bytes[136..152], [5; 16]);
    assert_eq!(bytes[152..158], [6, 0, 8, 0, 4, 0]);
    assert_eq!(bytes[158..160], [2, 2]);
    assert_eq!(bytes[160..168], 601_u64.to_le_bytes());
    assert_eq!(bytes[168..172], 16_u32.to_le_bytes());
    assert_eq!(bytes[172..180], [64, 0, 4, 0, 3, 2, 2, 0]);
    assert_eq!(bytes[180..184], 256_u32.to_le_bytes());
    assert_eq!(bytes[184..188], 16_384_u32.to_le_bytes());
    assert_eq!(bytes[188..196], 1_700_000_000_000_u64.to_le_bytes());
    assert_eq!(bytes[196..212], [7; 16]);
    assert_eq!(bytes[212..], [0; 44]);
}

#[test]
fn every_constant_of_a_context_is_checked() {
    let good = context(TINY).encode();
    for (offset, field) in [
        (0, "magic"),
        (4, "version"),
        (6, "mode"),
        (158, "kernel variant"),
        (159, "lines per step"),
        (172, "segment count"),
        (179, "padding"),
        (185, "inner dimension"),
        (212, "padding"),
        (255, "padding"),
    ] {
        let mut bytes = good;
        bytes[offset] ^= 0x40;
        let found = match Context::decode(&bytes) {
            Err(ContextError::Unknown { field, .. }) => field,
            other => panic!("offset {offset}: {other:?}"),
        };
        assert_eq!(found, field, "offset {offset}");
    }
    let mut index = good;
    index[152] = 8;
    assert!(Context::decode(&index).is_err(), "GPU 8 of 8");
    assert_eq!(Context::decode(&good[..255]), Err(ContextError::Length(255)));
    assert_eq!(Context::decode(&[]), Err(ContextError::Length(0)));
}

#[test]
fn impossible_sizes_are_errors() {
    let max = Sizes {
        leaf_iterations: 255,
        blocks: u64::MAX,
        chains: u32::MAX,
        steps: u16::MAX,
        windows: 255,
        window_shift: 255,
        gemms: 255,
        gemm_dimension: u32::MAX,
    };
    let zero = Sizes {
        leaf_iterations: 0,
        blocks: 0,
        chains: 0,
        steps: 0,
        windows: 0,
        window_shift: 0,
        gemms: 0,
        gemm_dimension: 0,
    };
    let wrong = [
        max,
        zero,
        Sizes { leaf_iterations: 0, ..TINY },
        Sizes { leaf_iterations: 65, ..TINY },
        Sizes { blocks: 511, ..TINY },
        Sizes { blocks: (1 << 40) + 1, ..TINY },
        Sizes { chains: 1, ..TINY },
        Sizes { chains: 48, ..TINY },
        Sizes { chains: 1 << 21, ..TINY },
        Sizes { steps: 0, ..TINY },
        Sizes { steps: 257, ..TINY },
        Sizes { windows: 0, ..TINY },
        Sizes { windows: 17, ..TINY },
        Sizes { window_shift: 15, ..TINY },
        Sizes { gemms: 0, ..TINY },
        Sizes { gemms: 17, ..TINY },
        Sizes { gemm_dimension: 128, ..TINY },
        Sizes { gemm_dimension: 384, ..TINY },
        Sizes { gemm_dimension: 32_768, blocks: 1 << 20, ..TINY },
    ];
    for sizes in wrong {
        assert!(Parameters::new(sizes).is_err(), "{sizes:?}");
    }
    assert_eq!(
        Parameters::new(Sizes { gemm_dimension: 512, ..TINY }),
        Err(ParameterError::ProductTooLarge { dimension: 512, blocks: 601 })
    );
    let largest = Sizes {
        leaf_iterations: 64,
        blocks: 1 << 40,
        chains: 1 << 20,
        steps: 256,
        windows: 16,
        window_shift: 14,
        gemms: 16,
        gemm_dimension: 16_384,
    };
    let parameters = Parameters::new(largest).unwrap();
    assert_eq!(parameters.memory_bytes(), 1 << 54);
    assert_eq!((parameters.probe_path_len(), parameters.gemm_path_len()), (20, 20));
}

#[test]
fn a_proof_survives_json_and_cbor() {
    let proof = honest_proof();
    let json = serde_json::to_string(&proof).unwrap();
    assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
    let cbor = minicbor_serde::to_vec(&proof).unwrap();
    assert_eq!(minicbor_serde::from_slice::<Proof>(&cbor).unwrap(), proof);
    // Byte strings, not lists of numbers: 64 openings of about 1.2 KiB.
    assert!(cbor.len() < 64 * 1400, "{} bytes", cbor.len());
}

/// What one H100 sends in quick mode: 32 records and 128 chunks of products with paths of full depth.
#[test]
fn a_proof_at_the_sizes_of_an_h100_has_at_most_300_kilobytes() {
    let h100 = ModelTable::embedded().by_driver_name("NVIDIA H100 80GB HBM3").unwrap();
    let sizes = h100.profile(Mode::Quick).sizes;
    let counts = QueryCounts::for_mode(Mode::Quick);
    let opening = |depth: u32| Opening {
        chunk: Chunk(Box::new([0xff; CHUNK_BYTES])),
        path: Path::from(vec![Digest([0xff; 32]); depth as usize]),
    };
    let proof = Proof {
        backend: Backend::Cuda,
        context_hash: Digest([0xff; 32]),
        commitments: Commitments {
            probe_root: Digest([0xff; 32]),
            gemm_roots: vec![Digest([0xff; 32]); usize::from(sizes.gemms)],
        },
        probe_openings: vec![opening(sizes.probe_path_len()); usize::from(counts.probe)],
        gemm_openings: vec![opening(sizes.gemm_path_len()); usize::from(counts.gemm)],
    };
    let bytes = minicbor_serde::to_vec(&proof).unwrap().len();
    assert!((250_000..=300_000).contains(&bytes), "{bytes} bytes");
}

/// Openings of any other number than asked, also none and the most there can be: rejected.
#[test]
fn openings_of_another_number_are_rejected() {
    let honest = honest_proof();
    let opening = honest.probe_openings[0].clone();
    for count in [0, 1, 31, 33, usize::from(MAX_QUERIES)] {
        let wrong = Proof { probe_openings: vec![opening.clone(); count], ..honest.clone() };
        let verdict = verify(&challenge(TINY), &wrong, Some(&honest_times(2)), &policy());
        assert_eq!(verdict.outcome(), Outcome::Rejected, "{count} records");
        let wrong = Proof { gemm_openings: vec![opening.clone(); count], ..honest.clone() };
        let verdict = verify(&challenge(TINY), &wrong, Some(&honest_times(2)), &policy());
        assert_eq!(verdict.outcome(), Outcome::Rejected, "{count} chunks");
    }
}

/// Every number of a context at its limits and one beyond: an error or the same bytes, no panic.
#[test]
fn integers_at_their_limits_are_errors_or_survive() {
    let good = context(TINY).encode();
    // Offset and bytes of each number of the specification's table.
    for (offset, bytes) in [
        (6, 1),
        (7, 1),
        (152, 2),
        (154, 2),
        (156, 2),
        (158, 1),
        (160, 8),
        (168, 4),
        (174, 2),
        (176, 1),
        (177, 1),
        (178, 1),
        (180, 4),
        (188, 8),
    ] {
        for value in
            [0_u64, 1, 255, 256, 511, 512, 1 << 14, 1 << 20, (1 << 20) + 1, 1 << 40, u64::MAX]
        {
            let mut changed = good;
            changed[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            if let Ok(context) = Context::decode(&changed) {
                assert_eq!(context.encode(), changed);
                // What the sizes are used for does not overflow either.
                let sizes = &context.parameters;
                let _ = (sizes.memory_bytes(), sizes.record_bytes(), sizes.product_bytes());
                let _ = (sizes.probe_path_len(), sizes.gemm_path_len(), sizes.window(u32::MAX));
            }
        }
    }
}

#[test]
fn lengths_that_no_challenge_has_are_refused_while_decoding() {
    let chunk = |len: usize| format!("\"{}\"", "00".repeat(len));
    assert!(serde_json::from_str::<Chunk>(&chunk(CHUNK_BYTES)).is_ok());
    for len in [0, CHUNK_BYTES - 1, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
        assert!(serde_json::from_str::<Chunk>(&chunk(len)).is_err(), "{len}");
    }
    for len in [0, 31, 33, 64] {
        assert!(serde_json::from_str::<Digest>(&chunk(len)).is_err(), "{len}");
    }
    assert!(serde_json::from_str::<Path>(&chunk(32 * MAX_PATH)).is_ok());
    assert!(serde_json::from_str::<Path>(&chunk(32 * (MAX_PATH + 1))).is_err());
    assert!(serde_json::from_str::<Path>(&chunk(33)).is_err());
    for text in ["\"0g\"", "\"0\"", "\"ÄÖ\"", "\"AA\"", "17", "[0]", "null"] {
        assert!(serde_json::from_str::<Digest>(text).is_err(), "{text}");
    }

    let honest = honest_proof();
    let roots = Commitments { gemm_roots: vec![Digest([0; 32]); 17], ..honest.commitments.clone() };
    let cbor = minicbor_serde::to_vec(&roots).unwrap();
    assert!(minicbor_serde::from_slice::<Commitments>(&cbor).is_err());
    let mut many = honest.clone();
    many.probe_openings = vec![honest.probe_openings[0].clone(); usize::from(MAX_QUERIES) + 1];
    let cbor = minicbor_serde::to_vec(&many).unwrap();
    assert!(minicbor_serde::from_slice::<Proof>(&cbor).is_err());
}

/// A CBOR list that announces 2^60 openings, and a byte string that announces 2^60 bytes.
#[test]
fn announced_lengths_reserve_nothing() {
    let proof = minicbor_serde::to_vec(honest_proof()).unwrap();
    let list = find(&proof, b"probe_openings") + b"probe_openings".len();
    let mut hostile = proof[..list].to_vec();
    hostile.extend([0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(minicbor_serde::from_slice::<Proof>(&hostile).is_err());
    let bytes = find(&proof, b"probe_root") + b"probe_root".len();
    let mut hostile = proof[..bytes].to_vec();
    hostile.extend([0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(minicbor_serde::from_slice::<Proof>(&hostile).is_err());
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).unwrap()
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn opening() -> impl Strategy<Value = Opening> {
    (any::<u8>(), vec(digest(), 0..24)).prop_map(|(fill, siblings)| Opening {
        chunk: Chunk(Box::new([fill; CHUNK_BYTES])),
        path: Path::from(siblings),
    })
}

/// Any shape at all, with the true context hash half of the time so that the checks go on.
fn proof() -> impl Strategy<Value = Proof> {
    let lengths = prop_oneof![Just((2, 32, 32)), (0_usize..4, 0_usize..40, 0_usize..40)];
    (lengths, any::<bool>()).prop_flat_map(|((roots, probe, gemm), honest)| {
        (digest(), vec(digest(), roots), vec(opening(), probe), vec(opening(), gemm)).prop_map(
            move |(probe_root, gemm_roots, probe_openings, gemm_openings)| Proof {
                backend: Backend::Cuda,
                context_hash: if honest { Digest(context(TINY).hash()) } else { probe_root },
                commitments: Commitments { probe_root, gemm_roots },
                probe_openings,
                gemm_openings,
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_decodes_as_a_context_encodes_to_the_same_bytes(
        changes in vec((0_usize..256, any::<u8>()), 0..4),
    ) {
        let mut bytes = context(TINY).encode();
        for (offset, value) in changes {
            bytes[offset] = value;
        }
        if let Ok(context) = Context::decode(&bytes) {
            prop_assert_eq!(context.encode(), bytes);
        }
    }

    #[test]
    fn noise_is_no_context_and_no_proof(bytes in vec(any::<u8>(), 0..600)) {
        prop_assert!(Context::decode(&bytes).is_err());
        prop_assert!(minicbor_serde::from_slice::<Proof>(&bytes).is_err());
    }

    /// Half of a true proof, with some bytes changed: an error or a proof that is judged, no panic.
    #[test]
    fn damaged_proofs_are_errors_or_rejected(
        keep in 0_usize..80_000,
        changes in vec((0_usize..80_000, any::<u8>()), 1..4),
    ) {
        let mut bytes = minicbor_serde::to_vec(honest_proof()).unwrap();
        let honest = bytes.clone();
        for (offset, value) in changes {
            let len = bytes.len();
            bytes[offset % len] = value;
        }
        if keep % 2 == 0 {
            bytes.truncate(keep);
        }
        if let Ok(proof) = minicbor_serde::from_slice::<Proof>(&bytes) {
            let verdict = verify(&challenge(TINY), &proof, Some(&honest_times(2)), &policy());
            prop_assert!(proof == honest_proof() || verdict.outcome() == Outcome::Rejected);
        } else {
            prop_assert_ne!(bytes, honest);
        }
    }

    #[test]
    fn proofs_of_any_shape_are_rejected_without_a_panic(proof in proof()) {
        let verdict = verify(&challenge(TINY), &proof, Some(&honest_times(2)), &policy());
        prop_assert_eq!(verdict.outcome(), Outcome::Rejected);
    }
}

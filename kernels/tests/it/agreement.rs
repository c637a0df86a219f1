//! The fast code computes what the reference computes.

use pow_kernels::keys::{PhiloxKey, ProbeKeys, Slice, fill_key};
use pow_kernels::{BLOCK_WORDS, BlockGenerator, Queries, QueryCounts, Sizes, reference};
use proptest::prelude::*;

use crate::support::{TINY, TINY_PROVER, challenge, context};

fn philox_key(words: [u32; 4]) -> PhiloxKey {
    PhiloxKey { k: [words[0], words[1]], s: [words[2], words[3]] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Also beyond 2^32 blocks, where the upper counter bits appear.
    #[test]
    fn every_block_is_the_same_from_all_three_implementations(
        key: [u32; 4],
        h in 1_u8..=5,
        index in prop_oneof![0_u64..1 << 40, (1_u64 << 32) - 2..(1 << 32) + 2, Just((1 << 48) - 1)],
        line in 0_usize..128,
    ) {
        let slow = reference::block(key, h.into(), index);
        for generator in [
            BlockGenerator::new(philox_key(key), h),
            BlockGenerator::portable(philox_key(key), h),
        ] {
            let mut words = [0; BLOCK_WORDS];
            generator.block(index, &mut words);
            prop_assert_eq!(&words, &*slow);
            prop_assert_eq!(&generator.line(index, line)[..], &slow[32 * line..][..32]);
        }
    }

    #[test]
    fn windows_are_the_same_and_lie_in_the_memory(
        blocks in prop_oneof![512_u64..2000, (1_u64 << 40) - 2000..=1 << 40],
        windows in 1_u8..=16,
        window_shift in 0_u8..=14,
        t in 0_u32..1 << 14,
    ) {
        let sizes = Sizes { blocks, windows, window_shift, ..TINY };
        let parameters = context(sizes).parameters;
        let (base, size) = parameters.window(t);
        prop_assert_eq!((base, size), reference::window(blocks, windows, window_shift, t));
        prop_assert!(size > 0 && base + size <= 128 * blocks);
    }
}

#[test]
fn this_machine_tests_the_vector_code() {
    let vectorised = BlockGenerator::new(philox_key([0; 4]), 1).is_vectorised();
    #[cfg(target_arch = "x86_64")]
    assert_eq!(vectorised, std::arch::is_x86_feature_detected!("avx2"));
    #[cfg(not(target_arch = "x86_64"))]
    assert!(!vectorised);
}

/// Every line of one block: each takes another way through the butterfly.
#[test]
fn all_lines_of_a_block_are_its_lines() {
    let key = [9, 8, 7, 6];
    let slow = reference::block(key, 2, 77);
    for generator in
        [BlockGenerator::new(philox_key(key), 2), BlockGenerator::portable(philox_key(key), 2)]
    {
        for line in 0..128 {
            assert_eq!(generator.line(77, line)[..], slow[32 * line..][..32], "line {line}");
        }
    }
}

/// The prover's keys and slices, derived here by the crate and there by the reference.
#[test]
fn keys_lead_to_the_reference_memory_and_products() {
    let challenge = challenge(TINY);
    let (prover, committed) = &*TINY_PROVER;
    let generator = BlockGenerator::new(fill_key(&challenge.context), 1);
    let mut words = [0; BLOCK_WORDS];
    generator.block(511, &mut words);
    assert_eq!(words[..], prover.memory[511 * BLOCK_WORDS..512 * BLOCK_WORDS]);

    let keys = ProbeKeys::new(&challenge.context.hash(), &challenge.nonce_probe);
    let root = blake3::keyed_hash(&keys.commit_probe, &committed.records);
    assert_eq!(*root.as_bytes(), committed.commitments.probe_root.0);
    let mut previous = committed.commitments.probe_root.0;
    for (g, product) in (0..).zip(&committed.products) {
        let slice = Slice::new(&challenge.context.parameters, &previous, g);
        let row = |b: u64| &prover.memory[b as usize * BLOCK_WORDS..][..BLOCK_WORDS];
        let entry = reference::gemm_element(row(slice.first_row + 3), row(slice.first_column + 5));
        assert_eq!(product[4 * (3 * 256 + 5)..][..4], entry.to_le_bytes());
        previous = committed.commitments.gemm_roots[usize::from(g)].0;
        assert_eq!(*blake3::keyed_hash(&keys.commit_gemm(g), product).as_bytes(), previous);
    }
}

#[test]
fn queries_are_in_range_and_depend_on_every_input() {
    let challenge = challenge(TINY);
    let commitments = &TINY_PROVER.1.commitments;
    let counts = QueryCounts { probe: 500, gemm: 500 };
    let parameters = &challenge.context.parameters;
    let derive = |hash: [u8; 32], probe: [u8; 32], open: [u8; 32]| {
        Queries::derive(parameters, &hash, &probe, commitments, &open, counts)
    };
    let queries = derive([1; 32], [2; 32], [3; 32]);
    assert!(queries.probe.iter().all(|q| q.chain < 16 && q.segment < 64));
    assert!(queries.gemm.iter().all(|q| q.product < 2 && q.row < 256 && q.column < 256));
    assert!(queries.probe.iter().any(|q| q.segment == 0), "first segments are sampled too");
    for other in [
        derive([9; 32], [2; 32], [3; 32]),
        derive([1; 32], [9; 32], [3; 32]),
        derive([1; 32], [2; 32], [9; 32]),
    ] {
        assert_ne!(queries, other);
    }
}

/// The largest possible entry does not wrap: 16384 times -128 times -128.
#[test]
fn the_largest_entry_fits() {
    let least = [0x8080_8080; BLOCK_WORDS];
    assert_eq!(reference::gemm_element(&least, &least), 1 << 28);
    let most = [0x7f7f_7f7f; BLOCK_WORDS];
    assert_eq!(reference::gemm_element(&least, &most), -(16_384 * 128 * 127));
}

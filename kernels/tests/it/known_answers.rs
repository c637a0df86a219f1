//! Answers that others published, or that an independent implementation gave.

use pow_kernels::keys::PhiloxKey;
use pow_kernels::{BLOCK_WORDS, BlockGenerator, Digest, check_opening, reference};

const PI_COUNTER: [u32; 4] = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
const PI_KEY: [u32; 2] = [0xa409_3822, 0x299f_31d0];
const KEY: [u32; 4] = [0x0123_4567, 0x89ab_cdef, 0xdead_beef, 0x0bad_f00d];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn block_bytes(h: u32, index: u64) -> Vec<u8> {
    reference::block(KEY, h, index).iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Random123's `kat_vectors` file, lines `philox4x32 10` and `philox4x32 7`.
#[test]
fn philox_matches_random123() {
    let cases = [
        (10, [0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        (10, [!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (10, PI_COUNTER, PI_KEY, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        (7, [0; 4], [0; 2], [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]),
        (7, [!0; 4], [!0; 2], [0x5207_ddc2, 0x4516_5e59, 0x4d8e_e751, 0x8c52_f662]),
        (7, PI_COUNTER, PI_KEY, [0x4dfc_caba, 0x190a_87f0, 0xc473_62ba, 0xb6b5_242a]),
    ];
    for (rounds, counter, key, expected) in cases {
        assert_eq!(reference::philox(rounds, counter, key), expected, "{rounds} rounds");
    }
}

/// Four rounds have no published answers; these are from three implementations that agreed.
#[test]
fn philox_with_four_rounds_matches_the_independent_implementations() {
    let cases = [
        ([0; 4], [0; 2], [0x1e59_7a2c, 0x4fa2_984f, 0xf71c_efed, 0xd685_830c]),
        ([!0; 4], [!0; 2], [0x0ab3_8261, 0x0b0c_6200, 0x3dee_b265, 0x0de6_8f3e]),
        (PI_COUNTER, PI_KEY, [0xc9c7_529c, 0xd06d_7a4c, 0xab32_6927, 0x24ac_33b9]),
    ];
    for (counter, key, expected) in cases {
        assert_eq!(reference::philox(4, counter, key), expected);
    }
}

#[test]
fn mix_matches_the_independent_implementations() {
    let constants = [
        0x9e37_79b9_7f4a_7c15,
        0xdaa6_6d2c_7ddf_743f,
        0x1715_609f_7c74_6c69,
        0x5384_5412_7b09_6493,
        0x8ff3_4785_799e_5cbd,
        0xcc62_3af8_7833_54e7,
        0x08d1_2e6b_76c8_4d11,
    ];
    for (layer, constant) in (0..).zip(constants) {
        assert_eq!(reference::layer_constant(layer), constant, "layer {layer}");
    }
    assert_eq!(reference::mix(1, 2, constants[0]), (0x27ab_e52b, 0x1c97_dce8));
    assert_eq!(reference::mix(0, 0, constants[0]), (0x7d7e_c7e4, 0xf36a_bf1c));
    assert_eq!(reference::mix(!0, !0, constants[6]), (0xd4b0_4030, 0xd746_7a46));
}

#[test]
fn blocks_match_the_independent_implementations() {
    let cases = [
        (
            1,
            [0x7703_ddfe, 0xef26_d8f4, 0xad43_288f, 0x9ddf_9b17],
            "9a71224566e5e76fcc9754e5a7816e3b740d8877f92c68487d0775f2b81d728f",
        ),
        (
            4,
            [0xe771_dbc0, 0x286a_aa3b, 0x315a_1773, 0xf7e0_34c9],
            "30ce7a95ff774d9349f92de9d4ad36f9c37255074b62edf26eefcd97083e4ff6",
        ),
    ];
    for (h, words, sha256) in cases {
        assert_eq!(reference::block(KEY, h, 0)[..4], words);
        let bytes = block_bytes(h, 0);
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        assert_eq!(hex(digest.as_ref()), sha256, "h = {h}");
        let generator =
            BlockGenerator::new(PhiloxKey { k: [KEY[0], KEY[1]], s: [KEY[2], KEY[3]] }, h as u8);
        let mut fast = [0; BLOCK_WORDS];
        generator.block(0, &mut fast);
        assert_eq!(fast, *reference::block(KEY, h, 0));
    }
    assert_eq!(
        blake3::hash(&block_bytes(1, 0)).to_hex().as_str(),
        "2266e89c7c2491886e7fc9a139e769d6245de4bdc458e7564a7b379f280d662f"
    );
}

/// FIPS 180-4's examples: the hash that names a host and the vectors of the blocks.
#[test]
fn sha256_matches_fips_180_4() {
    let cases: [(&[u8], &str); 3] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ];
    for (input, expected) in cases {
        let digest = ring::digest::digest(&ring::digest::SHA256, input);
        assert_eq!(hex(digest.as_ref()), expected);
    }
}

/// From the BLAKE3 authors' `test_vectors.json`: input byte i is i mod 251.
#[test]
fn blake3_matches_its_published_vectors() {
    let key = *b"whats the Elvish word for friend";
    let label = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    let cases = [
        (
            1024,
            "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
            "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
            "7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a6896843027066",
        ),
        (
            2048,
            "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a",
            "879cf1fa2ea0e79126cb1063617a05b6ad9d0b696d0d757cf053439f60a99dd1",
            "7b2945cb4fef70885cc5d78a87bf6f6207dd901ff239201351ffac04e1088a23",
        ),
        (
            4096,
            "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969",
            "befc660aea2f1718884cd8deb9902811d332f4fc4a38cf7c7300d597a081bfc0",
            "1e0d7f3db8c414c97c6307cbda6cd27ac3b030949da8e23be1a1a924ad2f25b9",
        ),
    ];
    for (len, plain, keyed, derived) in cases {
        let input: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        assert_eq!(blake3::hash(&input).to_hex().as_str(), plain);
        assert_eq!(blake3::keyed_hash(&key, &input).to_hex().as_str(), keyed);
        assert!(derived.starts_with(&hex(&blake3::derive_key(label, &input))));
        if len == 1024 {
            continue;
        }
        // The published root of two and four chunks is what our openings must lead to.
        let root = *blake3::keyed_hash(&key, &input).as_bytes();
        let path_len = (len / 1024_u32).ilog2();
        for chunk in 0..len as usize / 1024 {
            let opening = reference::open(&key, &input, chunk);
            assert!(check_opening(&key, &root, chunk as u64, path_len, &opening));
            assert!(!check_opening(&key, &root, chunk as u64 ^ 1, path_len, &opening));
            let elsewhere = Digest([0; 32]).0;
            assert!(!check_opening(&key, &elsewhere, chunk as u64, path_len, &opening));
        }
    }
}

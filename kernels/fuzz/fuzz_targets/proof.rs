//! The proof decoder: an error, or a proof that survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pow_kernels::Proof;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(proof) = minicbor_serde::from_slice::<Proof>(bytes) {
        let again = minicbor_serde::to_vec(&proof).unwrap();
        assert!(minicbor_serde::from_slice::<Proof>(&again).unwrap() == proof);
    }
});

//! Contexts: an error, or exactly these bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pow_kernels::Context;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(context) = Context::decode(bytes) {
        assert_eq!(context.encode(), bytes);
    }
});

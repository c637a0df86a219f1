//! Philox4x32-R and the range reduction, as the verifier computes them.

/// `R` rounds over counter `c` with key `(k0, k1)`. `SPEC.md` section 5.
#[inline]
pub(crate) fn philox<const R: u32>(c: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = c;
    let [mut k0, mut k1] = key;
    for _ in 0..R {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) =
            ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(KEY_INCREMENTS[0]);
        k1 = k1.wrapping_add(KEY_INCREMENTS[1]);
    }
    [c0, c1, c2, c3]
}

/// Multipliers of the two halves of the counter.
pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What the key words grow by after each round: the golden ratio and sqrt(3) - 1.
pub(crate) const KEY_INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Bits 64..127 of `a * b`: a uniform `a` becomes uniform below `b`, up to `b / 2^64`.
#[inline]
pub(crate) fn mulhi(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

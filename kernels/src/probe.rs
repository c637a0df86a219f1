//! Steps of a chain, as the verifier replays them. `SPEC.md` section 7.

use crate::block::{BlockGenerator, LINE_WORDS, LINES_PER_BLOCK};
use crate::keys::PhiloxKey;
use crate::parameters::Parameters;
use crate::philox::{mulhi, philox};

/// State of `chain` before its first step.
pub(crate) fn chain_start(key: &PhiloxKey, chain: u32) -> [u32; 4] {
    let [s0, s1] = key.s;
    philox::<10>([chain, 0, s0, s1], key.k)
}

/// The state that follows `state` by steps `from .. from + count`.
pub(crate) fn replay(
    parameters: &Parameters,
    generator: &BlockGenerator,
    key: &PhiloxKey,
    mut state: [u32; 4],
    from: u32,
    count: u32,
) -> [u32; 4] {
    for t in from..from.saturating_add(count) {
        let (base, size) = parameters.window(t);
        let [a, b, c, d] = state.map(u64::from);
        let mut next = [0; 4];
        for (offset, word) in [(0_u32, a | b << 32), (8, c | d << 32)] {
            let line = base + mulhi(word, size);
            let lines = LINES_PER_BLOCK as u64;
            // The remainder of a division by 128 fits a usize.
            let words = generator.line(line / lines, (line % lines) as usize);
            absorb(&mut next, &words, state, key, offset, t);
        }
        state = next;
    }
    state
}

fn absorb(
    next: &mut [u32; 4],
    line: &[u32; LINE_WORDS],
    state: [u32; 4],
    key: &PhiloxKey,
    offset: u32,
    t: u32,
) {
    let [k0, k1] = key.k;
    for (q, quad) in (0_u32..).zip(line.as_chunks::<4>().0) {
        let mut input = *quad;
        xor(&mut input, state);
        let k = [k0.wrapping_add(offset + q), k1.wrapping_add(t)];
        xor(next, philox::<4>(input, k));
    }
}

fn xor(into: &mut [u32; 4], with: [u32; 4]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}

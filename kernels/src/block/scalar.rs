//! The block function in portable code, one column at a time.
#![allow(
    clippy::indexing_slicing,
    reason = "every index is below 128 (a line) or below 32 (a column), the arrays' lengths"
)]

use super::{BLOCK_WORDS, LAYERS, LINE_WORDS, LINES_PER_BLOCK, layer_constant, leaf_counter};
use crate::keys::PhiloxKey;
use crate::philox::philox;

type Column = [u32; LINES_PER_BLOCK];

pub(super) fn block(key: &PhiloxKey, h: u32, index: u64, words: &mut [u32; BLOCK_WORDS]) {
    for column in 0..LINE_WORDS {
        let mut x = leaves(key, h, index, column as u32);
        for layer in 0..LAYERS {
            let (stride, constant) = (1 << layer, layer_constant(layer));
            for group in x.chunks_exact_mut(2 * stride) {
                let (lower, upper) = group.split_at_mut(stride);
                for (a, b) in lower.iter_mut().zip(upper) {
                    (*a, *b) = mix(*a, *b, constant);
                }
            }
        }
        for (line, word) in x.into_iter().enumerate() {
            words[line * LINE_WORDS + column] = word;
        }
    }
}

pub(super) fn line(key: &PhiloxKey, h: u32, index: u64, line: usize) -> [u32; LINE_WORDS] {
    std::array::from_fn(|column| {
        let mut x = leaves(key, h, index, column as u32);
        for layer in 0..LAYERS {
            let constant = layer_constant(layer);
            for i in 0..LINES_PER_BLOCK >> (layer + 1) {
                let (a, b) = mix(x[2 * i], x[2 * i + 1], constant);
                x[i] = if line >> layer & 1 == 0 { a } else { b };
            }
        }
        x[0]
    })
}

fn leaves(key: &PhiloxKey, h: u32, index: u64, column: u32) -> Column {
    let [s0, s1] = key.s;
    let mut x = [0; LINES_PER_BLOCK];
    for (q, quad) in (0..).zip(x.as_chunks_mut::<4>().0) {
        *quad = [index as u32, leaf_counter(index, q) | column, s0, s1];
        for _ in 0..h {
            *quad = philox::<10>(*quad, key.k);
        }
    }
    x
}

fn mix(a: u32, b: u32, constant: u64) -> (u32, u32) {
    let p = (u64::from(a) * u64::from(b)).wrapping_add(constant);
    let (low, high) = (p as u32, (p >> 32) as u32);
    let (u, v) = (low ^ high ^ a, low.wrapping_sub(high).wrapping_add(b));
    let r = (u64::from(u) * u64::from(v)).wrapping_add(constant.rotate_left(32));
    let (low, high) = (r as u32, (r >> 32) as u32);
    (low ^ high ^ a, low.wrapping_sub(high).wrapping_add(b))
}

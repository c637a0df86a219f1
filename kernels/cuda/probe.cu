// Walks the chains: SPEC.md section 7.
//
// Four lanes hold one chain; each reads 32 of a line's 128 bytes as two 16-byte loads. The two lines of a step are
// independent, so every chain has 256 bytes in flight.
#include "gpow.cuh"

GPOW_INLINE void absorb(Words4 &next, uint4 quad, const Words4 &state, u32 k0, u32 k1) {
    Words4 input = {quad.x ^ state.x, quad.y ^ state.y, quad.z ^ state.z, quad.w ^ state.w};
    Words4 output = philox<4>(input, k0, k1);
    next.x ^= output.x;
    next.y ^= output.y;
    next.z ^= output.z;
    next.w ^= output.w;
}

extern "C" __global__ void __launch_bounds__(256)
gpow_probe(const uint4 *__restrict__ memory, uint4 *__restrict__ records, ProbeShape shape, PhiloxKey key) {
    u32 part = threadIdx.x & 3;
    // The four lanes of a chain run together; other chains of the warp may have ended.
    u32 lanes = 0xFu << (threadIdx.x & 28);
    u32 stride = (gridDim.x * blockDim.x) >> 2;
    u64 lines = shape.blocks * 128;
    for (u32 chain = (blockIdx.x * blockDim.x + threadIdx.x) >> 2; chain < shape.chains; chain += stride) {
        Words4 start = {chain, 0, key.s0, key.s1};
        Words4 state = philox<10>(start, key.k0, key.k1);
        u32 t = 0, window = 0;
        u32 window_mask = (1u << shape.window_shift) - 1;
        u64 base = 0;
        u64 size = shape.window_lines < lines ? shape.window_lines : lines;
        for (u32 segment = 0; segment < 64; segment++) {
            for (u32 step = 0; step < shape.steps; step++) {
                u64 line0 = base + __umul64hi((u64)state.x | (u64)state.y << 32, size);
                u64 line1 = base + __umul64hi((u64)state.z | (u64)state.w << 32, size);
                uint4 a = __ldg(memory + line0 * 8 + part);
                uint4 b = __ldg(memory + line0 * 8 + part + 4);
                uint4 c = __ldg(memory + line1 * 8 + part);
                uint4 d = __ldg(memory + line1 * 8 + part + 4);
                Words4 next = {0, 0, 0, 0};
                absorb(next, a, state, key.k0 + part, key.k1 + t);
                absorb(next, b, state, key.k0 + part + 4, key.k1 + t);
                absorb(next, c, state, key.k0 + part + 8, key.k1 + t);
                absorb(next, d, state, key.k0 + part + 12, key.k1 + t);
#pragma unroll
                for (int distance = 2; distance > 0; distance >>= 1) {
                    next.x ^= __shfl_xor_sync(lanes, next.x, distance);
                    next.y ^= __shfl_xor_sync(lanes, next.y, distance);
                    next.z ^= __shfl_xor_sync(lanes, next.z, distance);
                    next.w ^= __shfl_xor_sync(lanes, next.w, distance);
                }
                state = next;
                t++;
                if ((t & window_mask) == 0) {
                    window = window + 1 == shape.windows ? 0 : window + 1;
                    base = window * shape.window_lines;
                    u64 rest = lines - base;
                    size = shape.window_lines < rest ? shape.window_lines : rest;
                }
            }
            if (part == 0)
                records[(u64)chain * 64 + segment] = make_uint4(state.x, state.y, state.z, state.w);
        }
    }
}

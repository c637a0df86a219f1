// Fills the memory: SPEC.md section 6.
//
// A thread block of four warps makes one 16 KiB block at a time. Each thread holds 32 words of one column:
// first the lines 32g .. 32g+31 of its warp g, through layers 0 to 4; then, after one exchange through
// shared memory, the lines whose number modulo 32 is 8g .. 8g+7, through layers 5 and 6. All shared and global
// accesses of a warp are 128 bytes in a row.
#include "gpow.cuh"

extern "C" __global__ void __launch_bounds__(128)
gpow_fill(u32 *__restrict__ memory, u64 blocks, PhiloxKey key, u32 leaf_iterations) {
    __shared__ u32 exchange[4096];
    u32 lane = threadIdx.x & 31, group = threadIdx.x >> 5;
    for (u64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        Words4 leaf[8];
#pragma unroll
        for (int q = 0; q < 8; q++) {
            leaf[q].x = (u32)block;
            leaf[q].y = ((u32)(block >> 32) << 16) | ((group * 8 + q) << 5) | lane;
            leaf[q].z = key.s0;
            leaf[q].w = key.s1;
        }
#pragma unroll 1
        for (u32 h = 0; h < leaf_iterations; h++) {
#pragma unroll
            for (int q = 0; q < 8; q++) leaf[q] = philox<10>(leaf[q], key.k0, key.k1);
        }
        u32 x[32];
#pragma unroll
        for (int q = 0; q < 8; q++) {
            x[4 * q] = leaf[q].x;
            x[4 * q + 1] = leaf[q].y;
            x[4 * q + 2] = leaf[q].z;
            x[4 * q + 3] = leaf[q].w;
        }
#pragma unroll
        for (int layer = 0; layer < 5; layer++) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (!(i & (1 << layer))) mix(x[i], x[i | (1 << layer)], layer_constant(layer));
        }
#pragma unroll
        for (int i = 0; i < 32; i++) exchange[(group * 32 + i) * 32 + lane] = x[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 32; i++)
            x[i] = exchange[((i >> 3) * 32 + group * 8 + (i & 7)) * 32 + lane];
#pragma unroll
        for (int i = 0; i < 32; i++)
            if (!(i & 8)) mix(x[i], x[i | 8], layer_constant(5));
#pragma unroll
        for (int i = 0; i < 16; i++) mix(x[i], x[i | 16], layer_constant(6));
        u32 *out = memory + block * 4096 + lane;
#pragma unroll
        for (int i = 0; i < 32; i++) out[((i >> 3) * 32 + group * 8 + (i & 7)) * 32] = x[i];
        // The exchange is overwritten by the next block only when every warp has read it.
        __syncthreads();
    }
}

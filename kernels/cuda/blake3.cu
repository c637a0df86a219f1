// Commits to an array of 2^m chunks of 1024 bytes: SPEC.md section 9.
//
// The tree is a heap of 32-byte chaining values: node 1 is the root, node k has the children 2k and 2k+1, chunk i is node
// 2^m + i. All nodes stay, so that the path of chunk i is read off as the siblings k ^ 1 on its way up.
#include "gpow.cuh"

#define B3_CHUNK_START 1u
#define B3_CHUNK_END 2u
#define B3_PARENT 4u
#define B3_ROOT 8u
#define B3_KEYED_HASH 16u

GPOW_INLINE u32 rotate_right(u32 x, int n) {
    return (x >> n) | (x << (32 - n));
}

GPOW_INLINE void b3_mix(u32 *v, int a, int b, int c, int d, u32 x, u32 y) {
    v[a] += v[b] + x;
    v[d] = rotate_right(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = rotate_right(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 7);
}

// One compression of a full 64-byte block; `value` is replaced by the new chaining value.
GPOW_INLINE void b3_compress(u32 *value, u32 *m, u64 counter, u32 flags) {
    u32 v[16];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = value[i];
    v[8] = 0x6A09E667u;
    v[9] = 0xBB67AE85u;
    v[10] = 0x3C6EF372u;
    v[11] = 0xA54FF53Au;
    v[12] = (u32)counter;
    v[13] = (u32)(counter >> 32);
    v[14] = 64;
    v[15] = flags;
#pragma unroll
    for (int round = 0; round < 7; round++) {
        b3_mix(v, 0, 4, 8, 12, m[0], m[1]);
        b3_mix(v, 1, 5, 9, 13, m[2], m[3]);
        b3_mix(v, 2, 6, 10, 14, m[4], m[5]);
        b3_mix(v, 3, 7, 11, 15, m[6], m[7]);
        b3_mix(v, 0, 5, 10, 15, m[8], m[9]);
        b3_mix(v, 1, 6, 11, 12, m[10], m[11]);
        b3_mix(v, 2, 7, 8, 13, m[12], m[13]);
        b3_mix(v, 3, 4, 9, 14, m[14], m[15]);
        const int order[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
        u32 permuted[16];
#pragma unroll
        for (int i = 0; i < 16; i++) permuted[i] = m[order[i]];
#pragma unroll
        for (int i = 0; i < 16; i++) m[i] = permuted[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) value[i] = v[i] ^ v[i + 8];
}

GPOW_INLINE void load_quad(u32 *to, const uint4 *from) {
    uint4 quad = *from;
    to[0] = quad.x;
    to[1] = quad.y;
    to[2] = quad.z;
    to[3] = quad.w;
}

GPOW_INLINE void store_value(uint4 *tree, u64 node, const u32 *value) {
    tree[node * 2] = make_uint4(value[0], value[1], value[2], value[3]);
    tree[node * 2 + 1] = make_uint4(value[4], value[5], value[6], value[7]);
}

// One thread per chunk.
extern "C" __global__ void __launch_bounds__(128)
gpow_chunks(const uint4 *__restrict__ data, uint4 *__restrict__ tree, u32 chunks, Blake3Key key) {
    u32 chunk = blockIdx.x * blockDim.x + threadIdx.x;
    if (chunk >= chunks) return;
    u32 value[8], m[16];
#pragma unroll
    for (int i = 0; i < 8; i++) value[i] = key.words[i];
#pragma unroll 1
    for (u32 block = 0; block < 16; block++) {
#pragma unroll
        for (int i = 0; i < 4; i++) load_quad(m + 4 * i, data + (u64)chunk * 64 + block * 4 + i);
        u32 edge = (block == 0 ? B3_CHUNK_START : 0u) | (block == 15 ? B3_CHUNK_END : 0u);
        b3_compress(value, m, chunk, B3_KEYED_HASH | edge);
    }
    store_value(tree, (u64)chunks + chunk, value);
}

// Parents of the nodes `children .. 2 * children`, up to nine levels at once: each thread block goes up
// from 512 of them, or from all when there are fewer. `children` is a power of two, at least 2; the grid is
// children / 512, at least 1.
extern "C" __global__ void __launch_bounds__(256)
gpow_parents(uint4 *tree, u32 children, Blake3Key key) {
    u32 width = children < 512 ? children : 512;
    for (u32 level = children / 2, count = width / 2; count > 0; level /= 2, count /= 2) {
        if (threadIdx.x < count) {
            u64 node = (u64)level + (u64)blockIdx.x * count + threadIdx.x;
            u32 value[8], m[16];
#pragma unroll
            for (int i = 0; i < 8; i++) value[i] = key.words[i];
#pragma unroll
            for (int i = 0; i < 4; i++) load_quad(m + 4 * i, tree + node * 4 + i);
            b3_compress(value, m, 0, B3_KEYED_HASH | B3_PARENT | (node == 1 ? B3_ROOT : 0u));
            store_value(tree, node, value);
        }
        // The next level reads what other threads of this block wrote.
        __syncthreads();
    }
}

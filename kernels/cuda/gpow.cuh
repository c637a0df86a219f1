// What all kernels share: types, Philox, MIX, the layout of parameters. SPEC.md sections 5 to 7.
//
// Compiled by NVRTC for the devices and by a host compiler, through shim/simt.h, for the tests.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef GPOW_SIMT_SHIM
#define GPOW_INLINE static inline
#else
#define GPOW_INLINE static __device__ __forceinline__
#endif

struct Words4 {
    u32 x, y, z, w;
};

// Layout shared with launch.rs: PhiloxKey, Blake3Key, ProbeShape, RowChunk.
struct PhiloxKey {
    u32 k0, k1, s0, s1;
};
struct Blake3Key {
    u32 words[8];
};
struct ProbeShape {
    u64 blocks;
    u64 window_lines; // lines of a full window
    u32 windows;
    u32 window_shift;
    u32 chains;
    u32 steps;
};
struct RowChunk {
    u64 row;    // block of the left operand
    u64 column; // first of 256 blocks of the right operand
};

template <int ROUNDS>
GPOW_INLINE Words4 philox(Words4 c, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        u64 p0 = (u64)0xD2511F53u * c.x;
        u64 p1 = (u64)0xCD9E8D57u * c.z;
        Words4 next = {(u32)(p1 >> 32) ^ c.y ^ k0, (u32)p1, (u32)(p0 >> 32) ^ c.w ^ k1, (u32)p0};
        c = next;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

GPOW_INLINE void mix(u32 &a, u32 &b, u64 constant) {
    u64 p = (u64)a * b + constant;
    u32 low = (u32)p, high = (u32)(p >> 32);
    u32 u = low ^ high ^ a, v = low - high + b;
    u64 r = (u64)u * v + ((constant >> 32) | (constant << 32));
    low = (u32)r;
    high = (u32)(r >> 32);
    a = low ^ high ^ a;
    b = low - high + b;
}

GPOW_INLINE u64 layer_constant(int layer) {
    return 0x9E3779B97F4A7C15ull * (u64)(2 * layer + 1);
}

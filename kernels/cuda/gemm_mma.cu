// C = A * B^T over signed bytes with warp-level matrix instructions: SPEC.md section 8. sm_75 and later.
//
// A thread block of 256 makes a tile of 128 x 128; its eight warps, two by four, make 64 x 32 each. The inner dimension is
// walked in steps of 64 bytes through three stages of shared memory. A row's 16-byte pieces are stored at
// piece ^ (row / 2 mod 4), so that the eight rows of an 8 x 16 byte matrix lie in different banks. n is a power of two, at least 128,
// given as its logarithm; `inner` is a multiple of 64 (16384, less in tests), at least 128.
#include "gpow.cuh"

#define MMA_STAGES 3
#define MMA_STEP 64
#define MMA_TILE_BYTES (128 * MMA_STEP)

#ifdef GPOW_SIMT_SHIM
GPOW_INLINE void copy16(u8 *shared, const u8 *global) { shim_copy16(shared, global); }
GPOW_INLINE void copies_commit() {}
template <int PENDING> GPOW_INLINE void copies_wait() {}
GPOW_INLINE void load_matrices(u32 *r, const u8 *row) { shim_ldmatrix_x4(r, row); }
GPOW_INLINE void mma_16x8x32(int *c, const u32 *a, const u32 *b) { shim_mma_16x8x32(c, a, b); }
#else
GPOW_INLINE u32 shared_address(const void *pointer) { return (u32)__cvta_generic_to_shared(pointer); }
#if __CUDA_ARCH__ >= 800
GPOW_INLINE void copy16(u8 *shared, const u8 *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
GPOW_INLINE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> GPOW_INLINE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#else
// sm_75 has no asynchronous copies: the stages are then filled in order, which is slower and as right.
GPOW_INLINE void copy16(u8 *shared, const u8 *global) { *(uint4 *)shared = *(const uint4 *)global; }
GPOW_INLINE void copies_commit() {}
template <int PENDING> GPOW_INLINE void copies_wait() {}
#endif
GPOW_INLINE void load_matrices(u32 *r, const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
#if __CUDA_ARCH__ >= 800
GPOW_INLINE void mma_16x8x32(int *c, const u32 *a, const u32 *b) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
GPOW_INLINE void mma_8x8x16(int *c, u32 a, u32 b) {
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(c[0]), "+r"(c[1]) : "r"(a), "r"(b));
}
// The quarters of the larger instruction have just the layout of the smaller one.
GPOW_INLINE void mma_16x8x32(int *c, const u32 *a, const u32 *b) {
    mma_8x8x16(c, a[0], b[0]);
    mma_8x8x16(c, a[2], b[1]);
    mma_8x8x16(c + 2, a[1], b[0]);
    mma_8x8x16(c + 2, a[3], b[1]);
}
#endif
#endif

GPOW_INLINE u32 mma_offset(u32 row, u32 piece) {
    return row * MMA_STEP + ((piece ^ ((row >> 1) & 3)) << 4);
}

// 128 rows of one step: 512 pieces of 16 bytes, two per thread.
GPOW_INLINE void mma_fetch(u8 *tile, const u8 *from, u32 inner) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 index = threadIdx.x + i * 256, row = index >> 2, piece = index & 3;
        copy16(tile + mma_offset(row, piece), from + (u64)row * inner + piece * 16);
    }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define MMA_RESIDENT 1 // 48 of 64 KiB of shared memory, and no register to spare
#else
#define MMA_RESIDENT 2
#endif
extern "C" __global__ void __launch_bounds__(256, MMA_RESIDENT)
gpow_gemm_mma(const u8 *__restrict__ rows, const u8 *__restrict__ columns, int *__restrict__ product, u32 log2_n,
              u32 inner) {
    __shared__ __align__(128) u8 a_stage[MMA_STAGES * MMA_TILE_BYTES];
    __shared__ __align__(128) u8 b_stage[MMA_STAGES * MMA_TILE_BYTES];
    // Tiles go down eight rows of tiles before they go right: neighbours share operands in the cache.
    u32 log2_tiles = log2_n - 7, log2_band = log2_tiles < 3 ? log2_tiles : 3;
    u32 within = blockIdx.x & ((1u << (log2_band + log2_tiles)) - 1);
    u32 tile_row = (blockIdx.x >> (log2_band + log2_tiles) << log2_band) + (within & ((1u << log2_band) - 1));
    u32 tile_column = within >> log2_band;
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 warp_row = (warp >> 2) * 64, warp_column = (warp & 3) * 32;
    const u8 *a_from = rows + (u64)tile_row * 128 * inner;
    const u8 *b_from = columns + (u64)tile_column * 128 * inner;
    int sum[4][4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) sum[i][j][r] = 0;
    u32 steps = inner / MMA_STEP;
#pragma unroll
    for (u32 s = 0; s < MMA_STAGES - 1; s++) {
        mma_fetch(a_stage + s * MMA_TILE_BYTES, a_from + s * MMA_STEP, inner);
        mma_fetch(b_stage + s * MMA_TILE_BYTES, b_from + s * MMA_STEP, inner);
        copies_commit();
    }
    u32 stage = 0, next_stage = MMA_STAGES - 1;
    for (u32 step = 0; step < steps; step++) {
        copies_wait<MMA_STAGES - 2>();
        // This step's stage is complete for every thread, and the stage to be filled has been read by all.
        __syncthreads();
        u32 ahead = step + MMA_STAGES - 1;
        if (ahead < steps) {
            mma_fetch(a_stage + next_stage * MMA_TILE_BYTES, a_from + ahead * MMA_STEP, inner);
            mma_fetch(b_stage + next_stage * MMA_TILE_BYTES, b_from + ahead * MMA_STEP, inner);
        }
        // Also when nothing was fetched: the wait counts groups.
        copies_commit();
        const u8 *a_tile = a_stage + stage * MMA_TILE_BYTES;
        const u8 *b_tile = b_stage + stage * MMA_TILE_BYTES;
#pragma unroll
        for (u32 k = 0; k < MMA_STEP / 32; k++) {
            u32 a[4][4], b[2][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                // Matrices in the order: upper rows, lower rows, then the same for the second 16 bytes.
                u32 row = warp_row + i * 16 + (lane & 15), piece = k * 2 + (lane >> 4);
                load_matrices(a[i], a_tile + mma_offset(row, piece));
            }
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                // Two columns of tiles at once: first and second 16 bytes of each.
                u32 row = warp_column + j * 16 + (lane >> 4) * 8 + (lane & 7), piece = k * 2 + ((lane >> 3) & 1);
                load_matrices(b[j], b_tile + mma_offset(row, piece));
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) mma_16x8x32(sum[i][j], a[i], b[j >> 1] + 2 * (j & 1));
        }
        stage = stage + 1 == MMA_STAGES ? 0 : stage + 1;
        next_stage = next_stage + 1 == MMA_STAGES ? 0 : next_stage + 1;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 row = tile_row * 128 + warp_row + i * 16 + (lane >> 2);
            u32 column = tile_column * 128 + warp_column + j * 8 + (lane & 3) * 2;
            *(int2 *)(product + ((u64)row << log2_n) + column) = make_int2(sum[i][j][0], sum[i][j][1]);
            *(int2 *)(product + ((u64)(row + 8) << log2_n) + column) = make_int2(sum[i][j][2], sum[i][j][3]);
        }
}

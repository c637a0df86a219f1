// C = A * B^T over signed bytes on the ordinary cores: SPEC.md section 8. For devices without integer matrix units.
//
// `rows` and `columns` point to n blocks each; block i is row i, `inner` bytes long (16384, less in tests; a multiple
// of 32). A thread block of 256 makes a tile of 128 x 128, each thread 8 x 8. n is a multiple of 128.
#include "gpow.cuh"

#ifdef GPOW_SIMT_SHIM
GPOW_INLINE int dot4(u32 a, u32 b, int sum) {
    return shim_dp4a(a, b, sum);
}
#else
GPOW_INLINE int dot4(u32 a, u32 b, int sum) {
    int result;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}
#endif

// Words between the columns of a transposed tile: 128 and 4, so that the scattered stores spread over banks while
// 16-byte loads stay aligned.
#define DP4A_PITCH 132

extern "C" __global__ void __launch_bounds__(256)
gpow_gemm_dp4a(const uint4 *__restrict__ rows, const uint4 *__restrict__ columns, int *__restrict__ product,
               u32 log2_n, u32 inner) {
    __shared__ __align__(16) u32 a_tile[8 * DP4A_PITCH];
    __shared__ __align__(16) u32 b_tile[8 * DP4A_PITCH];
    u32 log2_tiles = log2_n - 7, tile_row = blockIdx.x >> log2_tiles, tile_column = blockIdx.x & ((1u << log2_tiles) - 1);
    u32 quads = inner / 16, line = threadIdx.x >> 1, half = threadIdx.x & 1;
    u32 y = threadIdx.x >> 4, x = threadIdx.x & 15;
    const uint4 *a_from = rows + (u64)(tile_row * 128 + line) * quads + half;
    const uint4 *b_from = columns + (u64)(tile_column * 128 + line) * quads + half;
    int sum[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sum[i][j] = 0;
    for (u32 quad = 0; quad < quads; quad += 2) {
        uint4 a_quad = a_from[quad], b_quad = b_from[quad];
        u32 a_words[4] = {a_quad.x, a_quad.y, a_quad.z, a_quad.w};
        u32 b_words[4] = {b_quad.x, b_quad.y, b_quad.z, b_quad.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            a_tile[(half * 4 + k) * DP4A_PITCH + line] = a_words[k];
            b_tile[(half * 4 + k) * DP4A_PITCH + line] = b_words[k];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 8; k++) {
            u32 a[8], b[8];
#pragma unroll
            for (int i = 0; i < 8; i++) a[i] = a_tile[k * DP4A_PITCH + y * 8 + i];
#pragma unroll
            for (int j = 0; j < 8; j++) b[j] = b_tile[k * DP4A_PITCH + x * 8 + j];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[i][j] = dot4(a[i], b[j], sum[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int *out = product + ((u64)(tile_row * 128 + y * 8 + i) << log2_n) + tile_column * 128 + x * 8;
#pragma unroll
        for (int j = 0; j < 8; j++) out[j] = sum[i][j];
    }
}

// 256 entries of one row, for each opening. One thread block per opening, one warp per entry.
extern "C" __global__ void __launch_bounds__(256)
gpow_row_chunks(const uint4 *__restrict__ memory, int *__restrict__ chunks, const RowChunk *__restrict__ openings) {
    RowChunk opening = openings[blockIdx.x];
    u32 lane = threadIdx.x & 31;
    for (u32 entry = threadIdx.x >> 5; entry < 256; entry += 8) {
        const uint4 *row = memory + opening.row * 1024;
        const uint4 *column = memory + (opening.column + entry) * 1024;
        int sum = 0;
        for (u32 i = lane; i < 1024; i += 32) {
            uint4 a = row[i], b = column[i];
            sum = dot4(a.x, b.x, dot4(a.y, b.y, dot4(a.z, b.z, dot4(a.w, b.w, sum))));
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance >>= 1)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
        if (lane == 0) chunks[blockIdx.x * 256 + entry] = sum;
    }
}

// C = A * B^T over signed bytes with warpgroup-level matrix instructions: SPEC.md section 8. sm_90a alone.
//
// A thread block of two warpgroups makes a tile of 128 x 256; each warpgroup makes 64 x 256 with m64n256k32. The inner
// dimension is walked in steps of 128 bytes through four stages of dynamic shared memory, 192 KiB, which the caller
// allows with the launch. Copies run two steps ahead; one step's products are in flight while the next is prepared. Tiles
// lie in shared memory as the instruction's 128-byte swizzle wants them: a row is 128 bytes, eight rows are an atom of
// 1024 bytes, and the 16-byte piece p of row r is stored at p ^ (r mod 8). n is a power of two, at least
// 256, given as its logarithm; `inner` is a multiple of 128.
#include "gpow.cuh"

#define WG_STAGES 4
#define WG_STEP 128
#define WG_A_BYTES (128 * WG_STEP)
#define WG_B_BYTES (256 * WG_STEP)
#define WG_STAGE_BYTES (WG_A_BYTES + WG_B_BYTES)

#ifdef GPOW_SIMT_SHIM
GPOW_INLINE u32 wg_address(const void *pointer) { return shim_shared_address(pointer); }
GPOW_INLINE void wg_copy16(u8 *shared, const u8 *global) { shim_copy16(shared, global); }
GPOW_INLINE void wg_copies_commit() {}
GPOW_INLINE void wg_copies_wait() {}
GPOW_INLINE void wg_begin() {}
GPOW_INLINE void wg_commit() {}
template <int PENDING> GPOW_INLINE void wg_wait() {}
GPOW_INLINE void wg_multiply(int *d, u64 a, u64 b) { shim_wgmma_64x256x32(d, a, b); }
#else
GPOW_INLINE u32 wg_address(const void *pointer) { return (u32)__cvta_generic_to_shared(pointer); }
GPOW_INLINE void wg_copy16(u8 *shared, const u8 *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(wg_address(shared)), "l"(global) : "memory");
}
GPOW_INLINE void wg_copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the newest group, then make the copies visible to the matrix unit, which reads through another proxy.
GPOW_INLINE void wg_copies_wait() {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
GPOW_INLINE void wg_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
GPOW_INLINE void wg_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> GPOW_INLINE void wg_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
GPOW_INLINE void wg_multiply(int *d, u64 a, u64 b) {
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
                 "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
                 "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
                 "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, "
                 "%101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "
                 "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
                 "}, %128, %129, add; }"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]),
                   "+r"(d[8]), "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]),
                   "+r"(d[15]), "+r"(d[16]), "+r"(d[17]), "+r"(d[18]), "+r"(d[19]), "+r"(d[20]), "+r"(d[21]),
                   "+r"(d[22]), "+r"(d[23]), "+r"(d[24]), "+r"(d[25]), "+r"(d[26]), "+r"(d[27]), "+r"(d[28]),
                   "+r"(d[29]), "+r"(d[30]), "+r"(d[31]), "+r"(d[32]), "+r"(d[33]), "+r"(d[34]), "+r"(d[35]),
                   "+r"(d[36]), "+r"(d[37]), "+r"(d[38]), "+r"(d[39]), "+r"(d[40]), "+r"(d[41]), "+r"(d[42]),
                   "+r"(d[43]), "+r"(d[44]), "+r"(d[45]), "+r"(d[46]), "+r"(d[47]), "+r"(d[48]), "+r"(d[49]),
                   "+r"(d[50]), "+r"(d[51]), "+r"(d[52]), "+r"(d[53]), "+r"(d[54]), "+r"(d[55]), "+r"(d[56]),
                   "+r"(d[57]), "+r"(d[58]), "+r"(d[59]), "+r"(d[60]), "+r"(d[61]), "+r"(d[62]), "+r"(d[63]),
                   "+r"(d[64]), "+r"(d[65]), "+r"(d[66]), "+r"(d[67]), "+r"(d[68]), "+r"(d[69]), "+r"(d[70]),
                   "+r"(d[71]), "+r"(d[72]), "+r"(d[73]), "+r"(d[74]), "+r"(d[75]), "+r"(d[76]), "+r"(d[77]),
                   "+r"(d[78]), "+r"(d[79]), "+r"(d[80]), "+r"(d[81]), "+r"(d[82]), "+r"(d[83]), "+r"(d[84]),
                   "+r"(d[85]), "+r"(d[86]), "+r"(d[87]), "+r"(d[88]), "+r"(d[89]), "+r"(d[90]), "+r"(d[91]),
                   "+r"(d[92]), "+r"(d[93]), "+r"(d[94]), "+r"(d[95]), "+r"(d[96]), "+r"(d[97]), "+r"(d[98]),
                   "+r"(d[99]), "+r"(d[100]), "+r"(d[101]), "+r"(d[102]), "+r"(d[103]), "+r"(d[104]), "+r"(d[105]),
                   "+r"(d[106]), "+r"(d[107]), "+r"(d[108]), "+r"(d[109]), "+r"(d[110]), "+r"(d[111]), "+r"(d[112]),
                   "+r"(d[113]), "+r"(d[114]), "+r"(d[115]), "+r"(d[116]), "+r"(d[117]), "+r"(d[118]), "+r"(d[119]),
                   "+r"(d[120]), "+r"(d[121]), "+r"(d[122]), "+r"(d[123]), "+r"(d[124]), "+r"(d[125]), "+r"(d[126]),
                   "+r"(d[127])
                 : "l"(a), "l"(b));
}
#endif

// Matrix descriptor: address / 16; leading offset, unused with this swizzle; 1024 bytes from atom to atom; swizzle
// of 128 bytes. (PTX ISA, "Matrix descriptor" of wgmma.)
GPOW_INLINE u64 wg_descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

template <u32 ROWS>
GPOW_INLINE void wg_fetch(u8 *tile, const u8 *from, u32 inner) {
#pragma unroll
    for (u32 i = 0; i < ROWS * 8 / 256; i++) {
        u32 index = threadIdx.x + i * 256, row = index >> 3, piece = index & 7;
        wg_copy16(tile + row * 128 + ((piece ^ (row & 7)) << 4), from + (u64)row * inner + piece * 16);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
gpow_gemm_wgmma(const u8 *__restrict__ rows, const u8 *__restrict__ columns, int *__restrict__ product, u32 log2_n,
                u32 inner) {
    GPOW_DYNAMIC_SHARED(stages);
    u32 log2_rows = log2_n - 7, log2_columns = log2_n - 8, log2_band = log2_rows < 3 ? log2_rows : 3;
    u32 within = blockIdx.x & ((1u << (log2_band + log2_columns)) - 1);
    u32 tile_row = (blockIdx.x >> (log2_band + log2_columns) << log2_band) + (within & ((1u << log2_band) - 1));
    u32 tile_column = within >> log2_band;
    u32 group = threadIdx.x >> 7;
    const u8 *a_from = rows + (u64)tile_row * 128 * inner;
    const u8 *b_from = columns + (u64)tile_column * 256 * inner;
    int sum[128];
#pragma unroll
    for (int i = 0; i < 128; i++) sum[i] = 0;
    u32 steps = inner / WG_STEP;
#pragma unroll
    for (u32 s = 0; s < 2; s++) {
        if (s < steps) {
            wg_fetch<128>(stages + s * WG_STAGE_BYTES, a_from + s * WG_STEP, inner);
            wg_fetch<256>(stages + s * WG_STAGE_BYTES + WG_A_BYTES, b_from + s * WG_STEP, inner);
        }
        wg_copies_commit();
    }
    for (u32 step = 0; step < steps; step++) {
        wg_copies_wait();
        // Every warpgroup has waited for its products of two steps ago, so their stage may be filled again.
        __syncthreads();
        u8 *stage = stages + step % WG_STAGES * WG_STAGE_BYTES;
        u32 a_address = wg_address(stage) + group * 64 * 128, b_address = wg_address(stage) + WG_A_BYTES;
        wg_begin();
#pragma unroll
        for (u32 k = 0; k < WG_STEP / 32; k++)
            wg_multiply(sum, wg_descriptor(a_address + k * 32), wg_descriptor(b_address + k * 32));
        wg_commit();
        u32 ahead = step + 2;
        if (ahead < steps) {
            u8 *next = stages + ahead % WG_STAGES * WG_STAGE_BYTES;
            wg_fetch<128>(next, a_from + ahead * WG_STEP, inner);
            wg_fetch<256>(next + WG_A_BYTES, b_from + ahead * WG_STEP, inner);
        }
        wg_copies_commit();
        wg_wait<1>();
    }
    wg_wait<0>();
    u32 lane = threadIdx.x & 31, row = tile_row * 128 + group * 64 + (threadIdx.x >> 5 & 3) * 16 + (lane >> 2);
#pragma unroll
    for (u32 j = 0; j < 32; j++) {
        u32 column = tile_column * 256 + j * 8 + (lane & 3) * 2;
        *(int2 *)(product + ((u64)row << log2_n) + column) = make_int2(sum[4 * j], sum[4 * j + 1]);
        *(int2 *)(product + ((u64)(row + 8) << log2_n) + column) = make_int2(sum[4 * j + 2], sum[4 * j + 3]);
    }
}

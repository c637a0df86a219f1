// A device for tests: runs the threads of a kernel as fibers of one host thread, block after block.
//
// It knows barriers, shuffles, static and dynamic shared memory, and the matrix instructions by their documented layouts.
// It says nothing about speed, memory ordering, or what the compiler for the device makes of the source.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define GPOW_SIMT_SHIM
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static
#define GPOW_DYNAMIC_SHARED(name) unsigned char *name = shim_dynamic_shared

struct Dim {
    unsigned x;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }

enum Wait { RUNNING, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool started;
    Wait wait;
};
static std::vector<Fiber> fibers;
// Kept from launch to launch; only what is touched takes memory.
static std::vector<std::unique_ptr<char[]>> stacks;
static constexpr size_t STACK_BYTES = 256 * 1024;
static jmp_buf scheduler;
static std::function<void()> kernel;
static unsigned char shim_dynamic_shared[256 * 1024] __align__(1024);

// Back to the scheduler, until it resumes this fiber. `_setjmp` and `_longjmp` leave the signal mask alone, so that a switch
// is no system call; `swapcontext` makes two.
static void leave(Fiber &fiber) {
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler, 1);
}

// Runs the kernel once in each thread block.
static void fiber_main() {
    for (;;) {
        kernel();
        Fiber &fiber = fibers[threadIdx.x];
        fiber.wait = DONE;
        leave(fiber);
    }
}

static __attribute__((noinline)) void resume(Fiber &fiber) {
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

static void wait_at(Wait barrier) {
    unsigned self = threadIdx.x;
    fibers[self].wait = barrier;
    leave(fibers[self]);
    threadIdx.x = self;
}
static inline void __syncthreads() { wait_at(AT_BLOCK_BARRIER); }
static inline void warp_barrier() { wait_at(AT_WARP_BARRIER); }

// Lets threads first .. last go on when all that have not ended wait at `barrier`.
static bool release(unsigned first, unsigned last, Wait barrier) {
    bool some = false;
    for (unsigned i = first; i < last; i++) {
        if (fibers[i].wait == DONE) continue;
        if (fibers[i].wait != barrier) return false;
        some = true;
    }
    for (unsigned i = first; some && i < last; i++)
        if (fibers[i].wait == barrier) fibers[i].wait = RUNNING;
    return some;
}

static void launch(unsigned grid, unsigned threads, std::function<void()> body) {
    kernel = std::move(body);
    gridDim.x = grid;
    blockDim.x = threads;
    fibers = std::vector<Fiber>(threads);
    while (stacks.size() < threads) stacks.emplace_back(new char[STACK_BYTES]);
    for (unsigned i = 0; i < threads; i++) {
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack.ss_sp = stacks[i].get();
        fibers[i].context.uc_stack.ss_size = STACK_BYTES;
        fibers[i].context.uc_link = nullptr;
        makecontext(&fibers[i].context, fiber_main, 0);
    }
    for (unsigned block = 0; block < grid; block++) {
        blockIdx.x = block;
        for (Fiber &fiber : fibers) fiber.wait = RUNNING;
        for (bool alive = true; alive;) {
            alive = false;
            bool progress = false;
            for (unsigned i = 0; i < threads; i++) {
                if (fibers[i].wait == RUNNING) {
                    threadIdx.x = i;
                    progress = true;
                    resume(fibers[i]);
                }
                alive |= fibers[i].wait != DONE;
            }
            for (unsigned warp = 0; warp < threads; warp += 32)
                progress |= release(warp, warp + 32 < threads ? warp + 32 : threads, AT_WARP_BARRIER);
            progress |= release(0, threads, AT_BLOCK_BARRIER);
            if (alive && !progress) {
                fprintf(stderr, "threads wait at different barriers\n");
                abort();
            }
        }
    }
}

static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
template <class T> static T __ldg(const T *pointer) { return *pointer; }

// What each thread of a block shows to its warp.
static unsigned long long shown[1024][8];

template <class T> static T __shfl_xor_sync(unsigned lanes, T value, int distance) {
    unsigned self = threadIdx.x, other = self ^ (unsigned)distance;
    if (!(lanes >> (self & 31) & 1) || !(lanes >> (other & 31) & 1)) {
        fprintf(stderr, "a shuffle leaves its mask\n");
        abort();
    }
    memcpy(&shown[self], &value, sizeof value);
    warp_barrier();
    T result;
    memcpy(&result, &shown[other], sizeof result);
    warp_barrier();
    return result;
}

static int shim_dp4a(unsigned a, unsigned b, int sum) {
    for (int i = 0; i < 32; i += 8) sum += (signed char)(a >> i) * (signed char)(b >> i);
    return sum;
}

static void shim_copy16(unsigned char *to, const unsigned char *from) {
    if ((size_t)to % 16 || (size_t)from % 16) {
        fprintf(stderr, "a copy is not aligned\n");
        abort();
    }
    memcpy(to, from, 16);
}

// ldmatrix.x4: lane i names row i mod 8 of matrix i / 8; lane l receives bytes 4 (l mod 4) .. of row l / 4 of each.
static void shim_ldmatrix_x4(unsigned *r, const unsigned char *row) {
    unsigned base = threadIdx.x & ~31u, lane = threadIdx.x & 31;
    memcpy(&shown[threadIdx.x], &row, sizeof row);
    warp_barrier();
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        const unsigned char *from;
        memcpy(&from, &shown[base + matrix * 8 + lane / 4], sizeof from);
        memcpy(&r[matrix], from + 4 * (lane % 4), 4);
    }
    warp_barrier();
}

// mma.m16n8k32: register layouts of the PTX ISA.
static void shim_mma_16x8x32(int *c, const unsigned *a, const unsigned *b) {
    unsigned base = threadIdx.x & ~31u, lane = threadIdx.x & 31;
    unsigned *mine = (unsigned *)shown[threadIdx.x];
    memcpy(mine, a, 16);
    memcpy(mine + 4, b, 8);
    warp_barrier();
    for (int r = 0; r < 4; r++) {
        unsigned row = lane / 4 + (r >= 2 ? 8 : 0), column = lane % 4 * 2 + (r & 1);
        for (unsigned word = 0; word < 4; word++) {
            const unsigned *a_lane = (const unsigned *)shown[base + row % 8 * 4 + word];
            const unsigned *b_lane = (const unsigned *)shown[base + column * 4 + word];
            // k below 16, then from 16 on.
            c[r] = shim_dp4a(a_lane[row >= 8 ? 1 : 0], b_lane[4], c[r]);
            c[r] = shim_dp4a(a_lane[row >= 8 ? 3 : 2], b_lane[5], c[r]);
        }
    }
    warp_barrier();
}

static unsigned shim_shared_address(const void *pointer) {
    return (unsigned)((const unsigned char *)pointer - shim_dynamic_shared);
}

// Byte k of row `row` of the matrix that a wgmma descriptor names: K-major, swizzle of 128 bytes.
static int wgmma_byte(unsigned long long descriptor, unsigned row, unsigned k) {
    if (descriptor >> 62 != 1) {
        fprintf(stderr, "another swizzle than the emulated one\n");
        abort();
    }
    unsigned start = (unsigned)(descriptor & 0x3FFF) << 4, stride = (unsigned)(descriptor >> 32 & 0x3FFF) << 4;
    unsigned address = start + row / 8 * stride + row % 8 * 128 + k;
    address ^= (address >> 7 & 7) << 4;
    return (signed char)shim_dynamic_shared[address];
}

// wgmma.m64n256k32: each warp of the group has sixteen rows, with the accumulator layout of mma in each eight columns.
static void shim_wgmma_64x256x32(int *d, unsigned long long a, unsigned long long b) {
    unsigned lane = threadIdx.x & 31, first = (threadIdx.x >> 5 & 3) * 16 + lane / 4;
    for (unsigned r = 0; r < 128; r++) {
        unsigned row = first + (r & 2 ? 8 : 0), column = r / 4 * 8 + lane % 4 * 2 + (r & 1);
        for (unsigned k = 0; k < 32; k++) d[r] += wgmma_byte(a, row, k) * wgmma_byte(b, column, k);
    }
}

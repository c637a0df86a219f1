// A FAKE libcuda.so.1: the part of the CUDA driver API that the runner calls, over the SIMT shim.
//
// For tests of the runner and the orchestrator on machines without a GPU. It runs the very source of the kernels, thread by
// thread, on one core, and says in each device's name that it is a fake. It is in no release, and no time measured with it
// means anything. Everything happens in the call, so it says nothing of what a stream orders.
//
// The environment describes it; see fake_gpus.h for its devices, and:
//
//   CUDA_VISIBLE_DEVICES  as for the driver: UUIDs or places, separated by commas
//   FAKE_CUDA_FAULT       faults, separated by commas; each may have a prefix UUID/ to be of one device alone
//                           init=CODE     cuInit gives CODE (CUresult)
//                           init_hang     cuInit never ends; see hang()
//                           version=N     cuDriverGetVersion gives N
//                           alloc=CODE    cuMemAlloc gives CODE
//                           load=CODE     cuModuleLoadData gives CODE
//                           launch=CODE@N the N-th launch of the process ends so: every later call gives CODE
//                           hang@N        the N-th launch never ends; see hang()
//                           crash@N       the process dies in the N-th launch
//                           selftest      the self-test computes something wrong
//                           wrong@N       the N-th launch writes one wrong bit into its result
//   FAKE_CUDA_FIFO        a named pipe that what hangs writes to and holds
//   FAKE_CUDA_LOG         a file that calls are appended to, one line each
#include <fcntl.h>
#include <unistd.h>

#include <map>
#include <string>

#include "fake_gpus.h"
#include "simt.h"

#include "module.cu"

#define EXPORT extern "C" __attribute__((visibility("default")))

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, INVALID_HANDLE = 400,
    NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, LAUNCH_OUT_OF_RESOURCES = 701
};

static constexpr int MULTIPROCESSORS = 2, BLOCKS_PER_MULTIPROCESSOR = 2;
static constexpr size_t ALLOCATION_UNIT = 512;

struct Module {
    std::string image;
};
struct Function {
    const char *name;
    int most_dynamic_shared;
};
struct Context {
    int device;
};

static std::vector<fake_gpu> visible;
static bool initialised;
static Context *current;
static std::map<unsigned char *, size_t> allocations;
static std::map<void *, size_t> host_allocations;
static std::vector<Module *> modules;
static std::vector<Function *> functions;
static int streams, launches;
static bool hangs;
static CUresult sticky = SUCCESS;

static void log_line(const char *what, const char *detail) {
    const char *path = getenv("FAKE_CUDA_LOG");
    if (path == nullptr) return;
    char line[256];
    int length = snprintf(line, sizeof line, "%d %s %s\n", (int)getpid(), what, detail);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, (size_t)length) != length) abort();
    close(file);
}

// The value of a fault that is switched on, here: the text after its name, or null.
static const char *fault(const char *name) {
    const char *rest = getenv("FAKE_CUDA_FAULT");
    static std::string value;
    while (rest != nullptr && *rest) {
        std::string entry(rest, strcspn(rest, ","));
        rest += entry.size() + (rest[entry.size()] == ',');
        size_t slash = entry.find('/');
        if (slash != std::string::npos) {
            if (visible.empty() || entry.substr(0, slash) != visible[0].uuid) continue;
            entry.erase(0, slash + 1);
        }
        size_t end = entry.find_first_of("=@");
        if (entry.substr(0, end) != name) continue;
        value = end == std::string::npos ? "" : entry.substr(end + 1);
        return value.c_str();
    }
    return nullptr;
}

static bool now(const char *name) {
    const char *value = fault(name);
    if (value == nullptr) return false;
    const char *at = strchr(value, '@');
    return launches == atoi(at ? at + 1 : value);
}

// Never returns. Holds FAKE_CUDA_FIFO open for writing: its reader sees one line once the process hangs, and the end of
// the file once it is gone.
static void hang() {
    int fifo = open(getenv("FAKE_CUDA_FIFO"), O_WRONLY);
    if (write(fifo, "hanging\n", 8) != 8) abort();
    for (;;) pause();
}

static void find_visible() {
    fake_gpu all[FAKE_MAX_GPUS];
    int count = fake_gpus(all);
    const char *rest = getenv("CUDA_VISIBLE_DEVICES");
    visible.clear();
    if (rest == nullptr) {
        visible.assign(all, all + count);
        return;
    }
    while (*rest) {
        std::string entry(rest, strcspn(rest, ","));
        rest += entry.size() + (rest[entry.size()] == ',');
        int found = -1;
        for (int i = 0; i < count; i++)
            if (entry == all[i].uuid || entry == std::to_string(i)) found = i;
        if (found < 0) return; // As the driver: what follows an unknown device is not visible either.
        visible.push_back(all[found]);
    }
}

static CUresult ready(bool in_context) {
    if (!initialised) return NOT_INITIALIZED;
    if (in_context && current == nullptr) return INVALID_CONTEXT;
    return sticky;
}
#define CHECK(in_context)                                     \
    do {                                                      \
        if (CUresult state = ready(in_context)) return state; \
    } while (0)

// As the driver: no name for a result that it does not know.
EXPORT CUresult cuGetErrorName(CUresult result, const char **name) {
    static const struct {
        CUresult result;
        const char *name;
    } names[] = {
        {1, "CUDA_ERROR_INVALID_VALUE"},          {2, "CUDA_ERROR_OUT_OF_MEMORY"},
        {34, "CUDA_ERROR_STUB_LIBRARY"},          {100, "CUDA_ERROR_NO_DEVICE"},
        {200, "CUDA_ERROR_INVALID_IMAGE"},        {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},    {218, "CUDA_ERROR_INVALID_PTX"},
        {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"}, {500, "CUDA_ERROR_NOT_FOUND"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},      {714, "CUDA_ERROR_HARDWARE_STACK_ERROR"},
        {719, "CUDA_ERROR_LAUNCH_FAILED"},        {801, "CUDA_ERROR_NOT_SUPPORTED"},
        {802, "CUDA_ERROR_SYSTEM_NOT_READY"},     {999, "CUDA_ERROR_UNKNOWN"},
    };
    *name = nullptr;
    for (auto &known : names)
        if (known.result == result) *name = known.name;
    return *name ? SUCCESS : INVALID_VALUE;
}

EXPORT CUresult cuInit(unsigned flags) {
    if (flags != 0) return INVALID_VALUE;
    find_visible();
    log_line("cuInit", visible.empty() ? "-" : visible[0].uuid);
    if (const char *code = fault("init")) return atoi(code);
    if (fault("init_hang")) hang();
    if (visible.empty()) return NO_DEVICE;
    initialised = true;
    return SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    const char *other = fault("version");
    *version = other ? atoi(other) : 12040;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
    CHECK(false);
    *count = (int)visible.size();
    return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    CHECK(false);
    if (ordinal < 0 || (size_t)ordinal >= visible.size()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

static bool is_device(CUdevice device) { return device >= 0 && (size_t)device < visible.size(); }

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    CHECK(false);
    if (!is_device(device) || length <= 0) return INVALID_VALUE;
    snprintf(name, (size_t)length, "%s", FAKE_NAME);
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid(unsigned char *uuid, CUdevice device) {
    CHECK(false);
    if (!is_device(device)) return INVALID_DEVICE;
    const char *digits = visible[(size_t)device].uuid + 4;
    for (int i = 0; i < 16; i++) {
        if (*digits == '-') digits++;
        unsigned byte;
        if (sscanf(digits, "%2x", &byte) != 1) abort();
        uuid[i] = (unsigned char)byte;
        digits += 2;
    }
    return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    CHECK(false);
    if (!is_device(device)) return INVALID_DEVICE;
    *bytes = visible[(size_t)device].memory_bytes;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    CHECK(false);
    if (!is_device(device)) return INVALID_DEVICE;
    switch (attribute) {
    case 16: *value = MULTIPROCESSORS; return SUCCESS;
    case 75: *value = visible[(size_t)device].major; return SUCCESS;
    case 76: *value = visible[(size_t)device].minor; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

EXPORT CUresult cuCtxCreate_v2(Context **context, unsigned, CUdevice device) {
    CHECK(false);
    if (!is_device(device)) return INVALID_DEVICE;
    log_line("cuCtxCreate", visible[(size_t)device].uuid);
    *context = current = new Context{device};
    return SUCCESS;
}

// Says what was left behind: a prover that ends in order leaves nothing.
EXPORT CUresult cuCtxDestroy_v2(Context *context) {
    if (context == nullptr || context != current) return INVALID_CONTEXT;
    size_t left = allocations.size() + host_allocations.size() + modules.size() + (size_t)streams;
    log_line("cuCtxDestroy", left == 0 ? "clean" : "leaks");
    delete context;
    current = nullptr;
    return SUCCESS;
}

static size_t free_bytes() {
    const fake_gpu &gpu = visible[(size_t)current->device];
    fake_process others[64];
    unsigned count = fake_processes(gpu.uuid, "", others, 64);
    size_t used = 0;
    for (auto &[_, bytes] : allocations) used += bytes;
    for (unsigned i = 0; i < count && i < 64; i++) used += others[i].bytes;
    return used < gpu.memory_bytes ? gpu.memory_bytes - used : 0;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    CHECK(true);
    *free = free_bytes();
    *total = visible[(size_t)current->device].memory_bytes;
    return SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    CHECK(true);
    if (const char *code = fault("alloc")) return atoi(code);
    size_t rounded = (bytes + ALLOCATION_UNIT - 1) / ALLOCATION_UNIT * ALLOCATION_UNIT;
    if (bytes == 0) return INVALID_VALUE;
    if (rounded > free_bytes()) return OUT_OF_MEMORY;
    void *place = nullptr;
    if (posix_memalign(&place, ALLOCATION_UNIT, rounded) != 0) return OUT_OF_MEMORY;
    memset(place, 0xa5, rounded); // What was there before is nobody's business to rely on.
    allocations[(unsigned char *)place] = rounded;
    *pointer = (CUdeviceptr)place;
    return SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    if (allocations.erase((unsigned char *)pointer) == 0) return INVALID_VALUE;
    free((void *)pointer);
    return SUCCESS;
}

EXPORT CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) {
    CHECK(true);
    *pointer = calloc(1, bytes);
    if (*pointer == nullptr) return OUT_OF_MEMORY;
    host_allocations[*pointer] = bytes;
    return SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *pointer) {
    if (host_allocations.erase(pointer) == 0) return INVALID_VALUE;
    free(pointer);
    return SUCCESS;
}

// Whether `bytes` from `pointer` on are in one live allocation.
static bool on_device(const void *pointer, size_t bytes) {
    auto after = allocations.upper_bound((unsigned char *)pointer);
    if (after == allocations.begin()) return false;
    auto [start, size] = *--after;
    size_t offset = (size_t)((unsigned char *)pointer - start);
    return offset <= size && bytes <= size - offset;
}

static bool on_host(const void *pointer, size_t bytes) {
    for (auto &[start, size] : host_allocations) {
        size_t offset = (size_t)((char *)pointer - (char *)start);
        if (pointer >= start && offset <= size && bytes <= size - offset) return true;
    }
    return false;
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, int *stream) {
    CHECK(true);
    if (hangs) return SUCCESS; // Waits behind what hangs.
    if (stream != &streams || !on_device((void *)from, bytes) || !on_host(to, bytes)) return INVALID_VALUE;
    memcpy(to, (void *)from, bytes);
    return SUCCESS;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, int *stream) {
    CHECK(true);
    if (hangs) return SUCCESS;
    if (stream != &streams || !on_device((void *)to, bytes) || !on_host(from, bytes)) return INVALID_VALUE;
    memcpy((void *)to, from, bytes);
    return SUCCESS;
}

EXPORT CUresult cuStreamCreate(int **stream, unsigned) {
    CHECK(true);
    streams++;
    *stream = &streams;
    return SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(int *stream) {
    if (stream != &streams || streams == 0) return INVALID_HANDLE;
    streams--;
    return SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(int *stream) {
    CHECK(true);
    if (stream != &streams) return INVALID_HANDLE;
    if (hangs) hang();
    return SUCCESS;
}

// Whether a cubin is for a device: its machine is in the flags of its header, at another place since ABI 8.
static CUresult fits(const unsigned char *header, const fake_gpu &gpu) {
    if (header[18] != 190 || header[19] != 0) return INVALID_IMAGE;
    unsigned machine = header[8] >= 8 ? header[49] : header[48];
    // The bit of arch-specific code, which runs on one capability alone.
    bool specific = header[8] < 8 && header[49] & 8;
    int major = (int)machine / 10, minor = (int)machine % 10;
    bool runs = specific ? minor == gpu.minor : minor <= gpu.minor;
    return major == gpu.major && runs ? SUCCESS : NO_BINARY_FOR_GPU;
}

EXPORT CUresult cuModuleLoadData(Module **module, const void *image) {
    CHECK(true);
    if (const char *code = fault("load")) return atoi(code);
    const fake_gpu &gpu = visible[(size_t)current->device];
    const unsigned char *bytes = (const unsigned char *)image;
    std::string copy;
    if (memcmp(bytes, "\x7f" "ELF", 4) == 0) {
        if (CUresult misfit = fits(bytes, gpu)) return misfit;
        // Up to the end of the section headers, which a cubin has last or before its program headers.
        unsigned long long sections, programs;
        unsigned short counts[4];
        memcpy(&programs, bytes + 32, 8);
        memcpy(&sections, bytes + 40, 8);
        memcpy(counts, bytes + 54, 8);
        size_t end = sections + (size_t)counts[2] * counts[3];
        if (end < programs + (size_t)counts[0] * counts[1]) end = programs + (size_t)counts[0] * counts[1];
        copy.assign((const char *)bytes, end);
    } else {
        copy = (const char *)image;
        if (copy.find(".version") == std::string::npos || copy.find(".target sm_75") == std::string::npos)
            return INVALID_PTX;
        if (gpu.major * 10 + gpu.minor < 75) return NO_BINARY_FOR_GPU;
    }
    *module = new Module{copy};
    modules.push_back(*module);
    return SUCCESS;
}

EXPORT CUresult cuModuleUnload(Module *module) {
    for (size_t i = 0; i < modules.size(); i++)
        if (modules[i] == module) {
            modules.erase(modules.begin() + (long)i);
            delete module;
            return SUCCESS;
        }
    return INVALID_HANDLE;
}

static const char *const NAMES[] = {"gpow_fill",       "gpow_probe",    "gpow_chunks",    "gpow_parents",   "gpow_row_chunks",
                                    "gpow_selftest",   "gpow_gemm_dp4a", "gpow_gemm_mma", "gpow_gemm_wgmma"};

EXPORT CUresult cuModuleGetFunction(Function **function, Module *module, const char *name) {
    CHECK(true);
    for (const char *known : NAMES)
        if (strcmp(known, name) == 0 && module->image.find(name) != std::string::npos) {
            *function = new Function{known, 48 * 1024};
            functions.push_back(*function);
            return SUCCESS;
        }
    return NOT_FOUND;
}

EXPORT CUresult cuFuncSetAttribute(Function *function, int attribute, int value) {
    CHECK(true);
    if (attribute != 8 || value > (int)sizeof shim_dynamic_shared) return INVALID_VALUE;
    function->most_dynamic_shared = value;
    return SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Function *, int threads, size_t shared) {
    CHECK(true);
    if (threads <= 0 || shared > sizeof shim_dynamic_shared) return INVALID_VALUE;
    *blocks = BLOCKS_PER_MULTIPROCESSOR;
    return SUCCESS;
}

template <class T> static T argument(void **parameters, int i) {
    T value;
    memcpy(&value, parameters[i], sizeof value);
    return value;
}

// Runs a kernel; ILLEGAL_ADDRESS if what it reads or writes is not all on the device.
static CUresult run(const Function *function, unsigned grid, unsigned threads, unsigned shared, void **p) {
    std::string name = function->name;
    unsigned char *written = nullptr;
    if (name == "gpow_fill") {
        u32 *memory = argument<u32 *>(p, 0);
        u64 blocks = argument<u64>(p, 1);
        PhiloxKey key = argument<PhiloxKey>(p, 2);
        u32 iterations = argument<u32>(p, 3);
        if (!on_device(memory, blocks * 16384)) return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_fill(memory, blocks, key, iterations); });
        written = (unsigned char *)memory;
    } else if (name == "gpow_probe") {
        const uint4 *memory = argument<const uint4 *>(p, 0);
        uint4 *records = argument<uint4 *>(p, 1);
        ProbeShape shape = argument<ProbeShape>(p, 2);
        PhiloxKey key = argument<PhiloxKey>(p, 3);
        if (!on_device(memory, shape.blocks * 16384) || !on_device(records, (size_t)shape.chains * 1024)) return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_probe(memory, records, shape, key); });
        written = (unsigned char *)records;
    } else if (name == "gpow_chunks") {
        const uint4 *data = argument<const uint4 *>(p, 0);
        uint4 *tree = argument<uint4 *>(p, 1);
        u32 chunks = argument<u32>(p, 2);
        Blake3Key key = argument<Blake3Key>(p, 3);
        if (!on_device(data, (size_t)chunks * 1024) || !on_device(tree, (size_t)chunks * 64)) return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_chunks(data, tree, chunks, key); });
        written = (unsigned char *)tree + (size_t)chunks * 32;
    } else if (name == "gpow_parents") {
        uint4 *tree = argument<uint4 *>(p, 0);
        u32 children = argument<u32>(p, 1);
        Blake3Key key = argument<Blake3Key>(p, 2);
        if (!on_device(tree, (size_t)children * 64)) return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_parents(tree, children, key); });
        written = (unsigned char *)tree + 32;
    } else if (name == "gpow_row_chunks") {
        const uint4 *memory = argument<const uint4 *>(p, 0);
        int *chunks = argument<int *>(p, 1);
        const RowChunk *openings = argument<const RowChunk *>(p, 2);
        if (!on_device(chunks, (size_t)grid * 1024) || !on_device(openings, (size_t)grid * sizeof *openings)) return ILLEGAL_ADDRESS;
        for (unsigned i = 0; i < grid; i++)
            if (!on_device((const char *)memory + openings[i].row * 16384, 16384) ||
                !on_device((const char *)memory + openings[i].column * 16384, 256 * 16384))
                return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_row_chunks(memory, chunks, openings); });
        written = (unsigned char *)chunks;
    } else if (name == "gpow_selftest") {
        u32 *out = argument<u32 *>(p, 0), zero = argument<u32>(p, 1), ones = argument<u32>(p, 2);
        if (!on_device(out, 120)) return ILLEGAL_ADDRESS;
        launch(grid, threads, [&] { gpow_selftest(out, zero, ones); });
        if (fault("selftest")) out[7] ^= 1;
        written = (unsigned char *)out;
    } else {
        const u8 *rows = argument<const u8 *>(p, 0), *columns = argument<const u8 *>(p, 1);
        int *product = argument<int *>(p, 2);
        u32 log2_n = argument<u32>(p, 3), inner = argument<u32>(p, 4);
        size_t n = (size_t)1 << log2_n;
        if (!on_device(rows, n * inner) || !on_device(columns, n * inner) || !on_device(product, n * n * 4)) return ILLEGAL_ADDRESS;
        if (name == "gpow_gemm_dp4a" && shared == 0)
            launch(grid, threads, [&] { gpow_gemm_dp4a((const uint4 *)rows, (const uint4 *)columns, product, log2_n, inner); });
        else if (name == "gpow_gemm_mma" && shared == 0)
            launch(grid, threads, [&] { gpow_gemm_mma(rows, columns, product, log2_n, inner); });
        else if (name == "gpow_gemm_wgmma" && shared == WG_STAGES * WG_STAGE_BYTES)
            launch(grid, threads, [&] { gpow_gemm_wgmma(rows, columns, product, log2_n, inner); });
        else
            return INVALID_VALUE;
        written = (unsigned char *)product;
    }
    if (now("wrong")) written[5] ^= 1;
    return SUCCESS;
}

EXPORT CUresult cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared, int *stream, void **parameters,
                               void **extra) {
    CHECK(true);
    if (hangs) return SUCCESS;
    if (stream != &streams || extra != nullptr || grid_y * grid_z * block_y * block_z != 1 || grid_x == 0) return INVALID_VALUE;
    if (block_x == 0 || block_x > 1024) return INVALID_VALUE;
    if ((int)shared > function->most_dynamic_shared) return LAUNCH_OUT_OF_RESOURCES;
    launches++;
    log_line("cuLaunchKernel", function->name);
    if (now("crash")) abort();
    if (now("hang")) {
        hangs = true;
        return SUCCESS;
    }
    if (now("launch")) {
        sticky = atoi(fault("launch"));
        return SUCCESS;
    }
    CUresult result = run(function, grid_x, block_x, shared, parameters);
    // As on a device: what goes wrong in a kernel is told by the next call.
    if (result == ILLEGAL_ADDRESS) sticky = result;
    return result == ILLEGAL_ADDRESS ? SUCCESS : result;
}

// Runs one kernel of module.cu on the SIMT shim: numbers as arguments, memory on standard input, result on standard output.
// Grids, thread counts and shapes come from the caller, so that launch.rs is tested with the kernels.
#include "simt.h"

#include "module.cu"

static std::vector<unsigned char> input;
static char **arguments;

static u64 number(int i) { return strtoull(arguments[i], nullptr, 0); }

static PhiloxKey philox_key(int i) {
    return {(u32)number(i), (u32)number(i + 1), (u32)number(i + 2), (u32)number(i + 3)};
}

template <class T> static T *at(std::vector<T> &data, size_t offset = 0) { return data.data() + offset; }

static void put(const void *data, size_t bytes) {
    if (fwrite(data, 1, bytes, stdout) != bytes) abort();
}

// Device memory is aligned more strictly than a vector of bytes need be.
static uint4 *device_copy(std::vector<uint4> &to) {
    to.resize((input.size() + 15) / 16);
    if (!input.empty()) memcpy(to.data(), input.data(), input.size());
    return to.data();
}

static void fill() { // grid threads blocks h key
    u64 blocks = number(4);
    std::vector<u32> memory(blocks * 4096);
    launch((u32)number(2), (u32)number(3),
           [&] { gpow_fill(at(memory), blocks, philox_key(6), (u32)number(5)); });
    put(memory.data(), memory.size() * 4);
}

static void probe() { // grid threads shape key
    std::vector<uint4> memory;
    device_copy(memory);
    ProbeShape shape = {number(4),      number(5),      (u32)number(6),
                        (u32)number(7), (u32)number(8), (u32)number(9)};
    std::vector<uint4> records(shape.chains * 64);
    launch((u32)number(2), (u32)number(3), [&] { gpow_probe(at(memory), at(records), shape, philox_key(10)); });
    put(records.data(), records.size() * 16);
}

static void tree() { // chunks' grid and threads, parents' threads, key's eight words, then children and grid of each launch
    std::vector<uint4> data;
    device_copy(data);
    u32 chunks = (u32)(input.size() / 1024);
    Blake3Key key;
    for (int i = 0; i < 8; i++) key.words[i] = (u32)number(5 + i);
    std::vector<uint4> nodes(chunks * 4);
    launch((u32)number(2), (u32)number(3), [&] { gpow_chunks(at(data), at(nodes), chunks, key); });
    for (int i = 13; arguments[i] != nullptr; i += 2)
        launch((u32)number(i + 1), (u32)number(4), [&] { gpow_parents(at(nodes), (u32)number(i), key); });
    put(nodes.data(), nodes.size() * 16);
}

static void gemm() { // kernel grid threads dynamic_shared_bytes log2_n inner
    std::vector<uint4> operands;
    const u8 *rows = (const u8 *)device_copy(operands);
    const char *name = arguments[2];
    u32 grid = (u32)number(3), threads = (u32)number(4), shared = (u32)number(5);
    u32 log2_n = (u32)number(6), n = 1u << log2_n, inner = (u32)number(7);
    const u8 *columns = rows + (u64)n * inner;
    std::vector<int> product((u64)n * n);
    if (!strcmp(name, "gpow_gemm_dp4a") && shared == 0)
        launch(grid, threads,
               [&] { gpow_gemm_dp4a((const uint4 *)rows, (const uint4 *)columns, at(product), log2_n, inner); });
    else if (!strcmp(name, "gpow_gemm_mma") && shared == 0)
        launch(grid, threads, [&] { gpow_gemm_mma(rows, columns, at(product), log2_n, inner); });
    else if (!strcmp(name, "gpow_gemm_wgmma") && shared == WG_STAGES * WG_STAGE_BYTES)
        launch(grid, threads, [&] { gpow_gemm_wgmma(rows, columns, at(product), log2_n, inner); });
    else
        abort();
    put(product.data(), product.size() * 4);
}

static void row_chunk() { // row column
    std::vector<uint4> memory;
    device_copy(memory);
    RowChunk openings[1] = {{number(2), number(3)}};
    std::vector<int> chunk(256);
    launch(1, 256, [&] { gpow_row_chunks(at(memory), at(chunk), openings); });
    put(chunk.data(), chunk.size() * 4);
}

static void selftest() {
    std::vector<u32> out(30);
    launch(2, 32, [&] { gpow_selftest(at(out), 0, ~0u); });
    put(out.data(), out.size() * 4);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    arguments = argv;
    unsigned char buffer[65536];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, stdin)) > 0;)
        input.insert(input.end(), buffer, buffer + got);
    struct {
        const char *name;
        void (*run)();
    } commands[] = {{"fill", fill}, {"probe", probe}, {"tree", tree}, {"gemm", gemm}, {"row_chunk", row_chunk},
                    {"selftest", selftest}};
    for (auto &command : commands)
        if (!strcmp(argv[1], command.name)) {
            command.run();
            return 0;
        }
    return 2;
}

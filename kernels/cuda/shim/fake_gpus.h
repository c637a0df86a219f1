/* The GPUs that the FAKE libraries show: libcuda.cpp here and the runner's fake NVML. C and C++.
 *
 *   FAKE_GPUS           UUID:MEMORY_MIB:CAPABILITY;...   such as GPU-11111111-...-000000000001:64:9.0;...
 *                       one device of 64 MiB and capability 9.0 unless set
 *   FAKE_GPU_PROCESSES  UUID:PID:BYTES:KIND:NAME;...     KIND is compute or graphics
 *   FAKE_GPU_MIG        UUID of a device that is divided into instances
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_NAME "FAKE GPU (SIMT shim)"
#define FAKE_MAX_GPUS 32
#define FAKE_DEFAULT "GPU-fa4e0000-0000-0000-0000-000000000001:64:9.0"

struct fake_gpu {
    char uuid[48];
    unsigned long long memory_bytes;
    int major, minor;
};

struct fake_process {
    char uuid[48], kind[16], name[64];
    unsigned pid;
    unsigned long long bytes;
};

/* Copies the entry of a list that starts at `*rest`, and steps over it. 0 at the end. */
static int fake_entry(const char **rest, char *entry, size_t size) {
    size_t length = strcspn(*rest, ";");
    if (length == 0) return 0;
    if (length >= size) abort();
    memcpy(entry, *rest, length);
    entry[length] = 0;
    *rest += length;
    if (**rest == ';') ++*rest;
    return 1;
}

/* Fills `list`, of FAKE_MAX_GPUS, and gives how many there are. */
static int fake_gpus(struct fake_gpu *list) {
    const char *rest = getenv("FAKE_GPUS");
    char entry[256];
    int count = 0;
    if (rest == NULL) rest = FAKE_DEFAULT;
    while (count < FAKE_MAX_GPUS && fake_entry(&rest, entry, sizeof entry)) {
        struct fake_gpu *gpu = &list[count++];
        unsigned long long mib;
        if (sscanf(entry, "%47[^:]:%llu:%d.%d", gpu->uuid, &mib, &gpu->major, &gpu->minor) != 4) {
            fprintf(stderr, "FAKE_GPUS: cannot read %s\n", entry);
            abort();
        }
        gpu->memory_bytes = mib << 20;
    }
    return count;
}

/* The processes on a device, at most `most` of a kind ("" for all); how many there are. */
static unsigned fake_processes(const char *uuid, const char *kind, struct fake_process *list, unsigned most) {
    const char *rest = getenv("FAKE_GPU_PROCESSES");
    char entry[256];
    unsigned count = 0;
    if (rest == NULL) return 0;
    while (fake_entry(&rest, entry, sizeof entry)) {
        struct fake_process process;
        if (sscanf(entry, "%47[^:]:%u:%llu:%15[^:]:%63s", process.uuid, &process.pid, &process.bytes,
                   process.kind, process.name) != 5) {
            fprintf(stderr, "FAKE_GPU_PROCESSES: cannot read %s\n", entry);
            abort();
        }
        if (strcmp(process.uuid, uuid) != 0 || (*kind && strcmp(process.kind, kind) != 0)) continue;
        if (count < most) list[count] = process;
        count++;
    }
    return count;
}

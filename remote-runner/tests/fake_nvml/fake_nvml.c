/* A FAKE libnvidia-ml.so.1, for tests of the runner on machines without a GPU.
 *
 * It exports the functions that the runner calls, with the signatures of NVIDIA's nvml.h, and gives
 * the values declared here. It talks to no driver and is in no release. FAKE_NVML in the environment
 * chooses how it misbehaves:
 *
 *   honest     two devices: one that reports everything, one that reports little
 *   mismatch   the library and the kernel module differ in version
 *   no_module  the kernel module is not loaded
 *   lost       the second device has fallen off the bus
 *   crash      the process dies in nvmlInit_v2
 *   hang       nvmlInit_v2 never returns; see hang()
 *   hang_late  the first sample is answered, the second never
 *   one        the first device alone
 *   swapped    another device in the place of the second
 *   old        a driver before R510: no nvmlDeviceGetMemoryInfo_v2
 *
 * Without FAKE_NVML it shows the devices of the fake libcuda, as fake_gpus.h reads them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "fake_gpus.h"

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, LIB_RM_VERSION_MISMATCH = 18
};
typedef struct { unsigned index; } device_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct {
    unsigned pid;
    unsigned long long usedGpuMemory;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

static device_t devices[FAKE_MAX_GPUS];

/* The device as the fake libcuda shows it; NULL when FAKE_NVML chooses the devices. */
static const struct fake_gpu *shared(const device_t *device) {
    static struct fake_gpu list[FAKE_MAX_GPUS];
    if (getenv("FAKE_NVML")) return NULL;
    return (int)device->index < fake_gpus(list) ? &list[device->index] : NULL;
}

static int mode(const char *name) {
    const char *chosen = getenv("FAKE_NVML");
    return chosen && strcmp(chosen, name) == 0;
}

static int little(const device_t *device) { return !shared(device) && device->index == 1; }

static nvmlReturn_t text(const char *value, char *buffer, unsigned length) {
    if (strlen(value) >= length) return INSUFFICIENT_SIZE;
    strcpy(buffer, value);
    return SUCCESS;
}

static nvmlReturn_t number(unsigned value, unsigned *place) {
    *place = value;
    return SUCCESS;
}

/* A value that the second device does not report. */
static nvmlReturn_t rich(const device_t *device, unsigned value, unsigned *place) {
    return little(device) ? NOT_SUPPORTED : number(value, place);
}

/* Never returns. An orphan in a session of its own stays as well, as a daemon that a library
 * started would. Both hold FAKE_NVML_FIFO open for writing: its reader sees one line once they
 * hang, and the end of the file once both are gone. */
static void hang(void) {
    int fifo = open(getenv("FAKE_NVML_FIFO"), O_WRONLY);
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            if (write(fifo, "hanging\n", 8) != 8) _exit(1);
            for (;;) pause();
        }
        _exit(0);
    }
    for (;;) pause();
}

nvmlReturn_t nvmlInit_v2(void) {
    if (mode("mismatch")) return LIB_RM_VERSION_MISMATCH;
    if (mode("no_module")) return DRIVER_NOT_LOADED;
    if (mode("crash")) abort();
    if (mode("hang")) hang();
    return SUCCESS;
}
nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *v, unsigned n) { return text("550.54.15", v, n); }
nvmlReturn_t nvmlSystemGetNVMLVersion(char *v, unsigned n) { return text("12.550.54.15", v, n); }
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12040; return SUCCESS; }
nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *v, unsigned n) {
    struct fake_gpu gpus[FAKE_MAX_GPUS];
    struct fake_process list[64];
    int count = fake_gpus(gpus);
    for (int gpu = 0; gpu < count; gpu++) {
        unsigned found = fake_processes(gpus[gpu].uuid, "", list, 64);
        for (unsigned i = 0; i < found && i < 64; i++)
            if (list[i].pid == pid) return text(list[i].name, v, n);
    }
    return pid == 4321 ? text("/usr/bin/python3", v, n) : NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    struct fake_gpu list[FAKE_MAX_GPUS];
    if (!getenv("FAKE_NVML")) return number((unsigned)fake_gpus(list), count);
    return number(mode("one") ? 1 : 2, count);
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    unsigned count;
    nvmlDeviceGetCount_v2(&count);
    if (index >= count) return INVALID_ARGUMENT;
    devices[index].index = index;
    *device = &devices[index];
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetUUID(device_t *d, char *v, unsigned n) {
    if (shared(d)) return text(shared(d)->uuid, v, n);
    if (mode("swapped") && little(d)) return text("GPU-33333333-0000-0000-0000-000000000003", v, n);
    return text(little(d) ? "GPU-22222222-0000-0000-0000-000000000002"
                          : "GPU-11111111-0000-0000-0000-000000000001", v, n);
}
nvmlReturn_t nvmlDeviceGetName(device_t *d, char *v, unsigned n) {
    if (shared(d)) return text(FAKE_NAME, v, n);
    return text(little(d) ? "NVIDIA GeForce GT 1030" : "NVIDIA H100 80GB HBM3", v, n);
}
nvmlReturn_t nvmlDeviceGetVbiosVersion(device_t *d, char *v, unsigned n) {
    return little(d) ? NOT_SUPPORTED : text("96.00.74.00.01", v, n);
}
nvmlReturn_t nvmlDeviceGetPciInfo_v3(device_t *d, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = shared(d) ? 0x81 + d->index : little(d) ? 0x5e : 0x3b;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", pci->bus & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus & 0xff);
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetTemperature(device_t *d, int sensor, unsigned *v) {
    static int asked;
    (void)sensor;
    if (mode("lost") && little(d)) return GPU_IS_LOST;
    if (mode("hang_late") && ++asked > 2) hang();
    return number(little(d) ? 51 : 34, v);
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(device_t *d, nvmlMemory_t *m) {
    if (shared(d)) {
        struct fake_process list[64];
        unsigned count = fake_processes(shared(d)->uuid, "", list, 64);
        m->total = shared(d)->memory_bytes;
        m->used = 0;
        for (unsigned i = 0; i < count && i < 64; i++) m->used += list[i].bytes;
        m->free = m->total - m->used;
        return SUCCESS;
    }
    m->total = little(d) ? 2147483648ull : 85520809984ull;
    m->used = 1048576;
    m->free = m->total - m->used;
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(device_t *d, nvmlMemory_v2_t *m) {
    nvmlMemory_t first;
    if (mode("old")) return FUNCTION_NOT_FOUND;
    if (m->version != (sizeof *m | 2u << 24)) return INVALID_ARGUMENT;
    nvmlDeviceGetMemoryInfo(d, &first);
    m->total = first.total;
    m->reserved = shared(d) ? 0 : 551550976;
    m->used = first.used;
    m->free = m->total - m->reserved - m->used;
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(device_t *d, unsigned *v) { return number(little(d) ? 4 : 8, v); }
nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(device_t *d, unsigned *v) { return number(little(d) ? 4 : 16, v); }
nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(device_t *d, unsigned *v) { (void)d; return number(1, v); }
nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(device_t *d, unsigned *v) { return number(little(d) ? 3 : 5, v); }
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(device_t *d, int *major, int *minor) {
    if (shared(d)) {
        *major = shared(d)->major;
        *minor = shared(d)->minor;
        return SUCCESS;
    }
    *major = little(d) ? 6 : 9;
    *minor = little(d) ? 1 : 0;
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetEccMode(device_t *d, unsigned *current, unsigned *pending) {
    *pending = 1;
    return rich(d, 1, current);
}
nvmlReturn_t nvmlDeviceGetTotalEccErrors(device_t *d, int type, int counter, unsigned long long *v) {
    if (little(d)) return NOT_SUPPORTED;
    *v = type == 0 ? (counter == 0 ? 2 : 9) : (counter == 0 ? 0 : 1);
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetRemappedRows(device_t *d, unsigned *corr, unsigned *unc, unsigned *pending, unsigned *failed) {
    *unc = 1;
    *pending = 1;
    *failed = 0;
    return rich(d, 0, corr);
}
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(device_t *d, unsigned long long *v) {
    *v = little(d) ? 0x1 : 0x84;
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(device_t *d, unsigned *v) { return rich(d, 500000, v); }
nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(device_t *d, unsigned *v) { return rich(d, 700000, v); }
nvmlReturn_t nvmlDeviceGetPowerUsage(device_t *d, unsigned *v) { return rich(d, 70123, v); }
nvmlReturn_t nvmlDeviceGetMigMode(device_t *d, unsigned *current, unsigned *pending) {
    const char *divided = getenv("FAKE_GPU_MIG");
    *pending = 0;
    return rich(d, shared(d) && divided && strcmp(divided, shared(d)->uuid) == 0, current);
}
nvmlReturn_t nvmlDeviceGetPersistenceMode(device_t *d, unsigned *v) { return number(little(d) ? 0 : 1, v); }
nvmlReturn_t nvmlDeviceGetUtilizationRates(device_t *d, nvmlUtilization_t *u) {
    u->memory = 0;
    return rich(d, 0, &u->gpu);
}
nvmlReturn_t nvmlDeviceGetClockInfo(device_t *d, int type, unsigned *v) { return rich(d, type == 1 ? 345 : 2619, v); }
nvmlReturn_t nvmlDeviceGetMaxClockInfo(device_t *d, int type, unsigned *v) { return rich(d, type == 1 ? 1980 : 2619, v); }
/* The processes of one kind, of the devices that the fake libcuda shows. */
static nvmlReturn_t running(const device_t *d, const char *kind, unsigned *count, nvmlProcessInfo_t *p) {
    struct fake_process list[64];
    unsigned found = fake_processes(shared(d)->uuid, kind, list, 64), room = *count;
    *count = found;
    if (found > room || found > 64) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        p[i] = (nvmlProcessInfo_t){list[i].pid, list[i].bytes, 0xffffffff, 0xffffffff};
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(device_t *d, unsigned *count, nvmlProcessInfo_t *p) {
    if (shared(d)) return running(d, "compute", count, p);
    if (little(d)) return NOT_SUPPORTED;
    if (*count < 2) {
        *count = 2;
        return INSUFFICIENT_SIZE;
    }
    *count = 2;
    p[0] = (nvmlProcessInfo_t){4321, 1048576, 0xffffffff, 0xffffffff};
    p[1] = (nvmlProcessInfo_t){4322, 0xffffffffffffffffull, 0xffffffff, 0xffffffff};
    return SUCCESS;
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(device_t *d, unsigned *count, nvmlProcessInfo_t *p) {
    if (shared(d)) return running(d, "graphics", count, p);
    return number(0, count);
}

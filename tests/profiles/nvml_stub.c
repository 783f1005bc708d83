/* A driver of invented GPUs, as libnvidia-ml.so.1: the real bindings are tested through it. */
#include <string.h>

typedef struct { char legacy[16]; unsigned domain, bus, device, pci_id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6 };
static int first, second, instance;

static int is_mig(void *device) { return device == &instance; }

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "invented"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "570.00", length); return 0; }
#ifdef BROKEN
int nvmlDeviceGetCount_v2(unsigned *count) { return 999; }
#else
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
#endif
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = index ? &second : &first; return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    strncpy(text, is_mig(device) ? "NVIDIA H100 80GB HBM3 MIG 1g.10gb" : "NVIDIA H100 80GB HBM3", length);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, is_mig(device) ? "MIG-b" : device == &first ? "GPU-a" : "GPU-b", length);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = is_mig(device) ? 10ull << 30 : 80ull << 30;
    memory->used = 1ull << 30;
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, pci_t *pci) { memset(pci, 0, sizeof *pci); pci->pci_id = 0x233010de; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    if (device == &first) return NOT_SUPPORTED;
    *current = *pending = 1;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **found) {
    *found = &instance;
    return index ? NOT_FOUND : 0;
}
int nvmlDeviceGetUtilizationRates(void *device, rates_t *rates) {
    rates->gpu = 42;
    return is_mig(device) ? NOT_SUPPORTED : 0;
}
/* nvmlDeviceGetCudaComputeCapability is left out, as in a driver that is too old for it */

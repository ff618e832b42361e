/* A driver that keeps a record of its calls, checks its arguments as the real one does, and answers as it is told.

   Two devices. Handles need all 64 bits, so that an argument which ctypes was not told about arrives cut in half. */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long Handle;

#define DEVICES 2
#define EVENTS 4096
#define DEPTH 16
#define RANGES 1024
#define CONTEXT(device) (0x7f0011220000ULL + 0x100000000ULL * ((device) + 1))
#define EVENT(number) (0x7f5566000000ULL + 0x10ULL * (number))

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600,
       ALREADY_REGISTERED = 712, NOT_REGISTERED = 713, CAPTURE_UNSUPPORTED = 900 };

static char calls[1 << 20];
static size_t length;
static int active[DEVICES] = {1, 0};
static Handle stack[DEPTH];
static int depth;
static struct { Handle context; int recorded, done; } events[EVENTS];
static int made;
static struct { char *start; size_t size; } ranges[RANGES];
static int refuse_register, no_host_pointers, capturing, invalidated;

static void note(const char *call) {
    size_t size = strlen(call);
    if (length + size + 2 < sizeof calls) {
        memcpy(calls + length, call, size);
        calls[length + size] = '\n';
        length += size + 1;
        calls[length] = 0;
    }
}

static Handle current(void) { return depth ? stack[depth - 1] : 0; }

static int is_context(Handle handle) {
    for (int device = 0; device < DEVICES; device++)
        if (handle == CONTEXT(device)) return 1;
    return 0;
}

static int event_of(Handle handle) {
    if (handle < EVENT(0) || (handle - EVENT(0)) % 0x10) return -1;
    Handle number = (handle - EVENT(0)) / 0x10;
    return number < (Handle)made ? (int)number : -1;
}

/* ---- what tests say ---- */

const char *fake_calls(void) { return calls; }
void fake_forget_calls(void) { length = 0; calls[0] = 0; }
void fake_activate(int device) { active[device] = 1; }
void fake_make_current(int device) { stack[depth++] = CONTEXT(device); }
int fake_depth(void) { return depth; }
void fake_refuse_register(int code) { refuse_register = code; }
void fake_no_host_pointers(int yes) { no_host_pointers = yes; }
void fake_capture(int yes) { capturing = yes; }
int fake_invalidated(void) { return invalidated; }
int fake_events(void) { return made; }
void fake_finish(void) { for (int i = 0; i < made; i++) events[i].done = 1; }
int fake_registered(void) {
    int count = 0;
    for (int i = 0; i < RANGES; i++) count += ranges[i].start != 0;
    return count;
}

/* ---- the driver ---- */

CUresult cuGetErrorName(CUresult code, const char **name) {
    switch (code) {
    case SUCCESS: *name = "CUDA_SUCCESS"; return SUCCESS;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return SUCCESS;
    case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return SUCCESS;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; return SUCCESS;
    case ALREADY_REGISTERED: *name = "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"; return SUCCESS;
    case NOT_REGISTERED: *name = "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"; return SUCCESS;
    case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; return SUCCESS;
    }
    return INVALID_VALUE;
}

CUresult cuDeviceGetCount(int *count) { *count = DEVICES; return SUCCESS; }

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    if (attribute != 91 || device < 0 || device >= DEVICES) return INVALID_VALUE;
    *value = !no_host_pointers;
    return SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *is_active) {
    if (device < 0 || device >= DEVICES) return INVALID_DEVICE;
    *flags = 0;
    *is_active = active[device];
    return SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(Handle *context, CUdevice device) {
    if (device < 0 || device >= DEVICES) return INVALID_DEVICE;
    note("retain");
    if (!active[device]) note("made a context");
    active[device] = 1;
    *context = CONTEXT(device);
    return SUCCESS;
}

CUresult cuCtxGetCurrent(Handle *context) { *context = current(); return SUCCESS; }

CUresult cuCtxPushCurrent_v2(Handle context) {
    if (!is_context(context)) return INVALID_CONTEXT;
    note("push");
    stack[depth++] = context;
    return SUCCESS;
}

CUresult cuCtxPopCurrent_v2(Handle *context) {
    if (!depth) return INVALID_CONTEXT;
    note("pop");
    *context = stack[--depth];
    return SUCCESS;
}

CUresult cuMemHostRegister_v2(char *start, size_t size, unsigned flags) {
    char text[80];
    if (!current()) return INVALID_CONTEXT;
    if (refuse_register) return refuse_register;
    if (!start || !size || flags != 1 || (size_t)start % 4096 || size % 4096) return INVALID_VALUE;
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].start && start < ranges[i].start + ranges[i].size && ranges[i].start < start + size)
            return ALREADY_REGISTERED;
    for (int i = 0; i < RANGES; i++)
        if (!ranges[i].start) {
            ranges[i].start = start;
            ranges[i].size = size;
            snprintf(text, sizeof text, "register %p %zu", (void *)start, size);
            note(text);
            return SUCCESS;
        }
    return 2;
}

CUresult cuMemHostUnregister(char *start) {
    char text[80];
    if (!current()) return INVALID_CONTEXT;
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].start == start && start) {
            ranges[i].start = 0;
            snprintf(text, sizeof text, "unregister %p", (void *)start);
            note(text);
            return SUCCESS;
        }
    return NOT_REGISTERED;
}

CUresult cuEventCreate(Handle *event, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    if (flags != 2 || made == EVENTS) return INVALID_VALUE;
    note("create");
    events[made].context = current();
    *event = EVENT(made++);
    return SUCCESS;
}

CUresult cuEventQuery(Handle event) {
    int number = event_of(event);
    if (!current()) return INVALID_CONTEXT;
    if (number < 0) return INVALID_HANDLE;
    if (capturing) { invalidated = 1; return CAPTURE_UNSUPPORTED; }
    return events[number].done || !events[number].recorded ? SUCCESS : NOT_READY;
}

#ifndef OLD_DRIVER
CUresult cuCtxRecordEvent(Handle context, Handle event) {
    int number = event_of(event);
    if (!is_context(context)) return INVALID_CONTEXT;
    if (number < 0 || events[number].context != context) return INVALID_HANDLE;
    if (capturing) { invalidated = 1; return CAPTURE_UNSUPPORTED; }
    note("record");
    events[number].recorded = 1;
    events[number].done = 0;
    return SUCCESS;
}
#endif

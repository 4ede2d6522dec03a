/* A Vulkan driver that fails as it is told to: it stands between the loader and a real driver, and hands everything on but
   what is to go wrong. The loader gets it as any driver, by a file that names it (VK_DRIVER_FILES).

   REAL_DRIVER is the real one's library. FAULT says what goes wrong, FAULT_AT from which call of its kind on, from 1:
   submit   handing work over says that the device is lost, and so does everything later
   wait     waiting for work says so
   memory   there is no more device memory
   compile  a kernel does not compile
   limit    a kernel may have four buffers, whatever the call */

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void (*function)(void);
typedef function (*lookup)(void *, const char *);

enum { OUT_OF_DEVICE_MEMORY = -2, DEVICE_LOST = -4, INVALID_SHADER = -1000012000 };

static function real_symbol(const char *name) {
    static void *library;
    if (!library) {
        library = dlopen(getenv("REAL_DRIVER"), RTLD_NOW | RTLD_LOCAL);
    }
    return library ? (function)dlsym(library, name) : NULL;
}

static int is_fault(const char *name) {
    const char *fault = getenv("FAULT");
    return fault && strcmp(fault, name) == 0;
}

/* Whether this call is one of those that fail. */
static int fails(const char *name, atomic_long *calls) {
    const char *at = getenv("FAULT_AT");
    return is_fault(name) && atomic_fetch_add(calls, 1) + 1 >= (at ? atol(at) : 1);
}

static atomic_int lost;

static lookup real_device_lookup;
static function real_submit, real_wait, real_value, real_allocate, real_compile, real_properties, real_properties2;

static int32_t submit(void *queue, uint32_t count, const void *batches, uint64_t fence) {
    static atomic_long calls;
    if (fails("submit", &calls)) {
        lost = 1;
    }
    return lost ? DEVICE_LOST
                : ((int32_t(*)(void *, uint32_t, const void *, uint64_t))real_submit)(queue, count, batches, fence);
}

static int32_t wait_for(void *device, const void *what, uint64_t time) {
    static atomic_long calls;
    if (fails("wait", &calls)) {
        lost = 1;
    }
    return lost ? DEVICE_LOST : ((int32_t(*)(void *, const void *, uint64_t))real_wait)(device, what, time);
}

static int32_t value(void *device, uint64_t semaphore, uint64_t *out) {
    return lost ? DEVICE_LOST : ((int32_t(*)(void *, uint64_t, uint64_t *))real_value)(device, semaphore, out);
}

static int32_t allocate(void *device, const void *what, const void *allocator, uint64_t *out) {
    static atomic_long calls;
    if (fails("memory", &calls)) {
        return OUT_OF_DEVICE_MEMORY;
    }
    return ((int32_t(*)(void *, const void *, const void *, uint64_t *))real_allocate)(device, what, allocator, out);
}

static int32_t compile(void *device, uint64_t cache, uint32_t count, const void *what, const void *allocator,
                       uint64_t *out) {
    static atomic_long calls;
    if (fails("compile", &calls)) {
        return INVALID_SHADER;
    }
    return ((int32_t(*)(void *, uint64_t, uint32_t, const void *, const void *, uint64_t *))real_compile)(
        device, cache, count, what, allocator, out);
}

/* VkPhysicalDeviceProperties: the limits begin at byte 296, and that of a stage's storage buffers is byte 76 of them. */
static void change(unsigned char *properties) {
    const uint32_t buffers = 4;
    if (is_fault("limit")) {
        memcpy(properties + 296 + 76, &buffers, sizeof buffers);
    }
}

static void properties(void *adapter, unsigned char *out) {
    ((void (*)(void *, unsigned char *))real_properties)(adapter, out);
    change(out);
}

/* They follow the type of the structure and a pointer to the next. */
static void properties2(void *adapter, unsigned char *out) {
    ((void (*)(void *, unsigned char *))real_properties2)(adapter, out);
    change(out + 16);
}

static function device_lookup(void *device, const char *name);

static function wrapped(const char *name, function real) {
    const struct {
        const char *name;
        function *real;
        function own;
    } functions[] = {
        {"vkGetDeviceProcAddr", (function *)&real_device_lookup, (function)device_lookup},
        {"vkQueueSubmit", &real_submit, (function)submit},
        {"vkWaitSemaphores", &real_wait, (function)wait_for},
        {"vkWaitSemaphoresKHR", &real_wait, (function)wait_for},
        {"vkGetSemaphoreCounterValue", &real_value, (function)value},
        {"vkGetSemaphoreCounterValueKHR", &real_value, (function)value},
        {"vkAllocateMemory", &real_allocate, (function)allocate},
        {"vkCreateComputePipelines", &real_compile, (function)compile},
        {"vkGetPhysicalDeviceProperties", &real_properties, (function)properties},
        {"vkGetPhysicalDeviceProperties2", &real_properties2, (function)properties2},
        {"vkGetPhysicalDeviceProperties2KHR", &real_properties2, (function)properties2},
    };
    for (size_t i = 0; real && i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(name, functions[i].name) == 0) {
            *functions[i].real = real;
            return functions[i].own;
        }
    }
    return real;
}

static function device_lookup(void *device, const char *name) {
    return wrapped(name, real_device_lookup(device, name));
}

int32_t vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    function real = real_symbol("vk_icdNegotiateLoaderICDInterfaceVersion");
    return real ? ((int32_t(*)(uint32_t *))real)(version) : -3;
}

function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    lookup real = (lookup)real_symbol("vk_icdGetInstanceProcAddr");
    return real ? wrapped(name, real(instance, name)) : NULL;
}

function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
    lookup real = (lookup)real_symbol("vk_icdGetPhysicalDeviceProcAddr");
    return real ? wrapped(name, real(instance, name)) : NULL;
}

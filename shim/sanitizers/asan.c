/*
 * AddressSanitizer: the device's accesses are looked at in its shadow memory, and reported by it, in its words. Copies
 * by the daemon, or by this library, it does not see.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <stdio.h>
#include <unistd.h>

typedef void access_function(uintptr_t start, size_t bytes);
static access_function *load, *store;
static void *(*is_poisoned)(uintptr_t start, size_t bytes);

bool asan_detect(void)
{
    is_poisoned = (__typeof__(is_poisoned))sanitizer_symbol("__asan_region_is_poisoned");
    if (!is_poisoned)
        return false;
    load = (access_function *)sanitizer_symbol("__asan_loadN_noabort");
    store = (access_function *)sanitizer_symbol("__asan_storeN_noabort");
    return load && store;
}

/* Their names are in reports. Not inlined, nor ended by a jump. */
__attribute__((noinline)) void userdma_device_reads(uintptr_t start, size_t bytes)
{
    load(start, bytes);
    __asm__ volatile("");
}

__attribute__((noinline)) void userdma_device_writes(uintptr_t start, size_t bytes)
{
    store(start, bytes);
    __asm__ volatile("");
}

void asan_used(struct device_queue queue, const struct device_memory *memory)
{
    const uintptr_t start = memory->start, end = start + memory->bytes;
    const uintptr_t poisoned = (uintptr_t)is_poisoned(start, memory->bytes);
    if (LIKELY(poisoned == 0))
        return;
    dprintf(STDERR_FILENO,
            "userdma: %s %s %zu bytes at 0x%lx for a %s of %s 0x%x; from 0x%lx on they are not the program's:\n",
            sanitizers_device(queue.fd), memory->is_written ? "writes" : "reads", memory->bytes, (unsigned long)start,
            queue.is_peer ? "peer" : "request", queue.is_shared ? "SRQ" : "QP", queue.number, (unsigned long)poisoned);
    /* The reason of a report is that of its first byte. */
    (memory->is_written ? userdma_device_writes : userdma_device_reads)(poisoned, end - poisoned);
}

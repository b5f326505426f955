/*
 * AddressSanitizer: the device's accesses are looked at in its shadow memory, and reported by it, in its words. Copies
 * by the daemon, or by this library, it does not see.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

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

uintptr_t asan_first_foreign(uintptr_t start, size_t bytes)
{
    return (uintptr_t)is_poisoned(start, bytes);
}

/* The reason of a report is that of its first byte. */
void asan_report(uintptr_t start, size_t bytes, bool is_written)
{
    (is_written ? userdma_device_writes : userdma_device_reads)(start, bytes);
}

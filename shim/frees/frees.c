/*
 * A preload library of its own, for `userdma check`: tells the first one (shim/check/outstanding.c) which blocks the program
 * frees while it has requests posted. Without posted requests a free costs one load more. Memory that is unmapped is
 * known to the daemon (spec/session.ts, UNMAPPING).
 *
 * The allocator's functions are looked up when libraries are initialised, never during an allocation: dlsym may
 * allocate, and some allocators call it themselves. What is freed before is not returned to the allocator.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Of the first library; absent if it is not loaded. */
__attribute__((weak, visibility("default"))) extern uint32_t userdma_outstanding;
__attribute__((weak, visibility("default"))) void userdma_freed(void *block, size_t bytes);

static __typeof__(&free) next_free;
static __typeof__(&realloc) next_realloc;

/* Before the constructors of the program, which may free. */
__attribute__((constructor(101))) static void look_up(void)
{
    next_realloc = (__typeof__(&realloc))dlsym(RTLD_NEXT, "realloc");
    next_free = (__typeof__(&free))dlsym(RTLD_NEXT, "free");
}

/* The size of a block if requests are posted, else 0. */
static inline size_t size_of(void *block)
{
    const int is_wanted = block && &userdma_outstanding && __atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) != 0;
    return UNLIKELY(is_wanted) ? malloc_usable_size(block) : 0;
}

EXPORT void free(void *block)
{
    const size_t bytes = size_of(block);
    if (UNLIKELY(bytes != 0))
        userdma_freed(block, bytes);
    if (next_free)
        next_free(block);
}

static void *early_realloc(void *block, size_t size)
{
    void *moved = malloc(size);
    const size_t before = block ? malloc_usable_size(block) : 0;
    if (moved && block)
        memcpy(moved, block, before < size ? before : size);
    return moved;
}

EXPORT void *realloc(void *block, size_t size)
{
    if (UNLIKELY(!next_realloc))
        return early_realloc(block, size);
    const size_t before = size_of(block);
    void *result = next_realloc(block, size);
    if (UNLIKELY(before != 0) && result != block && (result || size == 0))
        userdma_freed(block, before);
    return result;
}

EXPORT void *reallocarray(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, bytes);
}

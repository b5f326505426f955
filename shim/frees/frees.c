/*
 * A preload library for `userdma check`: tells the shim (shim/check/ranges.c) which blocks the program frees while it
 * has outstanding requests. Without outstanding requests, a free costs one more load.
 *
 * The allocator's functions are looked up when libraries are initialised, never in an allocation: dlsym may allocate,
 * and some allocators call dlsym. Blocks that are freed earlier are leaked.
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
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Of the shim (shim/check/ranges.c). Absent if the shim is not loaded. */
__attribute__((weak, visibility("default"))) extern uint32_t userdma_outstanding;
__attribute__((weak, visibility("default"))) void userdma_freed(void *block, size_t bytes);

static __typeof__(&free) next_free;
static __typeof__(&realloc) next_realloc;

/* Before the program's constructors: they may free. */
__attribute__((constructor(101))) static void look_up_allocator(void)
{
    next_realloc = (__typeof__(&realloc))dlsym(RTLD_NEXT, "realloc");
    next_free = (__typeof__(&free))dlsym(RTLD_NEXT, "free");
}

/* The size of a block if requests are outstanding, else 0. */
static inline size_t watched_size(void *block)
{
    if (!block || !&userdma_outstanding || LIKELY(__atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) == 0))
        return 0;
    return malloc_usable_size(block);
}

EXPORT void free(void *block)
{
    const size_t bytes = watched_size(block);
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
    const size_t before = watched_size(block);
    void *result = next_realloc(block, size);
    if (LIKELY(before == 0) || (!result && size != 0))
        return result;
    /* A block that stays in place has lost only its end. */
    const size_t kept = result == block ? malloc_usable_size(block) : 0;
    if (kept < before)
        userdma_freed((char *)block + kept, before - kept);
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

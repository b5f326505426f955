/*
 * A preload library for `userdma check`: tells the shim (shim/check/ranges.c) which blocks the program frees while it
 * has outstanding requests or regions, and (shim/check/unmaps.c) which memory it may unmap or discard while it has
 * regions; and asks
 * (shim/recorder/objects.c) whether a block is that of an object of verbs, whose memory is kept. Without all, a free
 * costs three more loads. Before exec it tells the shim (shim/check/exits.c) to send the reports about such blocks.
 *
 * The allocator's functions are looked up when libraries are initialised, never in an allocation: dlsym may allocate,
 * and some allocators call dlsym. Blocks that are freed earlier, by constructors of libraries, are freed then.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/*
 * Of the shim (shim/check/ranges.c). Absent if the shim is not loaded. `latest`: only requests up to this number of
 * userdma_latest are checked.
 */
__attribute__((weak, visibility("default"))) extern uint32_t userdma_outstanding;
__attribute__((weak, visibility("default"))) extern uint64_t userdma_latest;
__attribute__((weak, visibility("default"))) unsigned userdma_freed(void *block, size_t bytes, uint64_t latest,
                                                                       bool by_realloc);
/* Of the shim (shim/check/given.c). */
__attribute__((weak, visibility("default"))) bool userdma_moves(const void *block, size_t bytes);
/* Of the shim (shim/check/unmaps.c). */
__attribute__((weak, visibility("default"))) extern uint32_t userdma_registered;
__attribute__((weak, visibility("default"))) void userdma_unmaps(const void *memory, size_t bytes);
__attribute__((weak, visibility("default"))) void userdma_discards(const void *memory, size_t bytes);
/* Of the shim (shim/recorder/objects.c): threads that destroy objects of verbs, and whether the shim keeps a block. */
__attribute__((weak, visibility("default"))) extern uint32_t userdma_destroying;
__attribute__((weak, visibility("default"))) bool userdma_holds(void *block, size_t bytes);
/* Of the shim (shim/check/exits.c). */
__attribute__((weak, visibility("default"))) void userdma_ends(void);

static __typeof__(&free) next_free;
static __typeof__(&realloc) next_realloc;
static __typeof__(&munmap) next_munmap;
static __typeof__(&mremap) next_mremap;
static __typeof__(&madvise) next_madvise;
static __typeof__(&brk) next_brk;
static __typeof__(&sbrk) next_sbrk;
static __typeof__(&execve) next_execve;
static __typeof__(&execv) next_execv;
static __typeof__(&execvp) next_execvp;
static __typeof__(&execvpe) next_execvpe;
static __typeof__(&fexecve) next_fexecve;

/* The next library's function. A child of fork must not call dlsym, which takes locks: `look_up` has run before. */
#define NEXT(name) (next_##name ? next_##name : (__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Blocks that were freed before `look_up`. More are leaked. */
static void *early[1024];
static uint32_t early_count;

/* Before the program's constructors: they may free. */
__attribute__((constructor(101))) static void look_up(void)
{
    next_munmap = (__typeof__(&munmap))dlsym(RTLD_NEXT, "munmap");
    next_mremap = (__typeof__(&mremap))dlsym(RTLD_NEXT, "mremap");
    next_madvise = (__typeof__(&madvise))dlsym(RTLD_NEXT, "madvise");
    next_brk = (__typeof__(&brk))dlsym(RTLD_NEXT, "brk");
    next_sbrk = (__typeof__(&sbrk))dlsym(RTLD_NEXT, "sbrk");
    next_execve = (__typeof__(&execve))dlsym(RTLD_NEXT, "execve");
    next_execv = (__typeof__(&execv))dlsym(RTLD_NEXT, "execv");
    next_execvp = (__typeof__(&execvp))dlsym(RTLD_NEXT, "execvp");
    next_execvpe = (__typeof__(&execvpe))dlsym(RTLD_NEXT, "execvpe");
    next_fexecve = (__typeof__(&fexecve))dlsym(RTLD_NEXT, "fexecve");
    next_realloc = (__typeof__(&realloc))dlsym(RTLD_NEXT, "realloc");
    next_free = (__typeof__(&free))dlsym(RTLD_NEXT, "free");
    for (; next_free && early_count > 0; early_count--)
        next_free(early[early_count - 1]);
}

static void free_later(void *block)
{
    const uint32_t index = __atomic_load_n(&early_count, __ATOMIC_RELAXED);
    if (block && index < sizeof early / sizeof early[0]) {
        early[index] = block;
        __atomic_store_n(&early_count, index + 1, __ATOMIC_RELAXED);
    }
}

/* free() unmaps blocks of at least M_MMAP_THRESHOLD, by default 128 KiB. */
#define MIN_UNMAPPED 65536

static inline bool has_regions(void)
{
    return &userdma_registered && UNLIKELY(__atomic_load_n(&userdma_registered, __ATOMIC_RELAXED) != 0);
}

/* A block may be unmapped next. */
static inline void block_ends(void *block)
{
    if (has_regions() && block) {
        const size_t bytes = malloc_usable_size(block);
        if (bytes >= MIN_UNMAPPED)
            userdma_unmaps(block, bytes);
    }
}

/* The size of a block if requests are outstanding or memory is registered, else 0. */
static inline size_t watched_size(void *block)
{
    if (!block || !&userdma_outstanding ||
        LIKELY(__atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) == 0 && !has_regions()))
        return 0;
    return malloc_usable_size(block);
}

/* The shim frees the block later. */
static inline bool is_held(void *block)
{
    return &userdma_destroying && UNLIKELY(__atomic_load_n(&userdma_destroying, __ATOMIC_RELAXED) != 0) && block &&
           userdma_holds(block, malloc_usable_size(block));
}

EXPORT void free(void *block)
{
    if (UNLIKELY(is_held(block)))
        return;
    const size_t bytes = watched_size(block);
    const unsigned times = UNLIKELY(bytes != 0) ? userdma_freed(block, bytes, UINT64_MAX, false) : 1;
    if (UNLIKELY(times == 0))
        return;
    block_ends(block);
    if (UNLIKELY(times == 2))
        next_free(block); /* the allocator ends the program at the next line */
    if (LIKELY(next_free))
        next_free(block);
    else
        free_later(block);
}

static void *early_realloc(void *block, size_t size)
{
    void *moved = malloc(size);
    const size_t before = block ? malloc_usable_size(block) : 0;
    if (moved && block) {
        memcpy(moved, block, before < size ? before : size);
        free(block);
    }
    return moved;
}

/* As realloc, to a new block. */
static void *move(void *block, size_t before, size_t size)
{
    void *moved = malloc(size);
    if (!moved)
        return NULL;
    memcpy(moved, block, before);
    if (userdma_freed(block, before, UINT64_MAX, true) == 1)
        next_free(block);
    return moved;
}

EXPORT void *realloc(void *block, size_t size)
{
    if (UNLIKELY(!next_realloc))
        return early_realloc(block, size);
    const size_t before = watched_size(block);
    const uint64_t latest = before == 0 ? 0 : __atomic_load_n(&userdma_latest, __ATOMIC_RELAXED);
    if (UNLIKELY(before != 0 && size > before) && userdma_moves(block, before))
        return move(block, before, size);
    block_ends(block);
    void *result = next_realloc(block, size);
    if (LIKELY(before == 0) || (!result && size != 0))
        return result;
    /* A block that stays in place can have lost only its end. */
    const size_t kept = result == block ? malloc_usable_size(block) : 0;
    if (kept < before)
        userdma_freed((char *)block + kept, before - kept, latest, true);
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

/* ---- unmapping ---- */

EXPORT int munmap(void *address, size_t length)
{
    if (has_regions())
        userdma_unmaps(address, length);
    return LIKELY(next_munmap) ? next_munmap(address, length) : (int)syscall(SYS_munmap, address, length);
}

EXPORT void *mremap(void *address, size_t old_length, size_t length, int flags, ...)
{
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_list arguments;
        va_start(arguments, flags);
        target = va_arg(arguments, void *);
        va_end(arguments);
    }
    if (has_regions()) {
        if (flags & MREMAP_MAYMOVE)
            userdma_unmaps(address, old_length);
        else if (length < old_length)
            userdma_unmaps((char *)address + length, old_length - length);
        if (target)
            userdma_unmaps(target, length);
    }
    return LIKELY(next_mremap) ? next_mremap(address, old_length, length, flags, target)
                               : (void *)syscall(SYS_mremap, address, old_length, length, flags, target);
}

EXPORT int madvise(void *address, size_t length, int advice)
{
    if (has_regions() && (advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE))
        userdma_discards(address, length);
    return LIKELY(next_madvise) ? next_madvise(address, length, advice)
                                : (int)syscall(SYS_madvise, address, length, advice);
}

/* The break of the program moves down by `bytes`. */
static void break_falls(const char *from, size_t bytes)
{
    if (has_regions())
        userdma_unmaps(from - bytes, bytes);
}

EXPORT void *sbrk(intptr_t increment)
{
    if (increment < 0)
        break_falls(NEXT(sbrk)(0), (size_t)-increment);
    return NEXT(sbrk)(increment);
}

EXPORT int brk(void *address)
{
    const char *const end = NEXT(sbrk)(0);
    if ((const char *)address < end)
        break_falls(end, (size_t)(end - (const char *)address));
    return NEXT(brk)(address);
}

/* ---- exec ---- */

static void ending(void)
{
    const int saved = errno;
    if (userdma_ends)
        userdma_ends();
    errno = saved;
}

EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
    ending();
    return NEXT(execve)(path, arguments, environment);
}

EXPORT int execv(const char *path, char *const arguments[])
{
    ending();
    return NEXT(execv)(path, arguments);
}

EXPORT int execvp(const char *file, char *const arguments[])
{
    ending();
    return NEXT(execvp)(file, arguments);
}

EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
    ending();
    return NEXT(execvpe)(file, arguments, environment);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
    ending();
    return NEXT(fexecve)(fd, arguments, environment);
}

/* Declares `arguments`: `first`, the variadic arguments, and NULL. `list` is then after the NULL. */
#define COLLECT_ARGUMENTS(first, list)                                                                                 \
    size_t count = 1;                                                                                                  \
    va_list counted;                                                                                                   \
    va_start(counted, first);                                                                                          \
    while (va_arg(counted, const char *))                                                                              \
        count++;                                                                                                       \
    va_end(counted);                                                                                                   \
    char *arguments[count + 1];                                                                                        \
    va_list list;                                                                                                      \
    va_start(list, first);                                                                                             \
    arguments[0] = (char *)(uintptr_t)first;                                                                           \
    for (size_t i = 1; i <= count; i++)                                                                                \
        arguments[i] = va_arg(list, char *);

EXPORT int execl(const char *path, const char *first, ...)
{
    COLLECT_ARGUMENTS(first, list)
    va_end(list);
    return execv(path, arguments);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    COLLECT_ARGUMENTS(first, list)
    va_end(list);
    return execvp(file, arguments);
}

EXPORT int execle(const char *path, const char *first, ...)
{
    COLLECT_ARGUMENTS(first, list)
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return execve(path, arguments, environment);
}

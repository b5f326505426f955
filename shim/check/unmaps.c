/*
 * Memory that the program gives back while it is registered. A block is given back if the region lies in it: of a larger
 * region, as registration caches have, parts are free and in use again at any time.
 *
 * Memory that the program unmaps while it is registered, for `userdma check`: the daemon learns of the unmapping by a
 * userfaultfd, and of the caller's stack by a message before it (UNMAP in spec/session.ts).
 *
 * munmap is called by allocators, with their locks held: nothing here allocates. The table of regions is read without a
 * lock. What a reader misses lacks only the stack.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <string.h>

/* The daemon watches no more regions of a process. */
#define MAX_REGIONS 1024

struct region {
    const struct ibv_mr *mr;
    uintptr_t start, end;
    uint32_t handle;
    int fd;
    /* It was reported as given back. */
    bool is_given;
};
static struct region regions[MAX_REGIONS];
/* Entries from this one on were never used. */
static uint32_t used_regions;

uint32_t userdma_registered;

/* Cells of 1 KiB, by hash: the number of regions that begin in them. Most frees need no look at the regions. */
#define CELLS 4096
#define CELL_SHIFT 10
/* Of a block with more cells, the regions are looked at. */
#define MAX_CELLS 16
static uint32_t starts[CELLS];

static uint32_t *cell_of(uintptr_t number)
{
    return &starts[(uint32_t)(number * 0x9e3779b97f4a7c15u >> 52)];
}
_Static_assert(CELLS == 1 << 12, "the hash gives an index of the table");

static struct region *region_of(const struct ibv_mr *mr)
{
    for (uint32_t i = 0; i < used_regions; i++)
        if (regions[i].mr == mr)
            return &regions[i];
    return NULL;
}

void unmaps_registered(const struct ibv_mr *mr)
{
    const uintptr_t start = (uintptr_t)mr->addr, end = start + mr->length;
    if (end <= start || !requests_lock())
        return;
    struct region *region = region_of(mr);
    if (!region) {
        region = region_of(NULL);
        if (!region && used_regions < MAX_REGIONS)
            region = &regions[used_regions++];
        if (region)
            __atomic_fetch_add(&userdma_registered, 1, __ATOMIC_RELAXED);
    }
    if (region) {
        if (region->mr)
            __atomic_fetch_sub(cell_of(region->start >> CELL_SHIFT), 1, __ATOMIC_RELAXED);
        *region = (struct region){
            .mr = mr, .start = start, .end = end, .handle = mr->handle, .fd = mr->context->cmd_fd};
        __atomic_fetch_add(cell_of(start >> CELL_SHIFT), 1, __ATOMIC_RELAXED);
    }
    requests_unlock();
}

void unmaps_deregistered(const struct ibv_mr *mr)
{
    if (!requests_lock())
        return;
    struct region *region = region_of(mr);
    if (region) {
        __atomic_fetch_sub(cell_of(region->start >> CELL_SHIFT), 1, __ATOMIC_RELAXED);
        *region = (struct region){0};
        __atomic_fetch_sub(&userdma_registered, 1, __ATOMIC_RELAXED);
    }
    requests_unlock();
}

/* Not inlined: unmaps_before needs little stack. */
__attribute__((noinline)) static void report(uintptr_t start, uintptr_t end)
{
    struct stack stack;
    stack_take_native(&stack);
    const uint32_t number = stack_number(&stack);
    const struct userdma_range range = {.address = start, .length = end - start};
    if (number != 0)
        message_send(-1, USERDMA_UNMAP, number, &range, sizeof range, false);
}

void unmaps_before(const void *memory, size_t bytes)
{
    const uintptr_t start = (uintptr_t)memory, end = start + bytes;
    for (uint32_t i = 0; i < used_regions; i++) {
        if (LIKELY(regions[i].end <= start || regions[i].start >= end))
            continue;
        const int saved = errno;
        if (!shim_is_other_process())
            report(start, end);
        errno = saved;
        return;
    }
}

static bool may_begin_in(uintptr_t start, uintptr_t end)
{
    const uintptr_t first = start >> CELL_SHIFT, last = (end - 1) >> CELL_SHIFT;
    if (last - first >= MAX_CELLS)
        return true;
    for (uintptr_t number = first; number <= last; number++)
        if (__atomic_load_n(cell_of(number), __ATOMIC_RELAXED) != 0)
            return true;
    return false;
}

__attribute__((noinline)) static void report_given(struct region *region, uintptr_t start, uintptr_t end, uint32_t how)
{
    struct report report = {.fd = region->fd,
                            .time = shim_nanoseconds(),
                            .misuse = {.kind = USERDMA_MISUSE_GAVE_BACK,
                                       .number = region->handle,
                                       .address = start,
                                       .wr_id = end,
                                       .index = how}};
    region->is_given = true;
    report_later(&report);
}

void unmaps_given(uintptr_t start, uintptr_t end, uint32_t how)
{
    const bool is_discarded = how == USERDMA_GIVE_BACK_DISCARD;
    if (!is_discarded && LIKELY(!may_begin_in(start, end)))
        return;
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        const bool is_whole = region->start >= start && region->end <= end;
        const bool overlaps = region->start < end && region->end > start;
        if (LIKELY(!region->mr || region->is_given || !(is_discarded ? overlaps : is_whole)))
            continue;
        if (!shim_is_other_process())
            report_given(region, start > region->start ? start : region->start,
                         end < region->end ? end : region->end, how);
    }
}

/* Called by shim/frees/frees.c. */
EXPORT void userdma_discards(const void *memory, size_t bytes);
void userdma_discards(const void *memory, size_t bytes)
{
    const int saved = errno;
    unmaps_given((uintptr_t)memory, (uintptr_t)memory + bytes, USERDMA_GIVE_BACK_DISCARD);
    errno = saved;
}

EXPORT void userdma_unmaps(const void *memory, size_t bytes);
void userdma_unmaps(const void *memory, size_t bytes)
{
    unmaps_before(memory, bytes);
}

IN_CHILD void unmaps_forget_all(void)
{
    if (userdma_registered != 0)
        memset(starts, 0, sizeof starts);
    userdma_registered = 0;
    used_regions = 0;
}

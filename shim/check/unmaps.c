/*
 * The registered memory of this process, and memory that the program unmaps while it is registered, for `userdma
 * check`: the daemon learns of the unmapping by a userfaultfd, and of the caller's stack by a message before it (UNMAP
 * in spec/session.ts).
 *
 * munmap is called by allocators, with their locks held: nothing here allocates. The table of regions is read without a
 * lock. What a reader misses lacks only the stack.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>

struct region regions[MAX_REGIONS];
uint32_t used_regions;

uint32_t userdma_registered;

static struct region *region_of(const struct ibv_mr *mr)
{
    for (uint32_t i = 0; i < used_regions; i++)
        if (regions[i].mr == mr)
            return &regions[i];
    return NULL;
}

void unmaps_registered(const struct ibv_mr *mr, uint64_t iova)
{
    const uintptr_t start = (uintptr_t)mr->addr, end = start + mr->length;
    struct region added = {.mr = mr, .start = start, .end = end, .iova = iova, .lkey = mr->lkey,
                           .handle = mr->handle, .fd = mr->context->cmd_fd};
    if (recorder_is_on)
        frames_note_region(&added);
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
    struct region before = {0};
    if (region) {
        before = *region;
        *region = added;
        sanitizers_returns(region);
        given_registered(region);
    }
    requests_unlock();
    if (before.mr)
        given_deregistered(&before);
}

const struct region *region_named(int fd, uint32_t lkey)
{
    for (uint32_t i = 0; i < used_regions; i++)
        if (regions[i].lkey == lkey && regions[i].fd == fd && regions[i].mr)
            return &regions[i];
    return NULL;
}

void unmaps_deregistered(const struct ibv_mr *mr)
{
    if (!requests_lock())
        return;
    struct region *region = region_of(mr), before = {0};
    if (region) {
        before = *region;
        *region = (struct region){0};
        sanitizers_returns(region);
        sanitizers_hears(); /* no peer reaches it any more */
        __atomic_fetch_sub(&userdma_registered, 1, __ATOMIC_RELAXED);
    }
    requests_unlock();
    if (before.mr)
        given_deregistered(&before);
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

EXPORT void userdma_unmaps(const void *memory, size_t bytes);
void userdma_unmaps(const void *memory, size_t bytes)
{
    unmaps_before(memory, bytes);
}

IN_CHILD void unmaps_forget_all(void)
{
    given_forget_all();
    userdma_registered = 0;
    used_regions = 0;
}

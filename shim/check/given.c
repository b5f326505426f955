/*
 * Memory that the program gives back while it is registered. A block is given back if the region lies in it: of a
 * larger region, as registration caches have, parts are free and in use again at any time.
 *
 * A freed block is kept, and freed later: until then an access of a device is one to free memory, whatever the program
 * has allocated since. Memory on a stack is given back when its function returns, which the next post or poll of the
 * thread shows (frames.c), or when its thread ends.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * The number of regions that begin in a cell, by hash, for cells of 1 KiB, 64 KiB and 4 MiB. Most frees need no look at
 * the regions.
 */
#define LEVELS 3
#define CELLS 65536
#define CELL_BITS 16
_Static_assert(CELLS == 1 << CELL_BITS, "the hash gives an index of the table");
static const unsigned shifts[LEVELS] = {10, 16, 22};
/* Of a block with more of the largest cells, the regions are looked at. */
#define MAX_CELLS 16
static uint32_t starts[LEVELS][CELLS];

/* Kept blocks, the bytes of one and of all. Larger blocks are mostly unmapped, which tells itself. */
#define MAX_KEPT 64
#define MAX_KEPT_BLOCK (1u << 20)
#define MAX_KEPT_BYTES (16u << 20)

/* A ring, the oldest first; `block` NULL: it was freed. */
static struct {
    void *block;
    size_t bytes;
} kept[MAX_KEPT];
static uint32_t kept_first, kept_count;
static size_t kept_bytes;

static uint32_t *cell_of(unsigned level, uintptr_t number)
{
    return &starts[level][(uint32_t)(number * 0x9e3779b97f4a7c15u >> (64 - CELL_BITS))];
}

static bool may_begin_in(uintptr_t start, uintptr_t end)
{
    unsigned level = 0;
    while (level < LEVELS && ((end - 1) >> shifts[level]) - (start >> shifts[level]) >= MAX_CELLS)
        level++;
    if (level == LEVELS)
        return true;
    for (uintptr_t number = start >> shifts[level]; number <= (end - 1) >> shifts[level]; number++)
        if (__atomic_load_n(cell_of(level, number), __ATOMIC_RELAXED) != 0)
            return true;
    return false;
}

/* ---- reports ---- */

static struct report report_about(const struct region *region, uintptr_t start, uintptr_t end, uint32_t how)
{
    return (struct report){.kind = REPORT_GAVE_BACK,
                           .fd = region->fd,
                           .time = shim_nanoseconds(),
                           .given = {.start = start > region->start ? start : region->start,
                                     .end = end < region->end ? end : region->end,
                                     .region = region->handle,
                                     .how = how}};
}

/* At once: the program may make no call any more, while peers access the memory. */
__attribute__((noinline)) static void report_now(struct region *region, uintptr_t start, uintptr_t end, uint32_t how,
                                                 bool is_kept)
{
    struct report report = report_about(region, start, end, how);
    report.given.is_kept = is_kept;
    region->is_given = true;
    region->is_reusable = false;
    stack_take_native(&report.stack);
    report_send(&report);
}

/* Reports the regions in a block. True if there is one. */
static bool report_block(uintptr_t start, uintptr_t end, uint32_t how, bool is_kept)
{
    bool found = false;
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        if (LIKELY(!region->mr || region->is_given || region->start < start || region->end > end))
            continue;
        report_now(region, start, end, how, is_kept);
        found = true;
    }
    return found;
}

/* As report_now: the program may have the memory again. */
__attribute__((noinline)) static void tell_reusable(struct region *region)
{
    struct stack stack;
    region->is_reusable = true;
    stack_take_native(&stack);
    event_reusable(region->fd, stack_number(&stack), region->handle);
}

/* From now on the program may have the memory of these regions again. */
static void report_reusable(uintptr_t start, uintptr_t end)
{
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        if (region->mr && region->is_given && !region->is_reusable && region->start >= start && region->end <= end)
            tell_reusable(region);
    }
}

/* ---- kept blocks ---- */

/* With the lock held: takes a block out of the ring. */
static void forget_kept(uint32_t index)
{
    kept_bytes -= kept[index].bytes;
    kept[index].block = NULL;
    while (kept_count > 0 && !kept[kept_first].block) {
        kept_first = (kept_first + 1) % MAX_KEPT;
        kept_count--;
    }
}

/* The kept block, whose index is set, is given back to the allocator: its regions were told already. */
static void free_kept(void *block, size_t bytes)
{
    report_reusable((uintptr_t)block, (uintptr_t)block + bytes);
    free(block);
}

/* Keeps a block; the oldest ones that have no place any more are freed. False: it is not kept. */
static bool keep(void *block, size_t bytes)
{
    while (requests_lock()) {
        if (kept_count < MAX_KEPT && kept_bytes + bytes <= MAX_KEPT_BYTES) {
            const uint32_t index = (kept_first + kept_count++) % MAX_KEPT;
            kept[index].block = block;
            kept[index].bytes = bytes;
            kept_bytes += bytes;
            requests_unlock();
            return true;
        }
        void *const oldest = kept[kept_first].block;
        const size_t oldest_bytes = kept[kept_first].bytes;
        forget_kept(kept_first);
        requests_unlock();
        free_kept(oldest, oldest_bytes);
    }
    return false;
}

/* Whether the block was kept: then it is no longer. */
static bool take_kept(const void *block)
{
    bool found = false;
    if (LIKELY(__atomic_load_n(&kept_count, __ATOMIC_RELAXED) == 0) || !requests_lock())
        return false;
    for (uint32_t i = 0; i < kept_count && !found; i++) {
        const uint32_t index = (kept_first + i) % MAX_KEPT;
        found = kept[index].block == block;
        if (found)
            forget_kept(index);
    }
    requests_unlock();
    return found;
}

/* The block that a region lay in is kept no longer if no other region lies in it. */
static void free_block_of(uintptr_t start, uintptr_t end)
{
    void *block = NULL;
    if (LIKELY(__atomic_load_n(&kept_count, __ATOMIC_RELAXED) == 0) || !requests_lock())
        return;
    for (uint32_t i = 0; i < kept_count && !block; i++) {
        const uint32_t index = (kept_first + i) % MAX_KEPT;
        const uintptr_t from = (uintptr_t)kept[index].block, to = from + kept[index].bytes;
        bool is_used = from == 0 || start < from || end > to;
        for (uint32_t j = 0; j < used_regions && !is_used; j++)
            is_used = regions[j].mr && regions[j].start >= from && regions[j].end <= to;
        if (is_used)
            continue;
        block = kept[index].block;
        forget_kept(index);
    }
    requests_unlock();
    free(block);
}

unsigned given_block(void *block, size_t bytes, bool by_realloc, bool is_whole)
{
    const uintptr_t start = (uintptr_t)block, end = start + bytes;
    if (UNLIKELY(take_kept(block)))
        return 2;
    if (LIKELY(!may_begin_in(start, end)) || shim_is_other_process())
        return 1;
    const uint32_t how = by_realloc ? USERDMA_GIVE_BACK_REALLOC : USERDMA_GIVE_BACK_FREE;
    const bool is_kept = is_whole && bytes < MAX_KEPT_BLOCK;
    if (!report_block(start, end, how, is_kept) || !is_kept)
        return 1;
    if (keep(block, bytes))
        return 0;
    report_reusable(start, end);
    return 1;
}

/*
 * Called by shim/frees/frees.c before a block grows. Whether a region lies in it: then the block is moved, as realloc
 * may do, so that what is wrong is told each time. A block that was freed before is kept no longer.
 */
EXPORT bool userdma_moves(const void *block, size_t bytes);
bool userdma_moves(const void *block, size_t bytes)
{
    const uintptr_t start = (uintptr_t)block, end = start + bytes;
    take_kept(block);
    if (LIKELY(!may_begin_in(start, end)) || bytes >= MAX_KEPT_BLOCK || shim_is_other_process())
        return false;
    for (uint32_t i = 0; i < used_regions; i++)
        if (regions[i].mr && !regions[i].is_given && regions[i].start >= start && regions[i].end <= end)
            return true;
    return false;
}

/* Called by shim/frees/frees.c. Allocators call madvise with their locks held: nothing is sent. */
EXPORT void userdma_discards(const void *memory, size_t bytes);
void userdma_discards(const void *memory, size_t bytes)
{
    const uintptr_t start = (uintptr_t)memory, end = start + bytes;
    const int saved = errno;
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        if (LIKELY(!region->mr || region->is_given || region->start >= end || region->end <= start) ||
            shim_is_other_process())
            continue;
        struct report report = report_about(region, start, end, USERDMA_GIVE_BACK_DISCARD);
        region->is_given = true;
        report_later(&report);
    }
    errno = saved;
}

/* ---- stacks ---- */

uintptr_t given_by_return(uint32_t thread, uintptr_t frame, uintptr_t outermost)
{
    uintptr_t lowest = 0;
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        if (LIKELY(region->thread != thread || !region->mr || region->is_given))
            continue;
        /* Memory of a frame that is alive begins above. */
        if (region->start < frame && outermost != 0 && region->outermost == outermost)
            report_now(region, region->start, region->end, USERDMA_GIVE_BACK_FRAME, false);
        else if (lowest == 0 || region->start < lowest)
            lowest = region->start;
    }
    return lowest;
}

void given_by_thread(uint32_t thread)
{
    for (uint32_t i = 0; i < used_regions; i++) {
        struct region *region = &regions[i];
        if (region->thread == thread && region->mr && !region->is_given)
            report_now(region, region->start, region->end, USERDMA_GIVE_BACK_THREAD, true);
    }
}

void given_to_thread(uintptr_t bottom, uintptr_t top)
{
    if (UNLIKELY(__atomic_load_n(&userdma_registered, __ATOMIC_RELAXED) != 0))
        report_reusable(bottom, top);
}

/* ---- regions ---- */

void given_registered(const struct region *region)
{
    for (unsigned level = 0; level < LEVELS; level++)
        __atomic_fetch_add(cell_of(level, region->start >> shifts[level]), 1, __ATOMIC_RELAXED);
}

void given_deregistered(const struct region *region)
{
    for (unsigned level = 0; level < LEVELS; level++)
        __atomic_fetch_sub(cell_of(level, region->start >> shifts[level]), 1, __ATOMIC_RELAXED);
    free_block_of(region->start, region->end);
}

/* Kept blocks are lost. */
IN_CHILD void given_forget_all(void)
{
    if (userdma_registered != 0)
        memset(starts, 0, sizeof starts);
    kept_count = 0;
    kept_bytes = 0;
}

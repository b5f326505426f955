/*
 * Memory ranges of outstanding requests. Each free() asks whether the block overlaps a range.
 *
 * A filter answers most frees without the lock. It divides memory into cells of four sizes, and counts the ranges that
 * touch each cell. A range uses the smallest size with few cells. If a cell of the block has ranges, all ranges are
 * scanned.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

/* Sizes of cells, and counters of each size, found by a hash. */
#define LEVELS 4
#define CELLS 65536
#define CELL_BITS 16
_Static_assert(CELLS == 1 << CELL_BITS, "the hash gives an index of the table");
/* Maximum cells of a range. The longest ranges, just below 4 GiB, touch up to 17 of the largest cells. */
#define MAX_CELLS 17
/* For a freed block with more cells, the ranges are scanned. */
#define MAX_FREED_CELLS 64

struct range ranges[MAX_RANGES];
uint32_t userdma_outstanding;
uint64_t userdma_latest;

/* Cells of 1 KiB, 64 KiB, 4 MiB and 256 MiB. */
static const unsigned shifts[LEVELS] = {10, 16, 22, 28};
static uint32_t cells[LEVELS][CELLS];
/* Ranges of each level. */
static uint32_t ranges_at_level[LEVELS];

static unsigned level_of(uintptr_t start, uintptr_t end)
{
    unsigned level = 0;
    while (level < LEVELS - 1 && ((end - 1) >> shifts[level]) - (start >> shifts[level]) >= MAX_CELLS)
        level++;
    return level;
}

static uint32_t *cell_at(unsigned level, uintptr_t number)
{
    return &cells[level][(uint32_t)(number * 0x9e3779b97f4a7c15u >> (64 - CELL_BITS))];
}

/* Adds `delta`, 1 or -1, to all counts of a range. */
static void count_range(uintptr_t start, uintptr_t end, uint32_t delta)
{
    const unsigned level = level_of(start, end);
    __atomic_fetch_add(&ranges_at_level[level], delta, __ATOMIC_RELAXED);
    for (uintptr_t number = start >> shifts[level]; number <= (end - 1) >> shifts[level]; number++)
        __atomic_fetch_add(cell_at(level, number), delta, __ATOMIC_RELAXED);
    __atomic_fetch_add(&userdma_outstanding, delta, __ATOMIC_RELAXED);
}

void range_set(uint32_t slot, uintptr_t start, uint32_t bytes)
{
    if (bytes == 0 || start + bytes < start)
        return;
    ranges[slot].start = start;
    ranges[slot].end = start + bytes;
    count_range(start, start + bytes, 1);
}

void range_clear(uint32_t slot)
{
    if (ranges[slot].end != 0)
        count_range(ranges[slot].start, ranges[slot].end, -1u);
    ranges[slot].start = ranges[slot].end = 0;
}

IN_CHILD void ranges_forget_all(void)
{
    if (userdma_outstanding != 0) {
        memset(cells, 0, sizeof cells);
        memset(ranges_at_level, 0, sizeof ranges_at_level);
        memset(ranges, 0, sizeof ranges);
    }
    userdma_outstanding = 0;
}

static bool may_overlap(uintptr_t start, uintptr_t end)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        if (__atomic_load_n(&ranges_at_level[level], __ATOMIC_RELAXED) == 0)
            continue;
        const uintptr_t first = start >> shifts[level], last = (end - 1) >> shifts[level];
        if (last - first >= MAX_FREED_CELLS)
            return true;
        for (uintptr_t number = first; number <= last; number++)
            if (__atomic_load_n(cell_at(level, number), __ATOMIC_RELAXED) != 0)
                return true;
    }
    return false;
}

/*
 * Called by shim/frees/frees.c before a block is freed, or `by_realloc` moved and freed, and after a realloc() that
 * gave back memory (`latest` as in outstanding_freed: requests of another thread may already use it; else UINT64_MAX).
 * `bytes`: not 0. Returns how often the block is to be freed now: 0 if it is kept (given.c), 2 if it was kept and is
 * freed again.
 */
EXPORT unsigned userdma_freed(void *block, size_t bytes, uint64_t latest, bool by_realloc);
unsigned userdma_freed(void *block, size_t bytes, uint64_t latest, bool by_realloc)
{
    const uintptr_t start = (uintptr_t)block;
    const int saved = errno;
    unsigned times = 1;
    if (UNLIKELY(__atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) != 0) && may_overlap(start, start + bytes))
        outstanding_freed(start, start + bytes, latest);
    if (UNLIKELY(__atomic_load_n(&userdma_registered, __ATOMIC_RELAXED) != 0) && !outstanding_is_exiting())
        times = given_block(block, bytes, by_realloc, latest == UINT64_MAX);
    errno = saved;
    return times;
}

/* As userdma_freed, of a block that cannot be kept. */
static void freed_by_sanitizer(const volatile void *block)
{
    const size_t bytes = block ? malloc_usable_size((void *)block) : 0;
    if (bytes != 0)
        userdma_freed((void *)block, bytes, __atomic_load_n(&userdma_latest, __ATOMIC_RELAXED), false);
}

void ranges_detect(void)
{
    if (recorder_is_on)
        sanitizers_watch_frees(freed_by_sanitizer);
}

/*
 * A table of objects by address, that many threads read without a lock. The index of an object is also that of what is
 * known about it, in an array beside the table.
 */
#ifndef USERDMA_RECORDER_WATCHED_H
#define USERDMA_RECORDER_WATCHED_H

#include "recorder.h"

/* Objects that are watched; a power of two. Others are not. */
#define MAX_WATCHED 4096
/* Slots in which an object may be. */
#define WATCHED_PROBES 32
/* Attempts to get the lock, with a yield after each. */
#define WATCHED_ATTEMPTS 2000

struct watched {
    /* NULL: free. */
    const void *objects[MAX_WATCHED];
    uint32_t count, is_locked;
};

static inline uint32_t watched_slot(const void *object)
{
    /* Multiplicative hashing: the upper 12 bits. */
    _Static_assert(MAX_WATCHED == 1 << 12, "the hash has 12 bits");
    return (uint32_t)((uintptr_t)object >> 4) * 0x9e3779b1u >> 20;
}

/* The index of an object; -1: it is not watched. */
static inline int watched_find(const struct watched *table, const void *object)
{
    if (LIKELY(__atomic_load_n(&table->count, __ATOMIC_RELAXED) == 0))
        return -1;
    for (uint32_t i = 0, slot = watched_slot(object); i < WATCHED_PROBES; i++, slot = (slot + 1) % MAX_WATCHED)
        if (__atomic_load_n(&table->objects[slot], __ATOMIC_ACQUIRE) == object)
            return (int)slot;
    return -1;
}

/*
 * The index for an object, which has one already if it was destroyed unseen, with its context. -1: there is no place.
 * With the lock held; watched_publish releases it.
 */
static inline int watched_begin(struct watched *table, const void *object)
{
    if (!lock_within(&table->is_locked, WATCHED_ATTEMPTS))
        return -1;
    int found = watched_find(table, object);
    for (uint32_t i = 0, slot = watched_slot(object); i < WATCHED_PROBES && found < 0; i++, slot = (slot + 1) % MAX_WATCHED)
        if (!table->objects[slot])
            found = (int)slot;
    if (found < 0)
        lock_release(&table->is_locked);
    return found;
}

/* What is known about the object is complete. */
static inline void watched_publish(struct watched *table, int index, const void *object)
{
    if (!table->objects[index])
        __atomic_fetch_add(&table->count, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&table->objects[index], object, __ATOMIC_RELEASE);
    lock_release(&table->is_locked);
}

static inline void watched_forget(struct watched *table, const void *object)
{
    if (LIKELY(__atomic_load_n(&table->count, __ATOMIC_RELAXED) == 0) ||
        !lock_within(&table->is_locked, WATCHED_ATTEMPTS))
        return;
    const int found = watched_find(table, object);
    if (found >= 0) {
        __atomic_store_n(&table->objects[found], NULL, __ATOMIC_RELEASE);
        __atomic_fetch_sub(&table->count, 1, __ATOMIC_RELAXED);
    }
    lock_release(&table->is_locked);
}

#endif

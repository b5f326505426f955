/*
 * Whether a pointer is that of an object of a kind: objects that the wrapped functions have returned are known by their
 * addresses. Others, such as those that a provider's own function has created, are looked at once: what they begin with
 * is read by a system call, which fails where there is no memory. In doubt a pointer is an object.
 */
#define _GNU_SOURCE
#include "objects.h"
#include "refusals.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Buckets of a line of the processor's cache each. An object that finds its bucket full replaces another one. */
#define BUCKET_BITS 11
#define BUCKETS (1 << BUCKET_BITS)
#define BUCKET_OBJECTS 8
/* Addresses of programs have 47 bits; an entry has the kind of the object above them, and whether it was returned. */
#define KIND_SHIFT 48
#define RETURNED ((uint64_t)1 << 63)
#define ADDRESSES ((uintptr_t)1 << 47)
/* Linux maps nothing below (vm.mmap_min_addr), unless root has changed that. */
#define FIRST_PAGES 4096

/* No process has more descriptors (fs.nr_open). */
#define MAX_DESCRIPTORS (1u << 20)

static struct {
    uint64_t entries[BUCKET_OBJECTS];
    uint32_t next;
} table[BUCKETS] __attribute__((aligned(64)));

static uint64_t entry_of(uint32_t kind, const void *object)
{
    return (uint64_t)kind << KIND_SHIFT | (uintptr_t)object;
}

static unsigned bucket_of(const void *object)
{
    return (unsigned)(((uintptr_t)object >> 4) * 0x9e3779b97f4a7c15u >> (64 - BUCKET_BITS));
}

/* The place of an object of any kind; NULL: it is not known. */
static uint64_t *place_of(const void *object)
{
    uint64_t *entries = table[bucket_of(object)].entries;
    for (unsigned i = 0; i < BUCKET_OBJECTS; i++)
        if ((__atomic_load_n(&entries[i], __ATOMIC_RELAXED) & (((uint64_t)1 << KIND_SHIFT) - 1)) == (uintptr_t)object)
            return &entries[i];
    return NULL;
}

static void add(uint64_t entry, const void *object)
{
    const unsigned bucket = bucket_of(object);
    uint64_t *place = place_of(object);
    for (unsigned i = 0; !place && i < BUCKET_OBJECTS; i++)
        if (__atomic_load_n(&table[bucket].entries[i], __ATOMIC_RELAXED) == 0)
            place = &table[bucket].entries[i];
    if (!place)
        place = &table[bucket].entries[__atomic_fetch_add(&table[bucket].next, 1, __ATOMIC_RELAXED) % BUCKET_OBJECTS];
    __atomic_store_n(place, entry, __ATOMIC_RELAXED);
}

void known_add(uint32_t kind, const void *object)
{
    if (object && kind != 0)
        add(entry_of(kind, object) | RETURNED, object);
}

void known_remove(const void *object)
{
    uint64_t *place = place_of(object);
    if (place)
        __atomic_store_n(place, 0, __ATOMIC_RELAXED);
}

bool pointer_may_be_memory(const void *pointer)
{
    return (uintptr_t)pointer >= FIRST_PAGES && (uintptr_t)pointer < ADDRESSES;
}

/* Reads memory of this process, which may not be there. True also if the system call is not allowed. */
static bool try_read(const void *from, void *to, size_t bytes)
{
    const struct iovec own = {to, bytes}, other = {(void *)(uintptr_t)from, bytes};
    if (!pointer_may_be_memory(from))
        return false;
    const int saved = errno;
    const ssize_t done = process_vm_readv(getpid(), &own, 1, &other, 1, 0);
    const bool is_there = done == (ssize_t)bytes || (done < 0 && errno != EFAULT);
    errno = saved;
    return is_there;
}

static bool is_readable(const void *from, size_t bytes)
{
    char unused[sizeof(struct ibv_context)];
    return try_read(from, unused, bytes < sizeof unused ? bytes : sizeof unused);
}

/* The pointer at an address; NULL: there is none. */
static const void *pointer_at(const void *from, size_t offset)
{
    const void *found = NULL;
    return try_read((const char *)from + offset, &found, sizeof found) ? found : NULL;
}

static bool is_context(const void *context)
{
    const uint64_t *place = place_of(context);
    if (place && (*place & ~RETURNED) == entry_of(USERDMA_OBJECT_CONTEXT, context))
        return true;
    const void *device = is_readable(context, sizeof(struct ibv_context)) ? pointer_at(context, 0) : NULL;
    return device && is_readable(device, sizeof(struct ibv_device));
}

/* Whether an unknown object looks like one of the kind. */
static bool looks_like(uint32_t kind, const void *object)
{
    switch (kind) {
    case USERDMA_OBJECT_CONTEXT:
        return is_context(object);
    case USERDMA_OBJECT_CM_ID:
        return is_readable(object, sizeof(struct rdma_cm_id)) &&
               is_readable(pointer_at(object, offsetof(struct rdma_cm_id, channel)), sizeof(int));
    case USERDMA_OBJECT_CM_EVENT:
        return is_readable(pointer_at(object, 0), sizeof(struct rdma_cm_id));
    case USERDMA_OBJECT_CM_CHANNEL: {
        uint32_t fd = 0;
        return try_read(object, &fd, sizeof fd) && fd < MAX_DESCRIPTORS;
    }
    case USERDMA_OBJECT_DEVICES:
        return is_readable(object, sizeof(int));
    case USERDMA_OBJECT_FLOW:
        return is_context(pointer_at(object, offsetof(struct ibv_flow, context)));
    default:
        return is_context(pointer_at(object, 0));
    }
}

bool known_check(struct object_use use, struct gone_use *told)
{
    const uint64_t *place = place_of(use.object);
    const uint64_t entry = place ? __atomic_load_n(place, __ATOMIC_RELAXED) : 0;
    if (LIKELY((entry & ~RETURNED) == entry_of(use.kind, use.object)))
        return true;
    /* What was only looked at may have ended unseen, and another object may be in its place. */
    const uint32_t kind = entry & RETURNED ? (uint32_t)((entry & ~RETURNED) >> KIND_SHIFT) : 0;
    if (kind == 0 && looks_like(use.kind, use.object)) {
        add(entry_of(use.kind, use.object), use.object);
        return true;
    }
    *told = (struct gone_use){.kind = use.kind,
                              .use = USERDMA_GONE_GARBAGE,
                              .number = kind == 0 ? USERDMA_UNKNOWN_NUMBER : kind,
                              .is_owner = kind == 0 && is_readable(use.object, sizeof(void *)),
                              .value = (uintptr_t)use.object};
    return false;
}

/*
 * Devices that a program opens after it has freed all their lists: libibverbs then keeps only those of open contexts
 * (ibv_get_device_list(3)).
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>

#include "../preload_events.h"
#include "../recorder/objects.h"
#include "../recorder/verbs.h"

/* Maximum devices in lists, each counted as often as it is in one. With more, nothing is told. */
#define MAX_LISTED 2048
/* The lock is given up after this many yields: a signal handler may have left its holder. */
#define MAX_YIELDS 10000

/*
 * A device of a list. `device`: NULL: a free entry. `list`: NULL: it was freed, at `freed` in nanoseconds, by `stack`.
 */
struct listed {
    const struct ibv_device *device;
    const void *list;
    uint64_t freed;
    uint32_t stack;
};

static struct listed listed[MAX_LISTED];
static unsigned count;
static bool has_more;
static uint32_t locked;

/* With the lock held: the entry becomes one that is free, or of a freed list with the same device. */
static void add(const void *list, const struct ibv_device *device)
{
    unsigned free_entry = count;
    for (unsigned i = 0; i < count; i++) {
        if (!listed[i].device)
            free_entry = i;
        if (listed[i].device != device || listed[i].list)
            continue;
        free_entry = i;
        break;
    }
    if (free_entry == MAX_LISTED) {
        has_more = true;
        return;
    }
    listed[free_entry] = (struct listed){.device = device, .list = list};
    if (free_entry == count)
        count++;
}

#undef ibv_get_device_list
EXPORT struct ibv_device **ibv_get_device_list(int *number)
{
    struct ibv_device **(*original)(int *) = verbs_original("ibv_get_device_list");
    if (!original)
        return verbs_missing();
    struct ibv_device **list = original(number);
    if (UNLIKELY(recorder_is_on) && list && lock_within(&locked, MAX_YIELDS)) {
        for (unsigned i = 0; list[i]; i++)
            add(list, list[i]);
        lock_release(&locked);
    }
    return list;
}

void devices_freed(const void *list)
{
    const uint32_t stack = stack_here();
    const uint64_t now = objects_nanoseconds();
    if (!lock_within(&locked, MAX_YIELDS))
        return;
    for (unsigned i = 0; i < count; i++)
        if (listed[i].list == list)
            listed[i] = (struct listed){.device = listed[i].device, .freed = now, .stack = stack};
    lock_release(&locked);
}

void devices_opened(const struct ibv_context *context)
{
    struct listed found = {0};
    bool is_listed = false;
    if (!lock_within(&locked, MAX_YIELDS))
        return;
    /* As long as it may be open, the device exists: it is forgotten. */
    for (unsigned i = 0; i < count; i++) {
        if (listed[i].device != context->device)
            continue;
        if (listed[i].list)
            is_listed = true;
        else
            found = listed[i];
        listed[i].device = NULL;
    }
    lock_release(&locked);
    if (!found.device || is_listed || has_more)
        return;
    const int saved = errno;
    event_opened_freed(context->cmd_fd, stack_here(), objects_nanoseconds() - found.freed, found.stack);
    errno = saved;
}

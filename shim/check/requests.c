/*
 * Outstanding requests: for each queue, a list of scatter/gather elements in the order of posting.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <string.h>

#include "../recorder/locks.h"

struct element elements[MAX_RANGES];
uint32_t used_slots;
bool requests_are_full;
struct queue *first_shared;

static uint32_t first_free = NONE;
/* A queue was ever added. */
static bool has_queues;
static uint32_t lives;
/* A hash table with linear probing. */
static struct queue queues[MAX_QUEUES];
static uint32_t holder;

bool requests_lock(void)
{
    return holder_take(&holder);
}

void requests_unlock(void)
{
    holder_release(&holder);
}

/* ---- queues ---- */

struct queue *queue_of(int fd, uint32_t kind, uint32_t number, bool should_create)
{
    /* Multiplicative hashing (2^32 divided by the golden ratio): the upper 12 bits are the entry. */
    uint32_t entry = ((uint32_t)fd * 31 + kind * 7 + number) * 0x9e3779b1u >> 20;
    struct queue *unused = NULL;
    _Static_assert(MAX_QUEUES == 1 << 12, "the hash has 12 bits");
    for (unsigned i = 0; i < MAX_QUEUES; i++, entry = (entry + 1) % MAX_QUEUES) {
        struct queue *queue = &queues[entry];
        if (queue->kind == kind && queue->number == number && queue->fd == fd)
            return queue;
        if (!unused && (queue->kind == 0 || queue->fd < 0))
            unused = queue;
        if (queue->kind == 0)
            break;
    }
    if (!should_create || !unused)
        return NULL;
    has_queues = true;
    *unused = (struct queue){.kind = kind, .number = number, .fd = fd, .first = NONE, .last = NONE, .life = ++lives};
    if (kind == USERDMA_POST_SHARED) {
        unused->next_shared = first_shared;
        first_shared = unused;
    }
    return unused;
}

const struct queue *queue_of_element(uint32_t slot)
{
    return &queues[elements[slot].queue];
}

void queue_forget(struct queue *queue)
{
    while (queue->first != NONE)
        element_remove(queue, queue->first);
    for (struct queue **link = &first_shared; *link; link = &(*link)->next_shared)
        if (*link == queue) {
            *link = queue->next_shared;
            break;
        }
    queue->fd = -1;
    /*
     * A probe continues after a forgotten entry. It ends at an empty entry, so forgotten entries directly before an
     * empty one become empty.
     */
    uint32_t entry = (uint32_t)(queue - queues);
    if (queues[(entry + 1) % MAX_QUEUES].kind == 0)
        for (; queues[entry].kind != 0 && queues[entry].fd < 0; entry = (entry + MAX_QUEUES - 1) % MAX_QUEUES)
            queues[entry].kind = 0;
}

void queues_forget(int fd)
{
    for (struct queue *queue = queues; queue < queues + MAX_QUEUES; queue++)
        if (queue->kind != 0 && queue->fd == fd)
            queue_forget(queue);
}

/* ---- elements ---- */

uint32_t element_append(struct queue *queue, uint64_t wr_id, bool is_signaled)
{
    uint32_t slot = first_free;
    if (slot != NONE)
        first_free = elements[slot].next;
    else if (used_slots < MAX_RANGES)
        slot = used_slots++;
    else {
        requests_are_full = true;
        return NONE;
    }
    elements[slot] = (struct element){.wr_id = wr_id,
                                      .next = NONE,
                                      .previous = queue->last,
                                      .queue = (uint32_t)(queue - queues),
                                      .index = queue->posted,
                                      .is_signaled = is_signaled};
    if (queue->last == NONE)
        queue->first = slot;
    else
        elements[queue->last].next = slot;
    queue->last = slot;
    return slot;
}

void element_clear(uint32_t slot)
{
    range_clear(slot);
    elements[slot].thread = 0;
}

void element_remove(struct queue *queue, uint32_t slot)
{
    const struct element *element = &elements[slot];
    element_clear(slot);
    if (UNLIKELY(sanitizers_watch))
        sanitizers_returns(element);
    if (element->previous == NONE)
        queue->first = element->next;
    else
        elements[element->previous].next = element->next;
    if (element->next == NONE)
        queue->last = element->previous;
    else
        elements[element->next].previous = element->previous;
    elements[slot].next = first_free;
    first_free = slot;
}

void request_remove_first(struct queue *queue)
{
    /* All elements of a request have one index. */
    const uint32_t index = elements[queue->first].index;
    while (queue->first != NONE && elements[queue->first].index == index)
        element_remove(queue, queue->first);
}

uint32_t send_find(const struct queue *queue, uint64_t wr_id)
{
    uint32_t found = NONE;
    /* The first signaled one with this wr_id; if none is signaled, the first: it has failed. */
    for (uint32_t slot = queue->first; slot != NONE; slot = elements[slot].next) {
        if (elements[slot].wr_id != wr_id)
            continue;
        if (elements[slot].is_signaled)
            return slot;
        if (found == NONE)
            found = slot;
    }
    return found;
}

uint32_t receive_find(const struct queue *queue, uint64_t wr_id)
{
    uint32_t slot = queue->first;
    while (slot != NONE && elements[slot].wr_id != wr_id)
        slot = elements[slot].next;
    return slot;
}

bool receive_complete(struct queue *queue, uint64_t wr_id)
{
    uint32_t slot = receive_find(queue, wr_id);
    if (slot == NONE)
        return false;
    const uint32_t index = elements[slot].index;
    while (slot != NONE && elements[slot].index == index) {
        const uint32_t next = elements[slot].next;
        element_remove(queue, slot);
        slot = next;
    }
    return true;
}

IN_CHILD void requests_forget_all(void)
{
    if (holder != 0)
        memset(queues, 0, sizeof queues); /* a thread of the parent was in the table */
    first_shared = NULL;
    holder = 0;
    /* A child that uses the parent's queue goes on with its positions. */
    for (struct queue *queue = queues; has_queues && queue < queues + MAX_QUEUES; queue++) {
        if (queue->kind == 0)
            continue;
        queue->first = queue->last = NONE;
        queue->next_shared = NULL;
        if (queue->kind == USERDMA_POST_SHARED && queue->fd >= 0) {
            queue->next_shared = first_shared;
            first_shared = queue;
        }
    }
    used_slots = 0;
    first_free = NONE;
}

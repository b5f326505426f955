/*
 * Events of objects that the program has read and not acknowledged, by object: reports calls that acknowledge more.
 * A table of bounded size; if an object finds no place, nothing is known any more, and nothing is reported.
 */
#define _GNU_SOURCE
#include "acknowledgements.h"


#define BUCKETS 512
#define BUCKET_OBJECTS 8
/* A thread gives up after this many yields: a signal handler may have left the holder of the lock by siglongjmp. */
#define MAX_YIELDS 10000

static struct {
    /* 0: a free place. Of asynchronous events: with bit 0. */
    uintptr_t object;
    uint32_t unacknowledged;
} table[BUCKETS][BUCKET_OBJECTS];
static bool is_incomplete;
static uint32_t locked;

/* The CQ of the last event that this thread has read. */
static TLS struct ibv_cq *last_cq;

static bool lock(void)
{
    return lock_within(&locked, MAX_YIELDS + 1);
}

static void unlock(void)
{
    lock_release(&locked);
}

/* With the lock held: the count of an object. `wants_place`: also of a new one. NULL: it has none. */
static uint32_t *count_of(uintptr_t object, bool wants_place)
{
    __typeof__(&table[0][0]) bucket = table[(object >> 4) * 0x9e3779b97f4a7c15u >> (64 - 9)], unused = NULL;
    for (unsigned i = 0; i < BUCKET_OBJECTS; i++) {
        if (bucket[i].object == object)
            return &bucket[i].unacknowledged;
        if (bucket[i].unacknowledged == 0)
            unused = &bucket[i];
    }
    if (!wants_place || !unused)
        return NULL;
    unused->object = object;
    return &unused->unacknowledged;
}
_Static_assert(BUCKETS == 1 << 9, "the hash gives an index of the table");

static void got(uintptr_t object)
{
    if (__atomic_load_n(&is_incomplete, __ATOMIC_RELAXED))
        return;
    if (!lock()) {
        __atomic_store_n(&is_incomplete, true, __ATOMIC_RELAXED);
        return;
    }
    uint32_t *count = count_of(object, true);
    if (count)
        ++*count;
    else
        __atomic_store_n(&is_incomplete, true, __ATOMIC_RELAXED);
    unlock();
}

/* Whether `acknowledged` events are too many; `count`: how many there were. */
static bool acknowledge(uintptr_t object, uint32_t acknowledged, uint32_t *count)
{
    *count = 0;
    if (__atomic_load_n(&is_incomplete, __ATOMIC_RELAXED) || !lock())
        return false;
    uint32_t *known = count_of(object, false);
    if (known) {
        *count = *known;
        *known -= acknowledged < *known ? acknowledged : *known;
    }
    unlock();
    return acknowledged > *count;
}

static void got_cq_event(struct ibv_cq *cq)
{
    last_cq = cq;
    got((uintptr_t)cq);
}

static void acknowledge_cq(const struct ibv_cq *cq, uint32_t acknowledged)
{
    uint32_t count, of_last = 0;
    struct ibv_cq *last = last_cq;
    if (!acknowledge((uintptr_t)cq, acknowledged, &count)) {
        if (last == cq)
            last_cq = NULL;
        return;
    }
    if (last && last != cq)
        acknowledge((uintptr_t)last, 0, &of_last);
    note_overacknowledged(cq->context->cmd_fd, cq->handle, acknowledged, count,
                          of_last > 0 ? last->handle : USERDMA_UNKNOWN_NUMBER);
}

/* The object of an asynchronous event; NULL: it has none. */
static void *object_of(const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_CQ_ERR:
        return event->element.cq;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_PATH_MIG_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
        return event->element.qp;
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED:
        return event->element.srq;
    default:
        return NULL;
    }
}

static void got_async_event(const struct ibv_async_event *event)
{
    const void *object = object_of(event);
    if (object)
        got((uintptr_t)object | 1);
}

static void acknowledge_async(const struct ibv_async_event *event)
{
    const void *object = object_of(event);
    uint32_t count;
    if (!object || !acknowledge((uintptr_t)object | 1, 1, &count))
        return;
    if (event->event_type == IBV_EVENT_CQ_ERR) {
        const struct ibv_cq *cq = event->element.cq;
        note_async_overacknowledged(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle, count);
    } else if (event->event_type == IBV_EVENT_SRQ_ERR || event->event_type == IBV_EVENT_SRQ_LIMIT_REACHED) {
        const struct ibv_srq *srq = event->element.srq;
        note_async_overacknowledged(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, count);
    } else {
        const struct ibv_qp *qp = event->element.qp;
        note_async_overacknowledged(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, count);
    }
}

int around_ibv_get_cq_event(int (*original)(struct ibv_comp_channel *, struct ibv_cq **, void **),
                            struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user)
{
    void *const wait = note_wait_begins(USERDMA_WAIT_CHANNEL, channel->fd);
    const int result = original(channel, cq, user);
    note_wait_ends(wait);
    if (UNLIKELY(recorder_is_on) && result == 0)
        got_cq_event(*cq);
    return result;
}

void around_ibv_ack_cq_events(void (*original)(struct ibv_cq *, unsigned int), struct ibv_cq *cq, unsigned int count)
{
    if (UNLIKELY(recorder_is_on))
        acknowledge_cq(cq, count);
    original(cq, count);
}

int around_ibv_get_async_event(int (*original)(struct ibv_context *, struct ibv_async_event *),
                               struct ibv_context *context, struct ibv_async_event *event)
{
    void *const wait = note_wait_begins(USERDMA_WAIT_ASYNC, context->async_fd);
    const int result = original(context, event);
    note_wait_ends(wait);
    if (UNLIKELY(recorder_is_on) && result == 0)
        got_async_event(event);
    return result;
}

int around_rdma_get_cm_event(int (*original)(struct rdma_event_channel *, struct rdma_cm_event **),
                             struct rdma_event_channel *channel, struct rdma_cm_event **event)
{
    /* struct rdma_event_channel has the descriptor only. */
    void *const wait = channel ? note_wait_begins(USERDMA_WAIT_CM, *(const int *)channel) : NULL;
    const int result = original(channel, event);
    note_wait_ends(wait);
    return result;
}

void around_ibv_ack_async_event(void (*original)(struct ibv_async_event *), struct ibv_async_event *event)
{
    if (UNLIKELY(recorder_is_on))
        acknowledge_async(event);
    original(event);
}

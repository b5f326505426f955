/*
 * Queues that the program has promised to use by one thread at a time: CQs with IBV_CREATE_CQ_ATTR_SINGLE_THREADED, and
 * CQs and queue pairs of a protection domain with a thread domain (ibv_alloc_td(3)). Their providers take no locks.
 *
 * Two threads in a queue at the same time are a mistake. Two threads that use it in turns may have a lock of their own.
 */
#define _GNU_SOURCE
#include "orders.h"

#include <pthread.h>

#include "watched.h"

/* Changes of the thread, between two that are both alive, after which they are told. */
#define TURNS 3

struct promise {
    int fd;
    uint32_t kind, number;
    bool by_domain;
    /* In a call now, and its calls within each other; 0: none. */
    pid_t inside;
    uint32_t depth;
    /* That has used the queue last and before, and where the last one has. */
    pid_t last, before;
    void *last_at;
    uint32_t turns;
    bool is_told;
};

static struct watched table, domains;
static struct promise promises[MAX_WATCHED];

uint32_t promises_count;

IN_CHILD static void in_child(void)
{
    table.is_locked = domains.is_locked = 0;
    for (struct promise *promise = promises; promise < promises + MAX_WATCHED; promise++)
        promise->inside = promise->last = promise->before = 0;
}

void promises_domain(const struct ibv_pd *domain)
{
    const int index = watched_begin(&domains, domain);
    if (index >= 0)
        watched_publish(&domains, index, domain);
}

bool promises_is_domain(const struct ibv_pd *domain)
{
    return watched_find(&domains, domain) >= 0;
}

static void promise(const void *queue, struct promise made)
{
    static uint32_t has_begun;
    if (!__atomic_exchange_n(&has_begun, 1, __ATOMIC_RELAXED))
        pthread_atfork(NULL, NULL, in_child);
    const int index = watched_begin(&table, queue);
    if (index < 0)
        return;
    promises[index] = made;
    watched_publish(&table, index, queue);
    __atomic_store_n(&promises_count, table.count, __ATOMIC_RELAXED);
}

void promises_cq(const struct ibv_cq *cq, bool by_domain)
{
    promise(cq, (struct promise){.fd = cq->context->cmd_fd,
                                 .kind = USERDMA_OBJECT_CQ,
                                 .number = cq->handle,
                                 .by_domain = by_domain});
}

void promises_qp(const struct ibv_qp *qp)
{
    const struct promise made = {
        .fd = qp->context->cmd_fd, .kind = USERDMA_OBJECT_QP, .number = qp->qp_num, .by_domain = true};
    promise(SENDS_OF(qp), made);
    promise(RECEIVES_OF(qp), made);
}

void promises_destroyed(const void *object)
{
    watched_forget(&domains, object);
    if (LIKELY(promises_count == 0))
        return;
    watched_forget(&table, SENDS_OF(object));
    watched_forget(&table, RECEIVES_OF(object));
    __atomic_store_n(&promises_count, table.count, __ATOMIC_RELAXED);
}

static void report(struct promise *broken, uint32_t mistake, uint32_t call)
{
    if (__atomic_exchange_n(&broken->is_told, true, __ATOMIC_RELAXED))
        return;
    struct userdma_misordered told = {.object = broken->kind,
                                      .number = broken->number,
                                      .mistake = mistake,
                                      .called = call,
                                      .field = broken->by_domain,
                                      .is_single = !broken->by_domain};
    orders_report(broken->fd, &told, broken->last_at);
}

void promises_enter_always(const void *queue, uint32_t call, void *caller)
{
    const int index = watched_find(&table, queue);
    if (index < 0)
        return;
    struct promise *of = &promises[index];
    const pid_t own = threads_own();
    pid_t inside = 0;
    if (!__atomic_compare_exchange_n(&of->inside, &inside, own, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (inside == own)
            of->depth++;
        else
            report(of, USERDMA_ORDER_MISTAKE_AT_ONCE, call);
        return;
    }
    if (LIKELY(of->last == own)) {
        of->last_at = caller;
        return;
    }
    /* A thread that has ended has passed the queue on. */
    of->turns = of->before == own && !threads_has_ended(of->last) ? of->turns + 1 : 0;
    if (of->turns >= TURNS - 1)
        report(of, USERDMA_ORDER_MISTAKE_IN_TURNS, call);
    of->before = of->last;
    of->last = own;
    of->last_at = caller;
}

void promises_leave_always(const void *queue)
{
    const int index = watched_find(&table, queue);
    if (index < 0)
        return;
    struct promise *of = &promises[index];
    if (__atomic_load_n(&of->inside, __ATOMIC_RELAXED) != threads_own())
        return;
    if (of->depth > 0)
        of->depth--;
    else
        __atomic_store_n(&of->inside, 0, __ATOMIC_RELEASE);
}

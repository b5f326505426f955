/*
 * Which threads poll a CQ: a completion that one thread has taken is lost for another one that waits for it. The first
 * thread is remembered; of each further one, up to MAX_THREADS, the daemon is told once.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <pthread.h>
#include <string.h>

#include "../recorder/objects.h"
#include "../recorder/orders.h"
#include "../recorder/watched.h"

/* Threads of a CQ. */
#define MAX_THREADS 4
/* CQs that a thread has polled last. */
#define KNOWN_CQS 4

struct pollers {
    pid_t threads[MAX_THREADS];
    /* The stack of the first one's poll. */
    uint32_t first;
};

static struct watched table;
static struct pollers pollers[MAX_WATCHED];
/* Changes when a CQ is destroyed: another may get its address. */
static uint32_t epoch = 1;

IN_CHILD static void in_child(void)
{
    table.is_locked = 0;
}

/* The CQ's threads, which become known with it; NULL: there is no place. */
static struct pollers *pollers_of(const struct ibv_cq *cq)
{
    static uint32_t has_begun;
    int index = watched_find(&table, cq);
    if (LIKELY(index >= 0))
        return &pollers[index];
    if (!__atomic_exchange_n(&has_begun, 1, __ATOMIC_RELAXED))
        pthread_atfork(NULL, NULL, in_child);
    index = watched_begin(&table, cq);
    if (index < 0)
        return NULL;
    if (table.objects[index] != cq)
        memset(&pollers[index], 0, sizeof pollers[index]);
    watched_publish(&table, index, cq);
    return &pollers[index];
}

__attribute__((noinline)) static void look(const struct ibv_cq *cq)
{
    const pid_t own = threads_own();
    struct pollers *of = pollers_of(cq);
    for (unsigned i = 0; of && i < MAX_THREADS; i++) {
        pid_t thread = 0;
        if (!__atomic_compare_exchange_n(&of->threads[i], &thread, own, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            if (thread == own)
                return;
            continue;
        }
        if (i == 0) {
            of->first = stack_here();
            return;
        }
        const struct userdma_misordered told = {.object = USERDMA_OBJECT_CQ,
                                                .number = cq->handle,
                                                .mistake = USERDMA_ORDER_MISTAKE_FURTHER_POLLER,
                                                .called = USERDMA_ORDER_CALL_POLL_CQ,
                                                .field = i + 1,
                                                .since = of->first};
        note_order(cq->context->cmd_fd, &told);
        return;
    }
}

void pollers_note(const struct ibv_cq *cq)
{
    static TLS struct {
        const struct ibv_cq *cq;
        uint32_t epoch;
    } known[KNOWN_CQS];
    const uint32_t now = __atomic_load_n(&epoch, __ATOMIC_RELAXED);
    const unsigned slot = (unsigned)((uintptr_t)cq >> 6) % KNOWN_CQS;
    if (LIKELY(known[slot].cq == cq && known[slot].epoch == now))
        return;
    known[slot].cq = cq;
    known[slot].epoch = now;
    crashes_look_for_handlers();
    look(cq);
}

void pollers_destroyed(const void *object)
{
    if (watched_find(&table, object) < 0)
        return;
    watched_forget(&table, object);
    __atomic_fetch_add(&epoch, 1, __ATOMIC_RELAXED);
}

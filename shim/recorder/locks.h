/*
 * The recorder's lock of a queue: of the sends or the receives of a queue pair (SENDS_OF, RECEIVES_OF), of an SRQ, or
 * of a CQ. Providers let several threads use a queue at the same time, so what is noted before or after the provider's
 * function would have another order than the requests in the provider's queue. Therefore:
 *
 *   A thread holds the lock of a queue while it notes requests, has the provider post them, and notes those that were
 *   refused; in a batch of ibv_wr_*, from ibv_wr_start to its end. So the n-th noted request of a queue since its
 *   creation or RESET, without those that were refused, is the n-th in the device's queue.
 *
 *   A thread holds the lock of a CQ from the provider's poll until its completions are noted; in a poll of an extended
 *   CQ, until ibv_end_poll. So completions are noted in the order of the CQ.
 *
 * docs/decisions/order-of-records.md has the reasons. The lock is taken before the provider's, never after it. As far
 * as possible, what may take long or needs locks of others is done without it: stacks are taken, mistakes reported.
 *
 * A queue whose order cannot be kept is unordered, until it is reset or destroyed: nothing about it is matched by
 * position. So it is if a signal handler posts while its thread is in a post of the same queue, if the holder ends or
 * leaves the post by siglongjmp, or if there are too many queues.
 */
#ifndef USERDMA_RECORDER_LOCKS_H
#define USERDMA_RECORDER_LOCKS_H

#include "orders.h"

/* ---- locks that know their holder: 0, or the number of a thread ---- */

/* The holder has ended, or has kept the lock for ten seconds: nobody gets it any more. */
#define HOLDER_LOST UINT32_MAX

/* Waits for a lock that another thread holds. False: this thread holds it, or it is lost now. Preserves errno. */
bool holder_wait(uint32_t *holder);

/* False as of holder_wait: the lock is not taken. */
static inline bool holder_take(uint32_t *holder)
{
    uint32_t none = 0;
    return LIKELY(__atomic_compare_exchange_n(holder, &none, (uint32_t)threads_own(), false, __ATOMIC_ACQUIRE,
                                              __ATOMIC_RELAXED)) ||
           holder_wait(holder);
}

static inline void holder_release(uint32_t *holder)
{
    __atomic_store_n(holder, 0, __ATOMIC_RELEASE);
}

/* ---- locks of queues ---- */

struct queue_lock;

/*
 * Takes the lock of a queue, waiting for its holder. NULL: it is not taken, and the queue is unordered; the caller goes
 * on without. Preserves errno.
 */
struct queue_lock *locks_enter(const void *queue);
/* Releases a lock of this thread. `lock` may be NULL. Preserves errno. */
void locks_leave(struct queue_lock *lock);
/* The lock of a queue, if this thread holds it; else NULL. */
struct queue_lock *locks_held(const void *queue);
/* As locks_leave, at the end of a batch or poll that another thread may have begun: then the queue is unordered. */
void locks_leave_any(const void *queue);

/* Counts a request of the batch of ibv_wr_* for which this thread holds the lock; those counted since locks_enter. */
void locks_count(struct queue_lock *lock);
uint32_t locks_counted(const struct queue_lock *lock);

/* A queue pair was reset: its queues are empty, and ordered. */
void locks_reset(const void *queue);
/* An object was destroyed. `kind`: USERDMA_OBJECT_. Those without queues are ignored. */
void locks_destroyed(uint32_t kind, const void *object);
/* In the child of a fork. */
void locks_in_child(void);

#endif

/*
 * Locks of queues (locks.h), by the queues' addresses.
 */
#define _GNU_SOURCE
#include "locks.h"

#include <errno.h>
#include <time.h>

/* Queues with a lock: a power of two. */
#define MAX_LOCKS 16384
/* Places in which a queue may be. */
#define PROBES 32
/* Looks before the first yield, yields before the first nap, naps, and the nanoseconds of one: ten seconds in all. */
#define LOOKS 100
#define YIELDS 100
#define NAPS 60000
#define NAP 100000

bool holder_wait(uint32_t *holder)
{
    const uint32_t own = (uint32_t)threads_own();
    /* A signal handler has interrupted the holder, or the holder has left by siglongjmp. */
    if (__atomic_load_n(holder, __ATOMIC_RELAXED) == own)
        return false;
    const int saved = errno;
    uint32_t present, last = 0;
    for (unsigned looks = 0, naps = 0;; looks++) {
        present = 0;
        if (__atomic_load_n(holder, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(holder, &present, own, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
        present = __atomic_load_n(holder, __ATOMIC_RELAXED);
        if (present == HOLDER_LOST)
            break;
        if (present == 0 || looks < LOOKS)
            continue;
        if (looks < LOOKS + YIELDS) {
            sched_yield();
            continue;
        }
        /* Each holder may have the lock for that time. */
        naps = present == last ? naps + 1 : 0;
        last = present;
        if ((naps == NAPS || threads_has_ended((pid_t)present)) &&
            __atomic_compare_exchange_n(holder, &present, HOLDER_LOST, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            present = HOLDER_LOST;
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
    }
    errno = saved;
    return present == 0;
}

struct queue_lock {
    /* NULL: no queue. */
    const void *queue;
    uint32_t holder;
    uint32_t counted;
    bool is_unordered;
};

static struct queue_lock locks[MAX_LOCKS];
/* Of the table. */
static uint32_t table_holder;
/* Some place was ever used. */
static bool has_locks;

static uint32_t place_of(const void *queue)
{
    /* Multiplicative hashing: the upper 14 bits. The two queues of a queue pair are neighbours. */
    _Static_assert(MAX_LOCKS == 1 << 14, "the hash has 14 bits");
    const uintptr_t address = (uintptr_t)queue;
    return (((uint32_t)(address >> 4) * 0x9e3779b1u >> 18) + (uint32_t)(address & 1)) % MAX_LOCKS;
}

static struct queue_lock *find(const void *queue)
{
    for (uint32_t i = 0, place = place_of(queue); i < PROBES; i++, place = (place + 1) % MAX_LOCKS)
        if (LIKELY(__atomic_load_n(&locks[place].queue, __ATOMIC_ACQUIRE) == queue))
            return &locks[place];
    return NULL;
}

/* Finds a place for a queue that has none. NULL: there is none. */
__attribute__((noinline)) static struct queue_lock *add(const void *queue)
{
    if (!holder_take(&table_holder))
        return NULL;
    struct queue_lock *lock = find(queue);
    for (uint32_t i = 0, place = place_of(queue); i < PROBES && !lock; i++, place = (place + 1) % MAX_LOCKS)
        if (!locks[place].queue) {
            lock = &locks[place];
            lock->is_unordered = false;
            has_locks = true;
            __atomic_store_n(&lock->queue, queue, __ATOMIC_RELEASE);
        }
    holder_release(&table_holder);
    return lock;
}

/* The order is lost. Nobody waits for the lock any more. */
static void disorder(struct queue_lock *lock)
{
    __atomic_store_n(&lock->is_unordered, true, __ATOMIC_RELEASE);
    holder_release(&lock->holder);
}

static bool is_over(const struct queue_lock *lock, const void *queue)
{
    return __atomic_load_n(&lock->is_unordered, __ATOMIC_RELAXED) ||
           __atomic_load_n(&lock->queue, __ATOMIC_RELAXED) != queue;
}

struct queue_lock *locks_enter(const void *queue)
{
    struct queue_lock *lock = find(queue);
    if (UNLIKELY(!lock))
        lock = add(queue);
    if (UNLIKELY(!lock) || UNLIKELY(__atomic_load_n(&lock->is_unordered, __ATOMIC_RELAXED)))
        return NULL;
    if (UNLIKELY(!holder_take(&lock->holder))) {
        disorder(lock);
        return NULL;
    }
    /* `disorder` sets is_unordered before it releases the lock. */
    if (UNLIKELY(is_over(lock, queue))) {
        holder_release(&lock->holder);
        return NULL;
    }
    lock->counted = 0;
    return lock;
}

static bool is_held(const struct queue_lock *lock)
{
    return __atomic_load_n(&lock->holder, __ATOMIC_RELAXED) == (uint32_t)threads_own();
}

void locks_leave(struct queue_lock *lock)
{
    /* If it is not held any more: the queue has become unordered, or was destroyed. */
    if (LIKELY(lock) && LIKELY(is_held(lock)))
        holder_release(&lock->holder);
}

struct queue_lock *locks_held(const void *queue)
{
    struct queue_lock *lock = find(queue);
    return LIKELY(lock) && LIKELY(is_held(lock)) ? lock : NULL;
}

void locks_leave_any(const void *queue)
{
    struct queue_lock *lock = find(queue);
    if (UNLIKELY(!lock))
        return;
    if (LIKELY(is_held(lock)))
        holder_release(&lock->holder);
    else if (__atomic_load_n(&lock->holder, __ATOMIC_RELAXED) != 0)
        disorder(lock);
}

void locks_count(struct queue_lock *lock)
{
    lock->counted++;
}

uint32_t locks_counted(const struct queue_lock *lock)
{
    return lock->counted;
}

void locks_reset(const void *queue)
{
    struct queue_lock *lock = find(queue);
    if (lock)
        __atomic_store_n(&lock->is_unordered, false, __ATOMIC_RELEASE);
}

static void forget(const void *queue)
{
    if (!find(queue) || !holder_take(&table_holder))
        return;
    struct queue_lock *lock = find(queue);
    if (lock) {
        __atomic_store_n(&lock->queue, NULL, __ATOMIC_RELEASE);
        holder_release(&lock->holder);
    }
    holder_release(&table_holder);
}

void locks_destroyed(uint32_t kind, const void *object)
{
    if (kind == USERDMA_OBJECT_QP) {
        forget(SENDS_OF(object));
        forget(RECEIVES_OF(object));
    } else if (kind == USERDMA_OBJECT_CQ || kind == USERDMA_OBJECT_SRQ) {
        forget(object);
    }
}

IN_CHILD void locks_in_child(void)
{
    table_holder = 0;
    if (!has_locks)
        return;
    for (struct queue_lock *lock = locks; lock < locks + MAX_LOCKS; lock++)
        if (lock->holder != 0)
            lock->holder = 0;
}

/*
 * Spinning: each read of a clock, sched_yield, wait of no time and empty poll of a completion queue adds a microsecond
 * to the clock while nothing else runs.
 *
 * Each thread that makes such calls counts them in the page. Once all other threads sleep (looks.c) and nothing is on
 * its way, the keeper grants time to those that spin, its members, until the earliest deadline. The time that was
 * granted is a microsecond for each call that every member has made since: the least of their counts. So a member that
 * works, waits or has no processor stops the clock, without being looked at. A member ends the grant by whatever may
 * wake another thread, after it (clock_acts), and so does a thread that wakes, also the daemon's. What is not seen,
 * such as a write inside of the C library, the keeper finds at its next look.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <threads.h>
#include <unistd.h>

/* Calls are counted in steps of so many, so that members seldom read each other's counts. */
#define STEP 8
/*
 * A thread that does nothing but read a clock may compare it with the processor's counter, as perftest does for 0.2 s:
 * its reads count if it has polled before so few, or has read so often.
 */
#define FEW_READS 64
#define MANY_READS 10000000
static __thread uint32_t reads __attribute__((tls_model("initial-exec"))) = FEW_READS;

/* A member that is so many calls ahead yields. */
#define LONGEST_LEAD 1000

/* ---- members ---- */

static void end_granted(void)
{
    uint32_t grant = __atomic_load_n(&clock_page->grant.state, __ATOMIC_SEQ_CST);
    if (UNLIKELY(grant & (GRANT_IS_MADE | GRANT_IS_READY)) &&
        __atomic_compare_exchange_n(&clock_page->grant.state, &grant, grant & ~(uint32_t)(GRANT_IS_MADE | GRANT_IS_READY),
                                    false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        clock_tell_keeper();
}

void clock_acts(void)
{
    if (!clock_sleeps)
        return;
    reads = FEW_READS;
    uint32_t *const acts = clock_own_acts();
    if (acts)
        __atomic_add_fetch(acts, 1, __ATOMIC_SEQ_CST);
    end_granted();
}

void clock_daemon_wakes(void)
{
    __atomic_add_fetch(&clock_page->daemon_acts, 1, __ATOMIC_SEQ_CST);
    end_granted();
}

/*
 * Adds the time that all members have spun since the grant. `own`: the index of the calling thread's slot. False: there
 * is no grant.
 */
static bool add_time(uint32_t own)
{
    struct grant *const grant = &clock_page->grant;
    const uint32_t state = __atomic_load_n(&grant->state, __ATOMIC_ACQUIRE);
    if (!(state & GRANT_IS_READY))
        return false;
    uint64_t least = UINT64_MAX, of_own = 0;
    bool is_member = false;
    for (uint32_t i = 0; i < grant->members && i < MAX_MEMBERS; i++) {
        const struct member *const member = &grant->member[i];
        const uint64_t calls =
            __atomic_load_n(&clock_page->spins[member->slot % MAX_SLOTS].calls, __ATOMIC_RELAXED) - member->calls;
        least = calls < least ? calls : least;
        if (member->slot == own) {
            is_member = true;
            of_own = calls;
        }
    }
    int64_t to = grant->offset + (int64_t)least * MICROSECOND;
    const int64_t limit = grant->until == NEVER ? NEVER : grant->until - clock_real(CLOCK_MONOTONIC);
    to = to < limit ? to : limit;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&grant->state, __ATOMIC_RELAXED) != state)
        return false;
    if (!is_member) {
        end_granted();
        return false;
    }
    int64_t offset = clock_offset();
    while (offset < to &&
           !__atomic_compare_exchange_n(&clock_page->offset, &offset, to, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
    /* The keeper ends the waits until then. */
    if (to == limit)
        end_granted();
    /* The others may wait for this processor. */
    if (of_own - least > LONGEST_LEAD)
        NEXT(sched_yield)();
    return true;
}

static bool spins(void)
{
    static __thread uint32_t calls __attribute__((tls_model("initial-exec")));
    static __thread bool is_granted __attribute__((tls_model("initial-exec")));
    if (++calls % STEP != 0)
        return is_granted;
    is_granted = false;
    uint32_t slot;
    if (!clock_sleeps || clock_page->spins_not || !clock_own_slot(&slot))
        return false;
    uint64_t *const own = &clock_page->spins[slot].calls;
    __atomic_store_n(own, *own + STEP, __ATOMIC_RELEASE);
    is_granted = add_time(slot);
    return is_granted;
}

EXPORT bool userdma_clock_spins(void)
{
    if (reads < MANY_READS)
        reads = 0;
    return spins();
}

void clock_reads(void)
{
    if (reads < FEW_READS || reads >= MANY_READS)
        spins();
    if (reads < MANY_READS)
        reads++;
}

EXPORT int sched_yield(void)
{
    const int result = NEXT(sched_yield)();
    userdma_clock_spins();
    return result;
}

EXPORT void thrd_yield(void)
{
    sched_yield();
}

/* ---- the keeper ---- */

bool clock_anyone_spins(void)
{
    static uint64_t before;
    uint64_t calls = 0;
    for (uint32_t i = 0; i < clock_used_slots(); i++)
        calls += __atomic_load_n(&clock_page->spins[i].calls, __ATOMIC_RELAXED);
    const bool any = calls != before;
    before = calls;
    return any;
}

bool clock_is_member(uint32_t slot)
{
    const struct grant *const grant = &clock_page->grant;
    if (!(__atomic_load_n(&grant->state, __ATOMIC_ACQUIRE) & GRANT_IS_READY))
        return false;
    for (uint32_t i = 0; i < grant->members && i < MAX_MEMBERS; i++)
        if (grant->member[i].slot == slot)
            return true;
    return false;
}

void clock_end_grant(void)
{
    uint32_t state = __atomic_load_n(&clock_page->grant.state, __ATOMIC_SEQ_CST);
    while (state & GRANT_IS_READY &&
           !__atomic_compare_exchange_n(&clock_page->grant.state, &state, state & ~(uint32_t)GRANT_IS_READY, true,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

/* Whether the grant that is there has the same members, and time. */
static bool is_same(const struct spinner *spinners, uint32_t count, int64_t until)
{
    const struct grant *const grant = &clock_page->grant;
    if (!(__atomic_load_n(&grant->state, __ATOMIC_ACQUIRE) & GRANT_IS_READY) || grant->members != count ||
        grant->until != until)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (grant->member[i].slot != spinners[i].slot)
            return false;
    return true;
}

void clock_make_grant(const struct spinner *spinners, uint32_t count, uint32_t daemon_acts, int64_t until)
{
    struct grant *const grant = &clock_page->grant;
    if (is_same(spinners, count, until))
        return;
    clock_end_grant();
    const uint32_t state = (grant->state & ~(uint32_t)(GRANT_IS_MADE | GRANT_IS_READY)) + GRANT_NEXT;
    __atomic_store_n(&grant->state, state, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    grant->members = count;
    grant->until = until;
    grant->offset = clock_offset();
    for (uint32_t i = 0; i < count; i++)
        grant->member[i] = (struct member){
            .slot = spinners[i].slot, .calls = __atomic_load_n(&clock_page->spins[spinners[i].slot].calls, __ATOMIC_ACQUIRE)};
    uint32_t made = state | GRANT_IS_MADE;
    __atomic_store_n(&grant->state, made, __ATOMIC_SEQ_CST);
    /* Whoever acts from here on ends the grant. Has anyone since the look? */
    bool has_acted = __atomic_load_n(&clock_page->daemon_acts, __ATOMIC_SEQ_CST) != daemon_acts;
    for (uint32_t i = 0; i < count; i++)
        if (__atomic_load_n(&clock_page->spins[spinners[i].slot].acts, __ATOMIC_SEQ_CST) != spinners[i].acts)
            has_acted = true;
    __atomic_compare_exchange_n(&grant->state, &made, has_acted ? state : state | GRANT_IS_READY, false, __ATOMIC_SEQ_CST,
                                __ATOMIC_RELAXED);
}

/* ---- what may wake another thread ---- */

#define ACTS(type, name, parameters, arguments)                                                                        \
    EXPORT type name parameters                                                                                        \
    {                                                                                                                  \
        const type result = NEXT(name) arguments;                                                                      \
        clock_acts();                                                                                                  \
        return result;                                                                                                 \
    }

ACTS(int, pthread_cond_signal, (pthread_cond_t * condition), (condition))
ACTS(int, pthread_cond_broadcast, (pthread_cond_t * condition), (condition))
ACTS(int, cnd_signal, (cnd_t * condition), (condition))
ACTS(int, cnd_broadcast, (cnd_t * condition), (condition))
ACTS(int, sem_post, (sem_t * semaphore), (semaphore))
ACTS(int, pthread_barrier_wait, (pthread_barrier_t * barrier), (barrier))
ACTS(int, pthread_rwlock_unlock, (pthread_rwlock_t * lock), (lock))
ACTS(int, pthread_kill, (pthread_t thread, int signal), (thread, signal))
ACTS(int, kill, (pid_t pid, int signal), (pid, signal))
ACTS(int, sigqueue, (pid_t pid, int signal, const union sigval value), (pid, signal, value))
ACTS(int, eventfd_write, (int fd, eventfd_t value), (fd, value))
ACTS(int, shutdown, (int fd, int how), (fd, how))
ACTS(int, connect, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
ACTS(int, close, (int fd), (fd))
ACTS(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*function)(void *), void *value),
     (thread, attributes, function, value))

/* glibc's layout: the lock is above 1 while others wait for it. */
EXPORT int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    const bool is_awaited = __atomic_load_n(&mutex->__data.__lock, __ATOMIC_RELAXED) > 1;
    const int result = NEXT(pthread_mutex_unlock)(mutex);
    if (UNLIKELY(is_awaited))
        clock_acts();
    return result;
}

EXPORT int mtx_unlock(mtx_t *mutex)
{
    const int result = NEXT(mtx_unlock)(mutex);
    clock_acts();
    return result;
}

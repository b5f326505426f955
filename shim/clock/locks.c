/*
 * Waits of threads for each other with a time limit. The C library waits until an absolute time, which it reads again
 * after a signal: it is in the slot, where the keeper sets it to the past.
 */
#define _GNU_SOURCE
#include "../clockwaits.h"
#include "clock.h"

#include <pthread.h>
#include <semaphore.h>
#include <threads.h>

static __thread bool only_looks __attribute__((tls_model("initial-exec")));

/* Of shim/waits/waits.c: a thread that waits for a lock looks now and then who has it. */
EXPORT void userdma_clock_looks(void);
EXPORT void userdma_clock_looks(void)
{
    only_looks = clock_sleeps;
}

/*
 * Returns the result of `call`, which waits until `limit`, a time of `clock`. `again`: whether a result is that of a
 * wait that has ended before its time: after the machine's clock was set, or because a jump has interrupted it.
 */
#define UNTIL(clock, time, again, call)                                                                                \
    do {                                                                                                               \
        const struct timespec *limit = time;                                                                           \
        if (!clock_sleeps || !clock_is_moved(clock) || !is_valid(time))                                                \
            return call;                                                                                               \
        const int64_t end = to_nanoseconds(time);                                                                      \
        for (;;) {                                                                                                     \
            struct wait wait;                                                                                          \
            limit = time;                                                                                              \
            const int64_t deadline = only_looks ? NEVER : clock_deadline(clock, end);                                  \
            only_looks = false;                                                                                        \
            if (BEGINS(&wait, deadline)) {                                                           \
                wait.slot->until = to_timespec(clock_to_real(clock, end));                                             \
                limit = &wait.slot->until;                                                                             \
            }                                                                                                          \
            const int result = call;                                                                                   \
            clock_wait_ends(&wait);                                                                                    \
            if (!(again))                                                                                              \
                return result;                                                                                         \
        }                                                                                                              \
    } while (0)

/* The wait says that its time is over, and it is not. */
#define EARLY(timeout) (result == (timeout) && clock_now(clock_of_wait) < end)

EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *time)
{
    /* glibc's layout: bit 1 of __wrefs. */
    const clockid_t clock_of_wait = condition->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_cond_timedwait)(condition, mutex, limit));
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock_of_wait,
                                  const struct timespec *time)
{
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_cond_clockwait)(condition, mutex, clock_of_wait, limit));
}

EXPORT int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(thrd_timedout), NEXT(cnd_timedwait)(condition, mutex, limit));
}

EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_mutex_timedlock)(mutex, limit));
}

EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock_of_wait, const struct timespec *time)
{
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_mutex_clocklock)(mutex, clock_of_wait, limit));
}

EXPORT int mtx_timedlock(mtx_t *mutex, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(thrd_timedout), NEXT(mtx_timedlock)(mutex, limit));
}

EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_rwlock_timedrdlock)(lock, limit));
}

EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_rwlock_timedwrlock)(lock, limit));
}

EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock_of_wait, const struct timespec *time)
{
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_rwlock_clockrdlock)(lock, clock_of_wait, limit));
}

EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock_of_wait, const struct timespec *time)
{
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_rwlock_clockwrlock)(lock, clock_of_wait, limit));
}

EXPORT int pthread_timedjoin_np(pthread_t thread, void **value, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    if (!time)
        return NEXT(pthread_timedjoin_np)(thread, value, time);
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_timedjoin_np)(thread, value, limit));
}

EXPORT int pthread_clockjoin_np(pthread_t thread, void **value, clockid_t clock_of_wait, const struct timespec *time)
{
    if (!time)
        return NEXT(pthread_clockjoin_np)(thread, value, clock_of_wait, time);
    UNTIL(clock_of_wait, time, EARLY(ETIMEDOUT), NEXT(pthread_clockjoin_np)(thread, value, clock_of_wait, limit));
}

/* A signal interrupts a wait for a semaphore: after a jump it ends as one whose time is over. */
#define SEMAPHORE_EARLY                                                                                                \
    (result != 0 && ((errno == EINTR && wait.is_over) || (errno == ETIMEDOUT && clock_now(clock_of_wait) < end)))

EXPORT int sem_timedwait(sem_t *semaphore, const struct timespec *time)
{
    const clockid_t clock_of_wait = CLOCK_REALTIME;
    UNTIL(clock_of_wait, time, SEMAPHORE_EARLY, NEXT(sem_timedwait)(semaphore, limit));
}

EXPORT int sem_clockwait(sem_t *semaphore, clockid_t clock_of_wait, const struct timespec *time)
{
    UNTIL(clock_of_wait, time, SEMAPHORE_EARLY, NEXT(sem_clockwait)(semaphore, clock_of_wait, limit));
}

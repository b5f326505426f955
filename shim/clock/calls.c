/*
 * Waits and clocks by syscall(2): the runtimes of C++ and Rust make their own futexes.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
int epoll_pwait2(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);

typedef long call_function(long, ...);

/* A futex operation that waits until `time`, or for so long. The answer is that of syscall(2). */
static long wait_futex(call_function *call, long word, long operation, long value, const struct timespec *time, long e,
                       long f)
{
    const int kind = (int)operation & FUTEX_CMD_MASK;
    const bool is_relative = kind == FUTEX_WAIT;
    const bool is_real_time = operation & FUTEX_CLOCK_REALTIME || kind == FUTEX_LOCK_PI;
    const clockid_t clock = is_real_time ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    const int64_t end = to_nanoseconds(time);
    struct wait wait;
    if (!BEGINS(&wait, is_relative ? clock_after(end) : clock_deadline(clock, end)))
        return call(SYS_futex, word, operation, value, time, e, f);
    /* The kernel waits again for a lock, until the time in the slot, which then is past. */
    if (!is_relative)
        wait.slot->until = to_timespec(clock_to_real(clock, end));
    const long result = call(SYS_futex, word, operation, value, is_relative ? time : &wait.slot->until, e, f);
    if (clock_wait_ends(&wait) && result < 0 && errno == EINTR)
        errno = ETIMEDOUT;
    return result;
}

static bool waits(int operation)
{
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_WAIT_REQUEUE_PI:
        return true;
    default:
        return false;
    }
}

/* Functions of the C library answer as their system calls, but for the number of an error. */
static long as_call(int error)
{
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

/* After a call that starts a process or a thread, with the result `child`. `a`: the call's first argument. */
static long start(long number, long child, long a)
{
    const uint64_t flags = number == SYS_clone ? (uint64_t)a : number == SYS_clone3 ? *(const uint64_t *)a : 0;
    if (child < 0 || flags & CLONE_THREAD)
        return child;
    if (child > 0)
        clock_add_process((pid_t)child, CLOCK_STACK);
    else if (!(flags & CLONE_VM))
        clock_on_fork();
    return child;
}

/*
 * The kernel's numbers of timers are the C library's, but for those with SIGEV_THREAD, which the kernel does not have.
 */
static timer_t timer_of(long id)
{
    return (timer_t)(intptr_t)(int)id;
}

static long create_timer(call_function *call, clockid_t clock, struct sigevent *event, int *id)
{
    if (event && event->sigev_notify == SIGEV_THREAD)
        return call(SYS_timer_create, clock, event, id);
    timer_t timer;
    const int result = timer_create(clock, event, &timer);
    if (result == 0)
        *id = (int)(intptr_t)timer;
    return result;
}

EXPORT long syscall(long number, ...)
{
    call_function *const call = NEXT(syscall);
    va_list list;
    va_start(list, number);
    const long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
               e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (!clock_page)
        return call(number, a, b, c, d, e, f);
    switch (number) {
    case SYS_clock_gettime:
        return clock_gettime((clockid_t)a, (struct timespec *)b);
    case SYS_gettimeofday:
        return gettimeofday((struct timeval *)a, (void *)b);
#ifdef SYS_time
    case SYS_time:
        return time((time_t *)a);
#endif
    case SYS_futex:
        if (clock_sleeps && waits((int)b) && d && is_valid((const struct timespec *)d))
            return wait_futex(call, a, b, c, (const struct timespec *)d, e, f);
        break;
    case SYS_nanosleep:
        return nanosleep((const struct timespec *)a, (struct timespec *)b);
    case SYS_clock_nanosleep:
        return as_call(clock_nanosleep((clockid_t)a, (int)b, (const struct timespec *)c, (struct timespec *)d));
#ifdef SYS_poll
    case SYS_poll:
        return poll((struct pollfd *)a, (nfds_t)b, (int)c);
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        return epoll_wait((int)a, (struct epoll_event *)b, (int)c, (int)d);
#endif
    case SYS_ppoll:
        return ppoll((struct pollfd *)a, (nfds_t)b, (const struct timespec *)c, (const sigset_t *)d);
    case SYS_epoll_pwait:
        return epoll_pwait((int)a, (struct epoll_event *)b, (int)c, (int)d, (const sigset_t *)e);
    case SYS_epoll_pwait2:
        return epoll_pwait2((int)a, (struct epoll_event *)b, (int)c, (const struct timespec *)d, (const sigset_t *)e);
    case SYS_clone:
    case SYS_clone3:
#ifdef SYS_fork
    case SYS_fork:
#endif
        return start(number, call(number, a, b, c, d, e, f), a);
    case SYS_timerfd_create:
        return timerfd_create((int)a, (int)b);
    case SYS_timerfd_settime:
        return timerfd_settime((int)a, (int)b, (const struct itimerspec *)c, (struct itimerspec *)d);
    case SYS_timerfd_gettime:
        return timerfd_gettime((int)a, (struct itimerspec *)b);
#ifdef SYS_alarm
    case SYS_alarm:
        return alarm((unsigned)a);
#endif
    case SYS_setitimer:
        return setitimer((__itimer_which_t)a, (const struct itimerval *)b, (struct itimerval *)c);
    case SYS_getitimer:
        return getitimer((__itimer_which_t)a, (struct itimerval *)b);
    case SYS_timer_create:
        return create_timer(call, (clockid_t)a, (struct sigevent *)b, (int *)c);
    case SYS_timer_settime:
        return timer_settime(timer_of(a), (int)b, (const struct itimerspec *)c, (struct itimerspec *)d);
    case SYS_timer_gettime:
        return timer_gettime(timer_of(a), (struct itimerspec *)b);
    case SYS_timer_getoverrun:
        return timer_getoverrun(timer_of(a));
    case SYS_timer_delete:
        return timer_delete(timer_of(a));
    case SYS_sched_yield:
        return sched_yield();
    case SYS_gettid:
    case SYS_getcpu:
        return call(number, a, b, c, d, e, f);
    default:
        break;
    }
    const long result = call(number, a, b, c, d, e, f);
    if (result == 0 && (number == SYS_seccomp ? a <= SECCOMP_SET_MODE_FILTER : number == SYS_prctl && a == PR_SET_SECCOMP))
        clock_leave_for_filter();
    clock_acts();
    return result;
}

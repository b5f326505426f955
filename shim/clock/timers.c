/*
 * Timers. A timerfd stays the kernel's: the keeper sets it again after a jump. Those with signals are the keeper's,
 * which sends the signal as the kernel would. After its end its successor does (keeper.c).
 */
#define _GNU_SOURCE
#include "clock.h"

#include <linux/kcmp.h>
#include <sys/ioctl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* setitimer and alarm; the timers of timer_create have numbers from 0 on. */
#define ALARM (-1)

/* The timer of this process; NULL: there is none. */
static struct timer *find_timer(uint32_t kind, int id)
{
    const uint32_t pid = (uint32_t)getpid();
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        if (__atomic_load_n(&timer->kind, __ATOMIC_ACQUIRE) == kind && timer->pid == pid && timer->id == id)
            return timer;
    }
    return NULL;
}

/* A timer that is not set, in the state TIMER_NEW. NULL: there is no place. */
static struct timer *new_timer(int id)
{
    for (uint32_t i = 0; i < MAX_TIMERS; i++) {
        struct timer *const timer = &clock_page->timers[i];
        uint32_t free = TIMER_FREE;
        if (!__atomic_compare_exchange_n(&timer->kind, &free, TIMER_NEW, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        *timer = (struct timer){.kind = TIMER_NEW, .pid = (uint32_t)getpid(), .id = id, .deadline = NEVER};
        uint32_t used = clock_page->timers_used;
        while (used < i + 1 && !__atomic_compare_exchange_n(&clock_page->timers_used, &used, i + 1, true,
                                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            ;
        return timer;
    }
    /* Nothing is skipped from now on. */
    __atomic_store_n(&clock_page->lacks, LACKS_TIMERS, __ATOMIC_SEQ_CST);
    clock_acts();
    return NULL;
}

static void set(struct timer *timer, int64_t deadline, int64_t interval)
{
    timer->interval = interval;
    timer->overruns = 0;
    timer->offset = clock_offset();
    __atomic_store_n(&timer->deadline, deadline, __ATOMIC_RELEASE);
    clock_acts();
}

/* What is left of a timer. */
static struct itimerspec left_of(const struct timer *timer)
{
    struct itimerspec left = {0};
    const int64_t deadline = timer ? __atomic_load_n(&timer->deadline, __ATOMIC_ACQUIRE) : NEVER;
    if (deadline == NEVER)
        return left;
    int64_t rest = deadline - clock_now(CLOCK_MONOTONIC);
    /* The keeper has still to set the next deadline. */
    if (rest <= 0 && timer->interval > 0)
        clock_pass_ends(&rest, timer->interval);
    left.it_value = to_timespec(rest > 0 ? rest : 1);
    left.it_interval = to_timespec(timer->interval);
    return left;
}

/* ---- timerfd ---- */

EXPORT int timerfd_create(int clock, int flags)
{
    const int fd = NEXT(timerfd_create)(clock, flags);
    /* Of a timerfd that was closed. */
    struct timer *const before = fd >= 0 && clock_page ? find_timer(TIMER_FD, fd) : NULL;
    if (before)
        __atomic_store_n(&before->kind, TIMER_FREE, __ATOMIC_RELEASE);
    return fd;
}

static bool is_armed(const struct itimerspec *value)
{
    return value->it_value.tv_sec != 0 || value->it_value.tv_nsec != 0;
}

/*
 * Of a timerfd that this process has set: others that have set it too, as parent and child, have no other time. True:
 * there are any.
 */
static bool tell_others(int fd, int64_t deadline, int64_t interval)
{
    const pid_t pid = getpid();
    bool any = false;
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        if (__atomic_load_n(&timer->kind, __ATOMIC_ACQUIRE) != TIMER_FD || timer->id != fd || timer->pid == (uint32_t)pid ||
            NEXT(syscall)(SYS_kcmp, pid, timer->pid, KCMP_FILE, fd, fd) != 0)
            continue;
        any = true;
        timer->is_shared = 1;
        set(timer, deadline, interval);
    }
    return any;
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    if (!clock_page || fd < 0 || !value || !is_valid(&value->it_value) || !is_valid(&value->it_interval))
        return NEXT(timerfd_settime)(fd, flags, value, old);
    const bool is_absolute = flags & TFD_TIMER_ABSTIME;
    const int64_t time = to_nanoseconds(&value->it_value);
    struct timer *timer = find_timer(TIMER_FD, fd);
    struct timerfd known;
    const clockid_t clock = timer ? (clockid_t)timer->clock : clock_read_timerfd(getpid(), fd, &known) ? known.clock : CLOCK_MONOTONIC;
    const struct itimerspec left_before = left_of(old ? timer : NULL);
    const int64_t before = timer ? __atomic_exchange_n(&timer->deadline, NEVER, __ATOMIC_ACQ_REL) : NEVER;
    const int64_t interval = to_nanoseconds(&value->it_interval);
    struct itimerspec real = *value;
    /* For so long: the machine's clock may be set. */
    int64_t left_now = time;
    uint64_t ticks = 0;
    if (is_absolute && time != 0) {
        left_now = time - clock_now(clock);
        if (left_now <= 0 && interval > 0)
            ticks = clock_pass_ends(&left_now, interval);
        real.it_value = to_timespec(left_now > 0 ? left_now : 1);
    }
    const int result = NEXT(timerfd_settime)(fd, flags & ~TFD_TIMER_ABSTIME, &real, old);
    if (result != 0 && timer)
        __atomic_store_n(&timer->deadline, before, __ATOMIC_RELEASE);
    if (result == 0 && timer && old && is_armed(old) && before != NEVER)
        *old = left_before;
    if (result != 0)
        return result;
    const bool is_new = !timer;
    if (time == 0) {
        if (is_new || timer->is_shared)
            tell_others(fd, NEVER, 0);
        return result;
    }
    if (is_new && !(timer = new_timer(fd)))
        return result;
    timer->clock = (uint32_t)clock;
    set(timer, clock_after(left_now), interval);
    if (ticks != 0)
        ioctl(fd, TFD_IOC_SET_TICKS, &ticks);
    if (is_new)
        __atomic_store_n(&timer->kind, TIMER_FD, __ATOMIC_RELEASE);
    if (is_new || timer->is_shared)
        timer->is_shared = tell_others(fd, timer->deadline, timer->interval);
    return result;
}

/* The kernel does not know the time that was added by spinning. */
EXPORT int timerfd_gettime(int fd, struct itimerspec *value)
{
    const int result = NEXT(timerfd_gettime)(fd, value);
    const struct timer *const timer = result == 0 && clock_page ? find_timer(TIMER_FD, fd) : NULL;
    if (timer && is_armed(value) && __atomic_load_n(&timer->deadline, __ATOMIC_ACQUIRE) != NEVER)
        *value = left_of(timer);
    return result;
}

/* ---- timers with signals ---- */

/* Sets the timer of alarm and setitimer. False: there is no place. */
static bool set_alarm(int64_t length, int64_t interval, struct itimerspec *old)
{
    struct timer *timer = find_timer(TIMER_SIGNAL, ALARM);
    *old = left_of(timer);
    if (!timer) {
        if (length == 0)
            return true;
        timer = new_timer(ALARM);
        if (!timer)
            return false;
        timer->signal = SIGALRM;
        timer->code = SI_USER;
        __atomic_store_n(&timer->kind, TIMER_SIGNAL, __ATOMIC_RELEASE);
    }
    set(timer, length == 0 ? NEVER : clock_after(length), interval);
    clock_tell_keeper();
    return true;
}

EXPORT unsigned alarm(unsigned seconds)
{
    struct itimerspec old;
    if (!clock_sleeps || !set_alarm(seconds * SECOND, 0, &old))
        return NEXT(alarm)(seconds);
    /* As the kernel: rounded, but never to none. */
    const bool is_rest = old.it_value.tv_sec == 0 && old.it_value.tv_nsec != 0;
    return (unsigned)(old.it_value.tv_sec + (is_rest || old.it_value.tv_nsec >= SECOND / 2));
}

static bool is_valid_timeval(const struct timeval *time)
{
    return time->tv_sec >= 0 && time->tv_usec >= 0 && time->tv_usec < 1000000;
}

static int64_t of_timeval(const struct timeval *time)
{
    return time->tv_sec * SECOND + time->tv_usec * MICROSECOND;
}

static struct itimerval to_itimerval(const struct itimerspec *time)
{
    return (struct itimerval){
        .it_value = {.tv_sec = time->it_value.tv_sec, .tv_usec = time->it_value.tv_nsec / MICROSECOND},
        .it_interval = {.tv_sec = time->it_interval.tv_sec, .tv_usec = time->it_interval.tv_nsec / MICROSECOND}};
}

EXPORT int setitimer(__itimer_which_t which, const struct itimerval *value, struct itimerval *old)
{
    struct itimerspec before;
    /* Linux takes none for no time. */
    const struct itimerval given = value ? *value : (struct itimerval){0};
    if (!clock_sleeps || which != ITIMER_REAL || !is_valid_timeval(&given.it_value) || !is_valid_timeval(&given.it_interval) ||
        !set_alarm(of_timeval(&given.it_value), of_timeval(&given.it_interval), &before))
        return NEXT(setitimer)(which, value, old);
    if (old)
        *old = to_itimerval(&before);
    return 0;
}

EXPORT int getitimer(__itimer_which_t which, struct itimerval *value)
{
    if (!clock_sleeps || which != ITIMER_REAL || !value)
        return NEXT(getitimer)(which, value);
    const struct itimerspec left = left_of(find_timer(TIMER_SIGNAL, ALARM));
    *value = to_itimerval(&left);
    return 0;
}

EXPORT useconds_t ualarm(useconds_t length, useconds_t interval)
{
    struct itimerspec old;
    if (!clock_sleeps || length >= 1000000 || interval >= 1000000 || !set_alarm(length * MICROSECOND, interval * MICROSECOND, &old))
        return NEXT(ualarm)(length, interval);
    return (useconds_t)(old.it_value.tv_sec * 1000000 + old.it_value.tv_nsec / MICROSECOND);
}

/*
 * A timer of timer_create. Its timer_t is that of a kernel's timer which is never set, so that ids stay unique and
 * deletion works; the program's clock and signal are those of the page.
 */
static int id_of(timer_t timer)
{
    return (int)(intptr_t)timer & 0x7fffffff;
}

EXPORT int timer_create(clockid_t clock, struct sigevent *event, timer_t *timer)
{
    if (!clock_sleeps || !clock_is_moved(clock))
        return NEXT(timer_create)(clock, event, timer);
    const bool starts_thread = event && event->sigev_notify == SIGEV_THREAD;
    struct sigevent own_event;
    if (starts_thread)
        event = memcpy(&own_event, event, sizeof own_event);
    const int result =
        starts_thread ? clock_create_notice(clock, event, timer) : NEXT(timer_create)(clock, event, timer);
    if (result != 0)
        return result;
    struct timer *const own = new_timer(id_of(*timer));
    if (!own)
        return result;
    own->clock = (uint32_t)clock;
    own->signal = SIGALRM;
    own->code = SI_TIMER;
    own->value = (uint64_t)(intptr_t)*timer;
    if (event) {
        own->signal = event->sigev_notify == SIGEV_NONE ? 0 : (uint32_t)event->sigev_signo;
        own->value = (uint64_t)(uintptr_t)event->sigev_value.sival_ptr;
        if (event->sigev_notify == SIGEV_THREAD_ID)
            own->tid = (uint32_t)event->_sigev_un._tid;
    }
    __atomic_store_n(&own->kind, TIMER_SIGNAL, __ATOMIC_RELEASE);
    return 0;
}

static struct timer *find(timer_t timer)
{
    return clock_sleeps ? find_timer(TIMER_SIGNAL, id_of(timer)) : NULL;
}

EXPORT int timer_settime(timer_t id, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    struct timer *const timer = find(id);
    if (!timer || !value || !is_valid(&value->it_value) || !is_valid(&value->it_interval))
        return NEXT(timer_settime)(id, flags, value, old);
    if (old)
        *old = left_of(timer);
    const int64_t time = to_nanoseconds(&value->it_value);
    const int64_t interval = to_nanoseconds(&value->it_interval);
    const int64_t left = flags & TIMER_ABSTIME ? time - clock_now((clockid_t)timer->clock) : time;
    /* Of one that begins in the past the keeper counts how often it has ended. */
    const int64_t deadline = left < 0 && interval > 0 ? clock_now(CLOCK_MONOTONIC) + left : clock_after(left);
    set(timer, time == 0 ? NEVER : deadline, interval);
    clock_tell_keeper();
    return 0;
}

EXPORT int timer_gettime(timer_t id, struct itimerspec *value)
{
    struct timer *const timer = find(id);
    if (!timer)
        return NEXT(timer_gettime)(id, value);
    *value = left_of(timer);
    return 0;
}

EXPORT int timer_getoverrun(timer_t id)
{
    struct timer *const timer = find(id);
    return timer ? (int)timer->overruns : NEXT(timer_getoverrun)(id);
}

EXPORT int timer_delete(timer_t id)
{
    struct timer *const timer = find(id);
    if (timer)
        __atomic_store_n(&timer->kind, TIMER_FREE, __ATOMIC_RELEASE);
    if (clock_sleeps)
        clock_remove_notice(id);
    return NEXT(timer_delete)(id);
}

/*
 * Reads of clocks: the machine's time plus what was skipped. CPU clocks and the counter of the processor are the
 * machine's.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timeb.h>
#include <sys/times.h>
#include <unistd.h>

bool clock_is_moved(clockid_t clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
    case CLOCK_TAI:
        return true;
    default:
        return false;
    }
}

int64_t clock_real(clockid_t clock)
{
    struct timespec time = {0};
    NEXT(clock_gettime)(clock, &time);
    return to_nanoseconds(&time);
}

/* The clock that runs as a wall clock, and is not set; others: itself. */
static clockid_t steady(clockid_t clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI:
        return CLOCK_MONOTONIC;
    case CLOCK_REALTIME_COARSE:
        return CLOCK_MONOTONIC_COARSE;
    default:
        return clock;
    }
}

/* The program's time when `steady(clock)` is `real`. */
static int64_t from_steady(clockid_t clock, int64_t real)
{
    const int64_t leap = clock == CLOCK_TAI ? clock_real(CLOCK_TAI) - clock_real(CLOCK_REALTIME) : 0;
    return real + clock_offset() + (steady(clock) == clock ? 0 : clock_page->wall) + (leap + SECOND / 2) / SECOND * SECOND;
}

int64_t clock_now(clockid_t clock)
{
    return from_steady(clock, clock_real(steady(clock)));
}

int64_t clock_to_real(clockid_t clock, int64_t time)
{
    return steady(clock) == clock ? time - clock_offset() : time - clock_now(clock) + clock_real(clock);
}

int64_t clock_deadline(clockid_t clock, int64_t time)
{
    const int64_t left = time - clock_now(clock);
    return clock_after(left);
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *time)
{
    const bool is_moved = clock_page && clock_is_moved(clock);
    const int result = NEXT(clock_gettime)(is_moved ? steady(clock) : clock, time);
    if (!is_moved || result != 0)
        return result;
    clock_reads();
    *time = to_timespec(from_steady(clock, to_nanoseconds(time)));
    return 0;
}

EXPORT int gettimeofday(struct timeval *time, void *zone)
{
    const int result = NEXT(gettimeofday)(time, zone);
    if (!clock_page || result != 0)
        return result;
    clock_reads();
    /* The time zone alone may be asked for. The header says otherwise to compilers. */
    const struct timeval *volatile const to = time;
    if (!to)
        return result;
    const int64_t now = clock_now(CLOCK_REALTIME);
    *time = (struct timeval){.tv_sec = now / SECOND, .tv_usec = now % SECOND / MICROSECOND};
    return 0;
}

EXPORT time_t time(time_t *to)
{
    if (!clock_page)
        return NEXT(time)(to);
    clock_reads();
    const time_t now = clock_now(CLOCK_REALTIME_COARSE) / SECOND;
    if (to)
        *to = now;
    return now;
}

EXPORT int timespec_get(struct timespec *time, int base)
{
    const int result = NEXT(timespec_get)(time, base);
    if (clock_page && result == TIME_UTC) {
        clock_reads();
        *time = to_timespec(clock_now(CLOCK_REALTIME));
    }
    return result;
}

EXPORT clock_t times(struct tms *buffer)
{
    const clock_t ticks = NEXT(times)(buffer);
    if (!clock_page)
        return ticks;
    clock_reads();
    return ticks + (clock_t)(clock_offset() / (SECOND / sysconf(_SC_CLK_TCK)));
}

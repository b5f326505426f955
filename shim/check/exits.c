/*
 * _exit, _Exit, abort and failed assertions, for `userdma check`: kept reports (reports.c) are sent before the process
 * ends without atexit(3).
 *
 * _exit and abort may be called in a signal handler that has interrupted a holder of a lock. Signals are blocked while
 * the session's lock is held, and requests_lock() gives up after some attempts. An alternate signal stack may be too
 * small to send reports. A vfork child has its parent's memory, and must not send the parent's reports.
 */
#define _GNU_SOURCE
#include "../shim.h"
#include "outstanding.h"

#include <stdlib.h>
#include <unistd.h>

static void send_reports(void)
{
    if (UNLIKELY(shim_records_stacks) && !shim_is_other_process() && !shim_on_signal_stack())
        outstanding_report();
}

EXPORT void _exit(int status)
{
    send_reports();
    REAL(_exit)(status);
    __builtin_unreachable();
}

EXPORT void _Exit(int status)
{
    send_reports();
    REAL(_Exit)(status);
    __builtin_unreachable();
}

EXPORT void abort(void)
{
    send_reports();
    REAL(abort)();
    __builtin_unreachable();
}

/* The C library's function calls its own abort. */
EXPORT void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
    send_reports();
    REAL(__assert_fail)(assertion, file, line, function);
    __builtin_unreachable();
}

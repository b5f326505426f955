/*
 * Ends of a program that bypass atexit(3), for `userdma check`: _exit, _Exit, abort, failed assertions and exec. Kept
 * reports (reports.c) are sent first. _exit, _Exit and exec also report the end. Signals: crashes.c.
 *
 * _exit and abort may be called in a signal handler that has interrupted a holder of a lock. Signals are blocked while
 * the session's lock is held, and requests_lock() gives up after some attempts.
 *
 * Nothing is sent on an alternate signal stack, which may be too small, nor in a vfork child: the kept reports are its
 * parent's, whose memory it shares.
 */
#define _GNU_SOURCE
#include "../recorder/batches.h"
#include "../recorder/orders.h"
#include "requests.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void send_reports(void)
{
    if (UNLIKELY(recorder_is_on) && !shim_is_other_process() && !shim_on_signal_stack())
        reports_send_kept();
}

static void report_end(void)
{
    if (UNLIKELY(recorder_is_on) && !shim_is_other_process() && !shim_on_signal_stack()) {
        batches_exiting();
        polls_exiting();
    }
    send_reports();
    if (UNLIKELY(recorder_is_on) && !shim_is_other_process() && !shim_on_signal_stack())
        message_send(-1, USERDMA_END, 0, NULL, 0, false);
}

/* shim/frees/frees.c calls it before exec. */
EXPORT void userdma_ends(void)
{
    report_end();
}

EXPORT void _exit(int status)
{
    report_end();
    REAL(_exit)(status);
    __builtin_unreachable();
}

EXPORT void _Exit(int status)
{
    report_end();
    REAL(_Exit)(status);
    __builtin_unreachable();
}

EXPORT void abort(void)
{
    send_reports();
    REAL(abort)();
    __builtin_unreachable();
}

/* The C library's function does not call the abort above. */
EXPORT void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
    send_reports();
    REAL(__assert_fail)(assertion, file, line, function);
    __builtin_unreachable();
}

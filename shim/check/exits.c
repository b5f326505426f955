/*
 * _exit and _Exit, which end the process without the functions of atexit(3), for `userdma check`: reports that were
 * kept inside free() (reports.c) are sent before.
 *
 * _exit is also called in handlers of signals, which may interrupt a holder of a lock: signals are blocked while the
 * session's lock is held (session.c), and requests_lock() gives up after a number of attempts. Without a kept report
 * nothing is done. A child of vfork has its parent's memory, and must not send the parent's reports.
 */
#define _GNU_SOURCE
#include "../shim.h"
#include "outstanding.h"

#include <stdlib.h>
#include <unistd.h>

static void send_reports(void)
{
    if (UNLIKELY(shim_records_stacks) && !shim_is_other_process())
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

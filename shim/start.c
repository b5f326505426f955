/*
 * The start of each part of the shim, at the end of shim_init (loading/init.c).
 */
#define _GNU_SOURCE
#include "check/check.h"
#include "files/files.h"

void start_parts(void)
{
    valgrind_detect();
    messages_detect();
    crashes_detect();
    events_detect();
    if (shim_is_active)
        path_folder_changed();
    shim_pid = getpid(); /* other threads compare it as soon as the shim is ready */
}

void start_own_process(void)
{
    session_own_process();
    received_at_start();
}

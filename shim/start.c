/*
 * The start of each part of the shim, at the end of shim_init (loading/init.c).
 */
#define _GNU_SOURCE
#include "check/check.h"
#include "recorder/verbs.h"
#include "files/files.h"

void start_parts(void)
{
    sanitizers_detect();
    messages_detect();
    verbs_tells_completions = sanitizers_valgrind;
    requests_are_noted = recorder_is_on || (sanitizers_watch && shim_is_active);
    if (sanitizers_watch && recorder_is_on)
        told_detect();
    if (recorder_is_on)
        session_no_descriptor = check_no_descriptor;
    crashes_detect();
    events_detect();
    ranges_detect();
    if (shim_is_active) {
        path_folder_changed();
        paths_show_machine();
    }
    shim_pid = getpid(); /* other threads compare it as soon as the shim is ready */
}

void start_own_process(void)
{
    session_own_process();
    received_at_start();
}

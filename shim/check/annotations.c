/*
 * The functions of shim/include/userdma_check.h, by which a program tells `userdma check --races` what userdma does not see.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "../session/session_internal.h"

EXPORT void userdma_check_benign_race(volatile void *address, size_t length);
EXPORT void userdma_check_happens_after(void);

void userdma_check_benign_race(volatile void *address, size_t length)
{
    struct shim_guard guard;
    const int saved = errno;
    if (!shim_is_ready())
        shim_init();
    if (shim_logs_events && session_enter(&guard)) {
        const struct userdma_range range = {.address = (uintptr_t)address, .length = length};
        struct request request = {.header = {.type = USERDMA_BENIGN, .fd = -1}};
        memcpy((char *)&request + sizeof request.header, &range, sizeof range);
        struct reply reply;
        if (session_ensure_connected(&guard, false) && session_exchange(&request, sizeof range, &reply, &guard) == 0)
            reply_close_all(&reply);
        session_leave(&guard);
    }
    errno = saved;
}

void userdma_check_happens_after(void)
{
    if (shim_logs_events)
        events_waited();
}

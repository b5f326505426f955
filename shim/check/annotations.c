/*
 * The functions of shim/include/userdma_check.h, by which a program tells `userdma check --races` what userdma does not
 * see.
 */
#define _GNU_SOURCE
#include "noted.h"

#include <errno.h>

EXPORT void userdma_check_benign_race(volatile void *address, size_t length);
EXPORT void userdma_check_happens_after(void);

void userdma_check_benign_race(volatile void *address, size_t length)
{
    const struct userdma_range range = {.address = (uintptr_t)address, .length = length};
    const int saved = errno;
    if (!shim_is_ready())
        shim_init();
    if (shim_logs_events)
        message_send(-1, USERDMA_BENIGN, 0, &range, sizeof range, true);
    errno = saved;
}

void userdma_check_happens_after(void)
{
    if (shim_logs_events)
        events_waited();
}

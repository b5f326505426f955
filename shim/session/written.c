/*
 * Sanitizers see only the program's own writes. So valgrind's memcheck is told which bytes the daemon has written:
 * after each call, and after each poll that finds a completion. Memory that peers may write without a notification
 * counts as written when it is registered.
 */
#define _GNU_SOURCE
#include "../recorder/verbs.h"
#include "requests.h"

#include <errno.h>

void session_tell_written(const struct shim_guard *guard)
{
    /* After a reply with the maximum number of ranges there may be more. */
    for (uint64_t count = USERDMA_MESSAGE_RANGES; count == USERDMA_MESSAGE_RANGES;) {
        struct request request = {.header = {.type = USERDMA_WRITTEN, .fd = -1}};
        struct reply reply;
        if (!session_is_connected() || session_exchange(&request, 0, &reply, guard) != 0)
            return;
        reply_close_all(&reply);
        count = reply.body < sizeof reply.message.call ? 0 : (uint64_t)reply.message.call.ret;
        if (count > USERDMA_MESSAGE_RANGES ||
            reply.body < sizeof reply.message.call + count * sizeof reply.message.ranges[0])
            return;
        const struct userdma_written_range *const end = reply.message.ranges + count;
        for (const struct userdma_written_range *range = reply.message.ranges; range < end; range++)
            sanitizers_written((uintptr_t)range->address, range->length, range->is_peers);
    }
}

/* After a poll. */
void provider_completed(void)
{
    struct shim_guard guard;
    int saved = errno;
    if (!shim_is_other_process() && session_enter(&guard)) {
        session_tell_written(&guard);
        session_leave(&guard);
    }
    errno = saved;
}

/*
 * valgrind's memcheck sees only the program's own writes. So the shim tells memcheck which bytes the daemon has
 * written: after each call, and after each poll that finds a completion. Memory that peers may write without a
 * notification counts as written when it is registered. Without valgrind's headers at build time, this file does
 * nothing.
 */
#define _GNU_SOURCE
#include "../recorder/verbs.h"
#include "requests.h"

#include <errno.h>

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define HAVE_MEMCHECK
#endif
#endif

bool shim_under_valgrind;

#ifdef HAVE_MEMCHECK
void valgrind_detect(void)
{
    shim_under_valgrind = verbs_tells_completions = RUNNING_ON_VALGRIND != 0;
}

void valgrind_mark_locked(const struct shim_guard *guard)
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
        for (const struct userdma_range *range = reply.message.ranges; range < reply.message.ranges + count; range++)
            VALGRIND_MAKE_MEM_DEFINED_IF_ADDRESSABLE(range->address, range->length);
    }
}
#else
void valgrind_detect(void)
{
}

void valgrind_mark_locked(const struct shim_guard *guard)
{
    (void)guard;
}
#endif

/* After a poll. */
void provider_completed(void)
{
    struct shim_guard guard;
    int saved = errno;
    if (!shim_is_other_process() && session_enter(&guard)) {
        valgrind_mark_locked(&guard);
        session_leave(&guard);
    }
    errno = saved;
}

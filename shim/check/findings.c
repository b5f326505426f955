/*
 * The function behind userdma_finding of shim/include/userdma.h, by which a test learns what `userdma check` has found.
 */
#define _GNU_SOURCE
#include "../session/requests.h"

#include <errno.h>
#include <stdio.h>

EXPORT long userdma_check_finding(unsigned number, char *id, size_t id_size, char *text, size_t size);

long userdma_check_finding(unsigned number, char *id, size_t id_size, char *text, size_t size)
{
    const int saved = errno;
    struct request request = {.header = {.type = USERDMA_FINDINGS, .fd = -1}, .findings = {.from = number, .fresh = 1}};
    struct shim_guard guard;
    struct reply reply;
    long count = -ENOSYS;
    if (!shim_is_ready())
        shim_init();
    if (!shim_is_active || !session_enter(&guard))
        return count;
    if (session_ensure_connected(&guard, false) &&
        session_exchange(&request, sizeof request.findings, &reply, &guard) == 0) {
        const struct userdma_finding_reply *finding = &reply.message.finding;
        count = (long)finding->ret;
        if (id_size > 0)
            snprintf(id, id_size, "%s", finding->finding_id);
        if (size > 0)
            snprintf(text, size, "%s%s%s: %s", finding->severity, *finding->severity ? " " : "", finding->finding_id,
                     finding->sentence);
        reply_close_all(&reply);
    }
    session_leave(&guard);
    errno = saved;
    return count;
}

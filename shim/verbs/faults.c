/*
 * Posts that fault rules refuse (`--fault post=ENOMEM`). While such rules exist, the daemon has set a word of the
 * parked page, and each request is announced to it (message POST) before the provider gets it. A list is posted up to
 * the refused request, as a provider does that finds its queue full.
 */
#define _GNU_SOURCE
#include "../check/check.h"

#include <errno.h>
#include <infiniband/verbs.h>

#include "verbs_ops.h"

bool posts_may_fail(void)
{
    const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
    return page && page[USERDMA_PARKED_PAGE_POSTS] != 0;
}

uint32_t length_of(const struct ibv_sge *list, int count)
{
    uint64_t length = 0;
    for (int i = 0; i < count; i++)
        length += list[i].length;
    return length < USERDMA_UNKNOWN_LENGTH ? (uint32_t)length : USERDMA_UNKNOWN_LENGTH - 1;
}

int fault_of(int fd, struct userdma_posting posting)
{
    const uint32_t stack = recorder_is_on ? stack_here() : 0;
    const int64_t answer = message_send(fd, USERDMA_POST, stack, &posting, sizeof posting, true);
    return answer < 0 && answer >= -4095 ? (int)-answer : 0;
}

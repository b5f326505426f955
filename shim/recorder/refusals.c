/*
 * Which of a thread's calls a library has refused itself (refusals.h).
 */
#define _GNU_SOURCE
#include "refusals.h"

#include <errno.h>
#include <string.h>

#include "objects.h"

TLS uint32_t refusals_of_device;

/* The innermost call of this thread's calls that has failed with `refusal.error`; 0: none. `fd`: of its context. */
static TLS struct {
    int fd;
    struct userdma_refused_by_library refusal;
} innermost;

/* Errors that say nothing about the call: the program tries again, or the system lacks resources. */
static bool is_of_moment(int error)
{
    return error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT || error == ENOSYS ||
           error == EIO;
}

/* The calls of this thread, the innermost one. */
static TLS const struct object_call *current;

bool calls_are_running(void)
{
    return current != NULL;
}

void refusals_enter(struct object_call *call)
{
    /* A call that was left by siglongjmp is not above this one on the stack. */
    call->caller = (uintptr_t)current > (uintptr_t)call ? current : NULL;
    call->refused_before = refusals_of_device;
    current = call;
    if (!call->caller)
        innermost.refusal.error = 0;
}

/* The object in the message, and the descriptor of its context. */
static uint64_t name_of(struct object_use use, int *fd)
{
    const struct ibv_context *context = NULL;
    if (use.kind == USERDMA_OBJECT_CONTEXT)
        context = use.object;
    else if (use.object && use.kind != USERDMA_OBJECT_CM_ID)
        context = object_context(use);
    *fd = context ? context->cmd_fd : -1;
    if (use.kind == USERDMA_OBJECT_CM_ID)
        return (uintptr_t)use.object;
    if (use.kind == USERDMA_OBJECT_CHANNEL)
        return (uint64_t)((const struct ibv_comp_channel *)use.object)->fd;
    return object_number(use);
}

void refusals_leave(const struct object_call *call, int error, const uint64_t *facts)
{
    current = call->caller;
    if (LIKELY(error == 0)) {
        innermost.refusal.error = 0; /* the library has gone on after a failed call */
        return;
    }
    const int saved = errno;
    if (is_of_moment(error)) {
        innermost.refusal.error = 0;
    } else if (innermost.refusal.error != (uint32_t)error) {
        struct userdma_refused_by_library refusal = {.error = (uint32_t)error};
        if (call->object.object)
            refusal.object = name_of(call->object, &innermost.fd);
        else
            innermost.fd = -1;
        if (facts) {
            refusal.fact0 = facts[0];
            refusal.fact1 = facts[1];
            refusal.fact2 = facts[2];
            refusal.fact3 = facts[3];
        }
        strncpy(refusal.function, call->function, sizeof refusal.function - 1);
        innermost.refusal = refusal;
    } else if (strncmp(innermost.refusal.function, call->function, strlen(call->function)) == 0) {
        /*
         * rdma_create_qp calls rdma_create_qp_ex, and ibv_reg_mr ibv_reg_mr_iova2: the program knows the shorter one.
         */
        memset(innermost.refusal.function, 0, sizeof innermost.refusal.function);
        strncpy(innermost.refusal.function, call->function, sizeof innermost.refusal.function - 1);
    }
    if (!call->caller && innermost.refusal.error != 0 && call->refused_before == refusals_of_device)
        note_refusal(innermost.fd, &innermost.refusal);
    errno = saved;
}

unsigned grh_version(const struct ibv_wc *wc, const struct ibv_grh *grh)
{
    const uint8_t *bytes = (const uint8_t *)grh;
    if (!grh || !(wc->wc_flags & IBV_WC_GRH))
        return 0;
    return bytes[0] >> 4 == 6 || bytes[20] >> 4 != 4 ? bytes[0] >> 4 : 4;
}

bool grh_is_multicast(const struct ibv_wc *wc, const struct ibv_grh *grh)
{
    const unsigned version = grh_version(wc, grh);
    return version == 4 ? ((const uint8_t *)grh)[36] >> 4 == 14 : version == 6 && grh->dgid.raw[0] == 0xff;
}

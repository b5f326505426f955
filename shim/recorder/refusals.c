/*
 * Which of a thread's calls a library has refused itself (refusals.h).
 */
#define _GNU_SOURCE
#include "refusals.h"

#include <string.h>

TLS uint32_t refusals_of_device;

/* Of the calls that this thread makes now. */
static TLS struct {
    uint32_t depth;
    /* refusals_of_device when the outermost began. */
    uint32_t device_before;
    /* The context of the innermost call that has failed with `refusal.error`. */
    int fd;
    struct userdma_refusal refusal;
} calls;

/* Errors that say nothing about the call: the program tries again, or the system lacks resources. */
static bool is_of_moment(int error)
{
    return error == EAGAIN || error == EINTR || error == EINPROGRESS || error == ETIMEDOUT || error == ENOSYS ||
           error == EIO;
}

void refusal_begin(void)
{
    if (calls.depth++ > 0)
        return;
    calls.device_before = refusals_of_device;
    calls.refusal.error = 0;
}

void refusal_end(const char *function, int error, int fd, uint64_t object, const uint64_t facts[4])
{
    const int saved = errno;
    if (error == 0 || is_of_moment(error)) {
        calls.refusal.error = 0; /* the library has gone on after a failed call */
    } else if (calls.refusal.error != (uint32_t)error) {
        calls.fd = fd;
        calls.refusal = (struct userdma_refusal){.object = object,
                                                 .fact0 = facts[0],
                                                 .fact1 = facts[1],
                                                 .fact2 = facts[2],
                                                 .fact3 = facts[3],
                                                 .error = (uint32_t)error};
        strncpy(calls.refusal.function, function, sizeof calls.refusal.function - 1);
    }
    if (--calls.depth == 0 && calls.refusal.error != 0 && calls.device_before == refusals_of_device)
        note_refusal(calls.fd, &calls.refusal);
    errno = saved;
}

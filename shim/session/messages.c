/*
 * Messages to the daemon about what the program does, without a system call of the program.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <string.h>

bool shim_logs_events;
bool shim_finds_races;

int64_t message_send(int fd, uint32_t type, uint32_t stack, const void *body, size_t size, bool connects)
{
    struct shim_guard guard;
    const int saved = errno;
    int64_t answer = 0;
    if (session_enter(&guard)) {
        const bool is_of_context = fd_kind(fd) == FD_CONTEXT;
        struct request request = {.header = {.type = type, .fd = fd, .stack = stack}};
        struct reply reply;
        if ((fd < 0 || is_of_context) &&
            (!connects       ? session_is_connected()
             : is_of_context ? session_prepare(fd, &guard) == 0
                             : session_ensure_connected(&guard, false))) {
            request.header.context = is_of_context ? fd_lookup(fd)->context : 0;
            if (size > 0)
                memcpy((char *)&request + sizeof request.header, body, size);
            if (session_exchange(&request, size, &reply, &guard) == 0) {
                answer = reply.message.call.ret;
                reply_close_all(&reply);
            }
        }
        session_leave(&guard);
    }
    errno = saved;
    return answer;
}

/*
 * One request to the daemon and its reply (protocol.h), in the call slot (slot.c) or by messages. Most replies arrive
 * within microseconds, so the thread polls before it sleeps. After UNBLOCK_SECONDS without an answer, the thread waits
 * without the lock (detached.c).
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

/* Nanoseconds that HELLO waits after UNBLOCK_SECONDS. Other requests have no limit. */
#define HELLO_NS 8000000000u
/* Nanoseconds of polling for an answer before sleeping. */
#define SPIN_NS 50000
/* A sched_yield of more than LONG_YIELD_NS: a program competes for the processor. Then no polling for NO_SPIN_NS. */
#define LONG_YIELD_NS 500000
#define NO_SPIN_NS 20000000

void reply_close_all(struct reply *reply)
{
    while (reply->fd_count > 0)
        REAL(close)(reply->fds[--reply->fd_count]);
}

/* Looks for an answer. True: there is one, or an error. */
typedef bool looks(void *state);

/* Looks for at most SPIN_NS, and yields in between: the daemon may need our processor. False: nothing has come. */
static bool spin(looks *look, void *state)
{
    static uint64_t no_spin_before; /* protected by the lock */
    const uint64_t begin = shim_nanoseconds();
    for (uint64_t now = begin;;) {
        if (look(state))
            return true;
        if (now < no_spin_before || now - begin >= SPIN_NS)
            return false;
        sched_yield();
        const uint64_t after = shim_nanoseconds();
        if (after - now > LONG_YIELD_NS)
            no_spin_before = after + NO_SPIN_NS;
        now = after;
    }
}

struct receiving {
    int fd;
    struct msghdr *header;
    ssize_t length;
};

static bool look_at_socket(void *state)
{
    struct receiving *receiving = state;
    receiving->length = REAL(recvmsg)(receiving->fd, receiving->header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    return receiving->length >= 0 || errno != EAGAIN;
}

static bool look_at_slot(void *state)
{
    (void)state;
    return slot_answer() != USERDMA_ANSWER_NONE;
}

/*
 * Receives one message into `reply`. Returns the length, 0 at the end of the stream, or -1 with errno: EAGAIN if
 * nothing has arrived after polling, with `may_wait` after UNBLOCK_SECONDS (SO_RCVTIMEO).
 */
static ssize_t receive(int fd, struct reply *reply, bool may_wait)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof reply->fds)];
    } control;
    struct iovec iov = {.iov_base = &reply->message, .iov_len = sizeof reply->message};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct receiving receiving = {.fd = fd, .header = &header};
    spin(look_at_socket, &receiving);
    ssize_t length = receiving.length;
    if (length < 0 && errno == EAGAIN && may_wait)
        do
            length = REAL(recvmsg)(fd, &header, MSG_CMSG_CLOEXEC);
        while (length < 0 && errno == EINTR);
    reply->is_truncated = false;
    if (length < 0)
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        reply->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(reply->fds, CMSG_DATA(c), reply->fd_count * sizeof(int));
        for (unsigned i = 0; i < reply->fd_count; i++)
            fd_opened(reply->fds[i]);
    }
    reply->is_truncated = (header.msg_flags & MSG_CTRUNC) != 0;
    return length;
}

/* Closes the connection `fd` of a detached call, unless the session has it again. */
static void close_if_detached(int fd)
{
    if (fd == session.fd || fd < 0)
        return;
    fd_forget_hidden(fd);
    REAL(close)(fd);
}

/* Closes the connection `fd`: the session's, or a detached call's. */
static void close_connection(int fd)
{
    if (fd >= 0 && fd == session.fd)
        session_disconnect();
    else
        close_if_detached(fd);
}

/* Sends `size` bytes of a request, and the descriptor `attached` unless it is -1. Result: see send(2). */
static ssize_t send_request(int fd, const struct request *request, size_t size, int attached)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof attached)];
    } control = {.align = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof attached)}};
    struct iovec iov = {.iov_base = (void *)request, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (attached >= 0) {
        memcpy(CMSG_DATA(&control.align), &attached, sizeof attached);
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof control.bytes;
    }
    return REAL(sendmsg)(fd, &header, MSG_NOSIGNAL);
}

/* As send_request, again after a signal or a full backlog. */
static bool send_all(int fd, const struct request *request, size_t size, int attached)
{
    ssize_t length;
    do
        length = send_request(fd, request, size, attached);
    while (length < 0 && (errno == EINTR || errno == EAGAIN));
    if (attached >= 0)
        REAL(close)(attached);
    return length >= 0;
}

/* Asks in the slot if possible, else by a message. False if the connection has ended. */
static bool ask(int fd, const struct request *request, int attached, bool *is_in_slot)
{
    *is_in_slot = attached < 0 && request->header.type != USERDMA_HELLO && slot_ask(request);
    if (!*is_in_slot)
        return send_all(fd, request, request->header.size, attached);
    if (!slot_needs_call())
        return true;
    const struct request call = {.header = {.type = USERDMA_CALL, .size = sizeof call.header, .fd = -1}};
    return send_all(fd, &call, sizeof call.header, -1);
}

/* Result: see `receive`. The reply comes by the socket if it has descriptors, or comes late. */
static ssize_t receive_in_slot(int fd, struct reply *reply)
{
    spin(look_at_slot, NULL);
    if (!slot_await_socket()) {
        reply->is_truncated = false;
        return slot_read(reply);
    }
    session_check_socket();
    if (session.fd != fd)
        return 0;
    const ssize_t length = receive(fd, reply, true);
    return length > 0 && !slot_take_outputs(session.slot) ? 0 : length;
}

int session_exchange_with(struct request *request, size_t body, int attached, struct reply *reply,
                          const struct shim_guard *guard)
{
    struct userdma_header *header = &request->header;
    int fd = session.fd;
    sanitizers_tells();
    if (session_thread_id == 0)
        session_thread_id = (pid_t)early_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
    header->size = sizeof *header + body;
    if (++session.serial == 0)
        session.serial = 1;
    header->serial = session.serial;
    header->pid = shim_pid;
    header->tid = session_thread_id;
    reply->generation = session.generation;
    reply->fd_count = 0;
    bool is_in_slot;
    ssize_t length = 0;
    if (ask(fd, request, attached, &is_in_slot))
        length = is_in_slot ? receive_in_slot(fd, reply) : receive(fd, reply, true);
    sanitizers_hears(); /* the call may have ended what peers may do */
    if (is_in_slot && session.fd != fd)
        return -EIO; /* the program has closed the socket: the number may be another file's */
    if (length == 0)
        goto broken;
    /* Of a connection that is no longer the session's. */
    char *own_slot = NULL;
    const uint64_t deadline = header->type == USERDMA_HELLO ? shim_nanoseconds() + HELLO_NS : UINT64_MAX;
    while (length < 0 && errno == EAGAIN) {
        const bool is_in_time = detached_wait(&fd, &own_slot, guard, deadline);
        if (!is_in_time) {
            slot_unmap(&own_slot);
            close_connection(fd);
            return -ETIMEDOUT;
        }
        length = receive(fd, reply, false);
        const char *slot = own_slot || session.fd != fd ? own_slot : session.slot;
        if (is_in_slot && length > 0 && slot && !slot_take_outputs(slot))
            length = 0;
    }
    slot_unmap(&own_slot);
    if (length < (ssize_t)sizeof reply->message.header || reply->message.header.serial != header->serial)
        goto broken;
    if (reply->message.header.type != (USERDMA_REPLY | header->type) || reply->message.header.size != (size_t)length)
        goto broken;
    /* Several threads may wait for the reply to HELLO: the first answered connection is the session's. */
    if (header->type == USERDMA_HELLO && session.fd < 0) {
        session_take_socket(fd);
        reply->generation = session.generation;
    }
    close_if_detached(fd);
    if (reply->is_truncated) {
        reply_close_all(reply);
        /* A connection without the reply to HELLO is useless. */
        if (header->type == USERDMA_HELLO && fd == session.fd)
            session_disconnect();
        return -EMFILE;
    }
    reply->body = length - sizeof reply->message.header;
    return 0;
broken:
    reply_close_all(reply);
    close_connection(fd);
    return -EIO;
}

int session_exchange(struct request *request, size_t body, struct reply *reply, const struct shim_guard *guard)
{
    return session_exchange_with(request, body, -1, reply, guard);
}

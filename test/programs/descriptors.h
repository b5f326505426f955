/*
 * Passes descriptors from one process to another over a socket (SCM_RIGHTS).
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <sys/socket.h>

#include "endpoint.h"

#define MAX_PASSED 4

/* A message of one byte, with space for descriptors. Its pointers point into itself: it must not be copied. */
struct descriptor_message {
    char byte;
    struct iovec iov;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_PASSED * sizeof(int))];
    } control;
    struct msghdr message;
};

static void prepare_message(struct descriptor_message *space, size_t count)
{
    NEED(count <= MAX_PASSED, "%zu descriptors: at most %d can be passed", count, MAX_PASSED);
    memset(space, 0, sizeof *space);
    space->iov = (struct iovec){&space->byte, 1};
    space->message = (struct msghdr){
        .msg_iov = &space->iov,
        .msg_iovlen = 1,
        .msg_control = space->control.bytes,
        .msg_controllen = CMSG_SPACE(count * sizeof(int)),
    };
}

static void send_fds(int socket, const int *fds, size_t count)
{
    struct descriptor_message space;
    prepare_message(&space, count);
    space.control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&space.control.header), fds, count * sizeof(int));
    NEED(sendmsg(socket, &space.message, 0) == 1, "sendmsg: %s", strerror(errno));
}

static void receive_fds(int socket, int *fds, size_t count)
{
    struct descriptor_message space;
    prepare_message(&space, count);
    NEED(recvmsg(socket, &space.message, 0) == 1, "recvmsg: %s", strerror(errno));
    const struct cmsghdr *header = CMSG_FIRSTHDR(&space.message);
    NEED(header && header->cmsg_len == CMSG_LEN(count * sizeof(int)), "a message without %zu descriptors", count);
    memcpy(fds, CMSG_DATA(header), count * sizeof(int));
}

#endif

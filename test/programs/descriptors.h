/*
 * Passes descriptors from one program to another over a socket (SCM_RIGHTS).
 */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <sys/socket.h>

#include "endpoint.h"

#define MAX_PASSED 4

/* Sends `count` descriptors, at most MAX_PASSED, in one message; or receives as many. */
static void pass(int socket, int *fds, int count, bool receive)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(MAX_PASSED * sizeof(int))];
    } control = {0};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(count * sizeof(int)),
    };
    if (receive) {
        NEED(recvmsg(socket, &message, 0) == 1, "recvmsg: %s", strerror(errno));
        memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), count * sizeof(int));
        return;
    }
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    NEED(sendmsg(socket, &message, 0) == 1, "sendmsg: %s", strerror(errno));
}

#endif

/*
 * Messages that programs read or send: events of a context, management datagrams, and messages of NETLINK_RDMA sockets.
 * They are recorded when the call has returned: then the kernel has read or written their memory. A read that finds no
 * message is not recorded.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void add_vector(struct ranges *ranges, const struct iovec *vector, size_t count, ssize_t length, uint32_t direction)
{
    for (size_t i = 0; i < count && length > 0; i++) {
        const size_t part = vector[i].iov_len < (size_t)length ? vector[i].iov_len : (size_t)length;
        add_range(ranges, (uintptr_t)vector[i].iov_base, part, direction);
        length -= (ssize_t)part;
    }
}

/* ---- reads ---- */

/*
 * What a read or receive on the descriptor is to be recorded as; 0: not. An event costs no further call of the system.
 */
static uint32_t kind_for_read(int fd)
{
    const uint32_t kind = kind_of(fd);
    if (LIKELY(kind < USERDMA_FILE_MAD))
        return 0;
    return kind == USERDMA_FILE_COMPLETIONS || kind == USERDMA_FILE_ASYNC ? kind : kind_for_call(fd);
}

/* `entry`: USERDMA_ENTRY_READ or _SEND. `count` 0: of an invalid vector. */
static ssize_t note_message(uint32_t entry, int fd, uint32_t kind, uint64_t started, const struct iovec *vector,
                            size_t count, ssize_t result)
{
    const int saved = errno;
    const bool is_read = entry == USERDMA_ENTRY_READ;
    if (result < 0 && is_read && (saved == EAGAIN || saved == EINTR))
        return result;
    if (result < 0 && saved == EFAULT)
        count = 0;
    const struct userdma_call_record facts = {.request = count > 0 ? vector[0].iov_len : 0,
                                              .argument = count > 0 ? (uintptr_t)vector[0].iov_base : 0,
                                              .result = result < 0 ? -saved : result,
                                              .started = started,
                                              .fd = fd,
                                              .entry = entry,
                                              .file_kind = kind};
    struct ranges ranges = {0};
    if (is_read)
        add_vector(&ranges, vector, count, result, USERDMA_RANGE_OUT);
    else
        add_vector(&ranges, vector, count, SSIZE_MAX, USERDMA_RANGE_IN);
    record_call(USERDMA_RECORD_RETURN, &facts, &ranges);
    recorded_calls++;
    errno = saved;
    return result;
}

#define READ(fd, buffer, count, call)                                                                                  \
    ({                                                                                                                 \
        const uint32_t kind = kind_for_read(fd);                                                                       \
        if (LIKELY(kind == 0))                                                                                         \
            return call;                                                                                               \
        const uint64_t started = record_time();                                                                        \
        const ssize_t result = call;                                                                                   \
        note_message(USERDMA_ENTRY_READ, fd, kind, started, &(struct iovec){buffer, count}, 1, result);                \
    })

ssize_t __read_chk(int fd, void *buffer, size_t count, size_t size);
ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t size, int flags, struct sockaddr *from,
                       socklen_t *length);

EXPORT ssize_t read(int fd, void *buffer, size_t count)
{
    return READ(fd, buffer, count, NEXT(read)(fd, buffer, count));
}

EXPORT ssize_t __read_chk(int fd, void *buffer, size_t count, size_t size)
{
    return READ(fd, buffer, count, NEXT(__read_chk)(fd, buffer, count, size));
}

/* A message that is only looked at is not recorded. */
#define RECEIVE(fd, buffer, count, flags, call)                                                                        \
    ({                                                                                                                 \
        if (flags & MSG_PEEK)                                                                                          \
            return call;                                                                                               \
        READ(fd, buffer, count, call);                                                                                 \
    })

EXPORT ssize_t recv(int fd, void *buffer, size_t count, int flags)
{
    return RECEIVE(fd, buffer, count, flags, NEXT(recv)(fd, buffer, count, flags));
}

EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t size, int flags)
{
    return RECEIVE(fd, buffer, count, flags, NEXT(__recv_chk)(fd, buffer, count, size, flags));
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from, socklen_t *length)
{
    return RECEIVE(fd, buffer, count, flags, NEXT(recvfrom)(fd, buffer, count, flags, from, length));
}

EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t size, int flags, struct sockaddr *from,
                              socklen_t *length)
{
    return RECEIVE(fd, buffer, count, flags, NEXT(__recvfrom_chk)(fd, buffer, count, size, flags, from, length));
}

/* Calls `each` with the descriptors that a message carries. */
static void for_descriptors(const struct msghdr *message, void (*each)(int fd))
{
    struct msghdr copy = *message;
    if (LIKELY(copy.msg_controllen == 0 || !copy.msg_control))
        return;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&copy); part; part = CMSG_NXTHDR(&copy, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(0))
            continue;
        for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
            each(fd);
        }
    }
}

static void received(int fd)
{
    descriptor_received(fd, USERDMA_RECORD_RECEIVED);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    const uint32_t kind = flags & MSG_PEEK ? 0 : kind_for_read(fd);
    const uint64_t started = kind == 0 ? 0 : record_time();
    const ssize_t result = NEXT(recvmsg)(fd, message, flags);
    if (result >= 0 && recorder_is_on)
        for_descriptors(message, received);
    if (kind == 0)
        return result;
    const bool is_valid = result >= 0;
    return note_message(USERDMA_ENTRY_READ, fd, kind, started, is_valid ? message->msg_iov : NULL,
                        is_valid ? message->msg_iovlen : 0, result);
}

/* ---- sends ---- */

#define SEND(fd, buffer, count, call)                                                                                  \
    ({                                                                                                                 \
        const uint32_t kind = LIKELY(kind_of(fd) != USERDMA_FILE_NETLINK) ? 0 : kind_for_call(fd);                     \
        if (LIKELY(kind == 0))                                                                                         \
            return call;                                                                                               \
        const uint64_t started = record_time();                                                                        \
        const ssize_t result = call;                                                                                   \
        note_message(USERDMA_ENTRY_SEND, fd, kind, started, &(struct iovec){(void *)buffer, count}, 1, result);        \
    })

EXPORT ssize_t send(int fd, const void *buffer, size_t count, int flags)
{
    return SEND(fd, buffer, count, NEXT(send)(fd, buffer, count, flags));
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t count, int flags, const struct sockaddr *to, socklen_t length)
{
    return SEND(fd, buffer, count, NEXT(sendto)(fd, buffer, count, flags, to, length));
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    const uint32_t kind = LIKELY(kind_of(fd) != USERDMA_FILE_NETLINK) ? 0 : kind_for_call(fd);
    const uint64_t started = kind == 0 ? 0 : record_time();
    const ssize_t result = NEXT(sendmsg)(fd, message, flags);
    const bool is_valid = result >= 0 || (kind != 0 && errno != EFAULT);
    if (is_valid && recorder_is_on)
        for_descriptors(message, descriptor_passed);
    if (kind == 0)
        return result;
    return note_message(USERDMA_ENTRY_SEND, fd, kind, started, is_valid ? message->msg_iov : NULL,
                        is_valid ? message->msg_iovlen : 0, result);
}

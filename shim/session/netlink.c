/*
 * NETLINK_RDMA sockets. The daemon answers instead of the kernel.
 *
 * The program gets one end of a socket pair. Each message on it is a netlink datagram. So the kernel does receiving,
 * poll, duplicates, fork and passing. The daemon keeps port, groups and options. Sending is a request to the daemon: as
 * on Linux, the answer is available when the call returns.
 */
#define _GNU_SOURCE
#include "parts.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
#ifndef NETLINK_RDMA
#define NETLINK_RDMA 20
#endif

/* Maximum bytes of a datagram in several buffers, which are copied. A datagram in one buffer may be longer. */
#define MAX_GATHERED_BYTES 16384

static int fail(int error)
{
    errno = error;
    return -1;
}

void (*session_no_descriptor)(void);

static bool is_netlink(int fd)
{
    if (UNLIKELY(fd < 0) && session_no_descriptor)
        session_no_descriptor();
    return UNLIKELY(fd_kind(fd) == FD_NETLINK);
}

/* Requests an operation, USERDMA_NETLINK_…. Result: that of a system call. */
static long request(int fd, uint32_t operation, uint32_t extra, uint64_t argument)
{
    return session_call(fd, USERDMA_NETLINK, operation | (uint64_t)extra << 32, argument);
}

int netlink_open(int type)
{
    const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (kind != SOCK_RAW && kind != SOCK_DGRAM)
        return fail(ESOCKTNOSUPPORT);
    const int fd = session_netlink((unsigned)kind);
    if (fd < 0)
        return fail(errno == ENOENT ? EPROTONOSUPPORT : errno);
    if (!(type & SOCK_CLOEXEC))
        REAL(fcntl)(fd, F_SETFD, 0);
    if (type & SOCK_NONBLOCK)
        REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) | O_NONBLOCK);
    if (fd_add_event(fd, FD_NETLINK) == 0)
        return fd;
    const int error = errno;
    REAL(close)(fd);
    return fail(error);
}

/* ---- sending ---- */

/* 0 if the destination is the kernel, the only receiver; else -1 with errno. */
static int check_destination(const struct sockaddr *destination, socklen_t length)
{
    struct sockaddr_nl address;
    if (!destination || length == 0)
        return 0;
    if (length < sizeof address)
        return fail(EINVAL);
    memcpy(&address, destination, sizeof address);
    if (address.nl_family != AF_NETLINK)
        return fail(EINVAL);
    if (address.nl_groups)
        return fail(EPERM);
    return address.nl_pid ? fail(ECONNREFUSED) : 0;
}

ssize_t netlink_write(int fd, const void *buffer, size_t count)
{
    if (count == 0)
        return fail(ENODATA);
    return count > INT32_MAX ? fail(EMSGSIZE) : request(fd, USERDMA_NETLINK_SEND, (uint32_t)count, (uintptr_t)buffer);
}

ssize_t netlink_writev(int fd, const struct iovec *vector, size_t count)
{
    char gathered[MAX_GATHERED_BYTES];
    size_t length = 0;
    if (count == 1)
        return netlink_write(fd, vector->iov_base, vector->iov_len);
    for (size_t i = 0; i < count; i++) {
        if (vector[i].iov_len > sizeof gathered - length)
            return fail(EMSGSIZE);
        memcpy(gathered + length, vector[i].iov_base, vector[i].iov_len);
        length += vector[i].iov_len;
    }
    return netlink_write(fd, gathered, length);
}

static ssize_t send_message(int fd, const struct msghdr *message, int flags)
{
    if (message->msg_iovlen > UIO_MAXIOV)
        return fail(EMSGSIZE);
    if (flags & MSG_OOB)
        return fail(EOPNOTSUPP);
    if (check_destination(message->msg_name, message->msg_namelen) != 0)
        return -1;
    return netlink_writev(fd, message->msg_iov, message->msg_iovlen);
}

EXPORT ssize_t send(int fd, const void *buffer, size_t count, int flags)
{
    if (!is_netlink(fd))
        return TELLING(REAL(send)(fd, buffer, count, flags));
    return flags & MSG_OOB ? fail(EOPNOTSUPP) : netlink_write(fd, buffer, count);
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t count, int flags, const struct sockaddr *to, socklen_t length)
{
    if (!is_netlink(fd))
        return TELLING(REAL(sendto)(fd, buffer, count, flags, to, length));
    if (flags & MSG_OOB)
        return fail(EOPNOTSUPP);
    return check_destination(to, length) != 0 ? -1 : netlink_write(fd, buffer, count);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return is_netlink(fd) ? send_message(fd, message, flags) : TELLING(REAL(sendmsg)(fd, message, flags));
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    if (!is_netlink(fd))
        return TELLING(REAL(sendmmsg)(fd, messages, count, flags));
    const int saved = errno;
    unsigned int sent = 0;
    for (ssize_t length; sent < count && (length = send_message(fd, &messages[sent].msg_hdr, flags)) >= 0; sent++)
        messages[sent].msg_len = (unsigned int)length;
    if (sent == 0 && count > 0)
        return -1;
    errno = saved;
    return (int)sent;
}

/* ---- receiving ---- */

/* Stores an address, truncated to `size` bytes, and its whole length. */
static void store_address(struct sockaddr *buffer, socklen_t size, socklen_t *length, const struct sockaddr_nl *address)
{
    memcpy(buffer, address, size < sizeof *address ? size : sizeof *address);
    *length = sizeof *address;
}

/* Stores the kernel's address if `fd` is a NETLINK_RDMA socket: the kernel is the only peer. */
static void store_sender(int fd, struct sockaddr *from, socklen_t address_size, socklen_t *length)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (is_netlink(fd) && from && length)
        store_address(from, address_size, length, &kernel);
}

void netlink_received(int fd, struct msghdr *message, socklen_t address_size)
{
    if (!is_netlink(fd))
        return;
    store_sender(fd, message->msg_name, address_size, &message->msg_namelen);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS &&
            c->cmsg_len >= CMSG_LEN(sizeof(struct ucred)))
            memset(CMSG_DATA(c), 0, sizeof(struct ucred));
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from, socklen_t *length)
{
    const socklen_t address_size = UNLIKELY(fd_table != NULL) && from && length ? *length : 0;
    const ssize_t received = RETRIED(REAL(recvfrom)(fd, buffer, count, flags, from, length));
    if (received >= 0)
        store_sender(fd, from, address_size, length);
    return received;
}

EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                              socklen_t *length)
{
    const socklen_t address_size = UNLIKELY(fd_table != NULL) && from && length ? *length : 0;
    const ssize_t received = RETRIED(REAL(__recvfrom_chk)(fd, buffer, count, buffer_size, flags, from, length));
    if (received >= 0)
        store_sender(fd, from, address_size, length);
    return received;
}

/* ---- addresses ---- */

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_nl local;
    if (!is_netlink(fd))
        return REAL(bind)(fd, address, length);
    if (length < sizeof local)
        return fail(EINVAL);
    memcpy(&local, address, sizeof local);
    if (local.nl_family != AF_NETLINK)
        return fail(EINVAL);
    return (int)request(fd, USERDMA_NETLINK_BIND, 0, local.nl_pid | (uint64_t)local.nl_groups << 32);
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_nl peer;
    if (!is_netlink(fd))
        return TELLING(REAL(connect)(fd, address, length));
    if (length < sizeof(sa_family_t))
        return fail(EINVAL);
    if (address->sa_family == AF_UNSPEC)
        return 0;
    if (length < sizeof peer || address->sa_family != AF_NETLINK)
        return fail(EINVAL);
    memcpy(&peer, address, sizeof peer);
    if (peer.nl_pid || peer.nl_groups)
        return fail(EPERM);
    /* Port ID in the low half, groups in the high half. A socket without a port ID gets one. */
    const long name = request(fd, USERDMA_NETLINK_NAME, 0, 0);
    if (name < 0)
        return -1;
    const bool has_port_id = (uint32_t)name != 0;
    return has_port_id ? 0 : (int)request(fd, USERDMA_NETLINK_BIND, 0, (uint64_t)name);
}

EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!is_netlink(fd))
        return REAL(getsockname)(fd, address, length);
    const long name = request(fd, USERDMA_NETLINK_NAME, 0, 0);
    if (name < 0)
        return -1;
    const struct sockaddr_nl local = {
        .nl_family = AF_NETLINK, .nl_pid = (uint32_t)name, .nl_groups = (uint32_t)((uint64_t)name >> 32)};
    store_address(address, *length, length, &local);
    return 0;
}

/* As on Linux, the peer is the kernel, also of a socket that is not connected. */
EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    if (!is_netlink(fd))
        return REAL(getpeername)(fd, address, length);
    store_sender(fd, address, *length, length);
    return 0;
}

/* As on Linux, netlink sockets have no shutdown. */
EXPORT int shutdown(int fd, int how)
{
    return is_netlink(fd) ? fail(EOPNOTSUPP) : TELLING(REAL(shutdown)(fd, how));
}

/* ---- options ---- */

EXPORT int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
    uint32_t number = 0;
    if (LIKELY(!is_netlink(fd)))
        return REAL(setsockopt)(fd, level, option, value, length);
    /* Ignored: sending never waits, and the send timeout is the daemon's mark (received.c). */
    if (level == SOL_SOCKET && option == SO_SNDTIMEO)
        return length < sizeof(struct timeval) ? fail(EINVAL) : 0;
    if (level != SOL_NETLINK)
        return REAL(setsockopt)(fd, level, option, value, length);
    /* As on Linux, a shorter value is 0. */
    if (length >= sizeof number)
        memcpy(&number, value, sizeof number);
    return (int)request(fd, USERDMA_NETLINK_SET, (uint32_t)option, number);
}

/* As on Linux, a shorter buffer gets the first bytes of an option of SOL_SOCKET, and fails for SOL_NETLINK. */
static int store_number(int level, void *value, socklen_t *length, uint32_t number)
{
    if (*length > INT32_MAX || (level == SOL_NETLINK && *length < sizeof number))
        return fail(EINVAL);
    if (*length > sizeof number)
        *length = sizeof number;
    memcpy(value, &number, *length);
    return 0;
}

/*
 * Stores the value that a netlink socket has: for SO_PEERCRED the kernel, process 0 without user and group (-1); for
 * SO_SNDTIMEO 0, no timeout. The values of the socket pair differ.
 */
static int store_constant(int fd, int option, void *value, socklen_t *length)
{
    const struct ucred kernel = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    const int result = REAL(getsockopt)(fd, SOL_SOCKET, option, value, length);
    if (result != 0)
        return result;
    memset(value, 0, *length);
    if (option == SO_PEERCRED)
        memcpy(value, &kernel, *length < sizeof kernel ? *length : sizeof kernel);
    return 0;
}

EXPORT int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    if (!is_netlink(fd))
        return REAL(getsockopt)(fd, level, option, value, length);
    long answer;
    if (level == SOL_NETLINK)
        answer = request(fd, USERDMA_NETLINK_GET, (uint32_t)option, 0);
    else if (level == SOL_SOCKET && option == SO_DOMAIN)
        answer = AF_NETLINK;
    else if (level == SOL_SOCKET && option == SO_PROTOCOL)
        answer = NETLINK_RDMA;
    else if (level == SOL_SOCKET && option == SO_TYPE)
        answer = request(fd, USERDMA_NETLINK_TYPE, 0, 0);
    else if (level == SOL_SOCKET && (option == SO_PEERCRED || option == SO_SNDTIMEO))
        return store_constant(fd, option, value, length);
    else
        return REAL(getsockopt)(fd, level, option, value, length);
    if (answer < 0)
        return -1;
    /* As on Linux, a buffer that is too short for the list gets only the list's length. */
    if (level == SOL_NETLINK && option == NETLINK_LIST_MEMBERSHIPS && *length < sizeof(uint32_t)) {
        *length = sizeof(uint32_t);
        return 0;
    }
    return store_number(level, value, length, (uint32_t)answer);
}

/*
 * Sockets of NETLINK_RDMA, which the kernel may not have: libraries ask there for devices, and whether memory is copied
 * at fork.
 *
 * What the program gets is a netlink socket of protocol NETLINK_USERSOCK, so that bind, poll and all options are the
 * kernel's. What it sends is answered here, through a socket of ours that sends to its port; a receiver finds the
 * kernel (port 0) as the sender. Only RDMA_NLDEV_CMD_SYS_GET is answered; for everything else, EOPNOTSUPP makes
 * libraries look in sysfs.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>

/* Of rdma/rdma_netlink.h, which old headers lack: type RDMA_NL_NLDEV with RDMA_NLDEV_CMD_SYS_GET, and attributes. */
#define NLDEV_SYS_GET (5 << 10 | 6)
#define SYS_ATTR_NETNS_MODE 66
#define SYS_ATTR_COPY_ON_FORK 93

/* The longest request: what programs send has less than 100 bytes. */
#define REQUEST_ROOM 4096

int netlink_open(int type)
{
    const int fd = fd_opened(REAL(socket)(AF_NETLINK, type, NETLINK_USERSOCK));
    if (fd >= 0 && fd_add_event(fd, FD_NETLINK) == 0)
        return fd;
    if (fd >= 0)
        REAL(close)(fd);
    errno = EPROTONOSUPPORT;
    return -1;
}

/* ---- answers ---- */

/* The program's port, which it gets now if it has none. 0 if the socket is none of netlink. */
static uint32_t port_of(int fd)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 || length < sizeof address)
        return 0;
    if (address.nl_pid == 0) {
        const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
        if (bind(fd, (const struct sockaddr *)&any, sizeof any) != 0 ||
            getsockname(fd, (struct sockaddr *)&address, &length) != 0)
            return 0;
    }
    return address.nl_pid;
}

/*
 * The port of our answers: who does not know it cannot answer in the kernel's place. Anybody of the network namespace
 * may send to a socket of this protocol.
 */
static uint32_t answer_port(void)
{
    static uint32_t port;
    uint32_t chosen = __atomic_load_n(&port, __ATOMIC_RELAXED), none = 0;
    while (chosen == 0) {
        if (getrandom(&chosen, sizeof chosen, 0) != sizeof chosen)
            return 0;
        if (!__atomic_compare_exchange_n(&port, &none, chosen, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            chosen = none;
    }
    return chosen;
}

/* Sends one message to the program's port; 0 or -errno (ENOBUFS: it does not read). */
static int deliver(uint32_t port, struct nlmsghdr *message)
{
    const struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_pid = port};
    const int fd = REAL(socket)(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_USERSOCK);
    if (fd < 0)
        return -errno;
    const struct sockaddr_nl from = {.nl_family = AF_NETLINK, .nl_pid = answer_port()};
    for (int left = 1000; bind(fd, (const struct sockaddr *)&from, sizeof from) != 0; left--) {
        const int error = -errno;
        if (error != -EADDRINUSE || left == 0) {
            REAL(close)(fd);
            return error;
        }
        sched_yield(); /* another thread answers */
    }
    message->nlmsg_pid = port;
    const ssize_t sent = REAL(sendto)(fd, message, message->nlmsg_len, MSG_DONTWAIT | MSG_NOSIGNAL,
                                      (const struct sockaddr *)&to, sizeof to);
    const int error = sent >= 0 ? 0 : errno == EAGAIN ? -ENOBUFS : -errno;
    REAL(close)(fd);
    return error;
}

/* NLMSG_ERROR about a request: a refusal, or with 0 its acknowledgement. */
static int acknowledge(uint32_t port, const struct nlmsghdr *request, int error)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr body;
    } message = {
        .header = {.nlmsg_len = sizeof message, .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = request->nlmsg_seq},
        .body = {.error = error, .msg = *request},
    };
    return deliver(port, &message.header);
}

static int answer_system(uint32_t port, const struct nlmsghdr *request)
{
    struct {
        struct nlmsghdr header;
        struct {
            struct nlattr attribute;
            uint8_t value, pad[3];
        } values[2];
    } message = {
        .header = {.nlmsg_len = sizeof message, .nlmsg_type = NLDEV_SYS_GET, .nlmsg_seq = request->nlmsg_seq},
        .values = {
            {.attribute = {.nla_len = NLA_HDRLEN + 1, .nla_type = SYS_ATTR_NETNS_MODE}, .value = 1},
            /* A page that is registered is copied at fork like any other: the daemon asks for its address each time. */
            {.attribute = {.nla_len = NLA_HDRLEN + 1, .nla_type = SYS_ATTR_COPY_ON_FORK}, .value = 1},
        },
    };
    return deliver(port, &message.header);
}

static int answer(int fd, const struct nlmsghdr *request)
{
    const uint32_t port = port_of(fd);
    if (port == 0)
        return -ENOTCONN;
    if (!(request->nlmsg_flags & NLM_F_REQUEST))
        return 0;
    if (request->nlmsg_type != NLDEV_SYS_GET || (request->nlmsg_flags & NLM_F_DUMP))
        return acknowledge(port, request, -EOPNOTSUPP);
    const int error = answer_system(port, request);
    return error || !(request->nlmsg_flags & NLM_F_ACK) ? error : acknowledge(port, request, 0);
}

static ssize_t send_request(int fd, const struct iovec *vector, size_t count)
{
    _Alignas(struct nlmsghdr) char room[REQUEST_ROOM];
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        if (vector[i].iov_len > sizeof room - length) {
            errno = EMSGSIZE;
            return -1;
        }
        memcpy(room + length, vector[i].iov_base, vector[i].iov_len);
        length += vector[i].iov_len;
    }
    const int saved = errno;
    int left = (int)length;
    for (const struct nlmsghdr *request = (void *)room; NLMSG_OK(request, left); request = NLMSG_NEXT(request, left)) {
        const int error = answer(fd, request);
        if (error) {
            errno = -error;
            return -1;
        }
    }
    errno = saved;
    return (ssize_t)length;
}

ssize_t netlink_write(int fd, const void *buffer, size_t count)
{
    const struct iovec vector = {.iov_base = (void *)buffer, .iov_len = count};
    return send_request(fd, &vector, 1);
}

/* ---- the calls that send and receive ---- */

EXPORT ssize_t send(int fd, const void *buffer, size_t count, int flags)
{
    if (UNLIKELY(fd_kind(fd) == FD_NETLINK))
        return netlink_write(fd, buffer, count);
    return REAL(send)(fd, buffer, count, flags);
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t count, int flags, const struct sockaddr *to, socklen_t length)
{
    if (UNLIKELY(fd_kind(fd) == FD_NETLINK))
        return netlink_write(fd, buffer, count);
    return REAL(sendto)(fd, buffer, count, flags, to, length);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (UNLIKELY(fd_kind(fd) == FD_NETLINK))
        return send_request(fd, message->msg_iov, message->msg_iovlen);
    return REAL(sendmsg)(fd, message, flags);
}

void netlink_received(int fd, struct sockaddr *from, socklen_t length)
{
    if (LIKELY(fd_kind(fd) != FD_NETLINK) || !from || length < sizeof(struct sockaddr_nl))
        return;
    struct sockaddr_nl *sender = (struct sockaddr_nl *)from;
    if (sender->nl_pid == answer_port())
        sender->nl_pid = 0;
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from, socklen_t *length)
{
    const ssize_t received = REAL(recvfrom)(fd, buffer, count, flags, from, length);
    if (received >= 0 && from && length)
        netlink_received(fd, from, *length);
    return received;
}

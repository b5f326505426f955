/*
 * Sockets of NETLINK_RDMA as programs use them (netlink(7)).
 *
 *   netlink              all cases; prints "right", or the first unexpected result
 *   netlink child FD     a program that inherits the netlink socket FD
 *   netlink take FD      a program that receives a netlink socket over the Unix socket FD
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <rdma/rdma_netlink.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "../descriptors.h"

#define EXPECT(condition) NEED(condition, "line %d: %s (%s)", __LINE__, #condition, strerror(errno))
#define FAILS(call, error) EXPECT((errno = 0, (call) == -1) && errno == (error))

/* Message types. */
enum {
    GET = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET),
    DELLINK = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_DELLINK),
    SYS_GET = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_SYS_GET),
};

/* Multicast groups, and their bits in nl_groups. */
enum { GROUP_LS = 3, GROUP_NOTIFY = 4, LS_BIT = 1 << (GROUP_LS - 1), NOTIFY_BIT = 1 << (GROUP_NOTIFY - 1) };

static const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

union answer {
    struct nlmsghdr header;
    char bytes[4096];
};

static struct nlmsghdr request(uint16_t type, uint16_t flags)
{
    static uint32_t sequence = 100;
    return (struct nlmsghdr){
        .nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++sequence};
}

static struct sockaddr_nl name_of(int fd)
{
    struct sockaddr_nl name;
    socklen_t length = sizeof name;
    EXPECT(getsockname(fd, (struct sockaddr *)&name, &length) == 0 && length == sizeof name);
    EXPECT(name.nl_family == AF_NETLINK);
    return name;
}

/* The answer must be queued when the send returns. */
static void query_system(int fd)
{
    const struct nlmsghdr query = request(SYS_GET, 0);
    union answer answer;
    struct sockaddr_nl from;
    socklen_t length = sizeof from;
    memset(&from, 0xff, sizeof from);
    EXPECT(sendto(fd, &query, sizeof query, 0, (const struct sockaddr *)&kernel, sizeof kernel) == sizeof query);
    EXPECT(recvfrom(fd, &answer, sizeof answer, MSG_DONTWAIT, (struct sockaddr *)&from, &length) > (int)sizeof query);
    EXPECT(length == sizeof from && from.nl_family == AF_NETLINK && from.nl_pid == 0 && from.nl_groups == 0);
    EXPECT(answer.header.nlmsg_type == SYS_GET && answer.header.nlmsg_seq == query.nlmsg_seq);
    EXPECT(answer.header.nlmsg_pid == name_of(fd).nl_pid && name_of(fd).nl_pid != 0);
    FAILS(recv(fd, &answer, sizeof answer, MSG_DONTWAIT), EAGAIN);
}

static void check_names(void)
{
    int first = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
    int second = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_RDMA);
    EXPECT(first >= 0 && second >= 0);
    EXPECT(fcntl(first, F_GETFD) == FD_CLOEXEC && fcntl(second, F_GETFD) == 0 && !(fcntl(first, F_GETFL) & O_NONBLOCK));
    EXPECT(name_of(first).nl_pid == 0);
    struct sockaddr_nl name = kernel;
    EXPECT(bind(first, (struct sockaddr *)&name, sizeof name) == 0 && name_of(first).nl_pid == (uint32_t)getpid());
    FAILS(bind(first, (struct sockaddr *)&name, sizeof name), EINVAL);
    name.nl_pid = getpid();
    EXPECT(bind(first, (struct sockaddr *)&name, sizeof name) == 0 && name_of(first).nl_pid == (uint32_t)getpid());
    FAILS(bind(second, (struct sockaddr *)&name, sizeof name), EADDRINUSE);
    /* libnl chooses such a port ID for a further socket of the process. */
    name.nl_pid = getpid() + (7 << 22);
    name.nl_groups = NOTIFY_BIT;
    EXPECT(bind(second, (struct sockaddr *)&name, sizeof name) == 0);
    EXPECT(name_of(second).nl_pid == name.nl_pid && name_of(second).nl_groups == NOTIFY_BIT);
    FAILS(bind(first, (struct sockaddr *)&name, sizeof name), EINVAL);
    name.nl_family = AF_INET;
    FAILS(bind(first, (struct sockaddr *)&name, sizeof name), EINVAL);
    FAILS(bind(first, (struct sockaddr *)&kernel, 4), EINVAL);
    int third = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
    EXPECT(connect(third, (const struct sockaddr *)&kernel, sizeof kernel) == 0);
    EXPECT(name_of(third).nl_pid != 0 && name_of(third).nl_pid != (uint32_t)getpid());
    socklen_t length = sizeof name;
    EXPECT(getpeername(third, (struct sockaddr *)&name, &length) == 0);
    EXPECT(name.nl_family == AF_NETLINK && name.nl_pid == 0);
    EXPECT(connect(third, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)) == 0);
    close(first);
    query_system(third);
    close(third);
    close(second);
    FAILS(socket(AF_NETLINK, SOCK_STREAM, NETLINK_RDMA), ESOCKTNOSUPPORT);
}

static int option_of(int fd, int level, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    EXPECT(getsockopt(fd, level, option, &value, &length) == 0 && length == sizeof value);
    return value;
}

static int set_option(int fd, int option, int value)
{
    return setsockopt(fd, SOL_NETLINK, option, &value, sizeof value);
}

/*
 * A DELLINK that names no device gets EINVAL. The error message repeats the request, or only its header if `is_capped`;
 * with `has_text` an attribute has the reason as text.
 */
static void check_refusal(int fd, bool is_capped, bool has_text)
{
    struct {
        struct nlmsghdr header;
        char body[16];
    } query = {.header = request(DELLINK, 0),
               .body = {sizeof query.body, 0, RDMA_NLDEV_ATTR_RES_MRN}}; /* one attribute that fills the body */
    union answer answer;
    query.header.nlmsg_len = sizeof query;
    EXPECT(send(fd, &query, sizeof query, 0) == sizeof query);
    const ssize_t length = recv(fd, &answer, sizeof answer, 0);
    const ssize_t without_text = NLMSG_SPACE(sizeof(struct nlmsgerr)) + (is_capped ? 0 : sizeof query.body);
    const struct nlmsgerr *error = NLMSG_DATA(&answer.header);
    EXPECT(answer.header.nlmsg_type == NLMSG_ERROR && error->error == -EINVAL);
    EXPECT(error->msg.nlmsg_seq == query.header.nlmsg_seq);
    EXPECT(((answer.header.nlmsg_flags & NLM_F_CAPPED) != 0) == is_capped);
    EXPECT(((answer.header.nlmsg_flags & NLM_F_ACK_TLVS) != 0) == has_text);
    EXPECT(has_text ? length > without_text : length == without_text);
}

static void check_options(void)
{
    const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_RDMA);
    EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK);
    EXPECT(option_of(fd, SOL_SOCKET, SO_DOMAIN) == AF_NETLINK);
    EXPECT(option_of(fd, SOL_SOCKET, SO_PROTOCOL) == NETLINK_RDMA);
    EXPECT(option_of(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && option_of(fd, SOL_SOCKET, SO_ERROR) == 0);
    /* A short buffer gets the first bytes. */
    uint16_t type = 0;
    socklen_t short_length = sizeof type;
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &short_length) == 0 && short_length == sizeof type);
    EXPECT(type == SOCK_DGRAM);
    FAILS(getsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &type, &short_length), EINVAL);
    FAILS(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){-1}), EINVAL);
    const int size = 65536;
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    EXPECT(set_option(fd, NETLINK_ADD_MEMBERSHIP, GROUP_NOTIFY) == 0 && name_of(fd).nl_groups == NOTIFY_BIT);
    EXPECT(set_option(fd, NETLINK_ADD_MEMBERSHIP, GROUP_LS) == 0);
    EXPECT(option_of(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS) == (LS_BIT | NOTIFY_BIT));
    EXPECT(set_option(fd, NETLINK_DROP_MEMBERSHIP, GROUP_NOTIFY) == 0 && name_of(fd).nl_groups == LS_BIT);
    FAILS(set_option(fd, NETLINK_ADD_MEMBERSHIP, 0), EINVAL);
    FAILS(set_option(fd, NETLINK_ADD_MEMBERSHIP, 1000), EINVAL);
    FAILS(set_option(fd, 12345, 1), ENOPROTOOPT);
    /* The length of the list of memberships is known without a buffer. */
    socklen_t length = 0;
    EXPECT(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, NULL, &length) == 0 && length == sizeof(uint32_t));
    FAILS(getsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, NULL, &(socklen_t){0}), EINVAL);
    /* A value of less than 4 bytes is 0. */
    EXPECT(set_option(fd, NETLINK_CAP_ACK, 1) == 0 && option_of(fd, SOL_NETLINK, NETLINK_CAP_ACK) == 1);
    EXPECT(setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &(char){1}, 1) == 0);
    EXPECT(option_of(fd, SOL_NETLINK, NETLINK_CAP_ACK) == 0);
    FAILS(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &(char){1}, 1), EINVAL); /* group 0 */
    EXPECT(set_option(fd, NETLINK_LISTEN_ALL_NSID, 1) == 0 && option_of(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID) == 1);
    struct ucred peer = {.pid = -1};
    struct timeval limit = {.tv_sec = -1};
    socklen_t peer_length = sizeof peer, limit_length = sizeof limit;
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_length) == 0);
    EXPECT(peer_length == sizeof peer && peer.pid == 0 && peer.uid == (uid_t)-1);
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &limit_length) == 0);
    EXPECT(limit.tv_sec == 0 && limit.tv_usec == 0);
    FAILS(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, 4), EINVAL);
    FAILS(shutdown(fd, SHUT_RDWR), EOPNOTSUPP);
    char payload[4] = {0};
    struct iovec payload_iov = {payload, sizeof payload};
    FAILS(send(fd, payload, sizeof payload, MSG_OOB), EOPNOTSUPP);
    FAILS(sendmsg(fd, &(struct msghdr){.msg_iov = &payload_iov, .msg_iovlen = 1}, MSG_OOB), EOPNOTSUPP);
    int unread;
    FAILS(ioctl(fd, FIONREAD, &unread), ENOTTY);
    check_refusal(fd, false, false);
    EXPECT(set_option(fd, NETLINK_CAP_ACK, 1) == 0 && option_of(fd, SOL_NETLINK, NETLINK_CAP_ACK) == 1);
    check_refusal(fd, true, false);
    EXPECT(set_option(fd, NETLINK_EXT_ACK, 1) == 0 && option_of(fd, SOL_NETLINK, NETLINK_EXT_ACK) == 1);
    check_refusal(fd, true, true);
    EXPECT(set_option(fd, NETLINK_CAP_ACK, 0) == 0 && set_option(fd, NETLINK_EXT_ACK, 0) == 0);
    check_refusal(fd, false, false);
    /* Credentials: the sender is the kernel. */
    const int on = 1;
    const struct nlmsghdr query = request(SYS_GET, 0);
    union answer answer;
    char control[256];
    struct iovec iov = {&answer, sizeof answer};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
    EXPECT(write(fd, &query, sizeof query) == sizeof query && recvmsg(fd, &message, 0) > 0);
    const struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
    struct ucred credentials = {.pid = -1};
    EXPECT(cmsg && cmsg->cmsg_type == SCM_CREDENTIALS);
    memcpy(&credentials, CMSG_DATA(cmsg), sizeof credentials);
    EXPECT(credentials.pid == 0 && credentials.uid == 0 && credentials.gid == 0);
    close(fd);
}

static void sending_and_receiving(void)
{
    const int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN | POLLOUT};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 && epoll_wait(epoll, &event, 1, 0) == 0);
    EXPECT(poll(&poll_fd, 1, 0) == 1 && poll_fd.revents == POLLOUT);
    /* NLM_F_ACK: an acknowledgement follows the answer, in a datagram of its own. */
    struct nlmsghdr query = request(SYS_GET, NLM_F_ACK);
    const struct iovec halves[2] = {{&query, 5}, {(char *)&query + 5, sizeof query - 5}};
    EXPECT(writev(fd, halves, 2) == sizeof query);
    EXPECT(epoll_wait(epoll, &event, 1, 0) == 1 && poll(&poll_fd, 1, 0) == 1 && poll_fd.revents == (POLLIN | POLLOUT));
    /* libnl peeks at the length first. A receive with less space truncates the datagram. */
    union answer answer;
    struct sockaddr_nl from;
    struct iovec iov = {&answer, 4};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    const ssize_t length = recvmsg(fd, &message, MSG_PEEK | MSG_TRUNC);
    EXPECT(length > (ssize_t)sizeof query && (message.msg_flags & MSG_TRUNC));
    EXPECT(message.msg_namelen == sizeof from && from.nl_family == AF_NETLINK && from.nl_pid == 0);
    EXPECT(recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC) == length);
    EXPECT(recvmsg(fd, &message, 0) == 4 && (message.msg_flags & MSG_TRUNC));
    EXPECT(read(fd, &answer, sizeof answer) == NLMSG_SPACE(sizeof(struct nlmsgerr)));
    EXPECT(answer.header.nlmsg_type == NLMSG_ERROR); /* the acknowledgement */
    FAILS(recv(fd, &answer, sizeof answer, MSG_DONTWAIT), EAGAIN);
    /* Two requests in two datagrams of one call, and below in one datagram. The dump has two datagrams: GET, DONE. */
    struct nlmsghdr requests[2] = {request(SYS_GET, 0), request(GET, NLM_F_DUMP)};
    struct iovec iovs[3] = {{&requests[0], sizeof requests[0]}, {&requests[1], sizeof requests[1]}};
    struct mmsghdr messages[3] = {{.msg_hdr = {.msg_iov = &iovs[0], .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = &iovs[1], .msg_iovlen = 1}}};
    EXPECT(sendmmsg(fd, messages, 2, 0) == 2);
    EXPECT(messages[0].msg_len == sizeof query && messages[1].msg_len == sizeof query);
    /* A failure after the first message is not reported. */
    struct mmsghdr half[2] = {{.msg_hdr = {.msg_iov = &iovs[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iovlen = 0}}};
    const int partial_fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
    errno = 7;
    EXPECT(sendmmsg(partial_fd, half, 2, 0) == 1 && errno == 7);
    close(partial_fd);
    char datagrams[3][4096];
    struct sockaddr_nl senders[3];
    for (int i = 0; i < 3; i++) {
        iovs[i] = (struct iovec){datagrams[i], sizeof datagrams[i]};
        messages[i] = (struct mmsghdr){.msg_hdr = {
            .msg_iov = &iovs[i], .msg_iovlen = 1, .msg_name = &senders[i], .msg_namelen = sizeof senders[i]}};
    }
    /* A shorter address buffer gets the first bytes of the address. */
    memset(&senders[1], 0x55, sizeof senders[1]);
    messages[1].msg_hdr.msg_namelen = sizeof senders[1].nl_family;
    EXPECT(recvmmsg(fd, messages, 3, MSG_DONTWAIT, NULL) == 3);
    EXPECT(senders[1].nl_family == AF_NETLINK);
    EXPECT(((struct nlmsghdr *)datagrams[0])->nlmsg_type == SYS_GET);
    EXPECT(((struct nlmsghdr *)datagrams[1])->nlmsg_type == GET);
    EXPECT(((struct nlmsghdr *)datagrams[2])->nlmsg_type == NLMSG_DONE);
    for (int i = 0; i < 3; i++)
        EXPECT(messages[i].msg_hdr.msg_namelen == sizeof senders[i] && senders[i].nl_pid == (i == 1 ? 0x55555555 : 0));
    EXPECT(send(fd, requests, sizeof requests, 0) == sizeof requests);
    for (int i = 0; i < 3; i++)
        EXPECT(recv(fd, &answer, sizeof answer, MSG_DONTWAIT) > 0);
    FAILS(send(fd, requests, 0, 0), ENODATA);
    FAILS(send(fd, (void *)4096, 100, 0), EFAULT);
    /* Several buffers have at most 16384 bytes together (MAX_GATHERED_BYTES of shim/session/netlink.c). */
    static char half_of_too_much[8193];
    const struct iovec too_much[2] = {{half_of_too_much, sizeof half_of_too_much},
                                      {half_of_too_much, sizeof half_of_too_much}};
    FAILS(writev(fd, too_much, 2), EMSGSIZE);
    FAILS(sendto(fd, requests, sizeof requests, 0, (const struct sockaddr *)&kernel, 4), EINVAL);
    struct sockaddr_nl other = {.nl_family = AF_NETLINK, .nl_pid = 12345};
    FAILS(sendto(fd, requests, sizeof requests, 0, (struct sockaddr *)&other, sizeof other), ECONNREFUSED);
    other = (struct sockaddr_nl){.nl_family = AF_NETLINK, .nl_groups = NOTIFY_BIT};
    FAILS(sendto(fd, requests, sizeof requests, 0, (struct sockaddr *)&other, sizeof other), EPERM);
    other.nl_family = AF_UNIX;
    FAILS(sendto(fd, requests, sizeof requests, 0, (struct sockaddr *)&other, sizeof other), EINVAL);
    /* Datagrams shorter than a header are ignored. */
    EXPECT(write(fd, "\377\377\377\377", 4) == 4 && write(fd, requests, 7) == 7);
    FAILS(recv(fd, &answer, sizeof answer, MSG_DONTWAIT), EAGAIN);
    close(epoll);
    close(fd);
}

static void expect_success(pid_t child)
{
    int status;
    EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

/* Executes this program in a child. */
static void run_self(const char *self, const char *mode, int fd)
{
    char number[16];
    snprintf(number, sizeof number, "%d", fd);
    const pid_t child = fork();
    if (child == 0) {
        execl(self, self, mode, number, NULL);
        _exit(127);
    }
    expect_success(child);
}

static void check_copies(const char *self)
{
    enum { FREE_FD = 77 };
    int pair[2], fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
    query_system(fd);
    const uint32_t port = name_of(fd).nl_pid;
    const int copy = dup(fd);
    close(fd);
    query_system(copy);
    EXPECT(dup2(copy, FREE_FD) == FREE_FD && name_of(FREE_FD).nl_pid == port);
    const pid_t child = fork();
    if (child == 0) {
        query_system(FREE_FD);
        _exit(0);
    }
    expect_success(child);
    query_system(copy);
    /*
     * The daemon marks the socket by its send timeout, by which other programs know the socket. A program's own timeout
     * does not replace the mark.
     */
    const struct timeval second = {.tv_sec = 1};
    EXPECT(setsockopt(copy, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second) == 0);
    run_self(self, "child", copy);
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    send_fds(pair[0], &copy, 1);
    run_self(self, "take", pair[1]);
    close(copy);
    close(FREE_FD);
    close(pair[0]);
    close(pair[1]);
}

/* Other sockets are the kernel's own. NETLINK_ROUTE may be forbidden here. */
static void check_other_sockets(void)
{
    const int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), unix_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd >= 0) {
        const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
        EXPECT(bind(fd, (const struct sockaddr *)&any, sizeof any) == 0 && name_of(fd).nl_pid != 0);
        EXPECT(option_of(fd, SOL_SOCKET, SO_PROTOCOL) == NETLINK_ROUTE);
    }
    EXPECT(option_of(unix_fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX);
    FAILS(send(unix_fd, "", 1, 0), ENOTCONN);
    FAILS(getsockname(-1, (struct sockaddr *)&(struct sockaddr_nl){0}, &(socklen_t){12}), EBADF);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0) {
        query_system(atoi(argv[2]));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "take") == 0) {
        int fd;
        receive_fds(atoi(argv[2]), &fd, 1);
        query_system(fd);
        close(fd);
        return 0;
    }
    if (argc != 1)
        fail("usage: netlink");
    check_names();
    check_options();
    sending_and_receiving();
    check_copies(argv[0]);
    check_other_sockets();
    puts("right");
    return 0;
}

/*
 * The upper limit of UDP: one process sends datagrams of equal size, over the loopback interface or between two
 * addresses, to another process, which counts them. The reference of udp.ts.
 *
 *   udp_stream gso|plain SEGMENT PAYLOAD BYTES [FROM TO [NETNS]]   prints GB/s of payload
 *   udp_stream gso-cost …            as gso, prints CPU seconds of both processes per GB
 *   udp_stream gso-spin …            as gso, but both processes poll
 *
 * SEGMENT: bytes of a datagram. PAYLOAD: bytes of a datagram that count as payload. BYTES: total payload. gso: the
 * kernel cuts messages into datagrams and joins them (UDP_SEGMENT, UDP_GRO). plain: single datagrams with sendmmsg and
 * recvmmsg. FROM, TO: IPv4 addresses. NETNS: file of the receiver's network namespace. The receiver reports its
 * progress, and the sender stays within a window: no datagram is lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    BATCH = 16, /* messages of many datagrams, received by one recvmmsg */
    GSO_BATCH = 4, /* messages of many datagrams, sent by one sendmmsg */
    PLAIN_BATCH = 64, /* datagrams per call without GSO and GRO */
    BUFFER_BYTES = 65536, /* bytes of a message */
    MAX_SEGMENTS = 62, /* datagrams and bytes of a message with GSO; Linux permits at least 64 and 65507 */
    MAX_BYTES = 65000,
};

static bool is_polling;

static void fail(const char *call)
{
    perror(call);
    exit(1);
}

/* Binds a socket to `address`, and stores the port in `address`. */
static int open_socket(struct sockaddr_in *address)
{
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int buffer = 8 << 20;
    socklen_t length = sizeof *address;
    if (fd < 0 || bind(fd, (struct sockaddr *)address, length) || getsockname(fd, (struct sockaddr *)address, &length))
        fail("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer))
        fail("buffers");
    return fd;
}

/* Maximum bytes in flight: the same share of the receive buffer as in userdma's UDP port, at least four messages. */
static uint64_t window_of(int fd)
{
    int buffer;
    socklen_t length = sizeof buffer;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, &length))
        fail("SO_RCVBUF");
    const uint64_t window = (uint64_t)buffer * 2 / 9;
    return window < 4 * BUFFER_BYTES ? 4 * BUFFER_BYTES : window;
}

static double cpu_seconds(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Receives until `total` bytes of datagrams have arrived, and reports the sum after each batch. */
static void receive(int fd, const struct sockaddr_in *peer, uint64_t total, bool is_gso)
{
    const int enable = 1, batch = is_gso ? BATCH : PLAIN_BATCH;
    if (is_gso && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &enable, sizeof enable))
        fail("UDP_GRO");
    char *buffers = malloc((size_t)batch * BUFFER_BYTES);
    struct mmsghdr messages[PLAIN_BATCH];
    struct iovec parts[PLAIN_BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < batch; i++) {
        parts[i] = (struct iovec){buffers + (size_t)i * BUFFER_BYTES, BUFFER_BYTES};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (uint64_t received = 0; received < total;) {
        const int count = recvmmsg(fd, messages, (unsigned)batch, is_polling ? MSG_DONTWAIT : MSG_WAITFORONE, NULL);
        if (count < 0 && is_polling && errno == EAGAIN) {
            sched_yield();
            continue;
        }
        if (count < 0)
            fail("recvmmsg");
        for (int i = 0; i < count; i++)
            received += messages[i].msg_len;
        if (sendto(fd, &received, sizeof received, 0, (const struct sockaddr *)peer, sizeof *peer) < 0)
            fail("sendto");
    }
}

/* Reads the receiver's reports; `should_wait`: waits for a report. Returns the received bytes, at least `before`. */
static uint64_t acknowledged(int fd, uint64_t before, bool should_wait)
{
    uint64_t received = before, report;
    while (recv(fd, &report, sizeof report, should_wait ? 0 : MSG_DONTWAIT) == (ssize_t)sizeof report) {
        received = report > received ? report : received;
        should_wait = false;
    }
    return received;
}

/* Sends at least `total` bytes in datagrams of `segment` bytes, with at most `window` unreported bytes. */
static void stream(int fd, const struct sockaddr_in *peer, uint64_t total, bool is_gso, uint64_t segment,
                   uint64_t window)
{
    uint64_t segments = is_gso ? MAX_BYTES / segment : 1;
    segments = segments > MAX_SEGMENTS ? MAX_SEGMENTS : segments;
    const int batch = is_gso ? GSO_BATCH : PLAIN_BATCH;
    const uint64_t message_bytes = segments * segment;
    char *data = calloc(1, BUFFER_BYTES);
    struct mmsghdr messages[PLAIN_BATCH];
    struct iovec parts[PLAIN_BATCH];
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    control.align.cmsg_level = IPPROTO_UDP;
    control.align.cmsg_type = UDP_SEGMENT;
    control.align.cmsg_len = CMSG_LEN(sizeof(uint16_t));
    *(uint16_t *)CMSG_DATA(&control.align) = (uint16_t)segment;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < batch; i++) {
        struct msghdr *header = &messages[i].msg_hdr;
        parts[i] = (struct iovec){data, message_bytes};
        header->msg_name = (void *)(uintptr_t)peer;
        header->msg_namelen = sizeof *peer;
        header->msg_iov = &parts[i];
        header->msg_iovlen = 1;
        if (is_gso && segments > 1) {
            header->msg_control = control.bytes;
            header->msg_controllen = sizeof control.bytes;
        }
    }
    uint64_t received = 0;
    for (uint64_t sent = 0; sent < total;) {
        received = acknowledged(fd, received, !is_polling && sent - received + message_bytes > window);
        uint64_t count = (window - (sent - received)) / message_bytes;
        const uint64_t remaining = (total - sent + message_bytes - 1) / message_bytes;
        count = count > remaining ? remaining : count;
        count = count > (uint64_t)batch ? (uint64_t)batch : count;
        if (count == 0)
            continue;
        const int sent_count = sendmmsg(fd, messages, (unsigned)count, 0);
        if (sent_count < 0)
            fail("sendmmsg");
        sent += (uint64_t)sent_count * message_bytes;
    }
    while (received < total)
        received = acknowledged(fd, received, !is_polling);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Moves this process into a network namespace. */
static void enter(const char *netns)
{
    const int fd = open(netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET))
        fail(netns);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 7 && argc != 8) {
        fprintf(stderr, "usage: udp_stream gso|plain|gso-cost|gso-spin SEGMENT PAYLOAD BYTES [FROM TO [NETNS]]\n");
        return 2;
    }
    const bool is_gso = strncmp(argv[1], "gso", 3) == 0, is_cost = strcmp(argv[1], "gso-cost") == 0;
    is_polling = strcmp(argv[1], "gso-spin") == 0;
    const uint64_t segment = strtoull(argv[2], NULL, 0), payload = strtoull(argv[3], NULL, 0);
    const uint64_t bytes = strtoull(argv[4], NULL, 0);
    const uint64_t total = (bytes + payload - 1) / payload * segment;
    struct sockaddr_in sender_address = {.sin_family = AF_INET,
                                         .sin_addr.s_addr = inet_addr(argc > 5 ? argv[5] : "127.0.0.1")};
    struct sockaddr_in receiver_address = {.sin_family = AF_INET,
                                           .sin_addr.s_addr = inet_addr(argc > 5 ? argv[6] : "127.0.0.1")};
    /* The receiver's process sends this struct when its socket is bound. */
    struct {
        struct sockaddr_in address;
        uint64_t window;
    } ready;
    int ready_pipe[2];
    const int sender = open_socket(&sender_address);
    if (pipe(ready_pipe))
        fail("pipe");

    const pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        close(sender);
        if (argc == 8)
            enter(argv[7]);
        const int receiver = open_socket(&receiver_address);
        ready.address = receiver_address;
        ready.window = window_of(receiver);
        if (write(ready_pipe[1], &ready, sizeof ready) != sizeof ready)
            fail("write");
        receive(receiver, &sender_address, total, is_gso);
        return 0;
    }
    close(ready_pipe[1]);
    if (read(ready_pipe[0], &ready, sizeof ready) != sizeof ready)
        return 1;
    const double start = seconds_now();
    stream(sender, &ready.address, total, is_gso, segment, ready.window);
    const double seconds = seconds_now() - start;
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        return 1;
    const double gigabytes = (double)(total / segment * payload) / 1e9;
    if (is_cost)
        printf("%.4f CPU s/GB\n", (cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN)) / gigabytes);
    else
        printf("%.4f GB/s\n", gigabytes / seconds);
    return 0;
}

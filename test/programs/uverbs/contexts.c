/*
 * A device without verbs, used from C (src/spec/drivers/ctx.ts): its contexts send each other messages.
 *
 *   contexts [messages N]     two processes send each other N messages (1000) through queues in shared memory; then
 *                             checks the descriptor's operations, also in programs to which it is passed
 *   contexts wait             uses a context until the device is removed
 *   contexts measure          prints the cost of calls on the descriptor
 *   contexts given …          a program to which the descriptor is passed
 *
 * The first unexpected result is printed, and the exit status is 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Structures and ioctls as in ctx.ts. */
struct assign {
    uint32_t eager_count, eager_bytes, expected_count, expected_bytes, job_key, handle;
};
struct info {
    uint32_t number, job_key, eager_count, eager_bytes, expected_count, expected_bytes, header_count, receives;
    uint32_t headers_at, eager_at, expected_at, bytes;
    uint64_t offset;
};
struct expect {
    uint32_t slot, length;
};
struct record {
    uint32_t number, producer;
};
struct message {
    uint32_t to, flags, slot, offset;
    uint64_t tag;
    uint8_t data[4096];
};
struct header {
    uint32_t kind, source, length, slot;
    uint64_t tag;
    uint32_t sequence, reserved;
};
enum { HEADER_PRODUCER, HEADER_CONSUMER, EAGER_CONSUMER };
/* EAGER: into the next buffer of a ring. EXPECTED: into a buffer that the receiver has announced. */
enum { EAGER = 1, EXPECTED = 2 };
enum { CTX_EXPECTED = 1 }; /* flag of a message */
enum { HEAD = offsetof(struct message, data), JOB_KEY = 0x5eed, NO_CONTEXT = 4711 };

#define ASSIGN _IOWR(0xc7, 1, struct assign)
#define INFO _IOR(0xc7, 2, struct info)
#define RESET _IO(0xc7, 3)
#define ARM _IO(0xc7, 5)
#define EXPECT_MESSAGE _IOW(0xc7, 7, struct expect)

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: false: %s (errno %d %s)\n", __LINE__, #condition, errno, strerror(errno));               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define REFUSED(result, error) EXPECT((result) == -1 && errno == (error))

/* `interface`: a descriptor of an interface of the driver. `memory`: of the context. */
static int device = -1, interface = -1;
static struct info info;
static uint8_t *memory;

/* ---- finding and opening ---- */

/* Opens the node of the first device whose name starts with "ctx". */
static void open_device(void)
{
    DIR *folder = opendir("/sys/class/infiniband_verbs");
    for (struct dirent *entry; folder && device < 0 && (entry = readdir(folder));) {
        char path[512], name[64] = "";
        snprintf(path, sizeof path, "/sys/class/infiniband_verbs/%s/ibdev", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(name, sizeof name, file) && strncmp(name, "ctx", 3) == 0) {
            snprintf(path, sizeof path, "/dev/infiniband/%s", entry->d_name);
            device = open(path, O_RDWR | O_CLOEXEC);
            EXPECT(device >= 0);
        }
        if (file)
            fclose(file);
    }
    if (folder)
        closedir(folder);
    if (device >= 0)
        return;
    printf("there is no ctx device; add one with --device ctx0\n");
    exit(1);
}

/* Numbers of the object dialect (src/spec/classes). */
enum { CLASS_DEVICE = 2, CLASS_DRIVER_OPS = 40, QUERY = 1, CREATE_FD = 4, DEVICE_OPEN = 32, ATTRIBUTE_NAME = 1 };

/* A call of the object dialect, with one attribute `id`, or none if `id` is 0. `object`: of the answer. */
static int call(unsigned method, uint16_t class, uint16_t id, const char *payload, uint32_t *object)
{
    struct {
        uint16_t length, class;
        uint32_t object, op_ctrl, flags;
        uint16_t attribute_length, id;
        uint32_t attribute_flags;
        char payload[64];
    } message = {.length = 16, .class = class};
    if (id) {
        const size_t length = strlen(payload);
        message.id = id;
        message.attribute_flags = 1; /* mandatory */
        message.attribute_length = (uint16_t)(8 + length);
        message.length = (uint16_t)(16 + 8 + (length + 7) / 8 * 8);
        memcpy(message.payload, payload, length);
    }
    const int result = ioctl(device, _IOWR(0xdb, method, uint64_t), &message);
    *object = message.object;
    return result;
}

static int open_interface(const char *name)
{
    uint32_t fd;
    return call(CREATE_FD, CLASS_DRIVER_OPS, ATTRIBUTE_NAME, name, &fd) == 0 ? (int)fd : -1;
}

/* Opens the driver's newest interface, assigns a context and maps its memory. */
static void open_and_assign(void)
{
    uint32_t ignored;
    open_device();
    EXPECT(call(DEVICE_OPEN, CLASS_DEVICE, 0, NULL, &ignored) == 0);
    REFUSED(open_interface("ctx.userdma.3"), ENOENT);
    interface = open_interface("ctx.userdma.2");
    EXPECT(interface >= 0);
    REFUSED(ioctl(interface, INFO, &info), ENODATA);
    struct assign assign = {
        .eager_count = 64, .eager_bytes = 4096, .expected_count = 4, .expected_bytes = 4096, .job_key = JOB_KEY};
    EXPECT(ioctl(interface, ASSIGN, &assign) == 0);
    REFUSED(ioctl(interface, ASSIGN, &assign), EBUSY);
    EXPECT(ioctl(interface, INFO, &info) == 0 && info.job_key == JOB_KEY && info.eager_count == 64);
    memory = mmap(NULL, info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, interface, 0);
    EXPECT(memory != MAP_FAILED);
}

/* ---- messages ---- */

static uint32_t load(int word)
{
    return __atomic_load_n((uint32_t *)memory + word, __ATOMIC_ACQUIRE);
}

static void store(int word, uint32_t value)
{
    __atomic_store_n((uint32_t *)memory + word, value, __ATOMIC_RELEASE);
}

static struct message message;

static void send_message(uint32_t to, uint64_t tag, uint32_t length)
{
    message.to = to;
    message.flags = 0;
    message.tag = tag;
    for (uint32_t i = 0; i < length; i++)
        message.data[i] = (uint8_t)(tag + i);
    while (write(interface, &message, HEAD + length) != HEAD + (ssize_t)length) {
        EXPECT(errno == EAGAIN); /* the receiver has no free buffer now */
        sched_yield();
    }
}

static void wait_for_message(void)
{
    struct pollfd readable = {.fd = interface, .events = POLLIN};
    struct record record;
    EXPECT(ioctl(interface, ARM) == 0);
    EXPECT(poll(&readable, 1, 20000) == 1 && readable.revents == POLLIN);
    EXPECT(read(interface, &record, sizeof record) == sizeof record && record.number == info.number);
    EXPECT(load(HEADER_PRODUCER) - load(HEADER_CONSUMER) > 0);
}

/* Waits for the next message and checks it; returns its tag. */
static uint64_t receive_message(uint32_t kind, uint32_t length)
{
    const uint32_t count = load(HEADER_CONSUMER);
    if (load(HEADER_PRODUCER) == count)
        wait_for_message();
    const struct header *header = (void *)(memory + info.headers_at + count % info.header_count * sizeof *header);
    EXPECT(header->kind == kind && header->length == length && header->sequence == count);
    const uint8_t *data = kind == EAGER ? memory + info.eager_at + header->slot * info.eager_bytes
                                        : memory + info.expected_at + header->slot * info.expected_bytes;
    for (uint32_t i = 0; i < length; i++)
        EXPECT(data[i] == (uint8_t)(header->tag + i));
    const uint64_t tag = header->tag;
    if (kind == EAGER)
        store(EAGER_CONSUMER, load(EAGER_CONSUMER) + 1);
    store(HEADER_CONSUMER, count + 1);
    return tag;
}

static uint32_t length_of(unsigned i)
{
    return 1 + i * 37 % 4096;
}

/* Exchanges `count` messages with `peer`, then one expected message each way. */
static void exchange_messages(uint32_t peer, unsigned count, int in, int out)
{
    enum { SLOT = 2, TAG = 7, FRAGMENT = 1000, EXPECTED_BYTES = 4 * FRAGMENT };
    for (unsigned i = 0; i < count; i++) {
        send_message(peer, i, length_of(i));
        EXPECT(receive_message(EAGER, length_of(i)) == i);
    }
    const struct expect expect = {.slot = SLOT, .length = EXPECTED_BYTES};
    EXPECT(ioctl(interface, EXPECT_MESSAGE, &expect) == 0);
    REFUSED(ioctl(interface, EXPECT_MESSAGE, &expect), EBUSY);
    char go = 1;
    EXPECT(write(out, &go, 1) == 1 && read(in, &go, 1) == 1); /* the peer has announced its buffer */
    message = (struct message){.to = peer, .flags = CTX_EXPECTED, .slot = SLOT, .tag = TAG};
    for (uint32_t offset = 0; offset < EXPECTED_BYTES; offset += FRAGMENT) {
        message.offset = offset;
        for (uint32_t i = 0; i < FRAGMENT; i++)
            message.data[i] = (uint8_t)(TAG + offset + i);
        EXPECT(write(interface, &message, HEAD + FRAGMENT) == HEAD + FRAGMENT);
    }
    EXPECT(receive_message(EXPECTED, EXPECTED_BYTES) == TAG);
}

static void exchange(unsigned count)
{
    int from_child[2], to_child[2];
    EXPECT(pipe(from_child) == 0 && pipe(to_child) == 0);
    fflush(stdout);
    const pid_t child = fork();
    EXPECT(child >= 0);
    open_and_assign();
    const int in = child ? from_child[0] : to_child[0], out = child ? to_child[1] : from_child[1];
    uint32_t peer;
    EXPECT(write(out, &info.number, sizeof peer) == sizeof peer && read(in, &peer, sizeof peer) == sizeof peer);
    exchange_messages(peer, count, in, out);
    char done = 1;
    EXPECT(write(out, &done, 1) == 1 && read(in, &done, 1) == 1); /* each waits until the other is done */
    if (!child)
        _exit(0);
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    printf("%u messages each way and an expected one\n", count);
}

/* ---- passing to another program ---- */

/* `fd`: to send; -1: to receive a descriptor. */
static struct msghdr *message_with_fd(int fd)
{
    static union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    static char byte;
    static struct iovec iov = {&byte, 1};
    static struct msghdr header;
    header = (struct msghdr){
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return &header;
}

/* First calls of the other program; FIRSTS is their number. */
enum { FIRST_IOCTL, FIRST_WRITE, FIRST_MAP, FIRST_READ, FIRST_POLL, FIRSTS };

/* The other program. `given`: the descriptor, or if `over_socket`, a socket over which it arrives. */
static void use_passed(int given, bool over_socket, int first, uint32_t number)
{
    struct info found;
    if (over_socket) {
        struct msghdr *header = message_with_fd(-1);
        EXPECT(recvmsg(given, header, 0) == 1);
        memcpy(&interface, CMSG_DATA(CMSG_FIRSTHDR(header)), sizeof interface);
    } else {
        interface = given;
    }
    struct pollfd readable = {.fd = interface, .events = POLLIN};
    switch (first) {
    case FIRST_IOCTL: EXPECT(ioctl(interface, INFO, &found) == 0 && found.number == number); break;
    case FIRST_WRITE: REFUSED((int)write(interface, &message, 3), EINVAL); break;
    case FIRST_MAP: break; /* the mmap below */
    case FIRST_READ: REFUSED((int)read(interface, &found, 1), EINVAL); break; /* a short read leaves the record */
    case FIRST_POLL: EXPECT(poll(&readable, 1, 0) == 1); break;
    }
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, interface, 0);
    /* The message that check_file_operations sent is unread. */
    EXPECT(memory != MAP_FAILED && load(HEADER_PRODUCER) == load(HEADER_CONSUMER) + 1);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, interface, 4096) == MAP_FAILED && errno == EINVAL);
    EXPECT(ioctl(interface, INFO, &found) == 0 && found.number == number);
    message = (struct message){.to = NO_CONTEXT};
    REFUSED((int)write(interface, &message, HEAD), ENXIO);
    int pair[2];
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    REFUSED(ioctl(pair[0], INFO, &info), ENOTTY); /* calls on this program's own sockets are not forwarded */
    EXPECT(write(pair[0], "x", 1) == 1);
}

/* Passes the descriptor to other programs, across exec and over a socket. */
static void pass_descriptor(int fd)
{
    for (int i = 0; i < 2 * FIRSTS; i++) {
        const int over_socket = i % 2, first = i / 2;
        int pair[2], status;
        EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        char given[16], over_socket_text[16], first_text[16], number[16];
        snprintf(given, sizeof given, "%d", over_socket ? pair[0] : fd);
        snprintf(over_socket_text, sizeof over_socket_text, "%d", over_socket);
        snprintf(first_text, sizeof first_text, "%d", first);
        snprintf(number, sizeof number, "%u", info.number);
        fflush(stdout);
        const pid_t other = fork();
        if (other == 0) {
            if (over_socket)
                EXPECT(close(fd) == 0 && close(interface) == 0);
            execl("/proc/self/exe", "contexts", "given", given, over_socket_text, first_text, number, (char *)NULL);
            _exit(127);
        }
        if (over_socket)
            EXPECT(sendmsg(pair[1], message_with_fd(fd), 0) == 1);
        EXPECT(waitpid(other, &status, 0) == other && status == 0);
        EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
    }
}

/* ---- the descriptor ---- */

static void check_file_operations(void)
{
    struct record record;
    struct info found;
    void *volatile unmapped = (void *)16;
    REFUSED(ioctl(interface, _IO(0xc7, 99)), ENOTTY);
    REFUSED(ioctl(interface, INFO, unmapped), EFAULT);
    REFUSED((int)write(interface, &message, 3), EINVAL);
    REFUSED((int)write(interface, unmapped, 100), EFAULT);
    message = (struct message){.to = NO_CONTEXT};
    REFUSED((int)write(interface, &message, HEAD), ENXIO);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, interface, 4096) == MAP_FAILED && errno == EINVAL);
    EXPECT(mmap(NULL, info.bytes + 4096ul, PROT_READ, MAP_SHARED, interface, 0) == MAP_FAILED && errno == EINVAL);
    EXPECT(fcntl(interface, F_SETFL, O_NONBLOCK) == 0);
    REFUSED((int)read(interface, &record, sizeof record), EAGAIN);

    /* A duplicate of the descriptor, and a child that inherits it, share one open file. */
    const int epoll = epoll_create1(0), copy = dup(interface);
    struct epoll_event event = {.events = EPOLLIN};
    EXPECT(epoll >= 0 && copy >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, copy, &event) == 0);
    EXPECT(ioctl(copy, ARM) == 0 && epoll_wait(epoll, &event, 1, 0) == 0);
    const pid_t child = fork();
    if (child == 0) {
        EXPECT(ioctl(interface, INFO, &found) == 0 && memcmp(&found, &info, sizeof info) == 0);
        send_message(info.number, 5, 100);
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    pass_descriptor(copy);
    EXPECT(epoll_wait(epoll, &event, 1, 20000) == 1 && read(copy, &record, sizeof record) == sizeof record);
    EXPECT(record.number == info.number && record.producer == load(HEADER_PRODUCER));
    EXPECT(close(interface) == 0);
    interface = copy;
    EXPECT(fcntl(interface, F_SETFL, 0) == 0 && receive_message(EAGER, 100) == 5);
    EXPECT(ioctl(interface, RESET) == 0 && load(HEADER_PRODUCER) == 0);

    EXPECT(close(interface) == 0 && munmap(memory, info.bytes) == 0);
    REFUSED(ioctl(interface, INFO, &found), EBADF);
    interface = open_interface("ctx.userdma.1");
    struct assign assign = {
        .eager_count = 1, .eager_bytes = 64, .expected_count = 0, .expected_bytes = 64, .job_key = JOB_KEY};
    EXPECT(interface >= 0 && ioctl(interface, ASSIGN, &assign) == 0);
    EXPECT(ioctl(interface, INFO, &info) == 0 && info.eager_bytes == 64);
    REFUSED(ioctl(interface, EXPECT_MESSAGE, &(struct expect){0, 1}), ENOTTY);
    printf("the descriptor behaves as a file\n");
}

static void wait_for_removal(void)
{
    open_and_assign();
    printf("ready\n");
    fflush(stdout);
    struct pollfd hang_up = {.fd = interface, .events = POLLIN};
    struct record record;
    EXPECT(poll(&hang_up, 1, -1) == 1);
    REFUSED((int)read(interface, &record, sizeof record), EIO);
    REFUSED(ioctl(interface, INFO, &info), EIO);
    REFUSED((int)write(interface, &message, HEAD), EIO);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, interface, 0) == MAP_FAILED && errno == EIO);
    uint32_t ignored;
    EXPECT(call(QUERY, CLASS_DEVICE, 0, NULL, &ignored) == -1 && errno == EIO);
    memory[4096] = 1; /* the mapping remains accessible */
    EXPECT(close(interface) == 0 && close(device) == 0);
    device = interface = -1;
    printf("removed\n");
    fflush(stdout);
    EXPECT(getchar() == 'g'); /* the device was added again */
    open_and_assign();
    printf("again\n");
}

/* ---- costs ---- */

/* Microseconds. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

#define MEASURE(label, count, body)                                                                                    \
    do {                                                                                                               \
        const double start = now();                                                                                    \
        for (int i = 0; i < (count); i++) {                                                                            \
            body;                                                                                                      \
        }                                                                                                              \
        printf("%-44s %8.3f us\n", label, (now() - start) / (count));                                                  \
    } while (0)

static void measure(void)
{
    open_and_assign();
    struct pollfd readable = {.fd = interface, .events = POLLIN};
    struct record record;
    EXPECT(fcntl(interface, F_SETFL, O_NONBLOCK) == 0);
    MEASURE("poll, nothing there (the kernel)", 100000, poll(&readable, 1, 0));
    MEASURE("read, nothing there (the kernel)", 100000, EXPECT(read(interface, &record, sizeof record) < 0));
    MEASURE("ioctl INFO (forwarded)", 3000, EXPECT(ioctl(interface, INFO, &info) == 0));
    MEASURE("write of a message of 64 bytes (forwarded)", 3000, {
        send_message(info.number, 1, 64);
        receive_message(EAGER, 64);
    });
    MEASURE("mmap and munmap (forwarded)", 3000, {
        void *mapping = mmap(NULL, info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, interface, 0);
        EXPECT(mapping != MAP_FAILED && munmap(mapping, info.bytes) == 0);
    });
    MEASURE("mmap and munmap of anonymous memory", 100000, {
        void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(mapping != MAP_FAILED && munmap(mapping, 4096) == 0);
    });
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "messages";
    if (strcmp(mode, "wait") == 0) {
        wait_for_removal();
    } else if (strcmp(mode, "measure") == 0) {
        measure();
    } else if (strcmp(mode, "messages") == 0) {
        exchange(argc > 2 ? (unsigned)atoi(argv[2]) : 1000);
        check_file_operations();
    } else if (strcmp(mode, "given") == 0 && argc > 5) {
        use_passed(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), (unsigned)atoi(argv[5]));
    } else {
        printf("usage: %s [messages N | wait | measure]\n", argv[0]);
        return 1;
    }
    return 0;
}

/*
 * A device without verbs, used from C (src/spec/drivers/ctx.ts): finds it in sysfs, requests the driver's newest
 * interface or an older one, and uses the descriptor's ioctl, write, read, poll, epoll and mmap.
 *
 *   contexts [messages N]     two processes send each other N messages through queues in shared memory (default 1000)
 *   contexts wait             uses a context until the device is removed, and reports the removal
 *   contexts measure          the cost of calls on the descriptor
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
enum { EAGER = 1, EXPECTED = 2, HEAD = 24, KEY = 0x5eed };

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

/* Descriptors of the device and of its driver, and the context's memory. */
static int device = -1, ops = -1;
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

/* A message of the object dialect with one attribute. */
static int call(unsigned number, uint16_t class, uint16_t id, const char *payload, uint32_t *object)
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
        message.attribute_flags = 1;
        message.attribute_length = (uint16_t)(8 + length);
        message.length = (uint16_t)(16 + 8 + (length + 7) / 8 * 8);
        memcpy(message.payload, payload, length);
    }
    const int result = ioctl(device, _IOWR(0xdb, number, uint64_t), &message);
    *object = message.object;
    return result;
}

static int open_interface(const char *name)
{
    uint32_t fd;
    return call(4, 40, 1, name, &fd) == 0 ? (int)fd : -1;
}

static void begin(void)
{
    uint32_t ignored;
    open_device();
    EXPECT(call(32, 2, 0, NULL, &ignored) == 0); /* device.open */
    REFUSED(open_interface("ctx.userdma.3"), ENOENT);
    ops = open_interface("ctx.userdma.2");
    EXPECT(ops >= 0);
    REFUSED(ioctl(ops, INFO, &info), ENODATA);
    struct assign assign = {64, 4096, 4, 4096, KEY, 0};
    EXPECT(ioctl(ops, ASSIGN, &assign) == 0);
    REFUSED(ioctl(ops, ASSIGN, &assign), EBUSY);
    EXPECT(ioctl(ops, INFO, &info) == 0 && info.job_key == KEY && info.eager_count == 64);
    memory = mmap(NULL, info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ops, 0);
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
    while (write(ops, &message, HEAD + length) != HEAD + (ssize_t)length) {
        EXPECT(errno == EAGAIN); /* the receiver has no room now */
        sched_yield();
    }
}

/* Waits on the descriptor for a message. */
static void wait_for_message(void)
{
    struct pollfd readable = {.fd = ops, .events = POLLIN};
    struct record record;
    EXPECT(ioctl(ops, ARM) == 0);
    EXPECT(poll(&readable, 1, 20000) == 1 && readable.revents == POLLIN);
    EXPECT(read(ops, &record, sizeof record) == sizeof record && record.number == info.number);
    EXPECT(load(HEADER_PRODUCER) - load(HEADER_CONSUMER) > 0);
}

/* Receives the next message, waiting if there is none; returns its tag. */
static uint64_t receive_message(uint32_t kind, uint32_t length)
{
    const uint32_t at = load(HEADER_CONSUMER);
    if (load(HEADER_PRODUCER) == at)
        wait_for_message();
    const struct header *header = (void *)(memory + info.headers_at + at % info.header_count * sizeof *header);
    EXPECT(header->kind == kind && header->length == length && header->sequence == at);
    const uint8_t *data = kind == EAGER ? memory + info.eager_at + header->slot * info.eager_bytes
                                        : memory + info.expected_at + header->slot * info.expected_bytes;
    for (uint32_t i = 0; i < length; i++)
        EXPECT(data[i] == (uint8_t)(header->tag + i));
    const uint64_t tag = header->tag;
    if (kind == EAGER)
        store(EAGER_CONSUMER, load(EAGER_CONSUMER) + 1);
    store(HEADER_CONSUMER, at + 1);
    return tag;
}

static uint32_t length_of(unsigned i)
{
    return 1 + i * 37 % 4096;
}

/* One side: sends `count` messages to `peer` and receives as many; then one expected message each way. */
static void exchange_messages(uint32_t peer, unsigned count, int in, int out)
{
    for (unsigned i = 0; i < count; i++) {
        send_message(peer, i, length_of(i));
        EXPECT(receive_message(EAGER, length_of(i)) == i);
    }
    const struct expect expect = {.slot = 2, .length = 4000};
    EXPECT(ioctl(ops, EXPECT_MESSAGE, &expect) == 0);
    REFUSED(ioctl(ops, EXPECT_MESSAGE, &expect), EBUSY);
    char go = 1;
    EXPECT(write(out, &go, 1) == 1 && read(in, &go, 1) == 1); /* the peer has announced its buffer */
    message = (struct message){.to = peer, .flags = 1, .slot = 2, .tag = 7};
    for (uint32_t at = 0; at < 4000; at += 1000) {
        message.offset = at;
        for (uint32_t i = 0; i < 1000; i++)
            message.data[i] = (uint8_t)(7 + at + i);
        EXPECT(write(ops, &message, HEAD + 1000) == HEAD + 1000);
    }
    EXPECT(receive_message(EXPECTED, 4000) == 7);
}

static void exchange(unsigned count)
{
    int from_child[2], to_child[2];
    EXPECT(pipe(from_child) == 0 && pipe(to_child) == 0);
    fflush(stdout);
    const pid_t child = fork();
    EXPECT(child >= 0);
    begin();
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

static struct msghdr *rights(int fd)
{
    static union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    static char byte;
    static struct iovec iov = {&byte, 1};
    static struct msghdr header;
    header = (struct msghdr){
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    return &header;
}

/* Possible first calls of the other program; the other calls follow. */
enum { FIRST_IOCTL, FIRST_WRITE, FIRST_MAP, FIRST_READ, FIRST_POLL, FIRSTS };

/*
 * A program started with another program's descriptor, or with a socket over which it receives one. A message to itself
 * shows that write(2) reaches the driver.
 */
static void use_passed(int given, bool over_socket, int first, uint32_t number)
{
    struct info again;
    if (over_socket) {
        struct msghdr *header = rights(-1);
        EXPECT(recvmsg(given, header, 0) == 1);
        memcpy(&ops, CMSG_DATA(CMSG_FIRSTHDR(header)), sizeof ops);
    } else {
        ops = given;
    }
    struct pollfd readable = {.fd = ops, .events = POLLIN};
    switch (first) {
    case FIRST_IOCTL: EXPECT(ioctl(ops, INFO, &again) == 0 && again.number == number); break;
    case FIRST_WRITE: REFUSED((int)write(ops, &message, 3), EINVAL); break;
    case FIRST_MAP: break;
    case FIRST_READ: REFUSED((int)read(ops, &again, 1), EINVAL); break; /* a short read leaves the record */
    case FIRST_POLL: EXPECT(poll(&readable, 1, 0) == 1); break;
    }
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ops, 0);
    EXPECT(memory != MAP_FAILED && load(HEADER_PRODUCER) == load(HEADER_CONSUMER) + 1);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, ops, 4096) == MAP_FAILED && errno == EINVAL);
    EXPECT(ioctl(ops, INFO, &again) == 0 && again.number == number);
    message = (struct message){.to = 4711};
    REFUSED((int)write(ops, &message, HEAD), ENXIO);
    int pair[2];
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    REFUSED(ioctl(pair[0], INFO, &info), ENOTTY); /* the receiver's own sockets are not forwarded */
    EXPECT(write(pair[0], "x", 1) == 1);
}

static void pass_descriptor(int fd)
{
    for (int i = 0; i < 2 * FIRSTS; i++) {
        int pair[2], status;
        EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        char number[16], socket[16], first[16], key[16];
        snprintf(number, sizeof number, "%d", i % 2 ? pair[0] : fd);
        snprintf(socket, sizeof socket, "%d", i % 2);
        snprintf(first, sizeof first, "%d", i / 2);
        snprintf(key, sizeof key, "%u", info.number);
        fflush(stdout);
        const pid_t other = fork();
        if (other == 0) {
            if (i % 2)
                EXPECT(close(fd) == 0 && close(ops) == 0);
            execl("/proc/self/exe", "contexts", "given", number, socket, first, key, (char *)NULL);
            _exit(127);
        }
        if (i % 2)
            EXPECT(sendmsg(pair[1], rights(fd), 0) == 1);
        EXPECT(waitpid(other, &status, 0) == other && status == 0);
        EXPECT(close(pair[0]) == 0 && close(pair[1]) == 0);
    }
}

/* ---- the descriptor ---- */

static void check_file_operations(void)
{
    struct record record;
    struct info again;
    void *volatile unmapped = (void *)16;
    REFUSED(ioctl(ops, _IO(0xc7, 99)), ENOTTY);
    REFUSED(ioctl(ops, INFO, unmapped), EFAULT);
    REFUSED((int)write(ops, &message, 3), EINVAL);
    REFUSED((int)write(ops, unmapped, 100), EFAULT);
    message = (struct message){.to = 4711};
    REFUSED((int)write(ops, &message, HEAD), ENXIO);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, ops, 4096) == MAP_FAILED && errno == EINVAL);
    EXPECT(mmap(NULL, info.bytes + 4096ul, PROT_READ, MAP_SHARED, ops, 0) == MAP_FAILED && errno == EINVAL);
    EXPECT(fcntl(ops, F_SETFL, O_NONBLOCK) == 0);
    REFUSED((int)read(ops, &record, sizeof record), EAGAIN);

    /* epoll, a duplicate of the descriptor, and a child that inherits it: all share one open file. */
    const int epoll = epoll_create1(0), copy = dup(ops);
    struct epoll_event event = {.events = EPOLLIN};
    EXPECT(epoll >= 0 && copy >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, copy, &event) == 0);
    EXPECT(ioctl(copy, ARM) == 0 && epoll_wait(epoll, &event, 1, 0) == 0);
    const pid_t child = fork();
    if (child == 0) {
        EXPECT(ioctl(ops, INFO, &again) == 0 && memcmp(&again, &info, sizeof info) == 0);
        send_message(info.number, 5, 100);
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    pass_descriptor(copy);
    EXPECT(epoll_wait(epoll, &event, 1, 20000) == 1 && read(copy, &record, sizeof record) == sizeof record);
    EXPECT(record.number == info.number && record.producer == load(HEADER_PRODUCER));
    EXPECT(close(ops) == 0);
    ops = copy;
    EXPECT(fcntl(ops, F_SETFL, 0) == 0 && receive_message(EAGER, 100) == 5);
    EXPECT(ioctl(ops, RESET) == 0 && load(HEADER_PRODUCER) == 0);

    /* The older interface on the same device. */
    EXPECT(close(ops) == 0 && munmap(memory, info.bytes) == 0);
    REFUSED(ioctl(ops, INFO, &again), EBADF);
    ops = open_interface("ctx.userdma.1");
    struct assign assign = {1, 64, 0, 64, KEY, 0};
    EXPECT(ops >= 0 && ioctl(ops, ASSIGN, &assign) == 0);
    EXPECT(ioctl(ops, INFO, &info) == 0 && info.eager_bytes == 64);
    REFUSED(ioctl(ops, EXPECT_MESSAGE, &(struct expect){0, 1}), ENOTTY);
    printf("the descriptor behaves as a file\n");
}

static void wait_for_removal(void)
{
    begin();
    printf("ready\n");
    fflush(stdout);
    struct pollfd hang_up = {.fd = ops, .events = POLLIN};
    struct record record;
    EXPECT(poll(&hang_up, 1, -1) == 1);
    REFUSED((int)read(ops, &record, sizeof record), EIO);
    REFUSED(ioctl(ops, INFO, &info), EIO);
    REFUSED((int)write(ops, &message, HEAD), EIO);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, ops, 0) == MAP_FAILED && errno == EIO);
    uint32_t ignored;
    EXPECT(call(1, 2, 0, NULL, &ignored) == -1 && errno == EIO);
    memory[4096] = 1; /* the mapping stays accessible */
    EXPECT(close(ops) == 0 && close(device) == 0);
    device = ops = -1;
    printf("removed\n");
    fflush(stdout);
    EXPECT(getchar() == 'g'); /* the device was added again */
    begin();
    printf("again\n");
}

/* ---- costs ---- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

#define MEASURE(what, count, body)                                                                                     \
    do {                                                                                                               \
        const double start = now();                                                                                    \
        for (int i = 0; i < (count); i++) {                                                                            \
            body;                                                                                                      \
        }                                                                                                              \
        printf("%-44s %8.3f us\n", what, (now() - start) / (count));                                                   \
    } while (0)

static void measure(void)
{
    begin();
    struct pollfd readable = {.fd = ops, .events = POLLIN};
    struct record record;
    EXPECT(fcntl(ops, F_SETFL, O_NONBLOCK) == 0);
    MEASURE("poll, nothing there (the kernel)", 100000, poll(&readable, 1, 0));
    MEASURE("read, nothing there (the kernel)", 100000, EXPECT(read(ops, &record, sizeof record) < 0));
    MEASURE("ioctl INFO (forwarded)", 3000, EXPECT(ioctl(ops, INFO, &info) == 0));
    MEASURE("write of a message of 64 bytes (forwarded)", 3000, {
        send_message(info.number, 1, 64);
        receive_message(EAGER, 64);
    });
    MEASURE("mmap and munmap (forwarded)", 3000, {
        void *piece = mmap(NULL, info.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ops, 0);
        EXPECT(piece != MAP_FAILED && munmap(piece, info.bytes) == 0);
    });
    MEASURE("mmap and munmap of anonymous memory", 100000, {
        void *piece = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(piece != MAP_FAILED && munmap(piece, 4096) == 0);
    });
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "messages";
    if (strcmp(what, "wait") == 0) {
        wait_for_removal();
    } else if (strcmp(what, "measure") == 0) {
        measure();
    } else if (strcmp(what, "messages") == 0) {
        exchange(argc > 2 ? (unsigned)atoi(argv[2]) : 1000);
        check_file_operations();
    } else if (strcmp(what, "given") == 0 && argc > 5) {
        use_passed(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), (unsigned)atoi(argv[5]));
    } else {
        printf("usage: %s [messages N | wait | measure]\n", argv[0]);
        return 1;
    }
    return 0;
}

/*
 * `scenarios NAME` runs one scenario under the preload library (the shim), and controls the fake daemon
 * (fake-daemon.ts) by `order`. The first false expectation is printed with its line, and the exit status is 1.
 */
#include "scenarios.h"

#include <stddef.h>

/* read(2) of programs that are compiled with _FORTIFY_SOURCE. */
ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);

/* As in fake-daemon.ts: the answer to a write of so many bytes is larger. */
#define WRITE_TOO_LONG 48

static void no_daemon(void)
{
    struct stat st;
    FAILS(stat("/sys/class/infiniband", &st), ENOENT);
    EXPECT(!opendir("/sys/class/infiniband_verbs") && errno == ENOENT);
    FAILS(open(NODE, O_RDWR), ENOENT);
    /* A child does not print the reason again. */
    EXPECT_IN_CHILD(open(NODE, O_RDWR) == -1);
}

/* The line on standard error has no reader. */
static void no_daemon_to_pipe(void)
{
    int ends[2];
    EXPECT(pipe(ends) == 0 && close(ends[0]) == 0 && dup2(ends[1], 2) == 2);
    FAILS(open(NODE, O_RDWR), ENOENT);
}

/* The tag is that of the program's start. */
static void cleared_environment(void)
{
    EXPECT(clearenv() == 0);
    open_device();
}

static void without_socket(void)
{
    struct stat st;
    FAILS(stat("/sys/class/infiniband_verbs/uverbs0/ibdev", &st), ENOENT);
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
    EXPECT(fd >= 0 || errno == EPROTONOSUPPORT);
}

/* ---- netlink ---- */

/* The datagram seems to come from the kernel, although the daemon sent it. */
static void expect_datagram(int fd, size_t length)
{
    char bytes[64];
    struct sockaddr_nl from;
    socklen_t from_length = sizeof from;
    memset(&from, 0xff, sizeof from);
    EXPECT(recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &from_length) == (ssize_t)length);
    EXPECT(bytes[0] == 7 && bytes[length - 1] == 7);
    EXPECT(from_length == sizeof from && from.nl_family == AF_NETLINK && from.nl_pid == 0 && from.nl_groups == 0);
}

static const struct iovec too_many[UIO_MAXIOV + 1];

/* The daemon's answers are those of answerNetlink (fake-daemon.ts). */
static void netlink(void)
{
    char bytes[64] = {0};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA), copy = dup(fd), number = 5;
    EXPECT(fd >= 0 && copy >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
    struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_pid = 22, .nl_groups = 8};
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    EXPECT(bind(fd, (struct sockaddr *)&name, sizeof name) == 0);
    name.nl_pid = 21; /* refused by the daemon */
    FAILS(bind(fd, (struct sockaddr *)&name, sizeof name), EBADF);
    socklen_t length = sizeof name;
    EXPECT(getsockname(copy, (struct sockaddr *)&name, &length) == 0 && name.nl_pid == 12345 && name.nl_groups == 8);
    EXPECT(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &number, sizeof number) == 0);
    length = sizeof number;
    /* The daemon's value of an option is the option's number. */
    EXPECT(getsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &number, &length) == 0 && number == NETLINK_CAP_ACK);
    EXPECT(send(fd, bytes, 20, 0) == 20);
    expect_datagram(copy, 20);
    EXPECT(close(fd) == 0);
    EXPECT(sendto(copy, bytes, 21, 0, (struct sockaddr *)&kernel, sizeof kernel) == 21);
    expect_datagram(copy, 21);
    struct iovec vector[2] = {{bytes, 10}, {bytes + 10, 12}};
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = 2};
    EXPECT(sendmsg(copy, &message, 0) == 22 && writev(copy, vector, 2) == 22 && write(copy, bytes, 23) == 23);
    expect_datagram(copy, 22);
    expect_datagram(copy, 22);
    expect_datagram(copy, 23);
    FAILS(pwritev2(copy, vector, 2, -1, 0x4000 /* an unknown flag */), EOPNOTSUPP);
    FAILS(writev(copy, too_many, UIO_MAXIOV + 1), EINVAL);
    EXPECT(preadv2(copy, vector, 2, -1, RWF_NOWAIT) == -1 && (errno == EAGAIN || errno == EOPNOTSUPP)); /* old Linux */
    EXPECT(close(copy) == 0);
    expect_reusable(copy);
    /* Other protocols and families go to the kernel. */
    fd = socket(AF_NETLINK, SOCK_RAW, 0);
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&kernel, sizeof kernel) == 0);
    length = sizeof name;
    EXPECT(getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.nl_pid != 12345);
    EXPECT(socket(AF_UNIX, SOCK_STREAM, NETLINK_RDMA) == -1);
}

/* A daemon that serves root only: after setuid the devices stay, and a message says why no further ones are found. */
static void changed_user(void)
{
    int fd = open_device();
    EXPECT(setgid(65534) == 0 && setuid(65534) == 0);
    EXPECT(order(fd, ECHO, 9) == 9);
    FAILS(access("/sys/class/infiniband", F_OK), EACCES);
    FAILS(access("/sys/class/infiniband", F_OK), EACCES); /* without a second message */
}

/* ---- the device ---- */

static void device(void)
{
    errno = 0;
    int fd = open(NODE, O_RDWR | O_CLOEXEC);
    EXPECT(fd == 3 && errno == 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    struct stat st, by_path;
    EXPECT(fstat(fd, &st) == 0 && st.st_mode == (S_IFCHR | 0666) && st.st_rdev == makedev(231, 192));
    EXPECT(stat(NODE, &by_path) == 0 && memcmp(&st, &by_path, sizeof st) == 0);
    EXPECT(fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && S_ISCHR(st.st_mode));
    struct statx sx;
    EXPECT(statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &sx) == 0);
    EXPECT(sx.stx_mode == (S_IFCHR | 0666) && sx.stx_rdev_major == 231 && sx.stx_ino == by_path.st_ino);
    /* Since Linux 6.11 the path may be NULL. */
    const char *volatile no_path = NULL;
    EXPECT(fstatat(fd, no_path, &st, AT_EMPTY_PATH) == 0 ? S_ISCHR(st.st_mode) : errno == EFAULT);
    EXPECT(statx(fd, no_path, AT_EMPTY_PATH, STATX_ALL, &sx) == 0 ? S_ISCHR(sx.stx_mode) : errno == EFAULT);
    errno = 0;
    struct stat64 st64;
    EXPECT(fstat64(fd, &st64) == 0 && S_ISCHR(st64.st_mode));
    EXPECT(order(fd, ECHO, 12345) == 12345 && errno == 0);
    FAILS(order(fd, FAIL, ENOSPC), ENOSPC);
    EXPECT(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    FAILS(ioctl(fd, 0x5401, 0), ENOTTY); /* TCGETS, with which isatty(3) asks */
    char bytes[64] = {0};
    FAILS(read(fd, bytes, sizeof bytes), EINVAL);
    FAILS(pread(fd, bytes, sizeof bytes, 0), ESPIPE);
    FAILS(pwrite(fd, bytes, sizeof bytes, 0), ESPIPE);
    FAILS(lseek(fd, 0, SEEK_SET), ESPIPE);
    FAILS(lseek64(fd, 0, SEEK_CUR), ESPIPE);
    EXPECT(write(fd, bytes, 24) == 24);
    EXPECT(write(fd, bytes, 32) == 32); /* as long as a doorbell, but another command: forwarded */
    struct iovec vector = {bytes, 16};
    EXPECT(writev(fd, &vector, 1) == 16);
    FAILS(preadv(fd, &vector, 1, 0), ESPIPE);
    FAILS(pwritev(fd, &vector, 1, 0), ESPIPE);
    FAILS(preadv2(fd, &vector, 1, -1, 0), EINVAL);
    EXPECT(pwritev2(fd, &vector, 1, -1, 0) == 16);
    EXPECT(pwritev2(fd, &vector, 1, -1, RWF_HIPRI) == 16);
    FAILS(pwritev2(fd, &vector, 1, -1, RWF_DSYNC), EOPNOTSUPP);
    FAILS(write(fd, bytes, WRITE_TOO_LONG), EIO);
    struct iovec vectors[2] = {vector, vector};
    errno = 7;
    EXPECT(writev(fd, vectors, 2) == 32 && writev(fd, vectors, 0) == 0 && errno == 7); /* two commands */
    FAILS(writev(fd, too_many, UIO_MAXIOV + 1), EINVAL);
    const struct iovec *volatile nowhere = NULL;
    FAILS(writev(fd, nowhere, 1), EFAULT);
    int connections = open("/dev/infiniband/rdma_cm", O_RDWR | O_NONBLOCK);
    EXPECT(fstat(connections, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 120));
    EXPECT(stat("/dev/infiniband/rdma_cm", &by_path) == 0 && memcmp(&st, &by_path, sizeof st) == 0);
    FAILS(preadv2(connections, &vector, 1, -1, 0), EINVAL);
    FAILS(readv(connections, vectors, 2), EINVAL);
    FAILS(readv(connections, vectors, 0), EINVAL);
    FAILS(readv(fd, vectors, 0), EINVAL);
    FAILS(ioctl(connections, FIONREAD, bytes), ENOTTY);
    EXPECT(close(connections) == 0);
    /*
     * GET_EVENT (12) with a body of 4 bytes, then with a response buffer of 320 bytes: both are too short. The shim
     * forwards them without waiting for an event, because a real daemon refuses them at once.
     */
    EXPECT((connections = open("/dev/infiniband/rdma_cm", O_RDWR)) >= 0);
    EXPECT(write(connections, (uint32_t[4]){12, 4 | 336 << 16}, 16) == 16);
    EXPECT(write(connections, (uint32_t[4]){12, 8 | 320 << 16}, 16) == 16);
    EXPECT(close(connections) == 0);
    FAILS(syscall(SYS_read, fd, bytes, 1), EINVAL);
    FAILS(ftruncate(fd, 0), EINVAL);
    FAILS(fallocate(fd, 3, 0, 4096), ENODEV); /* FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
    errno = 7;
    EXPECT(posix_fallocate(fd, 0, 4096) == ENODEV && errno == 7);
    FILE *stream = fopen(NODE, "r");
    EXPECT(stream && getc(stream) == EOF && errno == EINVAL && fclose(stream) == 0);
    char *ring = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
    EXPECT(ring != MAP_FAILED && ring[0] == 0);
    int other = open(NODE, O_RDWR | O_NONBLOCK); /* not close-on-exec */
    EXPECT(other == 4 && !(fcntl(other, F_GETFD) & FD_CLOEXEC) && (fcntl(other, F_GETFL) & O_NONBLOCK));
    EXPECT(order(other, CONTEXTS, 0) == 2 && order(fd, SESSIONS, 0) == 1);
    FAILS(open(NODE, O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    FAILS(open(NODE, O_RDONLY | O_DIRECTORY), ENOTDIR);
    EXPECT(ioctl(fd, FIONCLEX) == 0 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC) && ioctl(fd, FIOCLEX) == 0);
    EXPECT(close(fd) == 0 && order(other, CONTEXTS, 0) == 1);
    FAILS(order(fd, ECHO, 1), EBADF);
    FAILS(close(fd), EBADF);
    EXPECT(close(other) == 0);
    EXPECT((fd = open(NODE, O_RDONLY)) >= 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
    EXPECT(order(fd, ECHO, 5) == 5);
    FAILS(write(fd, bytes, 24), EBADF);
    EXPECT(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 4096) == MAP_FAILED && errno == EACCES);
    EXPECT((fd = open(NODE, O_WRONLY)) >= 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY);
    EXPECT(order(fd, ECHO, 5) == 5 && write(fd, bytes, 24) == 24);
    EXPECT((fd = open(NODE, O_PATH)) >= 0);
    FAILS(order(fd, ECHO, 5), EBADF);
}

static void doorbells(void)
{
    int fd = open_device(), other = open_device();
    uint32_t *response;
    const uint32_t *command = doorbell(42);
    memcpy(&response, &command[2], sizeof response);
    EXPECT(order(fd, PARK, 0) == 0);
    errno = 7; /* is unchanged, and the shim writes the response: no bad request */
    EXPECT(write(fd, command, 32) == 32 && *response == 0 && errno == 7);
    EXPECT(order(fd, DOORBELLS, 0) == 0);
    EXPECT(order(fd, PARK, 1) == 0);
    EXPECT(write(fd, command, 32) == 32 && order(fd, DOORBELLS, 0) == 1 && order(fd, LAST_HANDLE, 0) == 42);
    EXPECT(order(other, DOORBELLS, 0) == 0);
    EXPECT(ring_doorbell(other, 9) && order(other, LAST_HANDLE, 0) == 9 && order(fd, DOORBELLS, 0) == 1);
    int copy = dup(fd);
    EXPECT(write(copy, command, 32) == 32 && order(copy, DOORBELLS, 0) == 2);
    /* A command without a response buffer, or with a work request, is a call. */
    uint32_t other_command[8];
    memcpy(other_command, command, sizeof other_command);
    other_command[2] = other_command[3] = 0;
    EXPECT(write(fd, other_command, 32) == 32 && order(fd, DOORBELLS, 0) == 2);
    memcpy(other_command, command, sizeof other_command);
    other_command[5] = 1; /* wr_count */
    EXPECT(write(fd, other_command, 32) == 32 && order(fd, DOORBELLS, 0) == 2);
}

/* While the daemon is stopped, the doorbell's socket fills: it wakes the daemon all the same. */
static void full_doorbell(void)
{
    enum { COUNT = 2000 };
    const int fd = open_device();
    int rung = 0;
    EXPECT(order(fd, PARK, 1) == 0 && kill(getppid(), SIGSTOP) == 0);
    for (int i = 0; i < COUNT; i++)
        rung += ring_doorbell(fd, 1);
    EXPECT(kill(getppid(), SIGCONT) == 0 && rung == COUNT);
    const long received = order(fd, DOORBELLS, 0);
    EXPECT(received > 0 && received < COUNT);
}

/* Doorbells of a traced program are calls, even while the daemon is parked. */
static void doorbells_traced(void)
{
    int fd = open_device();
    EXPECT(order(fd, PARK, 1) == 0);
    EXPECT(ring_doorbell(fd, 42) && order(fd, DOORBELLS, 0) == 0);
}

/* ---- events ---- */

static void events(void)
{
    int fd = open_device();
    int32_t narrow[2] = {-1, -1};
    int64_t wide = -1;
    EXPECT(order(fd, EVENT_8, (unsigned long)&wide) == 0 && wide == 4);
    EXPECT(order(fd, EVENT_4, (unsigned long)narrow) == 0 && narrow[0] == 5 && narrow[1] == -1);
    FAILS(order(fd, EVENT_4, 64), EFAULT);
    FAILS(fcntl(6, F_GETFD), EBADF); /* closed: its number could not be stored */
    int channel = narrow[0];
    EXPECT(order(fd, HANG_UP_EVENT, 0) == 0); /* of the third event descriptor */
    EXPECT((fcntl(channel, F_GETFD) & FD_CLOEXEC) && !(fcntl(channel, F_GETFL) & O_NONBLOCK));
    char bytes[16] = {0};
    EXPECT(order(fd, RECORD, 8) == 0);
    struct pollfd poll_for = {.fd = channel, .events = POLLIN};
    EXPECT(poll(&poll_for, 1, 5000) == 1 && poll_for.revents == POLLIN);
    FAILS(read(channel, bytes, 4), EINVAL);
    FAILS(read(channel, bytes, 0), EINVAL);
    FAILS(write(channel, bytes, 4), EBADF);
    FAILS(ioctl(channel, FIONREAD, bytes), ENOTTY);
    FAILS(ioctl(fd, FIONREAD, bytes), ENOTTY);
    EXPECT(read(channel, bytes, 8) == 8 && bytes[7] == 8 && bytes[8] == 0);
    EXPECT(order(fd, RECORD, 8) == 0 && order(fd, RECORD, 8) == 0);
    EXPECT(read(channel, bytes, 16) == 8);
    /* Each buffer takes a record, as on Linux. */
    struct iovec buffers[3] = {{bytes, 8}, {NULL, 0}, {bytes + 8, 4}};
    EXPECT(order(fd, RECORD, 8) == 0 && readv(channel, buffers, 3) == 8); /* the next record is too long */
    buffers[2].iov_len = 8;
    EXPECT(order(fd, RECORD, 8) == 0 && order(fd, RECORD, 8) == 0 && readv(channel, buffers, 3) == 16);
    EXPECT(readv(channel, buffers, 0) == 0);
    FAILS(writev(channel, buffers, 0), EBADF);
    EXPECT(fcntl(channel, F_SETFL, fcntl(channel, F_GETFL) | O_NONBLOCK) == 0);
    EXPECT(read(channel, bytes, 8) == 8);
    FAILS(read(channel, bytes, 8), EAGAIN);
    FAILS(read(channel, bytes, 4), EAGAIN);
    int copy = dup(channel);
    EXPECT(order(fd, HANG_UP_EVENT, 0) == 0);
    FAILS(read(channel, bytes, 8), EIO);
    FAILS(read(copy, bytes, 4), EIO);
    FAILS(__read_chk(copy, bytes, 8, sizeof bytes), EIO);
    struct iovec vector = {bytes, 8};
    FAILS(readv(copy, &vector, 1), EIO);
    EXPECT(close(channel) == 0 && close(copy) == 0);
    EXPECT(open("/dev/null", O_RDONLY) == channel && read(channel, bytes, 8) == 0);
    FILE *stream = fdopen((int)wide, "r");
    EXPECT(stream && fclose(stream) == 0 && open("/dev/zero", O_RDONLY) == (int)wide);
    EXPECT(read((int)wide, bytes, 4) == 4);
}

static void driver_records(void)
{
    int fd = open_device();
    int64_t driver = -1;
    char bytes[64] = {0};
    EXPECT(order(fd, DRIVER_8, (unsigned long)&driver) == 0);
    EXPECT(order(fd, RECORD, 8) == 0 && read((int)driver, bytes, 8) == 8);
    EXPECT(order(fd, RECORD, 12) == 0);
    FAILS(read((int)driver, bytes, 10), EINVAL);
    EXPECT(read((int)driver, bytes, 12) == 12);
    EXPECT(order(fd, RECORD, 60) == 0);
    FAILS(read((int)driver, bytes, 32), EINVAL);
    EXPECT(read((int)driver, bytes, 64) == 60);
}

/* ---- a daemon whose answers name addresses outside the memory that the call passed ---- */

/* As in fake-daemon.ts. */
#define BEHIND 64
#define WRITE_BEHIND 40
#define BEHIND_WORDS (BEHIND / 4)

static void stray_stores(void)
{
    int fd = open_device();
    int32_t words[2 * BEHIND_WORDS] = {0};
    const int next = fcntl(0, F_DUPFD, 0);
    close(next);
    FAILS(order(fd, EVENT_BEHIND, (unsigned long)words), EIO);

    /* The indirect attribute points elsewhere; then it is too short for the number. */
    struct {
        uint16_t length, class_id, header[6];
        uint16_t attribute_length, id;
        uint32_t flags;
        uint64_t address, size;
        int32_t padding[6], behind; /* not part of the message; `behind` is at offset BEHIND */
    } message = {.length = offsetof(__typeof__(message), padding),
                 .attribute_length = 24,
                 .flags = 8, /* indirect */
                 .address = (uintptr_t)words,
                 .size = sizeof words};
    FAILS(order(fd, EVENT_BEHIND, (unsigned long)&message), EIO);
    message.address = (uintptr_t)&message.behind;
    message.size = 3;
    FAILS(order(fd, EVENT_BEHIND, (unsigned long)&message), EIO);
    EXPECT(message.behind == 0);

    /* The response buffer is elsewhere; then it is too small. */
    struct {
        uint32_t command;
        uint16_t in_words, out_words;
        uint64_t response;
        int32_t fields[12], behind[8]; /* `behind` is at offset BEHIND */
    } command = {.in_words = 10, .out_words = 8, .response = (uintptr_t)words};
    FAILS(write(fd, &command, WRITE_BEHIND), EIO);
    command.response = (uintptr_t)&command + BEHIND - 4;
    command.out_words = 1;
    FAILS(write(fd, &command, WRITE_BEHIND), EIO);
    for (int i = 0; i < 2 * BEHIND_WORDS; i++)
        EXPECT(words[i] == 0);
    for (size_t i = 0; i < sizeof command.behind / sizeof command.behind[0]; i++)
        EXPECT(command.behind[i] == 0);
    FAILS(fcntl(next, F_GETFD), EBADF); /* received descriptors are closed */

    command.out_words = 2;
    EXPECT(write(fd, &command, WRITE_BEHIND) == 0 && command.behind[0] == next);

    /* A write on another descriptor than a context's is no verbs command: it names no response buffer. */
    int64_t driver = -1;
    EXPECT(order(fd, DRIVER_8, (unsigned long)&driver) == 0);
    command.behind[0] = 0;
    FAILS(write((int)driver, &command, WRITE_BEHIND), EIO);
    EXPECT(command.behind[0] == 0 && close((int)driver) == 0);
    message.size = 4;
    EXPECT(order(fd, EVENT_BEHIND, (unsigned long)&message) == 0 && message.behind == next + 1);
}

/* ---- the daemon dies ---- */

static void daemon_death(void)
{
    int fd = open_device();
    int32_t channel = -1;
    EXPECT(order(fd, EVENT_4, (unsigned long)&channel) == 0);
    FAILS(order(fd, DIE, 0), EIO);
    FAILS(order(fd, ECHO, 1), EIO);
    char bytes[32] = {0};
    FAILS(write(fd, bytes, 24), EIO);
    alarm(20);
    /* Until all sockets of the daemon are closed. */
    while (ring_doorbell(fd, 1))
        ;
    FAILS(write(fd, doorbell(1), DOORBELL_BYTES), EIO);
    FAILS(read(channel, bytes, 8), EIO);
    FAILS(open(NODE, O_RDWR), ENOENT);
    FAILS(access("/sys/class/infiniband", F_OK), ENOENT);
    FAILS(order(fd, ECHO, 1), EIO);
    EXPECT_IN_CHILD(order(fd, ECHO, 1) == -1 && errno == EIO);
    EXPECT(close(fd) == 0 && open("/dev/null", O_RDONLY) == fd);
}

/* A wrong reply ends the session, and its descriptors are closed. */
static void wrong_reply(void)
{
    int fd = open_device();
    int next = open("/dev/null", O_RDONLY);
    EXPECT(next >= 0 && close(next) == 0 && hidden_count() == 2);
    FAILS(order(fd, WRONG_SERIAL, 0), EIO);
    EXPECT(hidden_count() == 1 && open("/dev/null", O_RDONLY) == next);
}

/* Signals end the program although the daemon does not answer. */
static void unanswered_call(void)
{
    int fd = open_device();
    alarm(1);
    order(fd, HOLD, 0);
    EXPECT(!"the daemon answered");
}

/* ---- verbs ---- */

/* In fake_verbs.c: what its polls return, and their number. */
static int *poll_result, *poll_count;
static int yields;

/* Replaces the C library's: the shim yields after an empty poll. */
int sched_yield(void)
{
    __atomic_add_fetch(&yields, 1, __ATOMIC_RELAXED);
    return 0;
}

/* Empty polls yield; polls fail when the daemon has died, but arrived completions are still delivered. */
static void poll_through(struct ibv_context *context)
{
    EXPECT(context);
    struct ibv_cq cq = {.context = context};
    struct ibv_wc wc;
    *poll_result = 1;
    yields = 0;
    EXPECT(ibv_poll_cq(&cq, 1, &wc) == 1 && yields == 0);
    *poll_result = 0;
    for (int i = 1; i <= 1000; i++)
        EXPECT(ibv_poll_cq(&cq, 1, &wc) == 0 && yields == i);
    EXPECT(*poll_count == 1001);
    struct ibv_cq_init_attr_ex attributes = {0};
    struct ibv_cq_ex *cq_ex = ibv_create_cq_ex(context, &attributes);
    struct ibv_poll_cq_attr none = {0};
    *poll_result = 1;
    yields = 0;
    EXPECT(cq_ex && ibv_start_poll(cq_ex, &none) == 0 && yields == 0);
    *poll_result = 0;
    EXPECT(ibv_start_poll(cq_ex, &none) == ENOENT && yields == 1);
    FAILS(ioctl(context->cmd_fd, _IOWR(0xdb, DIE, uint64_t), 0L), EIO);
    alarm(20);
    while (ibv_poll_cq(&cq, 1, &wc) == 0)
        ;
    EXPECT(ibv_poll_cq(&cq, 1, &wc) == -1 && ibv_poll_cq(&cq, 1, &wc) == -1);
    EXPECT(ibv_start_poll(cq_ex, &none) == EIO);
    *poll_result = 1;
    EXPECT(ibv_poll_cq(&cq, 1, &wc) == 1); /* a completion that arrived before */
}

static void verbs(const char *library, bool is_global)
{
    /* As in a program that is linked with libibverbs, or loads it itself. */
    void *handle = dlopen(library, RTLD_NOW | (is_global ? RTLD_GLOBAL : RTLD_LOCAL));
    EXPECT(handle);
    poll_result = dlsym(handle, "fake_found");
    poll_count = dlsym(handle, "fake_polls");
    struct ibv_context *(*open_context)(const char *) = dlsym(RTLD_DEFAULT, "ibv_open_device");
    poll_through(open_context(NODE));
    /* A context that is not the daemon's keeps its functions. */
    yields = 0;
    struct ibv_cq cq = {.context = open_context("/dev/null")};
    *poll_result = 0;
    EXPECT(ibv_poll_cq(&cq, 1, NULL) == 0 && yields == 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {
#define SCENARIO(name) {#name, name}
        SCENARIO(attach_again),     SCENARIO(attribute_writes), SCENARIO(bare_calls),
        SCENARIO(cancelled_threads), SCENARIO(cleared_environment), SCENARIO(changed_user),
        SCENARIO(copies),           SCENARIO(daemon_death),     SCENARIO(daemon_full),
        SCENARIO(device),           SCENARIO(directory_walks),  SCENARIO(doorbells),
        SCENARIO(doorbells_traced), SCENARIO(driver_records),   SCENARIO(events),
        SCENARIO(exec),             SCENARIO(exec_events),      SCENARIO(folders_above),
        SCENARIO(device_numbers),   SCENARIO(forks),
        SCENARIO(full_table),       SCENARIO(half_copied),      SCENARIO(hidden_sockets),   SCENARIO(interrupted_call),
        SCENARIO(late_attaches),    SCENARIO(no_daemon_to_pipe), SCENARIO(restarted_wait),
        SCENARIO(old_stats),        SCENARIO(full_doorbell),    SCENARIO(close_on_exec),
        SCENARIO(late_hellos),      SCENARIO(late_stack),       SCENARIO(left_by_longjmp),  SCENARIO(lost_sockets),
        SCENARIO(low_limit),        SCENARIO(lowered_limit),    SCENARIO(many_forks),       SCENARIO(netlink),
        SCENARIO(no_daemon),        SCENARIO(no_hello),         SCENARIO(no_hello_after_cancel),
        SCENARIO(not_served),
        SCENARIO(passed_and_closed), SCENARIO(passed_descriptors), SCENARIO(paths),
        SCENARIO(relative_paths),   SCENARIO(replaced_session), SCENARIO(sandbox),          SCENARIO(signals),
        SCENARIO(spawns),           SCENARIO(stray_stores),     SCENARIO(threads),
        SCENARIO(truncated_hello),  SCENARIO(unanswered_call),  SCENARIO(unknown_child),
        SCENARIO(uring),            SCENARIO(vforks),           SCENARIO(without_socket),
        SCENARIO(wrong_reply),      SCENARIO(last_number),      SCENARIO(without_close_range),
    };
    self = argv[0];
    if (argc == 4 && strcmp(argv[1], "spawned") == 0)
        spawned(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "inherited") == 0)
        inherited(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "inherited_events") == 0)
        inherited_events(argv[2], argv[3]);
    if (argc == 3 && strncmp(argv[1], "verbs", 5) == 0) {
        verbs(argv[2], strcmp(argv[1], "verbs_global") == 0);
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, argv[1]) != 0)
            continue;
        scenarios[i].run();
        return 0;
    }
    fprintf(stderr, "no scenario %s\n", argc > 1 ? argv[1] : "was named");
    return 2;
}
